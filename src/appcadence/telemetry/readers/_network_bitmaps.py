"""Network bitmaps of a PowerLog: when each process moved packets, in slots of 8 s, as flows without a host.

A record is one process over a span of uptime (1,024 s since iOS 15), with one bit per slot for each
interface: little-endian words, the earliest slot in the least bit, zero words at the end left out. XNU's
`in_stat.c` sets them. A run of slots of one process on one interface, across records, is one flow; it ends
where the device goes to sleep. A span for which any process has a record was observed, and processes without
a record in it were silent; other spans were not observed.

Uptime does not pass during sleep. A slot is placed by counting back from the record's own time and uptime,
through the sleeps in the log; a slot that a sleep cuts in two is placed where it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appcadence.telemetry.readers import _sqlite
from appcadence.telemetry.readers._powerlog_tables import PowerLog, process_name

BITMAPS = "PLProcessNetworkAgent_EventBackward_NetworkBitmap"
SLOT_SECONDS = 8
MAX_BITMAPS = 100_000
"""Weeks of a busy phone, which writes some 3,500 a day; later records are not read."""
_SLEEP = "PLSleepWakeAgent_EventForward_PowerState"
_COLUMNS = ("BundleName", "CurrentMachAbsoluteTime", "MachAbsoluteStartTime", "MachAbsoluteEndTime")
_WORD, _BYTES = 8, 16
_SLOTS = 8 * _BYTES
_LATEST_SECONDS = 7 * 86400
"""A record is written minutes after its span."""
_REBOOT_SECONDS = 60
"""Clocks of one boot differ by some seconds per record, because sleeps are logged late."""


@dataclass(frozen=True)
class Use:
    """The use that the bitmaps show."""

    process: list[str]
    """(n,) the process of each flow."""
    start_us: np.ndarray
    """(n,) when its first slot began, UTC microseconds."""
    duration_seconds: np.ndarray
    """(n,) up to the end of its last slot, or to the device's sleep."""
    observed_us: np.ndarray
    """(m, 2) spans in which any process was observed: disjoint, in order."""


@dataclass(frozen=True)
class _Sleeps:
    """Disjoint sleeps in order, in seconds of the log's clock."""

    first: np.ndarray
    last: np.ndarray

    @property
    def slept(self) -> np.ndarray:
        """(n + 1,) seconds slept before each, and in all."""
        return np.concatenate([[0.0], np.cumsum(self.last - self.first)])

    def awake(self, time: np.ndarray) -> np.ndarray:
        """(n,) time without the sleeps before it."""
        after = np.searchsorted(self.last, time, side="right")
        first = np.append(self.first, np.inf)[after]
        return np.asarray(np.minimum(time, first) - self.slept[after])

    def before(self, awake: np.ndarray, side: str = "right") -> np.ndarray:
        """(n,) how many sleeps lie before a time awake; "left" excludes those that begin at that time."""
        return np.searchsorted(self.first - self.slept[:-1], awake, side=side)  # type: ignore[call-overload, no-any-return]


