"""Flows grouped into windows: one channel (or one app, dest `*`) over one aligned interval.

All arrays are ordered by window and, inside it, by time (CSR: window i owns offsets[i]:offsets[i+1]).
Times are seconds since the window's start, so that shifting a whole telemetry by days changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import AppcadenceError

SESSION_GAP_SECONDS = 30.0
BEAT_GAP_SECONDS = 2.0
COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""
MAX_DURATION_SECONDS = 30 * 86400.0
"""Longer durations are cut: no capture holds them, and each window they cross costs a row."""
APP_LEVEL = "*"

_jit = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Windows:
    """Windows with their flows, sessions and beats. `n` windows, channel windows first, then app windows."""

    seconds: float
    device: np.ndarray
    """(n,) codes into `devices`; likewise `app` (-1 = unknown) into `apps` and `dest` into `dests`."""
    app: np.ndarray
    dest: np.ndarray
    start_us: np.ndarray
    """(n,) start of each window, microseconds since the epoch."""
    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    attribution: np.ndarray
    """(n,) how the app is known."""
    observed_seconds: np.ndarray
    offsets: np.ndarray
    flow_start: np.ndarray
    flow_end: np.ndarray
    """NaN where the duration is unknown."""
    bytes_out: np.ndarray
    bytes_in: np.ndarray
    fresh: np.ndarray
    """The flow started in this window, and is no continuation over the border."""
    failed: np.ndarray
    tables: dict[str, pa.Table] = field(repr=False)

    @property
    def n(self) -> int:
        return len(self.start_us)

    @property
    def n_channels(self) -> int:
        return int(np.count_nonzero(self.dest >= 0))

    @cached_property
    def sessions(self) -> Sessions:
        return Sessions(*_sessions(self.offsets, self.flow_start, self.flow_end, self.fresh))

    @cached_property
    def beats(self) -> tuple[np.ndarray, np.ndarray]:
        """(offsets, times) of flow starts, those less than 2 s apart merged."""
        offsets, times = _beats(self.offsets, self.flow_start, self.fresh)
        return offsets, times

    def codes(self, column: pa.ChunkedArray, index: pd.Index[Any]) -> np.ndarray:
        """Codes of a name column of another table in one of this object's indexes; -1 = not in it."""
        values, names = _codes(column)
        lookup = index.get_indexer(names) if len(names) else np.empty(0, np.int64)
        return np.where(values >= 0, lookup[np.maximum(values, 0)] if len(lookup) else -1, -1)


@dataclass(frozen=True)
class Sessions:
    """Sessions of all windows, CSR like the flows."""

    offsets: np.ndarray
    start: np.ndarray
    end: np.ndarray
    fresh: np.ndarray
    """The session began in this window; a continued one has no start to judge."""


def window_seconds(text: str) -> int:
    """Length of a window such as `24h`: whole hours that divide a day, or whole days.

    Raises:
        AppcadenceError: not of that form.
    """
    unit = {"h": 3600, "d": 86400}.get(text[-1:], 0)
    number = text[:-1]
    seconds = int(number) * unit if number.isascii() and number.isdigit() else 0
    if seconds <= 0 or (86400 % seconds and seconds % 86400):
        raise AppcadenceError(
            f"window must be hours that divide a day or whole days, such as 1h, 6h, 24h or 7d; got {text!r}"
        )
    return seconds


