"""Which hours or days the records of each device touch: sorted keys, one per device and hour or day."""

from __future__ import annotations

import numpy as np

from appcadence._types import DAY_US, Ints
from appcadence.telemetry.arrays import row_and_place

MAX_DAYS = 31
"""Longest span of a record in days, so that a wrong duration cannot fill memory."""
_SHIFT, _ZERO = 33, 1 << 32
_LOW = (1 << _SHIFT) - 1
_SHORTER = 8
"""A run of at least an eighth of the one before is joined to it, which is fast and needs little room."""


class DeviceTimes:
    """Hours or days that records touch and how many touch each, gathered piece by piece.

    Memory grows with the keys, by 16 bytes each, and up to twice that while runs are joined.
    """

    def __init__(self, unit_us: int) -> None:
        self._unit = unit_us
        self._runs: list[tuple[Ints, Ints]] = []
        """Each is much shorter than the one before, so that a key is moved only a few times."""

    def add(self, device: Ints, start: Ints, end: Ints) -> None:
        """Add records of devices (codes from 0) with their start and end in microseconds."""
        first = start // self._unit
        count = np.clip(end // self._unit - first + 1, 1, MAX_DAYS * DAY_US // self._unit)
        self._runs.append(np.unique(_runs(keys_of(device, first), count), return_counts=True))
        while len(self._runs) > 1 and _SHORTER * len(self._runs[-1][0]) >= len(self._runs[-2][0]):
            self._join()

    def touched(self) -> tuple[Ints, Ints]:
        """Sorted keys, and how many records touch each."""
        while len(self._runs) > 1:
            self._join()
        return self._runs[0] if self._runs else (np.empty(0, np.int64), np.empty(0, np.int64))

    def _join(self) -> None:
        """Join the last two runs."""
        (more, counts), (keys, rows) = self._runs.pop(), self._runs.pop()
        at = np.searchsorted(keys, more)
        new = keys[np.minimum(at, len(keys) - 1)] != more
        rows[at[~new]] += counts[~new]
        at, counts = at[new], counts[new]
        # One column after the other, so that the old keys are freed before the new rows are made.
        keys = np.insert(keys, at, more[new])
        self._runs.append((keys, np.insert(rows, at, counts)))


def keys_of(device: Ints, unit: Ints) -> Ints:
    """The key of each device and hour or day since 1970."""
    return (device << _SHIFT) + unit + _ZERO


def device_of(keys: Ints) -> Ints:
    return keys >> _SHIFT


def unit_of(keys: Ints) -> Ints:
    """Hours or days since 1970."""
    return (keys & _LOW) - _ZERO


def filled(keys: Ints, most: int) -> Ints:
    """The keys with gaps of up to `most` units closed, within each device."""
    step = np.diff(keys)
    closed = (np.diff(device_of(keys)) == 0) & (step <= most)
    return _runs(keys, np.append(np.where(closed, step, 1), 1)[: len(keys)])


def gaps(keys: Ints, most: int, devices: int) -> tuple[Ints, Ints]:
    """(devices,) gaps longer than `most` units, and the units missing in them."""
    step = np.diff(keys)
    owner = device_of(keys[1:])
    wide = (np.diff(device_of(keys)) == 0) & (step > most)
    missing = np.bincount(owner[wide], step[wide] - 1, minlength=devices)
    return np.bincount(owner[wide], minlength=devices), missing.astype(np.int64)


def by_device(keys: Ints, devices: int) -> Ints:
    """(devices,) how many keys."""
    return np.bincount(device_of(keys), minlength=devices)


def _runs(first: Ints, count: Ints) -> Ints:
    """`count` successive numbers from each of `first`."""
    row, later = row_and_place(count)
    return first[row] + later