def use_of(log: PowerLog) -> Use:
    """The flows of all processes, sorted by process and time, and the spans in which any was observed."""
    names, rows, (owner, interface, maps) = _records(log, log.database.blob_columns(BITMAPS))
    sleeps = _sleeps(log)
    time, uptime, start, stop, process = rows
    booted = sleeps.awake(time) - uptime
    order = np.argsort(time, kind="stable")
    boot = np.empty(len(time), np.int64)
    boot[order] = np.cumsum(np.abs(np.diff(booted[order], prepend=booted[order][:1])) > _REBOOT_SECONDS)

    bitmap, slot = np.nonzero(np.unpackbits(maps, axis=1, bitorder="little"))
    row, place = owner[bitmap], interface[bitmap]
    number = (start[row] // SLOT_SECONDS).astype(np.int64) + slot
    order = np.lexsort((number, place, boot[row], process[row]))
    row, place, number = row[order], place[order], number[order]
    asleep = sleeps.before(begun := booted[row] + number * SLOT_SECONDS)
    run_of = np.stack([process[row], boot[row], place, asleep])
    goes_on = (run_of[:, 1:] == run_of[:, :-1]).all(axis=0) & (np.diff(number) <= 1)
    heads = np.flatnonzero(np.append(True, ~goes_on)[: len(row)])
    lasts = np.append(heads[1:], len(row)) - 1 if len(heads) else heads
    raw = begun + sleeps.slept[asleep]
    end = np.minimum(raw[lasts] + SLOT_SECONDS, np.append(sleeps.first, np.inf)[asleep[lasts]])
    seen = _observed(boot, booted, start, np.minimum(stop, uptime), sleeps)
    return Use(
        [names[code] for code in process[row[heads]].astype(int)],
        log.utc(raw[heads]),
        end - raw[heads],
        log.utc(seen.ravel()).reshape(-1, 2),
    )


def _observed(
    boot: np.ndarray, booted: np.ndarray, start: np.ndarray, stop: np.ndarray, sleeps: _Sleeps
) -> np.ndarray:
    """(m, 2) seconds of the log's clock; spans that follow each other in uptime are merged."""
    merged: list[list[float]] = []
    reach = (-1, 0.0)
    for which, since, until, zero in sorted(set(zip(boot, start, stop, booted, strict=True))):
        if which == reach[0] and since <= reach[1]:
            if until > reach[1]:
                merged[-1][1] = zero + until
        else:
            merged.append([zero + since, zero + until])
        reach = (which, max(until, reach[1]) if which == reach[0] else until)
    first, last = np.array(merged).reshape(-1, 2).T
    return np.stack(
        [first + sleeps.slept[sleeps.before(first)], last + sleeps.slept[sleeps.before(last, "left")]], axis=1
    )


def _records(
    log: PowerLog, interfaces: Sequence[str]
) -> tuple[list[str], np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Names of processes; (5, n) time, uptime, start, stop and process of each record; and for each bitmap
    its record (m,), interface (m,) and bytes (m, 16)."""
    codes: dict[str, int] = {}
    rows: list[tuple[float, ...]] = []
    maps = bytearray()
    owners: list[tuple[int, int]] = []
    for line, time, _, values in log.rows(BITMAPS, _COLUMNS, blobs=interfaces):
        if max(len(rows), len(owners)) >= MAX_BITMAPS:
            log.reject(BITMAPS, line, f"more than {MAX_BITMAPS:,} bitmaps; further ones are not read")
            break
        fault = _fault(time, values)
        if fault:
            log.reject(BITMAPS, line, fault)
            continue
        name, now, start, stop = values[:4]
        code = codes.setdefault(str(name), len(codes))
        for place, bits in enumerate(values[4:]):
            if isinstance(bits, bytes):
                owners.append((len(rows), place))
                maps += bits.ljust(_BYTES, b"\0")
        rows.append((time, float(now) / 1e9, float(start), float(stop), code))  # type: ignore[arg-type]
    owner, interface = np.array(owners, np.int64).reshape(-1, 2).T
    data = np.frombuffer(bytes(maps), np.uint8).reshape(-1, _BYTES)
    return list(codes), np.array(rows).reshape(-1, 5).T, (owner, interface, data)


def _fault(time: float, values: Sequence[_sqlite.Value]) -> str | None:
    """What is wrong with a record, if anything."""
    name, now, start, stop, *bits = values
    if process_name(name) is None:
        return "BundleName is no name of a process"
    if not isinstance(start, int | float) or not isinstance(stop, int | float):
        return "MachAbsoluteStartTime or MachAbsoluteEndTime is no number"
    slots = (stop - start) / SLOT_SECONDS
    if start < 0 or start % SLOT_SECONDS or not 0 < slots <= _SLOTS or slots % 1:
        return f"MachAbsoluteStartTime and MachAbsoluteEndTime are no span of 8 s slots, at most {_SLOTS}"
    if not isinstance(now, int) or not 0 <= now / 1e9 - start <= _LATEST_SECONDS or now / 1e9 > time:
        return "CurrentMachAbsoluteTime is no uptime in the week after MachAbsoluteStartTime"
    last = min(int(slots), int((now / 1e9 - start) / SLOT_SECONDS) + 1)
    for data in bits:
        if data is None:
            continue
        if not isinstance(data, bytes) or len(data) % _WORD or len(data) > _BYTES:
            return f"a bitmap is not of 64-bit words, at most {_BYTES // _WORD}"
        if int.from_bytes(data, "little") >> last:
            return "a bitmap has slots after its span, or after the record"
    return None


def _sleeps(log: PowerLog) -> _Sleeps:
    """From each record of state 1 to the next record of another state."""
    changes = sorted(
        (time, state == 1)
        for _, time, _, (state,) in log.rows(_SLEEP, ("State",), count=False)
        if state in (0, 1)
    )
    first, last, since = [], [], None
    for time, asleep in changes:
        if asleep and since is None:
            since = time
        elif not asleep and since is not None:
            first.append(since)
            last.append(time)
            since = None
    return _Sleeps(np.array(first, np.float64), np.array(last, np.float64))
