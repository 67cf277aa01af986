"""How much of a window the telemetry covers, so that counts can be judged as rates."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import kernel
from appcadence.features.context import Spans
from appcadence.features.grouping import group

COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""


def observed(
    rows: np.ndarray, row: np.ndarray, window: np.ndarray, width: int, spans: Spans, nameless: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code of the (device, window) of every piece of a flow, and how much of each the telemetry covers.

    Seconds under a flow, or under a silence of at most four hours, the edges of the window included. Where a
    log says when it would have recorded any flow, its own flows, which have no destination, speak for no
    silence: those spans count instead.

    Args:
        rows: `FLOW` records.
        row: pieces name their row, and their `window` (n,) from 0, of `width` microseconds.
        spans: by device, on the rows' clock.
        nameless: code of what is no destination.
    """
    if not len(row):
        return np.empty(0, np.int64), np.empty(0)
    low, high, span = int(rows["device"].min()), int(rows["device"].max()), int(window.max()) + 1
    order, offsets = group(_keys(rows, row, window, low, span), (high - low + 1) * span)
    device_interval = np.empty(len(row), np.int64)
    lo, hi = spans.of(np.arange(low, high + 1))
    most = int(np.diff(offsets).max(initial=0) + (hi - lo).max(initial=0))
    covered = _cover(
        order,
        offsets,
        device_interval,
        rows,
        row,
        window,
        width,
        low,
        *(lo, hi, spans.first, spans.last),
        nameless,
        most,
    )
    return device_interval, covered


@kernel
def _keys(rows, row, window, low, span):  # type: ignore[no-untyped-def]
    key = np.empty(len(row), np.int64)
    for i in range(len(row)):
        key[i] = (rows[row[i]].device - low) * span + window[i]
    return key


@kernel
def _cover(  # type: ignore[no-untyped-def]
    order,
    offsets,
    device_interval,
    rows,
    row,
    window,
    width,
    low,
    span_lo,
    span_hi,
    span_first,
    span_last,
    nameless,
    most,
):
    n = len(offsets) - 1
    seconds = width * 1e-6
    covered = np.empty(n)
    begin, end, bridges = np.empty(most), np.empty(most), np.empty(most, np.bool_)
    for g in range(n):
        count = offsets[g + 1] - offsets[g]
        device, at = rows[row[order[offsets[g]]]].device - low, window[order[offsets[g]]] * width
        said = span_hi[device] > span_lo[device]
        ascending = True
        for k in range(count):
            i = order[offsets[g] + k]
            device_interval[i] = g
            flow = rows[row[i]]
            start = (flow.start_us - at) * 1e-6
            begin[k] = max(start, 0.0)
            end[k] = begin[k] if np.isnan(flow.duration) else min(start + flow.duration, seconds)
            bridges[k] = not said or flow.dest != nameless or flow.app < 0
            ascending &= k == 0 or begin[k] >= begin[k - 1]
        for s in range(span_lo[device], span_hi[device]):
            if span_first[s] < at + width and span_last[s] > at:
                begin[count] = max((span_first[s] - at) * 1e-6, 0.0)
                end[count], bridges[count] = min((span_last[s] - at) * 1e-6, seconds), False
                count, ascending = count + 1, False
        if not ascending:
            by_time = np.argsort(begin[:count], kind="mergesort")
            begin[:count], end[:count] = begin[:count][by_time], end[:count][by_time]
            bridges[:count] = bridges[:count][by_time]
        reach, heard, total, told = 0.0, 0.0, 0.0, False
        k = 0
        while k < count:
            lo, hi, heard_until = begin[k], end[k], -1.0
            # Of flows that start together only the longest counts, so that their order shows in no bit.
            while k < count and begin[k] == lo:
                hi = max(hi, end[k])
                if bridges[k]:
                    heard_until, told = max(heard_until, end[k]), True
                k += 1
            if lo > reach:
                total += (lo - reach) * (heard_until >= 0.0 and lo - heard <= COVERAGE_GAP_SECONDS)
                reach = lo
            if hi > reach:
                total += hi - reach
                reach = hi
            heard = max(heard, heard_until)
        total += (seconds - reach) * (told and seconds - heard <= COVERAGE_GAP_SECONDS)
        # Whole microseconds: in how many pieces a silence was added up must not show in the last bit.
        covered[g] = max(np.rint(total * 1e6) * 1e-6, 60.0)
    return covered
