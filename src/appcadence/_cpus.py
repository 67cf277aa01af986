"""How many CPUs this process may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@cache
def usable_cpus() -> int:
    """The CPUs of the affinity mask, at most the quota of the control group; at least 1.

    More threads would only take turns, or have the whole process throttled for the rest of a period.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(allowed, quota(_CGROUP) or allowed), 1)


def quota(root: Path) -> int | None:
    """The CPU quota of the control group (version 2 or 1) mounted at `root`, rounded up; None = no limit.

    In a container this is its own group. A limit set only on a nested group is not seen.
    """
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = (
                (root / "cpu" / f"cpu.cfs_{what}_us").read_text().strip() for what in ("quota", "period")
            )
        except (OSError, ValueError):
            return None
    if not (limit.isdecimal() and period.isdecimal() and int(period)):
        return None  # "max" and -1 are no limit
    return max(-(-int(limit) // int(period)), 1)
