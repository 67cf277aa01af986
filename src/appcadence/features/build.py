"""Canonical tables, or coded flows, grouped into windows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from appcadence.features._kernels import kernel
from appcadence.features.arrange import arrange, columns_of
from appcadence.features.comparison import compare
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.context import Contexts
from appcadence.features.coverage import observed
from appcadence.features.flows import COLUMNS, DNS, FAILED, Flows, code
from appcadence.features.grouping import group
from appcadence.features.history import History
from appcadence.features.windows import MAX_DURATION_SECONDS, Windows


def build(
    tables: Mapping[str, pa.Table],
    seconds: int,
    history: History | None = None,
    span_us: tuple[int, int] | None = None,
) -> Windows:
    """Group the flows of canonical tables into windows of `seconds`, aligned to UTC.

    DNS lookups are context, not channels, and are left out. Without `history` novelty is NaN. With a span
    (microseconds since the epoch, borders of windows) there are only the windows in it.
    """
    table = tables["flows"].select(list(COLUMNS))
    flows = code([lambda: table], [lambda: table])
    around = {name: [partial(tables.__getitem__, name)] if name in tables else [] for name in CONTEXT_COLUMNS}
    contexts = Contexts.of(around, tables.get("inventory"), flows, history)
    return windows_of(flows, contexts, seconds, span_us)


def windows_of(
    flows: Flows,
    contexts: Contexts,
    seconds: int,
    span_us: tuple[int, int] | None = None,
    block: int | None = None,
) -> Windows:
    """Windows of one block's flows, or of all; with a span, those in it."""
    rows, context = flows.block(block), contexts.block(block)
    width = seconds * 1_000_000
    rows["duration"] = np.minimum(rows["duration"], MAX_DURATION_SECONDS)
    first = int(rows["start_us"].min()) // width if len(rows) else 0
    row, window = _pieces(rows, first, width)
    if span_us is not None:
        inside = (window >= span_us[0] // width - first) & (window < span_us[1] // width - first)
        row, window = row[inside], window[inside]
    rows["start_us"] -= first * width
    device_interval, covered = observed(
        rows, row, window, width, context.observed.earlier(first * width), flows.nameless
    )
    n_windows = int(window.max(initial=0)) + 1
    who, n_who = _dense(rows["device"], rows["app"] + 1, len(flows.apps) + 1)
    dest, n_dests = _dense(np.zeros(len(rows), np.int64), rows["dest"], len(flows.dests))
    row, window, device_interval, key = _keys(
        rows, row, window, device_interval, who * n_dests + dest, n_windows, DNS
    )
    order, offsets = group(key, n_who * n_dests * n_windows)
    row, window, device_interval = row[order], window[order], device_interval[order]
    flow_offsets, arranged, port, attribution = arrange(offsets, rows, row, window, seconds, FAILED)
    head = rows[row[offsets[:-1]]]
    starts, intervals = window[offsets[:-1]], device_interval[offsets[:-1]]

    # The rhythm of an app over all of its destinations is what it does beyond the local network.
    owner = who[row[offsets[:-1]]] * n_windows + starts
    nameless = (head["app"] >= 0) & (head["dest"] == flows.nameless)
    known = np.flatnonzero((head["app"] >= 0) & ~nameless & ~flows.local[head["dest"]])
    index, channels, (app_heads, app_offsets) = _app_level(known, owner, n_who * n_windows, flow_offsets)
    apps = channels[app_heads]
    app_port = np.maximum.reduceat(port[channels], app_heads) if len(apps) else port[:0]
    app_known = np.minimum.reduceat(attribution[channels], app_heads) if len(apps) else attribution[:0]
    kept, kept_flows = np.arange(len(head)), np.arange(len(arranged))
    if nameless.any():
        # Flows with a destination show the same traffic, and more of it.
        twice, count = nameless & np.isin(owner, owner[known]), np.diff(flow_offsets)
        kept = np.flatnonzero(~twice)
        kept_flows = np.flatnonzero(np.repeat(~twice, count))
        flow_offsets = np.concatenate([[0], np.cumsum(count[kept])])
    rows_of_both = np.concatenate([kept_flows, index])
    start, fresh, end, sent, received, flags = columns_of(arranged, rows_of_both, app_offsets)
    both = np.concatenate([kept, apps])
    return Windows(
        seconds=float(seconds),
        device=head["device"][both],
        app=head["app"][both],
        dest=np.concatenate([head["dest"][kept], np.full(len(apps), -1, np.int32)]),
        start_us=(starts[both] + first) * width,
        devices=flows.devices,
        apps=flows.apps,
        dests=flows.dests,
        local=flows.local,
        attribution=np.concatenate([attribution[kept], app_known]),
        port=np.concatenate([port[kept], app_port]),
        device_interval=intervals[both],
        observed_seconds=covered[intervals[both]],
        offsets=np.concatenate([flow_offsets, flow_offsets[-1] + app_offsets[1:]]),
        flow_start=start,
        flow_end=end,
        bytes_out=sent,
        bytes_in=received,
        fresh=fresh,
        flags=flags,
        context=context,
        compare=None if context.past is None else partial(compare, past=context.past),
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


@kernel
def _pieces(rows, first, width):  # type: ignore[no-untyped-def]
    """Row and window number from `first` on of every (flow, window it touches)."""
    total = 0
    for flow in rows:
        total += 1 + _later_windows(flow, width)
    row, window = np.empty(total, np.int64), np.empty(total, np.int64)
    at = 0
    for i in range(len(rows)):
        begin = rows[i].start_us // width - first
        for step in range(1 + _later_windows(rows[i], width)):
            row[at], window[at] = i, begin + step
            at += 1
    return row, window


@kernel
def _later_windows(flow, width):  # type: ignore[no-untyped-def]
    """How many windows after its first one a flow touches; ending on a border does not touch the next."""
    if np.isnan(flow.duration) or flow.duration == 0.0:
        return 0
    end = flow.start_us + np.int64(flow.duration * 1e6)
    return max((end - 1) // width - flow.start_us // width, 0)


@kernel
def _keys(rows, row, window, device_interval, channel, n_windows, dns):  # type: ignore[no-untyped-def]
    """The pieces of all flows but DNS lookups, and the key (channel, window) of each."""
    key = np.empty(len(row), np.int64)
    to = 0
    for i in range(len(row)):
        if not rows[row[i]].flags & dns:
            row[to], window[to], device_interval[to] = row[i], window[i], device_interval[i]
            key[to] = channel[row[i]] * n_windows + window[i]
            to += 1
    return row[:to], window[:to], device_interval[:to], key[:to]


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
