"""The bounds of exceptions: which windows break one, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence._types import Codes, Mask
from appcadence.findings import Finding
from appcadence.serving.measures import hour_bits
from appcadence.triage.exceptions import Entry

_IN_RHYTHM = 1.2
"""A period at most a fifth shorter than approved is within it, as for the inventory's approved rhythm."""


def broken(
    entry: Entry,
    rows: Codes,
    period: npt.NDArray[Any],
    volume: npt.NDArray[Any],
    hours: npt.NDArray[Any],
) -> Iterator[tuple[Mask, list[Finding]]]:
    """For each bound of the exception, (m,) which rows break it and what is to be said of each that does.

    Args:
        entry: the exception.
        rows: (m,) windows that it would cover.
        period: (n,) seconds between beats of all windows, NaN = unknown.
        volume: (n,) bytes a day, NaN = unknown.
        hours: (n,) bit h = connected in hour h of a day (UTC).
    """
    if (shortest := entry.min_period_seconds) is not None:
        outside = period[rows] * _IN_RHYTHM < shortest
        yield outside, _said(entry, "exception_period", period[rows[outside]], _period)
    if (most := entry.max_bytes_per_day) is not None:
        outside = ~(volume[rows] <= most)
        yield outside, _said(entry, "exception_volume", volume[rows[outside]], _volume)
    if entry.hours is not None:
        first, end = entry.hours
        stray = hours[rows] & ~hour_bits(first, (end - first) % 24 - 1)
        outside = stray != 0
        yield outside, _said(entry, "exception_hours", stray[outside], _hours)


def expired(entry: Entry) -> Finding:
    """What is to be said of a window that the exception came too early for."""
    return Finding("exception_expired", {"exception": entry.id, "expires": entry.expires.isoformat()})


def _said(
    entry: Entry, code: str, values: npt.NDArray[Any], of: Callable[[Entry, Any], dict[str, Any]]
) -> list[Finding]:
    return [Finding(code, {"exception": entry.id, **of(entry, value)}) for value in values.tolist()]


def _period(entry: Entry, seconds: float) -> dict[str, Any]:
    return {"period_seconds": seconds, "min_period_seconds": entry.min_period_seconds}


def _volume(entry: Entry, volume: float) -> dict[str, Any]:
    known = None if np.isnan(volume) else volume
    return {"bytes_per_day": known, "max_bytes_per_day": entry.max_bytes_per_day}


def _hours(entry: Entry, stray: int) -> dict[str, Any]:
    """The first hour of the day that is outside."""
    first, end = entry.hours or (0, 0)
    return {"hour": (stray & -stray).bit_length() - 1, "from_hour": first, "to_hour": end}
