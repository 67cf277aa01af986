"""How much of a window the telemetry covers, so that counts can be judged as rates."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import kernel, sort_rows
from appcadence.features.context import Spans
from appcadence.features.grouping import group

COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""


def observed(
    rows: np.ndarray, row: np.ndarray, window: np.ndarray, width: int, spans: Spans, nameless: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code of the (device, window) of every piece of a flow, and how much of each the telemetry covers.

    Covered are seconds with a flow, or in a silence of at most four hours, including the edges of the window.
    If a log states when it would have recorded any flow, those spans count instead of the silences between
    its own flows, which have no destination.

    Args:
        rows: `FLOW` records.
        row: pieces name their row, and their `window` (n,) from 0, of `width` microseconds.
        spans: by device, on the rows' clock.
        nameless: code that stands for an unknown destination.
    """
    if not len(row):
        return np.empty(0, np.int64), np.empty(0)
    low, high, span = int(rows["device"].min()), int(rows["device"].max()), int(window.max()) + 1
    order, offsets = group(_keys(rows, row, window, low, span), (high - low + 1) * span)
    device_interval = np.empty(len(row), np.int64)
    said = spans.of(np.arange(low, high + 1))
    most = int(np.diff(offsets).max(initial=0) + (said[1] - said[0]).max(initial=0))
    covered = _cover(order, offsets, device_interval, rows, row, window, width, low, said, nameless, most)
    return device_interval, covered


@kernel
def _keys(rows, row, window, low, span):  # type: ignore[no-untyped-def]
    key = np.empty(len(row), np.int64)
    for i in range(len(row)):
        key[i] = (rows[row[i]].device - low) * span + window[i]
    return key


@kernel
def _cover(  # type: ignore[no-untyped-def]
    order, offsets, device_interval, rows, row, window, width, low, spans, nameless, most
):
    span_lo, span_hi, span_first, span_last = spans
    n = len(offsets) - 1
    seconds = width * 1e-6
    covered = np.empty(n)
    # Of each flow and each span said: begin, end, whether it bridges a silence.
    stretches = np.empty((most, 3))
    for g in range(n):
        count = offsets[g + 1] - offsets[g]
        device, at = rows[row[order[offsets[g]]]].device - low, window[order[offsets[g]]] * width
        said = span_hi[device] > span_lo[device]
        for k in range(count):
            i = order[offsets[g] + k]
            device_interval[i] = g
            flow = rows[row[i]]
            start = (flow.start_us - at) * 1e-6
            begin = max(start, 0.0)
            stretches[k, 0] = begin
            stretches[k, 1] = begin if np.isnan(flow.duration) else min(start + flow.duration, seconds)
            stretches[k, 2] = not said or flow.dest != nameless or flow.app < 0
        for s in range(span_lo[device], span_hi[device]):
            if span_first[s] < at + width and span_last[s] > at:
                stretches[count, 0] = max((span_first[s] - at) * 1e-6, 0.0)
                stretches[count, 1], stretches[count, 2] = min((span_last[s] - at) * 1e-6, seconds), 0.0
                count += 1
        sort_rows(stretches[:count])
        reach, heard, total, told = 0.0, 0.0, 0.0, False
        k = 0
        while k < count:
            lo, hi, heard_until = stretches[k, 0], stretches[k, 1], -1.0
            # Of flows that start together only the longest counts, so that their order shows in no bit.
            while k < count and stretches[k, 0] == lo:
                hi = max(hi, stretches[k, 1])
                if stretches[k, 2] > 0.0:
                    heard_until, told = max(heard_until, stretches[k, 1]), True
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
