"""Sources whose clocks contradict each other, or are coarser than they claim.

An app that a push wakes connects within seconds. A clock or time zone is wrong if sessions follow the pushes
when the push log is shifted by one certain amount, and no more often than by chance when it is not shifted.
Chance is measured with pushes shifted a few minutes further, so that a shared daily rhythm proves nothing. A
match that repeats at many shifts is a schedule and is not reported either. A push log is compared with each
flow source of its device.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints, Structs, Vector
from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import listed
from appcadence.telemetry.names import Codes
from appcadence.telemetry.schema import DIRECTORY_TABLES

RESPONSE_SECONDS = 30
"""A session that starts this soon after a push may be caused by it."""
MIN_RECORDS = 20
"""With fewer pushes or session starts, a device says nothing about its clocks."""
_MAX_PUSHES = 500
_CANDIDATES = 12
_MAX_WINDOW = 300
"""Seconds; coarser times hide any offset that could be detected."""
_QUARTER, _MAX_SHIFT = 900, 14 * 3600
_CONSISTENT, _SURE = 0.05, 1e-6
_SAME_SECONDS = 60
_MIN_EXCESS = 0.2
_SECOND = 1_000_000
_COLUMNS = ("device_id", "app_id", "source", "time_resolution_seconds")
_ROW = np.dtype([("time", "i8"), ("device", "i4"), ("app", "i4"), ("source", "i4"), ("resolution", "f8")])
_WHOLE = {60: "minutes", 1: "seconds"}
_MIN_STAMPS = 50
"""This many distinct times are not all whole seconds or minutes by chance."""


def clock_notes(
    source: TelemetryDirectory,
    devices: Collection[str] | None = None,
    first: int | None = None,
    last: int | None = None,
) -> tuple[str, ...]:
    """Plain sentences about clocks that certainly contradict each other.

    Memory grows with the flows of the devices that have pushes.

    Args:
        source: the telemetry.
        devices: the devices to check; None = all.
        first: microseconds since the epoch: parts of tables that end earlier are not read; likewise `last`.

    Raises:
        TelemetryError: a table cannot be read.
        SchemaError: a table does not fit its declaration.
    """
    read = _Reading(source, devices, first, last)
    pushes = np.concatenate([np.empty(0, _ROW), *read.rows("notifications", "push_received")])
    pushed, count = np.unique(pushes["device"], return_counts=True)
    pushed = pushed[count >= MIN_RECORDS]
    kept = [rows[np.isin(rows["device"], pushed)] for rows in read.rows("flows")]
    for _ in read.rows("activity"):
        pass
    flows = np.concatenate([np.empty(0, _ROW), *kept])
    offsets: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    pushes, flows = (rows[np.argsort(rows["device"], kind="stable")] for rows in (pushes, flows))
    for device in pushed.tolist():
        ours, theirs = (
            rows[slice(*np.searchsorted(rows["device"], [device, device + 1]))] for rows in (pushes, flows)
        )
        for log in np.unique(ours["source"]).tolist():
            for other in np.unique(theirs["source"]).tolist():
                found = offset_seconds(ours[ours["source"] == log], theirs[theirs["source"] == other])
                if found is not None:
                    names = read.source.names[log], read.source.names[other]
                    offsets[names].append((found, read.device.names[device]))
    notes = [note for names in sorted(offsets) for note in _offsets(*names, offsets[names])]
    return *notes, *read.resolutions.notes()


def offset_seconds(pushes: Structs, flows: Structs) -> float | None:
    """Median time from the timestamp of a push to the session that it started, if the clocks disagree.

    Args:
        pushes: n rows (time in microseconds, app or -1, resolution in seconds) of one device and one source.
        flows: m such rows of the same device and one source.

    Returns:
        Seconds, positive if the flows' timestamps are later; None if the clocks agree or the rows do not show
        it.
    """
    shared = np.intersect1d(pushes["app"], flows["app"])
    shared = shared[shared >= 0]
    if len(shared):
        pushes, flows = (rows[np.isin(rows["app"], shared)] for rows in (pushes, flows))
    if min(len(pushes), len(flows)) < MIN_RECORDS:
        return None
    window = float(pushes["resolution"].max()) + RESPONSE_SECONDS
    slack = float(flows["resolution"].max())
    if window + slack > _MAX_WINDOW:
        return None
    origin = min(pushes["time"].min(), flows["time"].min())
    span = max(pushes["time"].max(), flows["time"].max()) - origin
    # Each app has its own stretch of one axis, so that a push meets only sessions of its own app.
    stretch = np.searchsorted(shared, flows["app"]) if len(shared) else 0
    gap = span + 4 * _MAX_SHIFT * _SECOND
    starts = _spaced((flows["time"] - origin) + stretch * gap, RESPONSE_SECONDS)
    stretch = np.searchsorted(shared, pushes["app"]) if len(shared) else 0
    times = _spaced((pushes["time"] - origin) + stretch * gap, window)
    if min(len(times), len(starts)) < MIN_RECORDS:
        return None
    times = times[:: -(-len(times) // _MAX_PUSHES)]
    found = _Lags(times / _SECOND, starts / _SECOND, window, slack).offset()
    # A timestamp stands for any time within its resolution.
    return None if found is None else found - (window - RESPONSE_SECONDS) / 2


@dataclass(frozen=True)
class _Lags:
    """Pushes and session starts in seconds, both sorted."""

    pushes: Vector
    starts: Vector
    window: float
    slack: float

    def met(self, shifts: Vector) -> Ints:
        """(k,) how many pushes are followed by a session at each shift."""
        moved = self.pushes[:, None] + shifts
        low = np.searchsorted(self.starts, moved - self.slack)
        found: Ints = (np.searchsorted(self.starts, moved + self.window, "right") > low).sum(axis=0)
        return found

    def chance(self, shifts: Vector) -> Vector:
        """(k,) share of pushes followed by a session at nearby shifts, where no response would be."""
        step = self.window + self.slack
        near = np.array([i for i in range(-9, 10) if abs(i) > 3]) * step
        met = self.met((shifts[:, None] + near).ravel()).reshape(len(shifts), -1)
        # Never zero, because few pushes may meet no session by chance.
        share: Vector = (met.sum(axis=1) + 1) / (len(self.pushes) * len(near) + 1)
        return share

    def offset(self) -> float | None:
        n, none = len(self.pushes), np.zeros(1)
        if _tail(int(self.met(none)[0]), n, float(self.chance(none)[0])) < _CONSISTENT:
            return None
        quarters = np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1.0, _QUARTER)
        step = (self.window + self.slack) / 2
        fine = np.arange(step, _QUARTER, step)
        shifts = np.concatenate([quarters, fine, -fine])
        shifts = shifts[np.abs(shifts) >= 2 * (self.window + self.slack)]
        met = self.met(shifts)
        likely = np.argsort(-met, kind="stable")[:_CANDIDATES]
        chance, tried = self.chance(shifts[likely]), len(shifts)
        shifts, met = shifts[likely], met[likely]
        best = int(np.argmax(met / n - chance))
        excess = met[best] / n - chance[best]
        if excess < _MIN_EXCESS or _tail(int(met[best]), n, float(chance[best])) * tried > _SURE:
            return None
        again = shifts[best] + np.concatenate([quarters[quarters != 0], [-86_400.0, 86_400.0]])
        if np.max(self.met(again) / n - self.chance(again)) > excess / 2:
            return None
        moved = self.pushes + shifts[best]
        at = np.searchsorted(self.starts, moved - self.slack)
        lag = np.append(self.starts, np.inf)[at] - self.pushes
        return float(np.median(lag[lag <= shifts[best] + self.window]))


class _Reading:
    """Rows of the wanted devices, table by table; also collects their resolutions."""

    def __init__(
        self,
        source: TelemetryDirectory,
        devices: Collection[str] | None,
        first: int | None,
        last: int | None,
    ) -> None:
        self._from, self._devices, self._span = source, devices, (first, last)
        self.device, self.source, self._app = Codes(), Codes(), Codes()
        self.resolutions = TimestampResolutions()

    def rows(self, table: str, kind: str | None = None) -> Iterator[Structs]:
        when = DIRECTORY_TABLES[table].when
        columns = (when, *_COLUMNS) if kind is None else (when, *_COLUMNS, "kind")
        for piece in pieces_within(self._from, table, columns, when, *self._span):
            rows = np.empty(len(piece), _ROW)
            rows["time"] = piece[when].cast(pa.int64()).to_numpy()
            rows["resolution"] = piece["time_resolution_seconds"].to_numpy()
            rows["device"], rows["app"] = self.device.of(piece["device_id"]), self._app.of(piece["app_id"])
            rows["source"] = self.source.of(piece["source"])
            keep = np.ones(len(rows), np.bool_)
            if self._devices is not None:
                keep = np.array([name in self._devices for name in self.device.names])[rows["device"]]
                rows = rows[keep]
            self.resolutions.add(table, rows, self.source.names)
            if kind is not None:
                rows = rows[np.asarray(pc.equal(piece["kind"].cast(pa.string()), kind))[keep]]
            yield rows


def _tail(met: int, n: int, chance: float) -> float:
    """An upper bound on the chance that a binomial variable reaches `met` of n (Chernoff)."""
    share = met / n
    if share <= chance:
        return 1.0
    apart = share * math.log(share / chance)
    if share < 1:
        apart += (1 - share) * math.log((1 - share) / (1 - chance))
    return math.exp(-n * apart)


def _spaced(times: Ints, seconds: float) -> Ints:
    """Sorted times without those that follow the one before within `seconds`."""
    times = np.sort(times)
    return times[np.diff(times, prepend=times[0] - 10**15) > seconds * _SECOND]


def _offsets(log: str, other: str, found: list[tuple[float, str]]) -> Iterator[str]:
    """A sentence for the devices of each offset."""
    found.sort()
    seconds = np.array([value for value, _ in found])
    for part in np.split(np.arange(len(found)), np.flatnonzero(np.diff(seconds) > _SAME_SECONDS) + 1):
        # To the minute, except for the smallest, because a response takes a few seconds.
        step = 1 if abs(seconds[part[0]]) < 300 else 60
        median = step * round(float(np.median(seconds[part])) / step)
        hours, rest = divmod(abs(median), 3600)
        amounts = ((hours, "h"), (rest // 60, "min"), (rest % 60, "s"))
        span = " ".join(f"{number} {unit}" for number, unit in amounts if number)
        side = "behind" if median > 0 else "ahead of"
        what = "clock" if median % _QUARTER else "time zone"
        yield (
            f"The push times of {log} are {span} {side} the flows of {other} (median) for "
            f"{listed(sorted(found[i][1] for i in part))}: check the {what} of both, have both log UTC, and "
            "convert again into a new directory."
        )


@dataclass
class _Claim:
    """The times of one source that claim to be finer than whole seconds or minutes."""

    stamps: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct timestamps, only as many as are needed."""
    rows: int = 0
    finest: float = 0.0
    refuted: bool = True
    """Whether all of them are whole seconds or minutes."""


