"""The tables of a PowerLog with their clock corrected.

A timestamp is corrected to UTC by the latest TimeOffset record at or before it; timestamps before the first
record use the first. Every table and column is optional except the clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import itemgetter

import numpy as np

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _sqlite
from appcadence.telemetry.readers._device_log import micros
from appcadence.telemetry.schema import MAX_NAME

EXPECTED = "a PowerLog (.PLSQL)"
OFFSET = "PLStorageOperator_EventForward_TimeOffset"


def process_name(value: _sqlite.Value) -> str | None:
    """A bundle id, or the name of a process without one; None if the value is neither."""
    named = isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= MAX_NAME
    return str(value) if named else None


class PowerLog:
    """A PowerLog's tables with their clock corrected; counts rows and keeps faults."""

    def __init__(self, database: _sqlite.Database) -> None:
        self.database = database
        self.read = 0
        self.bad: list[tuple[int, str]] = []
        self.seen: set[int] = set()
        """Times of all records read."""
        self._offsets: list[tuple[float, float]] = []
        for line, (raw, system) in database.rows(OFFSET, ("timestamp", "system")):
            self.read += 1
            if (
                isinstance(raw, int | float)
                and isinstance(system, int | float)
                and micros(raw) is not None
                and micros(raw + system) is not None
            ):
                self._offsets.append((float(raw), float(system)))
            else:
                self.reject(OFFSET, line, "timestamp or system is no time")
        if not self._offsets:
            raise UnusableFile(
                f"{database.path} has no usable record of {OFFSET}, without which its clock cannot be "
                f"corrected; expected {EXPECTED}",
                database.path,
            )
        self._offsets.sort()

    def reject(self, name: str, line: int, reason: str) -> None:
        self.bad.append((line, f"{name}: {reason}"))

    def rows(
        self, name: str, columns: Sequence[str], count: bool = True, blobs: Sequence[str] = ()
    ) -> Iterator[tuple[int, float, int, list[_sqlite.Value]]]:
        """Row id, time as logged, UTC microseconds, and values of each row; nothing if there is no table.

        `blobs` are further columns of bytes; see `_sqlite.Database.rows`.
        """
        present = self.database.columns(name)
        if present is None or "timestamp" not in present:
            if count and self.database.holds(name):
                self.read += 1
                self.reject(name, 1, "no plain table with the column timestamp")
            return
        for line, (raw, *values) in self.database.rows(name, ("timestamp", *columns), blobs=blobs):
            self.read += count
            time = self.time(raw)
            if time is not None and isinstance(raw, int | float):
                self.seen.add(time)
                yield line, raw, time, values
            elif count:
                self.reject(name, line, "timestamp is no time from 1970 to 2100")

    def time(self, raw: _sqlite.Value) -> int | None:
        """UTC microseconds of a time as logged; None if it is not from 1970 to 2100."""
        if micros(raw) is None or not isinstance(raw, int | float):
            return None
        place = bisect_right(self._offsets, raw, key=itemgetter(0)) - 1
        return micros(raw + self._offsets[max(place, 0)][1])

    def utc(self, raw: np.ndarray) -> np.ndarray:
        """(n,) UTC microseconds of times as logged, in seconds."""
        times, systems = np.array(self._offsets).T
        place = np.maximum(np.searchsorted(times, raw, side="right") - 1, 0)
        return np.asarray(np.round((raw + systems[place]) * 1e6).astype(np.int64))
