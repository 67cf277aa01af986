"""How much of a window the telemetry covers, so that counts can be judged as rates."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import kernel
from appcadence.features.grouping import group

COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""


def observed(
    rows: np.ndarray, row: np.ndarray, window: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code of the (device, window) of every piece of a flow, and how much of each the device's flows cover.

    Seconds under a flow, or under a silence of at most four hours, the edges of the window included. `rows`
    are `FLOW` records; pieces name their row and their window.
    """
    if not len(row):
        return np.empty(0, np.int64), np.empty(0)
    low, high, span = int(rows["device"].min()), int(rows["device"].max()), int(window.max()) + 1
    order, offsets = group(_keys(rows, row, window, low, span), (high - low + 1) * span)
    device_interval = np.empty(len(row), np.int64)
    return device_interval, _cover(order, offsets, device_interval, rows, row, window, width)


@kernel
def _keys(rows, row, window, low, span):  # type: ignore[no-untyped-def]
    key = np.empty(len(row), np.int64)
    for i in range(len(row)):
        key[i] = (rows[row[i]].device - low) * span + window[i]
    return key


@kernel
def _cover(order, offsets, device_interval, rows, row, window, width):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    seconds = width * 1e-6
    covered = np.empty(n)
    most = 0
    for g in range(n):
        most = max(most, offsets[g + 1] - offsets[g])
    begin, end = np.empty(most), np.empty(most)
    for g in range(n):
        count = offsets[g + 1] - offsets[g]
        ascending = True
        for k in range(count):
            i = order[offsets[g] + k]
            device_interval[i] = g
            flow = rows[row[i]]
            start = (flow.start_us - window[i] * width) * 1e-6
            begin[k] = max(start, 0.0)
            end[k] = begin[k] if np.isnan(flow.duration) else min(start + flow.duration, seconds)
            ascending &= k == 0 or begin[k] >= begin[k - 1]
        if not ascending:
            by_time = np.argsort(begin[:count], kind="mergesort")
            begin[:count], end[:count] = begin[:count][by_time], end[:count][by_time]
        reach, total = 0.0, 0.0
        k = 0
        while k < count:
            lo, hi = begin[k], end[k]
            # Of flows that start together only the longest counts, so that their order shows in no bit.
            while k < count and begin[k] == lo:
                hi = max(hi, end[k])
                k += 1
            if lo > reach:
                total += (lo - reach) * (lo - reach <= COVERAGE_GAP_SECONDS)
                reach = lo
            if hi > reach:
                total += hi - reach
                reach = hi
        total += (seconds - reach) * (seconds - reach <= COVERAGE_GAP_SECONDS)
        # Whole microseconds: in how many pieces a silence was added up must not show in the last bit.
        covered[g] = max(np.rint(total * 1e6) * 1e-6, 60.0)
    return covered
