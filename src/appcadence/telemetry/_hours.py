"""Which hours a log of each device covers, kept as one sorted array of (device, hour)."""

from __future__ import annotations

import numpy as np

from appcadence._types import HOUR_US, Ints

_SHIFT, _ZERO = 33, 1 << 32
_MAX_HOURS = 8 * 24
"""No record fills more hours than this: a wrong duration must not fill memory."""
_PENDING = 4_000_000


class Hours:
    """Hours that records touch, gathered piece by piece; memory grows with device-hours, not with records."""

    def __init__(self) -> None:
        self._parts: list[Ints] = []
        self._pending = 0

    def add(self, device: Ints, start: Ints, end: Ints) -> None:
        """Records of devices (codes from 0) from one time to another, in microseconds."""
        first = start // HOUR_US
        count = np.clip(end // HOUR_US - first + 1, 1, _MAX_HOURS)
        key = (device << _SHIFT) + first + _ZERO
        self._parts.append(np.unique(_runs(key, count)))
        self._pending += len(self._parts[-1])
        if self._pending > _PENDING:
            self._parts = [self.touched()]
            self._pending = 0

    def touched(self) -> Ints:
        """Sorted keys of the (device, hour) touched."""
        return np.unique(np.concatenate(self._parts)) if self._parts else np.empty(0, np.int64)


def filled(keys: Ints, most: int) -> Ints:
    """The keys with gaps of up to `most` hours closed, within each device."""
    step = np.diff(keys)
    closed = (np.diff(keys >> _SHIFT) == 0) & (step <= most)
    return _runs(keys, np.append(np.where(closed, step, 1), 1)[: len(keys)])


def gaps(keys: Ints, most: int, devices: int) -> tuple[Ints, Ints]:
    """(devices,) gaps longer than `most` hours, and the hours missing in them."""
    step = np.diff(keys)
    owner = keys[1:] >> _SHIFT
    wide = (np.diff(keys >> _SHIFT) == 0) & (step > most)
    missing = np.bincount(owner[wide], step[wide] - 1, minlength=devices)
    return np.bincount(owner[wide], minlength=devices), missing.astype(np.int64)


def by_device(keys: Ints, devices: int) -> Ints:
    """(devices,) how many hours."""
    return np.bincount(keys >> _SHIFT, minlength=devices)


def _runs(first: Ints, count: Ints) -> Ints:
    """`count` successive numbers from each of `first`."""
    if not len(first):
        return np.empty(0, np.int64)
    before = np.cumsum(count) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))
