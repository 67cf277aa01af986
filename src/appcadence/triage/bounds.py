"""The bounds of exceptions: which windows break one, and how that is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence.models.reasons import quantity
from appcadence.serving.measures import hour_bits
from appcadence.triage.exceptions import Entry

PREFIX = "Exception "
"""Begins the reasons that are added here, and no reason of the detector."""
_FAILS = " does not hold: "
_IN_RHYTHM = 1.2
"""A period at most a fifth shorter than approved is within it, as for the inventory's approved rhythm."""


def broken(
    entry: Entry,
    rows: npt.NDArray[np.int64],
    period: npt.NDArray[Any],
    volume: npt.NDArray[Any],
    hours: npt.NDArray[Any],
) -> Iterator[tuple[npt.NDArray[np.bool_], list[str]]]:
    """For each bound of the exception, (m,) which rows break it and a sentence for each that does."""
    says = f"{PREFIX}{entry.id}{_FAILS}"
    if (shortest := entry.min_period_seconds) is not None:
        outside = period[rows] * _IN_RHYTHM < shortest
        approved = _short(shortest, "s")
        told = [_short(p, "s") for p in period[rows[outside]]]
        yield outside, [f"{says}a flow every {p}, approved from {approved}." for p in told]
    if (most := entry.max_bytes_per_day) is not None:
        outside = ~(volume[rows] <= most)
        approved = _short(most, "bytes")
        told = [_short(v, "bytes") for v in volume[rows[outside]]]
        yield outside, [f"{says}{v} a day, approved up to {approved}." for v in told]
    if entry.hours is not None:
        first, end = entry.hours
        allowed = hour_bits(first, (end - first) % 24 - 1)
        stray = hours[rows] & ~allowed
        outside = stray != 0
        approved = f"{first:02}:00-{end:02}:00"
        told = [_clock(int(bits)) for bits in stray[outside]]
        yield outside, [f"{says}connected at {at} UTC, approved {approved}." for at in told]


def expired(entry: Entry) -> str:
    """The sentence for a window that the exception came too early for."""
    return f"{PREFIX}{entry.id}{_FAILS}expired on {entry.expires}."


def failed(reasons: Iterable[str]) -> str | None:
    """The id of the first exception that a window's reasons say does not hold."""
    ids = (r.removeprefix(PREFIX).partition(_FAILS)[0] for r in reasons if r.startswith(PREFIX))
    return next(ids, None)


def _short(value: float, unit: str) -> str:
    return "an unknown volume" if np.isnan(value) else quantity(value, unit).replace(".0 ", " ")


def _clock(bits: int) -> str:
    """The first of the hours of a day that are set."""
    return f"{(bits & -bits).bit_length() - 1:02}:00"
