"""The days of an app as bands of spans, for a picture."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from appcadence._types import DAY_US, HOUR_US
from appcadence.triage.phone.record import AppRecord, PhoneRecord, Spans

_MAX_DAYS = 7


@dataclass(frozen=True)
class Day:
    """A day in bands; a span that touches it may reach beyond it."""

    start: int
    end: int
    """Microseconds since the epoch, UTC."""
    bands: dict[str, Spans]
    """By name: uses of the network (unexplained and explained ones where the record tells), front, in_use,
    pushes, tasks, unlogged."""


def days_of(record: AppRecord, phone: PhoneRecord, loud: Collection[int]) -> list[Day]:
    """At most seven days with uses, in order: the `loud` ones (days since the epoch) and the latest first.

    A single day is cut to the hours in which the log was kept: minutes would be lost in a whole one.
    """
    used = np.unique(record.uses[:, 0] // DAY_US).tolist()
    shown = sorted(sorted(used, key=lambda day: (day in loud, day))[-_MAX_DAYS:])
    edges = np.array([[shown[0], shown[-1] + 1]]) * DAY_US if shown else np.empty((0, 2), np.int64)
    uses = {"uses": record.uses}
    if phone.presence_known:
        alone = record.unexplained
        uses = {"unexplained": record.uses[alone], "explained": record.uses[~alone]}
    bands = uses | {
        "front": record.front,
        "in_use": phone.in_use,
        "pushes": record.pushes,
        "tasks": record.tasks,
        "unlogged": _gaps(phone.kept, *edges[0]) if shown else edges,
    }
    days = []
    for day in shown:
        start, end = day * DAY_US, (day + 1) * DAY_US
        kept = _within(phone.kept, start, end)
        if len(shown) == 1 and len(kept):
            start = max(start, int(kept[0, 0]) // HOUR_US * HOUR_US)
            end = min(end, -(-int(kept[-1, 1]) // HOUR_US) * HOUR_US)
        days.append(Day(start, end, {name: _within(spans, start, end) for name, spans in bands.items()}))
    return days


def _gaps(kept: Spans, start: int, end: int) -> Spans:
    """What the disjoint spans leave of [start, end)."""
    gaps = np.column_stack([np.append(start, kept[:, 1]), np.append(kept[:, 0], end)])
    return gaps[gaps[:, 1] > gaps[:, 0]]


def _within(spans: Spans, start: int, end: int) -> Spans:
    return spans[(spans[:, 1] >= start) & (spans[:, 0] < end)]
