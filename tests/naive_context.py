"""Slow, obvious twins of the feature families that need context: use and pushes.

Plain Python over lists; times are seconds after 2026-03-02, as in `make`. If a declared meaning does not
cover a case, the twin follows the rule of its family: nothing to count = nan, below a stated minimum = nan.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from naive_names import dest_of, local, named

DAY = 86400.0
NAN = math.nan
TICK = 5e-7  # half a microsecond: times are whole ones, floats of seconds are not


class Flow(NamedTuple):
    """One flow; None = unknown."""

    start: float
    duration: float | None = 1.0
    device: str = "d1"
    app: str | None = "com.a"
    host: str | None = "a.example"
    ip: str | None = None
    port: int | None = 443
    sent: int | None = 100
    received: int | None = 200
    failed: bool = False
    service: str = "tls"

    @property
    def dest(self):
        return dest_of(self.host, self.ip, self.app)


@dataclass(frozen=True)
class Piece:
    """What of a flow lies in a window; times from the window's start."""

    start: float
    end: float | None
    fresh: bool
    sent: float | None
    received: float | None
    flow: Flow


@dataclass
class Window:
    device: str
    app: str | None
    dest: str
    begin: float
    length: float
    pieces: list[Piece]

    @property
    def key(self):
        return self.device, self.app, self.dest, self.begin

    @property
    def is_channel(self):  # of one destination, or of flows without any
        return all(piece.flow.dest == self.dest for piece in self.pieces)

    def sessions(self):
        """(start, end, began here) of the sessions."""
        groups, reach = [], -math.inf
        for piece in self.pieces:
            if piece.start > reach + 30 + TICK:
                groups.append([])
            groups[-1].append(piece)
            reach = max(reach, piece.start if piece.end is None else piece.end)
        return [
            (
                group[0].start,
                max(p.start if p.end is None else p.end for p in group),
                all(p.fresh for p in group if p.start == group[0].start),
            )
            for group in groups
        ]

    def beats(self):
        """Flow starts, those less than 2 s after the one before left out."""
        starts = [piece.start for piece in self.pieces if piece.fresh]
        return [now for before, now in pairwise([-math.inf, *starts]) if now - before >= 2 - TICK]

    def session_starts(self):
        return [start for start, _, fresh in self.sessions() if fresh]


def windows_of(flows, length=DAY):
    """Channel windows and, of known apps, app windows (dest `*`) without local destinations."""
    found = {}
    for flow in named(flows):
        if flow.service == "dns":
            continue
        end = flow.start + (flow.duration or 0.0)
        begin = flow.start // length * length
        while True:
            key = flow.device, flow.app, flow.dest, begin
            found.setdefault(key, Window(*key, length, [])).pieces.append(_cut(flow, begin, length))
            begin += length
            if begin >= end:
                break
    pooled = {}
    for window in found.values():
        window.pieces = _stitched(sorted(window.pieces, key=_place))
        if window.app is not None and not local(window.dest) and window.dest != "*":
            key = window.device, window.app, "*", window.begin
            pooled.setdefault(key, Window(*key, length, [])).pieces.extend(window.pieces)
    for window in pooled.values():
        window.pieces.sort(key=_place)
    return list((found | pooled).values())


def _cut(flow, begin, length):
    start = max(round((flow.start - begin) * 1e6) * 1e-6, 0.0)  # as floats have whole microseconds
    end = None if flow.duration is None else min(flow.start + flow.duration - begin, length)
    share = (end - start) / flow.duration if flow.duration else 1.0
    sent, received = (None if v is None else v * share for v in (flow.sent, flow.received))
    return Piece(start, end, flow.start >= begin, sent, received, flow)


def _place(piece):
    values = [piece.start, piece.end, piece.sent, piece.received]
    port = -1 if piece.flow.port is None else piece.flow.port
    return [*(math.inf if v is None else v for v in values), piece.flow.failed, port]


def _stitched(pieces):
    """A flow that starts within 1 s of the end of one of 30 s or more, on its port, goes on with it."""
    out = []
    for piece in pieces:
        for at in reversed(range(max(len(out) - 8, 0), len(out))):
            before = out[at]
            if (
                before.end is not None
                and abs(piece.start - before.end) <= 1 + TICK
                and before.end - before.start >= 30 - TICK
                and before.flow.port == piece.flow.port
                and not (before.flow.failed or piece.flow.failed)
                and piece.start > before.start
            ):
                out[at] = replace(
                    before,
                    end=before.end if piece.end is None else max(before.end, piece.end),
                    sent=_sum(before.sent, piece.sent),
                    received=_sum(before.received, piece.received),
                )
                break
        else:
            out.append(piece)
    return out


def _sum(a, b):
    return None if a is None or b is None else a + b


def since(spans, t):
    """Seconds from the end of use to t: 0 while in use, None before the first; ends may be None = open."""
    ends = [math.inf if end is None else max(start, end) for start, end in spans if start <= t]
    return max(t - max(ends), 0.0) if ends else None


def covered(spans, begin, stop):
    """Seconds of [begin, stop] under the union of the spans."""
    total, reach = 0.0, begin
    for start, end in sorted(spans, key=lambda span: span[0]):
        end = stop if end is None else min(end, stop)
        total += max(end - max(start, reach), 0.0)
        reach = max(reach, end)
    return total


