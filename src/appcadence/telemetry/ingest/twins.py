"""One push that two kinds of log of a device both have: the finer record of it counts.

A PowerLog rounds pushes to the minute, the unified log has them to the microsecond. A record stands for the
time from its stamp on as long as its resolution; where two of one app and of different sources meet, each
with one other at most, they are one push.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from appcadence._types import Mask

Key = tuple[str, str]
"""Device and app."""
Push = tuple[int, int]
"""When it came at the earliest and at the latest, in microseconds."""


def recorded_elsewhere(new: pa.Table, old: pa.Table) -> Mask:
    """(n,) whether a push of the new notifications is one of another source, finer or in the directory.

    Pushes of unknown apps are never the same.
    """
    drop: Mask = np.zeros(len(new), bool)
    if len(set(new["source"].unique().to_pylist()) | set(old["source"].unique().to_pylist())) < 2:
        return drop
    kept: dict[Key, dict[str, list[Push]]] = defaultdict(lambda: defaultdict(list))
    for _, source, key, push in _pushes(old):
        kept[key][source].append(push)
    waiting: dict[Key, dict[str, list[tuple[Push, int]]]] = defaultdict(lambda: defaultdict(list))
    for row, source, key, push in _pushes(new):
        waiting[key][source].append((push, row))
    for key, by_source in waiting.items():
        for source, pushes in sorted(by_source.items(), key=_length):
            others = [push for name, held in kept[key].items() if name != source for push in held]
            same = _met(sorted(pushes), sorted(others))
            drop[list(same)] = True
            kept[key][source] += [push for push, row in pushes if row not in same]
    return drop


def _length(pushes: tuple[str, list[tuple[Push, int]]]) -> tuple[int, str]:
    """How long the first push of a source may have been under way: the finest source comes first."""
    source, (((first, last), _), *_) = pushes
    return last - first, source


def _pushes(table: pa.Table) -> Iterable[tuple[int, str, Key, Push]]:
    names = ("kind", "source", "device_id", "app_id")
    columns = [table[name].cast(pa.string()).to_pylist() for name in names]
    first = table["time"].cast(pa.int64()).to_pylist()
    length = table["time_resolution_seconds"].to_pylist()
    for row, (kind, source, device, app, time, seconds) in enumerate(
        zip(*columns, first, length, strict=True)
    ):
        if kind == "push_received" and app is not None:
            yield row, source, (device, app), (time, time + round(seconds * 1e6))


def _met(pushes: list[tuple[Push, int]], others: list[Push]) -> set[int]:
    """Rows of pushes that meet one of the others, each of which is met once."""
    found: set[int] = set()
    place = 0
    for (first, last), row in pushes:
        while place < len(others) and others[place][1] < first:
            place += 1
        if place < len(others) and others[place][0] <= last:
            found.add(row)
            place += 1
    return found
