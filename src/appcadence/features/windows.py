"""Flows grouped into windows: one channel (or one app, dest `*`) over one aligned interval.

All arrays are ordered by window and, inside it, by time (CSR: window i owns offsets[i]:offsets[i+1]).
Times are seconds since the window's start, so that shifting a whole telemetry by days changes no bit.
A window holds nothing from outside of it: cutting the telemetry at a border changes no window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.errors import AppcadenceError
from appcadence.features.arrange import arrange, sort_inside
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.context import Context, Contexts
from appcadence.features.coverage import observed
from appcadence.features.flows import COLUMNS, DNS, FAILED, Flows, code
from appcadence.features.grouping import group, scatter
from appcadence.features.history import History, Past
from appcadence.features.rolling import Rolled, roll

SESSION_GAP_SECONDS = 30.0
BEAT_GAP_SECONDS = 2.0
MAX_DURATION_SECONDS = 30 * 86400.0
"""Longer durations are cut: no capture holds them, and each window they cross costs a row."""
APP_LEVEL = "*"
_TICK = 5e-7  # times are whole microseconds, which seconds as floats are not: half of one decides ties

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
    """(n,) how well the app is known at best, codes into the declared values of `app_attribution`."""
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
        return None if self.context.past is None else self.told(self.context.past)

    def told(self, past: Past) -> Rolled:
        """These windows told from a past."""
        return roll(self, past)

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


def build(
    tables: Mapping[str, pa.Table],
    seconds: int,
    history: History | None = None,
    span_us: tuple[int, int] | None = None,
) -> Windows:
    """Group the flows of canonical tables into windows of `seconds`, aligned to UTC.

    DNS look-ups are context, not channels, and are left out. Without `history` novelty is NaN. With a span
    (microseconds since the epoch, borders of windows) there are only the windows in it.
    """
    table = tables["flows"].select(list(COLUMNS))
    flows = code([lambda: table], [lambda: table])
    around = {name: [partial(tables.__getitem__, name)] if name in tables else [] for name in CONTEXT_COLUMNS}
    contexts = Contexts.of(
        around["activity"], around["notifications"], tables.get("inventory"), flows, history
    )
    return windows_of(flows, flows.block(), contexts.block(), seconds, span_us)


def windows_of(
    flows: Flows, rows: np.ndarray, context: Context, seconds: int, span_us: tuple[int, int] | None = None
) -> Windows:
    """Windows of some of the flows (`FLOW` records): whole devices, as one block holds them."""
    width = seconds * 1_000_000
    rows["duration"] = np.minimum(rows["duration"], MAX_DURATION_SECONDS)
    first = int(rows["start_us"].min()) // width if len(rows) else 0
    row, window = _pieces(rows, first, width)
    if span_us is not None:
        inside = (window >= span_us[0] // width - first) & (window < span_us[1] // width - first)
        row, window = row[inside], window[inside]
    rows["start_us"] -= first * width
    moment, covered = observed(rows, row, window, width)
    n_windows = int(window.max(initial=0)) + 1
    who, n_who = _dense(rows["device"], rows["app"] + 1, len(flows.apps) + 1)
    dest, n_dests = _dense(np.zeros(len(rows), np.int64), rows["dest"], len(flows.dests))
    row, window, moment, key = _keys(rows, row, window, moment, who * n_dests + dest, n_windows, DNS)
    order, offsets = group(key, n_who * n_dests * n_windows)
    row, window, moment = row[order], window[order], moment[order]
    flow_offsets, *columns, port, attribution = arrange(offsets, rows, row, window, seconds, FAILED)
    head = rows[row[offsets[:-1]]]
    starts, moments = window[offsets[:-1]], moment[offsets[:-1]]

    known = np.flatnonzero(head["app"] >= 0)
    owner = who[row[offsets[:-1]]] * n_windows + starts
    index, channels, (app_heads, app_offsets) = _app_level(known, owner, n_who * n_windows, flow_offsets)
    apps = channels[app_heads]
    pooled = [column[index] for column in columns]
    sort_inside(app_offsets, *pooled)
    start, end, sent, received, fresh, flags = (
        np.concatenate(pair) for pair in zip(columns, pooled, strict=True)
    )
    app_port = np.maximum.reduceat(port[channels], app_heads) if len(apps) else port[:0]
    app_known = np.minimum.reduceat(attribution[channels], app_heads) if len(apps) else attribution[:0]
    both = np.concatenate([np.arange(len(head)), apps])
    return Windows(
        seconds=float(seconds),
        device=head["device"][both],
        app=head["app"][both],
        dest=np.concatenate([head["dest"], np.full(len(apps), -1, np.int32)]),
        start_us=(starts[both] + first) * width,
        devices=flows.devices,
        apps=flows.apps,
        dests=flows.dests,
        attribution=np.concatenate([attribution, app_known]),
        port=np.concatenate([port, app_port]),
        moment=moments[both],
        observed_seconds=covered[moments[both]],
        offsets=np.concatenate([flow_offsets, flow_offsets[-1] + app_offsets[1:]]),
        flow_start=start,
        flow_end=end,
        bytes_out=sent,
        bytes_in=received,
        fresh=fresh,
        flags=flags,
        context=context,
    )


def _dense(a: np.ndarray, b: np.ndarray, n_b: int) -> tuple[np.ndarray, int]:
    """Dense codes of the pairs (a, b) that occur, in the order of the pairs; b < n_b."""
    if not len(a):
        return np.empty(0, np.int64), 1
    low = int(a.min())
    pair = (a.astype(np.int64) - low) * n_b + b
    if (int(a.max()) - low + 1) * n_b > 8 * len(a) + (1 << 20):
        unique, codes = np.unique(pair, return_inverse=True)
        return codes, len(unique)
    used = np.zeros((int(a.max()) - low + 1) * n_b, np.bool_)
    used[pair] = True
    rank = np.cumsum(used) - 1
    return rank[pair], int(rank[-1]) + 1


@_jit
def _pieces(rows, first, width):  # type: ignore[no-untyped-def]
    """Row and window number from `first` on of every (flow, window it touches)."""
    total = 0
    for flow in rows:
        total += 1 + _beyond(flow, width)
    row, window = np.empty(total, np.int64), np.empty(total, np.int64)
    at = 0
    for i in range(len(rows)):
        begin = rows[i].start_us // width - first
        for step in range(1 + _beyond(rows[i], width)):
            row[at], window[at] = i, begin + step
            at += 1
    return row, window


@_jit
def _beyond(flow, width):  # type: ignore[no-untyped-def]
    """How many windows after its first one a flow touches; ending on a border does not touch the next."""
    if np.isnan(flow.duration) or flow.duration == 0.0:
        return 0
    end = flow.start_us + np.int64(flow.duration * 1e6)
    return max((end - 1) // width - flow.start_us // width, 0)


@_jit
def _keys(rows, row, window, moment, channel, n_windows, dns):  # type: ignore[no-untyped-def]
    """The pieces of all flows but DNS look-ups, and the key (channel, window) of each."""
    key = np.empty(len(row), np.int64)
    to = 0
    for i in range(len(row)):
        if not rows[row[i]].flags & dns:
            row[to], window[to], moment[to] = row[i], window[i], moment[i]
            key[to] = channel[row[i]] * n_windows + window[i]
            to += 1
    return row[:to], window[:to], moment[:to], key[:to]


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
            if i == offsets[g] or start[i] > reach + SESSION_GAP_SECONDS + _TICK:
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
            if start[i] - previous >= BEAT_GAP_SECONDS - _TICK:
                beat[k] = start[i]
                k += 1
            previous = start[i]
        beat_offsets[g + 1] = k
    return beat_offsets, beat[:k].copy()