def build(tables: dict[str, pa.Table], seconds: int) -> Windows:
    """Group the flows of canonical tables into windows of `seconds`, aligned to UTC.

    DNS look-ups are context, not channels, and are left out.
    """
    flows = tables["flows"]
    observed = _Observed(tables, seconds)
    if "dns" in pc.unique(flows["service"]).to_pylist():
        flows = flows.filter(pc.fill_null(pc.not_equal(flows["service"].cast(pa.string()), "dns"), True))
    device, devices = _codes(flows["device_id"])
    app, apps = _codes(flows["app_id"])
    dest, dests = _destinations(flows)
    start_us = micros(flows["start"])
    duration = np.minimum(_floats(flows["duration_seconds"]), MAX_DURATION_SECONDS)
    outcome, outcomes = _codes(flows["outcome"])
    failed = outcome == (outcomes.get_loc("failed") if "failed" in outcomes else -2)
    attribution, kinds = _codes(flows["app_attribution"])

    row, window = _pieces(start_us, duration, seconds * 1_000_000)
    origin = int(window.min()) if len(window) else 0
    when = (window - origin, int(window.max()) - origin + 1 if len(window) else 1)
    who = _pack((device, len(devices)), (app + 1, len(apps) + 1))
    channel = _pack((who, len(devices) * (len(apps) + 1)), (dest, len(dests)))
    order, offsets, first = _group(_pack((channel[row], int(channel.max(initial=0)) + 1), when))
    known = order[app[row[order]] >= 0]
    order2, offsets2, first2 = _group(
        _pack((who[row[known]], len(devices) * (len(apps) + 1)), (when[0][known], when[1]))
    )
    order2, first2 = known[order2], known[first2]

    index = np.concatenate([order, order2])
    all_offsets = np.concatenate([offsets, offsets[-1] + offsets2[1:]])
    head = np.concatenate([first, first2])
    sent, received = _floats(flows["bytes_out"]), _floats(flows["bytes_in"])
    arrays = _gather(index, row, window, seconds, start_us, duration, sent, received, failed)
    _sort_inside(all_offsets, *arrays)

    starts = window[head] * (seconds * 1_000_000)
    return Windows(
        seconds=float(seconds),
        device=device[row[head]],
        app=app[row[head]],
        dest=np.concatenate([dest[row[first]], np.full(len(first2), -1, dest.dtype)]),
        start_us=starts,
        devices=devices,
        apps=apps,
        dests=dests,
        attribution=np.asarray(kinds, dtype=object)[attribution[row[head]]],
        observed_seconds=observed.of(devices, device[row[head]], window[head]),
        offsets=all_offsets,
        flow_start=arrays[0],
        flow_end=arrays[1],
        bytes_out=arrays[2],
        bytes_in=arrays[3],
        fresh=arrays[4],
        failed=arrays[5],
        tables=tables,
    )


