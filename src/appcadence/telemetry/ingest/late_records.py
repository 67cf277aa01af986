"""Late records: which days of which devices a conversion changed after the directory had passed them.

A sensor logs a connection when it ends, so one that was open at midnight stands in the log of a later day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.arrays import Ints
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.names import Codes
from appcadence.telemetry.schema import NAME

DAY_US = 86_400_000_000
_TIMES = {"flows": "start", "activity": "start", "notifications": "time"}
_MAX_DAYS = 31
"""No record touches more days than this: a wrong duration must not fill memory."""
_SHORTER = 8
"""A run of an eighth of the one before is joined to it: as fast as any, and no join needs much room."""
_SHIFT, _LOW = 32, (1 << 32) - 1
Run = tuple[Ints, Ints]
"""Sorted keys (code of the device << 32 | day), each once, and the rows of each."""


@dataclass(frozen=True, order=True)
class ChangedDay:
    """A day of a device that the directory already held, with what was added to it."""

    device_id: str
    day: str
    """ISO 8601 date, UTC."""
    rows: int
    """Flows, intervals of activity and notifications added that touch the day."""


class Touched:
    """The (device, UTC day) that new rows touch, gathered batch by batch.

    Memory grows with device-days, by 16 bytes each, and up to twice that while runs are joined.
    """

    def __init__(self) -> None:
        self._device = Codes()
        self._runs: list[Run] = []
        """Each much shorter than the one before, so that a key is moved a few times only."""

    @property
    def devices(self) -> set[str]:
        """Devices with new flows, activity or notifications."""
        names = self._device.names  # of dictionaries, which may hold more than the rows
        bounds = np.arange(len(names) + 1) << _SHIFT
        found = np.zeros(len(names), np.bool_)
        for keys, _ in self._runs:
            found |= np.diff(np.searchsorted(keys, bounds)) > 0
        return {names[code] for code in np.flatnonzero(found).tolist()}

    def add(self, table: str, batch: pa.Table) -> None:
        """Count n canonical rows; those of other tables are passed over."""
        if table not in _TIMES or not len(batch):
            return
        device = self._device.of(batch["device_id"].cast(NAME))
        start = batch[_TIMES[table]].cast(pa.int64()).to_numpy()
        first = np.maximum(start // DAY_US, 0)
        many = np.clip(_end(table, batch, start) // DAY_US - first, 0, _MAX_DAYS - 1) + 1
        place = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        keys, rows = np.unique(
            (np.repeat(device, many) << _SHIFT) + np.repeat(first, many) + place, return_counts=True
        )
        self._runs.append((keys, rows))
        while len(self._runs) > 1 and _SHORTER * len(self._runs[-1][0]) >= len(self._runs[-2][0]):
            self._join()

    def changed(self, before: TelemetryDirectory) -> tuple[ChangedDay, ...]:
        """The touched days that are not later than the latest flow of the device in `before`, sorted."""
        if not self._runs:
            return ()
        while len(self._runs) > 1:
            self._join()
        keys, rows = self._runs[0]
        latest = self._latest(before, int((keys & _LOW).min()) * DAY_US)
        device = np.arange(len(latest)) << _SHIFT
        # A device's days lie side by side: those up to its latest one are the changed ones.
        low, high = np.searchsorted(keys, device), np.searchsorted(keys, device + latest, "right")
        names = self._device.names
        return tuple(
            sorted(
                ChangedDay(names[code], _iso(key & _LOW), count)
                for code in np.flatnonzero(high > low).tolist()
                for key, count in zip(
                    keys[low[code] : high[code]].tolist(), rows[low[code] : high[code]].tolist(), strict=True
                )
            )
        )

    def _latest(self, before: TelemetryDirectory, since: int) -> Ints:
        """(devices,) the day of each device's latest flow since a time in microseconds, -1 = none."""
        latest = np.empty(0, np.int64)
        for piece in pieces_within(before, "flows", ["start", "device_id"], "start", since):
            device = self._device.of(piece["device_id"])
            latest = np.pad(latest, (0, len(self._device) - len(latest)), constant_values=-1)
            np.maximum.at(latest, device, piece["start"].cast(pa.int64()).to_numpy() // DAY_US)
        return latest

    def _join(self) -> None:
        """Join the last two runs."""
        (more, counts), (keys, rows) = self._runs.pop(), self._runs.pop()
        at = np.searchsorted(keys, more)
        new = keys[np.minimum(at, len(keys) - 1)] != more
        rows[at[~new]] += counts[~new]
        at, counts = at[new], counts[new]
        # One column after the other, so that the old keys are gone before the new rows come.
        keys = np.insert(keys, at, more[new])
        self._runs.append((keys, np.insert(rows, at, counts)))


def _end(table: str, batch: pa.Table, start: Ints) -> Ints:
    """(n,) when each row ended, its start where that is not known."""
    if table == "flows" and "duration_seconds" in batch.column_names:
        seconds = pc.fill_null(batch["duration_seconds"].cast(pa.float64()), 0.0).to_numpy()
        lasted: Ints = (np.clip(seconds, 0, _MAX_DAYS * 86_400) * 1e6).astype(np.int64)
        return start + lasted
    if table == "activity" and "end" in batch.column_names:
        end: Ints = pc.fill_null(batch["end"].cast(pa.int64()), -1).to_numpy()
        return np.maximum(start, end)
    return start


def _iso(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
