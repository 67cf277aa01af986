"""How much of a window the telemetry covers, so that counts can be judged as rates."""

from __future__ import annotations

import numba
import numpy as np

from appcadence.features.flows import Rows
from appcadence.features.grouping import group

COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""

_jit = numba.njit(cache=True, nogil=True)


def observed(
    rows: Rows, duration: np.ndarray, row: np.ndarray, window: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code of the (device, window) of every piece, and how much of each the device's flows cover.

    Seconds under a flow, or under a silence of at most four hours, the edges of the window included.
    """
    if not len(row):
        return np.empty(0, np.int64), np.empty(0)
    first, last = int(window.min()), int(window.max())
    low = int(rows.device.min())
    span = last - first + 1
    order, offsets = group(
        (rows.device[row].astype(np.int64) - low) * span + (window - first),
        (int(rows.device.max()) - low + 1) * span,
    )
    moment = np.empty(len(row), np.int64)
    covered = _cover(order, offsets, moment, row, window, rows.start_us, duration, width)
    return moment, covered


@_jit
def _cover(order, offsets, moment, row, window, start_us, duration, width):  # type: ignore[no-untyped-def]
    n = len(offsets) - 1
    seconds = width * 1e-6
    observed = np.empty(n)
    begin = np.empty(len(order))
    for g in range(n):
        a, b = offsets[g], offsets[g + 1]
        ascending = True
        for k in range(a, b):
            i = order[k]
            moment[i] = g
            begin[k] = max((start_us[row[i]] - window[i] * width) * 1e-6, 0.0)
            ascending &= k == a or begin[k] >= begin[k - 1]
        by_time = order[a:b]
        if not ascending:
            by_time = by_time[np.argsort(begin[a:b], kind="mergesort")]
        reach, total = 0.0, 0.0
        for i in by_time:
            r = row[i]
            start = (start_us[r] - window[i] * width) * 1e-6
            lo = max(start, 0.0)
            hi = lo if np.isnan(duration[r]) else min(start + duration[r], seconds)
            if lo > reach:
                total += (lo - reach) * (lo - reach <= COVERAGE_GAP_SECONDS)
                reach = lo
            if hi > reach:
                total += hi - reach
                reach = hi
        total += (seconds - reach) * (seconds - reach <= COVERAGE_GAP_SECONDS)
        observed[g] = max(total, 60.0)
    return observed