class _Observed:
    """How much of each (device, window) the telemetry covers, by the times at which the device was seen."""

    def __init__(self, tables: dict[str, pa.Table], seconds: int) -> None:
        names, begins, ends = [], [], []
        for table, column in (("flows", "start"), ("activity", "start"), ("notifications", "time")):
            if table not in tables or not len(tables[table]):
                continue
            codes, index = _codes(tables[table]["device_id"])
            names.append(pd.Categorical.from_codes(codes, index))
            begins.append(micros(tables[table][column]))
            ends.append(begins[-1])
            if table == "flows":
                duration = np.nan_to_num(_floats(tables[table]["duration_seconds"]))
                ends[-1] = begins[-1] + (np.minimum(duration, MAX_DURATION_SECONDS) * 1e6).astype(np.int64)
        union = pd.api.types.union_categoricals(names, ignore_order=True) if names else pd.Categorical([])
        self.devices = union.categories
        begin = np.concatenate([*begins, np.empty(0, np.int64)])
        end = np.concatenate([*ends, np.empty(0, np.int64)])
        self.width = seconds * 1_000_000
        self.first = int(begin.min() // self.width) if len(begin) else 0
        count = int(end.max() // self.width) - self.first + 1 if len(begin) else 1
        order, offsets = _scatter(np.asarray(union.codes, np.int64), len(self.devices))
        self.table = _coverage(order, offsets, begin, end, self.first, count, self.width)

    def of(self, devices: pd.Index[Any], device: np.ndarray, window: np.ndarray) -> np.ndarray:
        lookup = self.devices.get_indexer(devices)
        column = np.clip(window - self.first, 0, self.table.shape[1] - 1)
        return np.maximum(self.table[lookup[device], column], 60.0) if len(device) else np.empty(0)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pd.Index[Any]]:
    """Dense codes (-1 = null) and the sorted names that occur, independent of row order."""
    array = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.chunked_array(array.chunks or [pa.array([], array.type)]).chunk(0)
    raw = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    names = np.asarray(array.dictionary.to_pylist(), dtype=object)
    used = (
        np.flatnonzero(np.bincount(raw[raw >= 0], minlength=len(names))) if len(names) else np.empty(0, int)
    )
    used = used[np.argsort(names[used].astype(str), kind="stable")] if len(used) else used
    rank = np.full(len(names) + 1, -1, np.int64)
    rank[used] = np.arange(len(used))
    return rank[raw], pd.Index(names[used] if len(used) else [], dtype="object")


def _destinations(flows: pa.Table) -> tuple[np.ndarray, pd.Index[Any]]:
    host, hosts = _codes(flows["dest_host"])
    address, addresses = _codes(flows["dest_ip"])
    names = pd.Index(["unknown"], dtype="object").union(hosts.union(addresses), sort=True)
    by_host, by_address = names.get_indexer(hosts), names.get_indexer(addresses)
    unknown = int(names.get_loc("unknown"))  # type: ignore[arg-type]
    by_host, by_address = np.append(by_host, unknown), np.append(by_address, unknown)
    return np.where(host >= 0, by_host[host], by_address[address]), names


def micros(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as int64 microseconds since the epoch."""
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """float64 with NaN for null; negative values are unknown too."""
    values = np.array(column.cast(pa.float64()).to_numpy(), np.float64)
    values[~(values >= 0) | ~np.isfinite(values)] = np.nan
    return values


def _pack(*parts: tuple[np.ndarray, int]) -> np.ndarray:
    """One int64 key ordered as the tuple of several codes; each part is (codes, number of codes)."""
    key, size = np.zeros(len(parts[0][0]), np.int64), 1
    for codes, count in parts:
        if size * max(count, 1) > 1 << 62:
            unique, key = np.unique(key, return_inverse=True)
            size = len(unique)
        key = key * max(count, 1) + codes
        size *= max(count, 1)
    return key


def _pieces(start_us: np.ndarray, duration: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and window number of every (flow, window it touches)."""
    first = start_us // width
    end = start_us + (np.nan_to_num(duration) * 1e6).astype(np.int64)
    # A flow that ends exactly on the border does not touch the next window.
    last = np.maximum((end - 1) // width, first)
    extra = last - first
    if not extra.any():
        return np.arange(len(start_us)), first
    row = np.repeat(np.arange(len(start_us)), extra + 1)
    step = np.arange(len(row)) - np.repeat(np.cumsum(extra + 1) - (extra + 1), extra + 1)
    return row, first[row] + step


def _group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in key order, CSR offsets, and the first row of each group."""
    codes, unique = pd.factorize(key)
    rank = np.empty(len(unique), np.int64)
    rank[np.argsort(unique, kind="stable")] = np.arange(len(unique))
    order, offsets = _scatter(rank[codes], len(unique))
    return order, offsets, order[offsets[:-1]]


@_jit
def _scatter(group, n_groups):  # type: ignore[no-untyped-def]
    offsets = np.zeros(n_groups + 1, np.int64)
    for g in group:
        offsets[g + 1] += 1
    for g in range(n_groups):
        offsets[g + 1] += offsets[g]
    position = offsets[:-1].copy()
    order = np.empty(len(group), np.int64)
    for row in range(len(group)):
        g = group[row]
        order[position[g]] = row
        position[g] += 1
    return order, offsets


@_jit
def _gather(index, row, window, seconds, start_us, duration, sent, received, failed):  # type: ignore[no-untyped-def]
    """Start, end, bytes out and in (by the share of time inside), fresh and failed, in window order."""
    n = len(index)
    begin, stop, out, inn = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    fresh, fails = np.empty(n, np.bool_), np.empty(n, np.bool_)
    for i in range(n):
        r = row[index[i]]
        start = (start_us[r] - window[index[i]] * seconds * 1_000_000) * 1e-6
        end = start + duration[r]
        fresh[i], fails[i] = start >= 0, failed[r]
        begin[i] = max(start, 0.0)
        stop[i] = end if np.isnan(end) else min(end, float(seconds))
        whole = np.isnan(end) or (start >= 0 and end <= seconds)
        share = 1.0 if whole else (stop[i] - begin[i]) / duration[r]
        out[i], inn[i] = sent[r] * share, received[r] * share
    return begin, stop, out, inn, fresh, fails


@_jit
def _before(start, end, out, inn, a, b):  # type: ignore[no-untyped-def]
    """Total order of flows, so that the row order of the input never shows."""
    if start[a] != start[b]:
        return start[a] < start[b]
    # NaN compares false both ways: equal.
    if end[a] != end[b] and (end[a] < end[b] or end[b] < end[a]):
        return end[a] < end[b]
    if out[a] != out[b] and (out[a] < out[b] or out[b] < out[a]):
        return out[a] < out[b]
    return inn[a] < inn[b]


@_jit
def _sort_inside(offsets, start, end, out, inn, fresh, failed):  # type: ignore[no-untyped-def]
    for g in range(len(offsets) - 1):
        lo, hi = offsets[g], offsets[g + 1]
        disorder = False
        for i in range(lo + 1, hi):
            if _before(start, end, out, inn, i, i - 1):
                disorder = True
                break
        if not disorder:
            continue
        order = lo + np.argsort(start[lo:hi], kind="mergesort")
        for i in range(1, hi - lo):
            j = i
            while j > 0 and _before(start, end, out, inn, order[j], order[j - 1]):
                order[j], order[j - 1] = order[j - 1], order[j]
                j -= 1
        start[lo:hi] = start[order].copy()
        end[lo:hi] = end[order].copy()
        out[lo:hi] = out[order].copy()
        inn[lo:hi] = inn[order].copy()
        fresh[lo:hi] = fresh[order].copy()
        failed[lo:hi] = failed[order].copy()


@_jit
def _sessions(offsets, start, end, fresh):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    session_offsets = np.zeros(n + 1, np.int64)
    first = np.empty(len(start))
    last = np.empty(len(start))
    opened = np.empty(len(start), np.bool_)
    k = 0
    for g in range(n):
        reach = -np.inf
        for i in range(offsets[g], offsets[g + 1]):
            stop = start[i] if np.isnan(end[i]) else end[i]
            if i == offsets[g] or start[i] > reach + SESSION_GAP_SECONDS:
                first[k], last[k], opened[k] = start[i], stop, fresh[i]
                k += 1
                reach = stop
            elif stop > reach:
                reach = stop
                last[k - 1] = stop
        session_offsets[g + 1] = k
    return session_offsets, first[:k].copy(), last[:k].copy(), opened[:k].copy()


@_jit
def _beats(offsets, start, fresh):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    beat_offsets = np.zeros(n + 1, np.int64)
    beat = np.empty(len(start))
    k = 0
    for g in range(n):
        previous = -np.inf
        for i in range(offsets[g], offsets[g + 1]):
            if not fresh[i]:
                continue
            if start[i] - previous >= BEAT_GAP_SECONDS:
                beat[k] = start[i]
                k += 1
            previous = start[i]
        beat_offsets[g + 1] = k
    return beat_offsets, beat[:k].copy()


@_jit
def _coverage(order, offsets, begin, end, first, count, width):  # type: ignore[no-untyped-def]
    """Seconds of each (device, window) under something seen, or under a silence of at most four hours."""
    covered = np.zeros((len(offsets) - 1, count))
    for device in range(len(offsets) - 1):
        rows = order[offsets[device] : offsets[device + 1]]
        rows = rows[np.argsort(begin[rows], kind="mergesort")]
        reach = begin[rows[0]] if len(rows) else 0
        for row in rows:
            lo = reach if (begin[row] - reach) * 1e-6 <= COVERAGE_GAP_SECONDS else begin[row]
            hi = max(begin[row], end[row])
            if hi <= reach:
                continue
            for w in range(lo // width - first, min(hi // width - first, count - 1) + 1):
                left, right = (w + first) * width, (w + first + 1) * width
                covered[device, w] += max(min(hi, right) - max(lo, left), 0) * 1e-6
            reach = hi
    return covered
