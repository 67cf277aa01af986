"""Late records: days of devices that a conversion changed although the directory already held later flows.

A sensor logs a connection when it ends, so one that was open at midnight is in the log of a later day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, Ints
from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.device_times import MAX_DAYS, DeviceTimes, device_of, keys_of, unit_of
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.names import Codes

_TIMES = {"flows": "start", "activity": "start", "notifications": "time"}
TOUCHING = ("start", "duration_seconds", "device_id")
"""The columns of flows that show which days they touch."""


@dataclass(frozen=True, order=True)
class ChangedDay:
    """A day of a device that the directory already held, with what was added to it."""

    device_id: str
    day: str
    """ISO 8601 date, UTC."""
    rows: int
    """Flows, intervals of activity and notifications added that touch the day."""


class Touched:
    """The (device, UTC day) pairs that new rows touch, gathered by batch; memory grows with device-days."""

    def __init__(self) -> None:
        self._device = Codes()
        self._days = DeviceTimes(DAY_US)

    @property
    def devices(self) -> set[str]:
        """Devices with new flows, activity or notifications."""
        names = self._device.names  # dictionaries may name more devices than the rows
        return {names[code] for code in np.unique(device_of(self._days.touched()[0])).tolist()}

    def add(self, table: str, batch: pa.Table) -> None:
        """Count n canonical rows; rows of other tables are ignored."""
        if table not in _TIMES or not len(batch):
            return
        start = np.maximum(batch[_TIMES[table]].cast(pa.int64()).to_numpy(), 0)
        self._days.add(self._device.of(batch["device_id"]), start, _end(table, batch, start))

    def changed(self, before: TelemetryDirectory) -> tuple[ChangedDay, ...]:
        """The touched days that are not later than the latest flow of the device in `before`, sorted."""
        keys, rows = self._days.touched()
        if not len(keys):
            return ()
        latest = self._latest(before, int(unit_of(keys).min()) * DAY_US)
        # A device's days lie side by side: those up to its latest one are the changed ones.
        device = np.arange(len(latest))
        low = np.searchsorted(keys, keys_of(device, np.zeros_like(latest)))
        high = np.searchsorted(keys, keys_of(device, latest), "right")
        passed = np.array([place for ends in zip(low, high, strict=True) for place in range(*ends)], np.int64)
        days = np.datetime_as_string(unit_of(keys[passed]).astype("datetime64[D]")).tolist()
        known = self._device.names
        names = [known[code] for code in device_of(keys[passed]).tolist()]
        return tuple(sorted(map(ChangedDay, names, days, rows[passed].tolist())))

    def _latest(self, before: TelemetryDirectory, since: int) -> Ints:
        """(devices,) the day of each device's latest flow since a time in microseconds, -1 = none."""
        latest = np.empty(0, np.int64)
        for piece in pieces_within(before, "flows", ["start", "device_id"], "start", since):
            device = self._device.of(piece["device_id"])
            latest = np.pad(latest, (0, len(self._device) - len(latest)), constant_values=-1)
            np.maximum.at(latest, device, piece["start"].cast(pa.int64()).to_numpy() // DAY_US)
        return latest


def _end(table: str, batch: pa.Table, start: Ints) -> Ints:
    """(n,) when each row ended, its start where that is not known."""
    if table == "flows" and "duration_seconds" in batch.column_names:
        seconds = pc.fill_null(batch["duration_seconds"].cast(pa.float64()), 0.0).to_numpy()
        lasted: Ints = (np.clip(seconds, 0, MAX_DAYS * 86_400) * 1e6).astype(np.int64)
        return start + lasted
    if table == "activity" and "end" in batch.column_names:
        end: Ints = pc.fill_null(batch["end"].cast(pa.int64()), -1).to_numpy()
        return np.maximum(start, end)
    return start
