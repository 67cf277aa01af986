"""Slow, obvious twins of the kernels, in plain Python."""

from __future__ import annotations

import cmath
import math
import statistics
from itertools import pairwise


def sessions(flows, gap=30.0):
    """[(start, end, fresh)] of time-ordered flows (start, end or nan, fresh)."""
    out = []
    for start, end, fresh in flows:
        stop = start if math.isnan(end) else end
        if out and start <= out[-1][1] + gap:
            out[-1][1] = max(out[-1][1], stop)
        else:
            out.append([start, stop, fresh])
    return [tuple(s) for s in out]


def beats(starts, gap=2.0):
    out, previous = [], -math.inf
    for start in starts:
        if start - previous >= gap:
            out.append(start)
        previous = start
    return out


def gap_features(times):
    """The nine cadence features of sorted starts."""
    gaps = [max(b - a, 1.0) for a, b in pairwise(times)]
    n = len(gaps)
    ratios = [max(a, b) / min(a, b) for a, b in pairwise(gaps)]
    median = statistics.median(gaps)
    bins = [0] * 13
    for gap in gaps:
        place = min(max(math.log2(gap / median), -2.999999), 2.999999)
        bins[int((place + 3) / 6 * 13)] += 1
    entropy = -sum(b / n * math.log(b / n) for b in bins if b) / math.log(13)
    strength, period = resultant(gaps)
    mad = statistics.median(abs(g - median) for g in gaps)
    return [
        entropy,
        *(sum(r <= limit for r in ratios) / (n - 1 + 2) for limit in (1.05, 1.3, 5.0)),
        strength,
        period,
        mode_share(gaps),
        median,
        mad / median,
    ]


def resultant(gaps):
    ordered = sorted(gaps)
    n = len(gaps)
    median = statistics.median(gaps)
    used = gaps[:: max(1, n // 256)]
    mean = min(sum(used) / len(used), 4 * median)
    slow, fast = 1 / (1.4 * median), 1 / (0.6 * ordered[(n - 1) // 4])
    best = (-math.inf, median)
    for k in range(24):
        trial = 1 / (slow + k * (fast - slow) / 23)
        length = abs(sum(cmath.exp(2j * math.pi * g / trial) for g in used)) / len(used)
        chance = 1 / math.sqrt(1 + (2 * math.pi * mean / trial) ** 2)
        value = (length - chance) / (1 - chance) * math.sqrt(len(used) / (len(used) + 8))
        best = max(best, (value, trial), key=lambda pair: pair[0])
    return best


def mode_share(gaps):
    gaps = sorted(gaps)
    best = max(((sum(low <= g <= low * (1.25 / 0.75) for g in gaps), -i) for i, low in enumerate(gaps)))
    count, at = best[0], -best[1]
    while at and gaps[at - 1] == gaps[at]:
        at -= 1
    period = gaps[at + count // 2]
    credit = float(count)
    for multiple, weight in ((2, 0.5), (3, 1 / 3)):
        beyond = [
            g
            for i, g in enumerate(gaps)
            if i >= at + count and (multiple - 0.25) * period <= g <= (multiple + 0.25) * period
        ]
        credit += weight * len(beyond)
    return credit / len(gaps)


def session_features(flows, observed):
    """The ten session features of flows (start, end, out, in, failed) in time order."""
    parts = sessions([(f[0], f[1], True) for f in flows])
    hours = observed / 3600
    sized = [(f[2], f[3]) for f in flows if not math.isnan(f[2]) and not math.isnan(f[3])]
    total_bytes = sum(a + b for a, b in sized)
    lengths = [e - s for s, e, _ in parts]
    nan = math.nan
    known = any(not math.isnan(f[1]) for f in flows)
    total = sum(lengths)
    longest_chain = since = 0.0
    for i, (start, end, _) in enumerate(parts):
        if i == 0 or start - parts[i - 1][1] >= min(lengths[i], lengths[i - 1]):
            since = start
        longest_chain = max(longest_chain, end - since)
    return [
        max(lengths) if known else nan,
        min(total / observed, 1.0) if known else nan,
        statistics.median(lengths) if known else nan,
        max(f[1] - f[0] for f in flows if not math.isnan(f[1])) if known else nan,
        longest_chain if known else nan,
        len(parts) / hours,
        total / (1 + total_bytes / 1000) if known and sized else nan,
        total_bytes / hours if sized else nan,
        sum(a for a, _ in sized) / total_bytes if total_bytes else nan,
        sum(f[4] for f in flows) / len(flows),
    ]


def size_features(values):
    """Median, relative MAD and densest 5% band of sizes, or NaN below four."""
    values = sorted(v for v in values if not math.isnan(v))
    n = len(values)
    if n < 4:
        return [math.nan] * 3
    median = statistics.median(values)
    mad = statistics.median(abs(v - median) for v in values)
    best = max(sum(low <= v <= low * 1.05 for v in values) for low in values)
    return [median, min(mad / max(median, 1.0), 10.0), best / (n + 2)]


def share_near(starts, others, reach):
    return sum(any(abs(o - s) <= reach for o in others) for s in starts) / len(starts)


def since(intervals, t):
    """Seconds from the end of the latest interval that began by t; None if there is none."""
    begun = [end for start, end in intervals if start <= t]
    return max(t - max(begun), 0) if begun else None