def p90(values):
    """The value at rank ceil(0.9 n)."""
    return sorted(values)[-(-9 * len(values) // 10) - 1]


def share_similar(gaps):
    """(similar, pairs) of successive gaps within a factor of 1.3; a gap is at least 1 s."""
    gaps = [max(gap, 1.0) for gap in gaps]
    near = [max(a, b) <= 1.3 * min(a, b) for a, b in pairwise(gaps)]
    return sum(near), len(near)


def interaction(window, uses, fronts, observed):
    """`uses` of the device, `fronts` of the app; None = the device reports none."""
    out = {}
    starts = [window.begin + s for s in window.session_starts()]
    if not starts:
        return out
    if fronts is not None and window.app is not None:
        lags = [since(fronts, t) for t in starts]
        lags = [window.length if lag is None else min(lag, window.length) for lag in lags]
        out["median_seconds_since_foreground"] = statistics.median(lags)
        out["p90_seconds_since_foreground"] = p90(lags)
        out["background_share"] = sum(lag > 30 for lag in lags) / len(lags)
    if uses:
        lags = [since(uses, t) for t in starts]
        lags = [3600.0 if lag is None else lag for lag in lags]
        out["median_seconds_since_unlock"] = statistics.median(lags)
        out["p90_seconds_since_unlock"] = p90(lags)
        userless = sum(lag > 30 for lag in lags) / len(lags)
        out["userless_share"] = userless
        out["idle_hour_share"] = sum(lag > 3600 for lag in lags) / len(lags)
        used = covered(uses, window.begin, window.begin + window.length)
        out["userless_excess_ratio"] = userless - (1 - min(used / observed, 1))
        out["userless_bytes_share"] = userless_bytes(window, uses)
        stretches = defaultdict(list)
        for t, s, lag in zip(starts, window.session_starts(), lags, strict=True):
            if lag > 30:
                stretches[sum(start <= t for start, _ in uses)].append(s)
        counts = [share_similar([b - a for a, b in pairwise(s)]) for s in stretches.values()]
        similar, pairs = (sum(c) for c in zip(*counts, strict=True)) if counts else (0, 0)
        if pairs >= 4:
            out["userless_ratio_share_1_3"] = similar / (pairs + 2)
    return out


def userless_bytes(window, uses):
    total = alone = 0.0
    for piece in window.pieces:
        if not piece.fresh or piece.sent is None or piece.received is None:
            continue
        size = piece.sent + piece.received
        lag = since(uses, window.begin + piece.start)
        total += size
        alone += size * (lag is None or lag > 30)
    return alone / total if total else NAN


SHIFTS = (-1500, -900, -420, 420, 900, 1500)


def binomial_tail(k, n, p):
    """log10 P(X >= k)."""
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log(1 - p)
        for i in range(k, n + 1)
    ]
    top = max(logs)
    return min((top + math.log(math.fsum(math.exp(x - top) for x in logs))) / math.log(10), 0.0)


def notification(window, pushes, grid, uses, observed):
    """`pushes`: (time, silent) of the app; `grid` of the device's push log, None = it has none."""
    if grid is None or window.app is None:
        return {}
    pushes = [(t - window.begin, s) for t, s in sorted(pushes) if 0 <= t - window.begin < window.length]
    n, reach = len(pushes), 30 + grid + TICK
    seen = max(observed, pushes[-1][0] - pushes[0][0] if pushes else 0.0)
    out = {
        "pushes_per_hour": n / seen * 3600,
        "silent_pushes_per_hour": sum(s for _, s in pushes) / seen * 3600,
        "push_grid_seconds": grid,
    }
    starts = window.session_starts()
    if n < 3:
        return out
    times = [t for t, _ in pushes]

    def next_start(t):
        return min((s - t for s in starts if t <= s <= t + reach), default=None)

    def after_push(t):
        return any(p <= t <= p + reach for p in times)

    lags = [lag for lag in map(next_start, times) if lag is not None]
    shifted = [(t + shift) % window.length for shift in SHIFTS for t in times]
    by_chance = sum(next_start(t) is not None for t in shifted)
    out["push_answered_share"] = len(lags) / n
    if by_chance / len(shifted) <= 0.5:
        out["push_coupling_excess"] = len(lags) / n - by_chance / len(shifted)
        # Half an answer is added, so that the rate is never zero.
        out["push_coupling_surprise"] = -binomial_tail(len(lags), n, (by_chance + 0.5) / (len(shifted) + 1))
    if grid <= 30 and lags:
        out["median_push_lag_seconds"] = statistics.median(lags)
    if starts:
        out["push_session_share"] = sum(map(after_push, starts)) / len(starts)
    fresh = [p for p in window.pieces if p.fresh]
    woken = [p for p in fresh if after_push(p.start)]
    out["flows_per_push"] = len(woken) / n
    if not woken or any(p.sent is not None for p in woken):
        out["bytes_out_per_push"] = sum(p.sent for p in woken if p.sent is not None) / n
    if uses:
        lags = {t: since(uses, window.begin + t) for t in times}
        locked = [t for t, silent in pushes if silent and (lags[t] is None or lags[t] > 30)]
        uploads = [p for p in fresh if p.sent is not None and p.received is not None and p.sent > p.received]
        if locked:
            answered = [any(t <= p.start <= t + reach for p in uploads) for t in locked]
            out["locked_push_upload_share"] = sum(answered) / len(locked)
    return out
