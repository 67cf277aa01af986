"""How many CPUs this process may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


@cache
def usable_cpus() -> int:
    """At least 1: those of the affinity mask, and no more than the quota of the control group allows.

    Threads beyond it would only take turns, or have the whole process held back for the rest of a period.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(allowed, quota(_CGROUP) or allowed), 1)


def quota(root: Path) -> int | None:
    """Whole CPUs, rounded up, of the control group mounted at `root`, of version 2 or 1; None = no limit.

    In a container that is its own; a limit set only on a group further down is not seen.
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
