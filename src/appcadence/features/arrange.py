"""The flows of each window in time order, the pieces of one connection joined."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import HALF_MICROSECOND, kernel

STITCH_GAP_SECONDS = 1.0
"""A flow that starts this near the end of one on the same port goes on with it: an exporter cut it."""
STITCH_MIN_SECONDS = 30.0
"""The shortest active timeout of an exporter: shorter flows were not cut by one."""
_FEW = 16
_OPEN = 64  # long flows of a channel open at once among which the one that goes on is looked for


@kernel
def arrange(offsets, rows, row, window, seconds, failed):  # type: ignore[no-untyped-def]
    """CSR of the channels' flows: start, end, bytes by the share of time inside, fresh, flags; of each window
    the highest port and the best attribution.

    `rows` are `FLOW` records; pieces name their row and their window; `failed` is that bit of their flags.
    A flow that an exporter cut is one flow again.
    """
    n, total = len(offsets) - 1, len(row)
    begin, stop, out, inn = np.empty(total), np.empty(total), np.empty(total), np.empty(total)
    fresh, flag, ports = np.empty(total, np.bool_), np.empty(total, np.uint8), np.empty(total, np.int32)
    top, best = np.empty(n, np.int32), np.empty(n, np.uint8)
    open_flows = np.empty(_OPEN, np.int64)
    new_offsets = np.zeros(n + 1, np.int64)
    to = 0
    for g in range(n):
        lo, hi = offsets[g], offsets[g + 1]
        at = to
        top[g], best[g] = -1, 255
        for i in range(lo, hi):
            flow = rows[row[i]]
            start = (flow.start_us - window[i] * seconds * 1_000_000) * 1e-6
            end = start + flow.duration
            fresh[at], flag[at], ports[at] = start >= 0, flow.flags, flow.port
            begin[at] = max(start, 0.0)
            stop[at] = end if np.isnan(end) else min(end, float(seconds))
            whole = np.isnan(end) or (start >= 0 and end <= seconds)
            share = 1.0 if whole else (stop[at] - begin[at]) / flow.duration
            out[at], inn[at] = flow.sent * share, flow.received * share
            top[g], best[g] = max(top[g], flow.port), min(best[g], flow.attribution)
            at += 1
        if _disordered(to, at, begin, stop, out, inn, fresh, flag, ports):
            _sort(to, at, begin, stop, out, inn, fresh, flag, ports)
        to = _stitch(to, at, begin, stop, out, inn, fresh, flag, ports, failed, open_flows)
        new_offsets[g + 1] = to
    return (
        new_offsets,
        begin[:to].copy(),
        stop[:to].copy(),
        out[:to].copy(),
        inn[:to].copy(),
        fresh[:to].copy(),
        flag[:to].copy(),
        top,
        best,
    )


@kernel
def _stitch(lo, hi, begin, stop, out, inn, fresh, flag, ports, failed, open_flows):  # type: ignore[no-untyped-def]
    """Join flows that go on with an earlier one; returns the end of what is left."""
    to, count = lo, 0
    for i in range(lo, hi):
        joined = False
        if not flag[i] & failed:
            kept = 0
            for k in range(count):
                if stop[open_flows[k]] + STITCH_GAP_SECONDS + HALF_MICROSECOND >= begin[i]:
                    open_flows[kept] = open_flows[k]
                    kept += 1
            count = kept
            for k in range(count - 1, -1, -1):
                j = open_flows[k]
                near = abs(begin[i] - stop[j]) <= STITCH_GAP_SECONDS + HALF_MICROSECOND
                if (
                    near
                    and stop[j] - begin[j] >= STITCH_MIN_SECONDS - HALF_MICROSECOND
                    and ports[j] == ports[i]
                ):
                    if not np.isnan(stop[i]):
                        stop[j] = max(stop[j], stop[i])
                    out[j] += out[i]
                    inn[j] += inn[i]
                    joined = True
                    break
        if not joined:
            begin[to], stop[to], out[to], inn[to] = begin[i], stop[i], out[i], inn[i]
            fresh[to], flag[to], ports[to] = fresh[i], flag[i], ports[i]
            if not flag[to] & failed and stop[to] - begin[to] >= STITCH_MIN_SECONDS - HALF_MICROSECOND:
                if count == _OPEN:
                    open_flows[:-1] = open_flows[1:]
                    count -= 1
                open_flows[count] = to
                count += 1
            to += 1
    return to


@kernel
def _order(a, b):  # type: ignore[no-untyped-def]
    """-1, 0 or 1; NaN last."""
    if a < b or (np.isnan(b) and not np.isnan(a)):
        return -1
    return 1 if b < a or (np.isnan(a) and not np.isnan(b)) else 0


@kernel
def _precedes(a, b, start, end, out, inn, fresh, flag, port):  # type: ignore[no-untyped-def]
    """Total order of flows, so that the row order of the input never shows."""
    if start[a] != start[b]:
        return start[a] < start[b]
    # A flow that goes on over the border comes before one that starts on it: the session goes on.
    if fresh[a] != fresh[b]:
        return not fresh[a]
    for values in (end, out, inn):
        order = _order(values[a], values[b])
        if order:
            return order < 0
    if flag[a] != flag[b]:
        return flag[a] < flag[b]
    return port[a] < port[b]


@kernel
def _disordered(lo, hi, start, end, out, inn, fresh, flag, port):  # type: ignore[no-untyped-def]
    for i in range(lo + 1, hi):
        if start[i] <= start[i - 1] and _precedes(i, i - 1, start, end, out, inn, fresh, flag, port):
            return True
    return False


@kernel
def _sort(lo, hi, start, end, out, inn, fresh, flag, port):  # type: ignore[no-untyped-def]
    order = lo + np.argsort(start[lo:hi], kind="mergesort")
    a = 0
    while a < hi - lo:
        b = a + 1
        while b < hi - lo and start[order[b]] == start[order[a]]:
            b += 1
        if b - a > _FEW:
            tied = order[a:b]
            tied = tied[np.argsort(port[tied], kind="mergesort")]
            tied = tied[np.argsort(flag[tied], kind="mergesort")]
            for values in (inn, out, end):
                tied = tied[np.argsort(values[tied], kind="mergesort")]
            tied = tied[np.argsort(fresh[tied], kind="mergesort")]
            order[a:b] = tied
        else:
            for i in range(a + 1, b):
                j = i
                while j > a and _precedes(order[j], order[j - 1], start, end, out, inn, fresh, flag, port):
                    order[j], order[j - 1] = order[j - 1], order[j]
                    j -= 1
        a = b
    start[lo:hi] = start[order].copy()
    end[lo:hi] = end[order].copy()
    out[lo:hi] = out[order].copy()
    inn[lo:hi] = inn[order].copy()
    fresh[lo:hi] = fresh[order].copy()
    flag[lo:hi] = flag[order].copy()
    port[lo:hi] = port[order].copy()


@kernel
def sort_inside(offsets, start, end, out, inn, fresh, flag):  # type: ignore[no-untyped-def]
    port = np.zeros(len(start), np.int32)
    for g in range(len(offsets) - 1):
        if _disordered(offsets[g], offsets[g + 1], start, end, out, inn, fresh, flag, port):
            _sort(offsets[g], offsets[g + 1], start, end, out, inn, fresh, flag, port)
