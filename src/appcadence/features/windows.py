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
from appcadence.features.columns import codes, destinations, floats, micros
from appcadence.features.grouping import group, pack
from appcadence.features.observed import MAX_DURATION_SECONDS, Observed

SESSION_GAP_SECONDS = 30.0
BEAT_GAP_SECONDS = 2.0
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
        values, names = codes(column)
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
    observed = Observed(tables, seconds)
    if "dns" in pc.unique(flows["service"]).to_pylist():
        flows = flows.filter(pc.fill_null(pc.not_equal(flows["service"].cast(pa.string()), "dns"), True))
    device, devices = codes(flows["device_id"])
    app, apps = codes(flows["app_id"])
    dest, dests = destinations(flows)
    start_us = micros(flows["start"])
    duration = np.minimum(floats(flows["duration_seconds"]), MAX_DURATION_SECONDS)
    outcome, outcomes = codes(flows["outcome"])
    failed = outcome == (outcomes.get_loc("failed") if "failed" in outcomes else -2)
    attribution, kinds = codes(flows["app_attribution"])

    row, window = _pieces(start_us, duration, seconds * 1_000_000)
    origin = int(window.min()) if len(window) else 0
    when = (window - origin, int(window.max()) - origin + 1 if len(window) else 1)
    who = pack((device, len(devices)), (app + 1, len(apps) + 1))
    channel = pack((who, len(devices) * (len(apps) + 1)), (dest, len(dests)))
    order, offsets, first = group(pack((channel[row], int(channel.max(initial=0)) + 1), when))
    known = order[app[row[order]] >= 0]
    order2, offsets2, first2 = group(
        pack((who[row[known]], len(devices) * (len(apps) + 1)), (when[0][known], when[1]))
    )
    order2, first2 = known[order2], known[first2]

    index = np.concatenate([order, order2])
    all_offsets = np.concatenate([offsets, offsets[-1] + offsets2[1:]])
    head = np.concatenate([first, first2])
    sent, received = floats(flows["bytes_out"]), floats(flows["bytes_in"])
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