class TimestampResolutions:
    """Checks whether all times of a source are coarser than it claims."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str, int], _Claim] = {}

    def add(self, table: str, rows: Structs, names: list[str]) -> None:
        """Count rows (time in microseconds, number of the source, resolution in seconds) of a table."""
        for code in np.unique(rows["source"]).tolist():
            ours = rows[rows["source"] == code]
            for seconds in _WHOLE:
                claim = self._claims.setdefault((table, names[code], seconds), _Claim())
                finer = ours[ours["resolution"] < seconds]
                claim.refuted &= not np.any(finer["time"] % (seconds * _SECOND))
                claim.rows += len(finer)
                claim.finest = max(claim.finest, float(finer["resolution"].max(initial=0.0)))
                if claim.refuted and len(claim.stamps) < _MIN_STAMPS:
                    claim.stamps = np.union1d(claim.stamps, finer["time"])[:_MIN_STAMPS]

    def notes(self) -> Iterator[str]:
        said: dict[tuple[str, str], str] = {}
        # For a source of whole minutes, the note on whole seconds is left out.
        for (table, name, seconds), claim in sorted(self._claims.items()):
            if claim.refuted and len(claim.stamps) >= _MIN_STAMPS:
                said[table, name] = (
                    f"Source {name} claims times to {claim.finest:g} s in {table}, but all {claim.rows:,} "
                    f"are whole {_WHOLE[seconds]} ({seconds} s): no finer rhythm can be trusted; let the "
                    "source log finer times, or state its true resolution."
                )
        yield from said.values()
