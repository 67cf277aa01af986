"""The flows of each window in time order, the pieces of one connection joined."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import HALF_MICROSECOND, kernel, sort_rows

STITCH_GAP_SECONDS = 1.0
"""A flow that starts this close to the end of one on the same ports continues it: an exporter cut it."""
STITCH_MIN_SECONDS = 30.0
"""The shortest active timeout of an exporter: shorter flows were not cut by one."""
_OPEN = 64  # long open flows of a channel among which the continued one is looked for


def arrange(
    offsets: np.ndarray, rows: np.ndarray, row: np.ndarray, window: np.ndarray, seconds: int, failed: int
) -> tuple[np.ndarray, ...]:
    """CSR of the channels' flows, a row each: start, fresh, end, bytes by the share of time inside, flags,
    ports of destination and device; of each window the highest port and the best attribution.

    `rows` are `FLOW` records; pieces name their row and their window; `failed` is that bit of their flags.
    A flow that an exporter cut is one flow again.
    """
    new_offsets, flows, top, best = _arrange(offsets, rows, row, window, seconds, failed)
    return new_offsets, flows[: new_offsets[-1]], top, best


@kernel
def columns_of(flows, rows, offsets):  # type: ignore[no-untyped-def]
    """Rows of such a matrix as columns: start, fresh, end, bytes out and in, flags.

    The last `offsets[-1]` of the rows are put in order inside each group of that CSR.
    """
    n = len(rows)
    sorted_from = n - offsets[-1]
    pooled = np.empty((offsets[-1], flows.shape[1]))
    for i in range(len(pooled)):
        for k in range(flows.shape[1]):
            pooled[i, k] = flows[rows[sorted_from + i], k]
    for g in range(len(offsets) - 1):
        sort_rows(pooled[offsets[g] : offsets[g + 1]])
    start, end, sent, received = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    fresh, flags = np.empty(n, np.bool_), np.empty(n, np.uint8)
    for i in range(n):
        flow = flows[rows[i]] if i < sorted_from else pooled[i - sorted_from]
        start[i], fresh[i], end[i] = flow[0], flow[1] > 0.0, flow[2]
        sent[i], received[i], flags[i] = flow[3], flow[4], np.uint8(flow[5])
    return start, fresh, end, sent, received, flags


@kernel
def _arrange(offsets, rows, row, window, seconds, failed):  # type: ignore[no-untyped-def]
    """A row a flow: start, fresh, end, bytes out and in, flags, ports of destination and device.

    In this order of the columns a flow that goes on over the border comes before one that starts on it: the
    session goes on. The order is total, so that the row order of the input never shows.
    """
    n = len(offsets) - 1
    flows = np.empty((len(row), 8))
    top, best = np.empty(n, np.int32), np.empty(n, np.uint8)
    open_flows = np.empty(_OPEN, np.int64)
    new_offsets = np.zeros(n + 1, np.int64)
    for g in range(n):
        to = at = new_offsets[g]
        top[g], best[g] = -1, 255
        for i in range(offsets[g], offsets[g + 1]):
            flow, piece = rows[row[i]], flows[at]
            start = (flow.start_us - window[i] * seconds * 1_000_000) * 1e-6
            end = start + flow.duration
            begin = max(start, 0.0)
            stop = end if np.isnan(end) else min(end, float(seconds))
            whole = np.isnan(end) or (start >= 0 and end <= seconds)
            share = 1.0 if whole else (stop - begin) / flow.duration
            piece[0], piece[1], piece[2] = begin, start >= 0, stop
            piece[3], piece[4] = flow.sent * share, flow.received * share
            piece[5], piece[6], piece[7] = flow.flags, flow.port, flow.device_port
            top[g], best[g] = max(top[g], flow.port), min(best[g], flow.attribution)
            at += 1
        sort_rows(flows[to:at])
        new_offsets[g + 1] = _stitch(flows, to, at, failed, open_flows)
    return new_offsets, flows, top, best


@kernel
def _stitch(flows, lo, hi, failed, open_flows):  # type: ignore[no-untyped-def]
    """Join flows that go on with an earlier one; returns the end of what is left.

    Another port of the device is another connection; where either is unknown, they may be one.
    """
    to, count = lo, 0
    for i in range(lo, hi):
        flow, joined = flows[i], False
        if not np.int64(flow[5]) & failed:
            kept = 0
            for k in range(count):
                if flows[open_flows[k], 2] + STITCH_GAP_SECONDS + HALF_MICROSECOND >= flow[0]:
                    open_flows[kept] = open_flows[k]
                    kept += 1
            count = kept
            for k in range(count - 1, -1, -1):
                last = flows[open_flows[k]]
                near = abs(flow[0] - last[2]) <= STITCH_GAP_SECONDS + HALF_MICROSECOND
                same = last[6] == flow[6] and (last[7] == flow[7] or min(last[7], flow[7]) < 0)
                if near and same and last[2] - last[0] >= STITCH_MIN_SECONDS - HALF_MICROSECOND:
                    if not np.isnan(flow[2]):
                        last[2] = max(last[2], flow[2])
                    last[3] += flow[3]
                    last[4] += flow[4]
                    joined = True
                    break
        if not joined:
            for k in range(flows.shape[1]):
                flows[to, k] = flow[k]
            if not np.int64(flow[5]) & failed and flow[2] - flow[0] >= STITCH_MIN_SECONDS - HALF_MICROSECOND:
                if count == _OPEN:
                    for k in range(1, count):
                        open_flows[k - 1] = open_flows[k]
                    count -= 1
                open_flows[count] = to
                count += 1
            to += 1
    return to
