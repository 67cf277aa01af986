"""Late records: which days of which devices a conversion changed after the directory had passed them.

A sensor logs a connection when it ends, so one that was open at midnight stands in the log of a later day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry._codes import Codes
from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.arrays import Ints
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.schema import NAME

DAY_US = 86_400_000_000
_TIMES = {"flows": "start", "activity": "start", "notifications": "time"}
_MOST_DAYS = 31
"""No record touches more days than this: a wrong duration must not fill memory."""
_SHIFT, _LOW = 32, (1 << 32) - 1


@dataclass(frozen=True, order=True)
class ChangedDay:
    """A day of a device that the directory already held, with what was added to it."""

    device_id: str
    day: str
    """ISO 8601 date, UTC."""
    rows: int
    """Flows, intervals of activity and notifications added that touch the day."""


class Touched:
    """The (device, UTC day) that new rows touch, gathered batch by batch; memory grows with device-days."""

    def __init__(self) -> None:
        self._device = Codes()
        self._rows: dict[int, int] = {}

    @property
    def devices(self) -> set[str]:
        """Devices with new flows, activity or notifications."""
        names = self._device.names  # of dictionaries, which may hold more than the rows
        return {names[key >> _SHIFT] for key in self._rows}

    def add(self, table: str, batch: pa.Table) -> None:
        """Count n canonical rows; those of other tables are passed over."""
        if table not in _TIMES or not len(batch):
            return
        device = self._device.of(batch["device_id"].cast(NAME))
        start = batch[_TIMES[table]].cast(pa.int64()).to_numpy()
        first = np.maximum(start // DAY_US, 0)
        many = np.clip(_end(table, batch, start) // DAY_US - first, 0, _MOST_DAYS - 1) + 1
        place = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        keys, rows = np.unique(
            (np.repeat(device, many) << _SHIFT) + np.repeat(first, many) + place, return_counts=True
        )
        for key, count in zip(keys.tolist(), rows.tolist(), strict=True):
            self._rows[key] = self._rows.get(key, 0) + count

    def changed(self, before: TelemetryDirectory) -> tuple[ChangedDay, ...]:
        """The touched days that are not later than the latest flow of the device in `before`, sorted."""
        if not self._rows:
            return ()
        held, latest = Codes(), np.empty(0, np.int64)
        since = min(key & _LOW for key in self._rows) * DAY_US
        for piece in pieces_within(before, "flows", ["start", "device_id"], "start", since):
            device = held.of(piece["device_id"])
            latest = np.pad(latest, (0, len(held) - len(latest)), constant_values=-1)
            np.maximum.at(latest, device, piece["start"].cast(pa.int64()).to_numpy() // DAY_US)
        last = dict(zip(held.names, latest.tolist(), strict=True))
        names = self._device.names
        found = (
            ChangedDay(names[key >> _SHIFT], _iso(key & _LOW), rows)
            for key, rows in self._rows.items()
            if key & _LOW <= last.get(names[key >> _SHIFT], -1)
        )
        return tuple(sorted(found))


def _end(table: str, batch: pa.Table, start: Ints) -> Ints:
    """(n,) when each row ended, its start where that is not known."""
    if table == "flows" and "duration_seconds" in batch.column_names:
        seconds = pc.fill_null(batch["duration_seconds"].cast(pa.float64()), 0.0).to_numpy()
        lasted: Ints = (np.clip(seconds, 0, _MOST_DAYS * 86_400) * 1e6).astype(np.int64)
        return start + lasted
    if table == "activity" and "end" in batch.column_names:
        end: Ints = pc.fill_null(batch["end"].cast(pa.int64()), -1).to_numpy()
        return np.maximum(start, end)
    return start


def _iso(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()
