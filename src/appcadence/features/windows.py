"""Flows grouped into windows: one channel (or one app, dest `*`) over one aligned interval.

All arrays are ordered by window and, inside it, by time (CSR: window i owns offsets[i]:offsets[i+1]).
Times are seconds since the window's start, so that shifting a whole telemetry by days changes no bit.
A window holds nothing from outside of it: cutting the telemetry at a border changes no window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.errors import AppcadenceError
from appcadence.features.arrange import arrange, sort_inside
from appcadence.features.context import Context
from appcadence.features.coverage import observed
from appcadence.features.flows import ATTRIBUTIONS, COLUMNS, DNS, Flows, Rows, code
from appcadence.features.grouping import group, scatter
from appcadence.features.history import History, Rolled, roll

SESSION_GAP_SECONDS = 30.0
BEAT_GAP_SECONDS = 2.0
MAX_DURATION_SECONDS = 30 * 86400.0
"""Longer durations are cut: no capture holds them, and each window they cross costs a row."""
APP_LEVEL = "*"

_jit = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class Windows:
    """Windows with their flows, sessions and beats. `n` windows, channel windows first, then app windows."""

    seconds: float
    device: np.ndarray
    """(n,) codes into `devices`; likewise `app` (-1 = unknown) into `apps` and `dest` (-1 = `*`)."""
    app: np.ndarray
    dest: np.ndarray
    start_us: np.ndarray
    """(n,) start of each window, microseconds since the epoch."""
    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    attribution: np.ndarray
    """(n,) how the app is known, codes into the declared values of `app_attribution`."""
    port: np.ndarray
    """(n,) highest destination port; -1 = unknown."""
    moment: np.ndarray
    """(n,) code of the (device, interval), in that order."""
    observed_seconds: np.ndarray
    offsets: np.ndarray
    flow_start: np.ndarray
    flow_end: np.ndarray
    """NaN where the duration is unknown."""
    bytes_out: np.ndarray
    bytes_in: np.ndarray
    fresh: np.ndarray
    """The flow started in this window, and is no continuation over the border."""
    flags: np.ndarray
    """Bits of `appcadence.features.flows`."""
    context: Context = field(repr=False)

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

    @cached_property
    def rolled(self) -> Rolled | None:
        """These windows told from the past; None without a history."""
        return None if self.context.past is None else roll(self, self.context.past)

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Windows in order of their (device, interval), and CSR offsets of those."""
        order, offsets = scatter(self.moment, int(self.moment.max(initial=-1)) + 1)
        return order, offsets


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


def build(tables: Mapping[str, pa.Table], seconds: int, history: History | None = None) -> Windows:
    """Group the flows of canonical tables into windows of `seconds`, aligned to UTC.

    DNS look-ups are context, not channels, and are left out. Without `history` novelty is NaN.
    """
    table = tables["flows"].select(list(COLUMNS))
    flows = code([lambda: table], [lambda: table])
    return windows_of(flows, flows.block(), Context.of(tables, flows, history), seconds)


def windows_of(flows: Flows, rows: Rows, context: Context, seconds: int) -> Windows:
    """Windows of some of the flows: whole devices, as one block holds them."""
    width = seconds * 1_000_000
    duration = np.minimum(rows.duration, MAX_DURATION_SECONDS)
    row, window = _pieces(rows.start_us, duration, width)
    moment, covered = observed(rows, duration, row, window, width)
    kept = np.flatnonzero((rows.flags[row] & DNS) == 0)
    row, window, moment = row[kept], window[kept], moment[kept]
    first = int(window.min()) if len(window) else 0
    n_windows = int(window.max()) - first + 1 if len(window) else 1

    who, n_who = _dense(rows.device, rows.app + 1, len(flows.devices), len(flows.apps) + 1)
    dest, n_dests = _dense(rows.dest, np.zeros_like(rows.dest), len(flows.dests), 1)
    key = ((who[row] * n_dests + dest[row]) * n_windows) + (window - first)
    order, offsets = group(key, n_who * n_dests * n_windows)
    row, window, moment = row[order], window[order], moment[order]
    channel = arrange(offsets, row, window, seconds, rows.start_us, duration, *rows[5:9])
    head = row[offsets[:-1]] if len(row) else row
    starts, moments = window[offsets[:-1]], moment[offsets[:-1]]

    known = np.flatnonzero(rows.app[head] >= 0)
    index, channels, app_offsets = _app_level(
        known, who[head] * n_windows + (starts - first), n_who * n_windows, channel[0]
    )
    apps = channels[app_offsets[0]]
    flow_offsets = channel[0]
    pooled = [column[index] for column in channel[1:7]]
    sort_inside(app_offsets[1], *pooled)
    both = [np.concatenate([a, b]) for a, b in zip(channel[1:7], pooled, strict=True)]
    port = channel[7]
    app_port = np.maximum.reduceat(port[channels], app_offsets[0]) if len(apps) else port[:0]
    all_moments = np.concatenate([moments, moments[apps]])
    return Windows(
        seconds=float(seconds),
        device=np.concatenate([rows.device[head], rows.device[head[apps]]]),
        app=np.concatenate([rows.app[head], rows.app[head[apps]]]),
        dest=np.concatenate([rows.dest[head], np.full(len(apps), -1, np.int32)]),
        start_us=np.concatenate([starts, starts[apps]]) * width,
        devices=flows.devices,
        apps=flows.apps,
        dests=flows.dests,
        attribution=np.concatenate([rows.attribution[head], rows.attribution[head[apps]]]),
        port=np.concatenate([port, app_port]),
        moment=all_moments,
        observed_seconds=covered[all_moments],
        offsets=np.concatenate([flow_offsets, flow_offsets[-1] + app_offsets[1][1:]]),
        flow_start=both[0],
        flow_end=both[1],
        bytes_out=both[2],
        bytes_in=both[3],
        fresh=both[4],
        flags=both[5],
        context=context,
    )


def attribution_names() -> pd.Index[Any]:
    return pd.Index(ATTRIBUTIONS, dtype="object")


def _dense(a: np.ndarray, b: np.ndarray, n_a: int, n_b: int) -> tuple[np.ndarray, int]:
    """Dense codes of the pairs that occur, in the order of the pairs."""
    if n_a * n_b > 8 * len(a) + (1 << 20):
        unique, codes = np.unique(a.astype(np.int64) * n_b + b, return_inverse=True)
        return codes, max(len(unique), 1)
    pair = a.astype(np.int64) * n_b + b
    used = np.zeros(max(n_a * n_b, 1), np.bool_)
    used[pair] = True
    rank = np.cumsum(used) - 1
    return rank[pair], max(int(rank[-1]) + 1, 1)


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


def _app_level(
    known: np.ndarray, key: np.ndarray, size: int, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Flows and channel windows in order of their app windows, and the CSR offsets of both."""
    order, window_offsets = group(key[known], size)
    channels = known[order]
    count = offsets[channels + 1] - offsets[channels]
    ends = np.concatenate([[0], np.cumsum(count)])
    index = np.repeat(offsets[channels] - ends[:-1], count) + np.arange(ends[-1])
    return index, channels, (window_offsets[:-1], ends[window_offsets])


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
