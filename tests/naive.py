"""Slow, obvious twins of windows and kernels, in plain Python, written from the feature declarations."""

from __future__ import annotations

import cmath
import math
import statistics
from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

from naive_names import dest_of, local

NAN = math.nan
TICK = 5e-7  # half a microsecond: times are whole ones, floats of seconds are not
HOUR = 3600.0


class Flow(NamedTuple):
    """One flow in one window; seconds since the window's start, NaN = unknown."""

    start: float
    end: float
    out: float
    inn: float
    failed: bool
    ports: tuple[int, int]
    fresh: bool


class Window(NamedTuple):
    seconds: float
    observed: float
    flows: list[Flow]

    @property
    def sessions(self):
        return sessions(self.flows)

    @property
    def session_starts(self):
        """Of the sessions that began in this window."""
        return [start for start, _, fresh in self.sessions if fresh]

    @property
    def beats(self):
        return beats([f.start for f in self.flows if f.fresh])


def known(value):
    return NAN if value is None or not 0 <= value < math.inf else float(value)


def windows(rows, seconds):
    """{(device, app, dest, start_us): Window} of `hostile.Row`s, `*` windows included."""
    width = seconds * 1_000_000
    found, spans = defaultdict(list), defaultdict(list)
    for row in rows:
        duration = min(known(row.duration), 30 * 86400.0) if not math.isnan(known(row.duration)) else NAN
        end_us = row.us if math.isnan(duration) else row.us + int(duration * 1e6)
        for index in range(row.us // width, max((end_us - 1) // width, row.us // width) + 1):
            start = (row.us - index * width) * 1e-6
            flow = _piece(row, start, duration, float(seconds))
            spans[row.device, index * width].append((flow.start, flow.end))
            if row.service != "dns":
                dest = dest_of(row.host, row.ip, row.app)
                found[row.device, row.app, dest, index * width].append(flow)
    channels = {key: stitched(flows) for key, flows in found.items()}
    apps = defaultdict(list)
    for (device, app, dest, start), flows in channels.items():
        if app is not None and not local(dest) and dest != "*":
            apps[device, app, "*", start] += flows
    both = channels | {key: in_order(flows, ports=False) for key, flows in apps.items()}
    seen = {key: observed(spans[key[0], key[3]], seconds) for key in both}
    return {key: Window(float(seconds), seen[key], flows) for key, flows in both.items()}


def _piece(row, start, duration, seconds):
    """The part of a flow in a window that it starts `start` seconds into; bytes by the share of time."""
    begin, end = max(start, 0.0), start + duration
    share = (min(end, seconds) - begin) / duration if start < 0 or end > seconds else 1.0
    stop = NAN if math.isnan(end) else min(end, seconds)
    out, inn = known(row.out) * share, known(row.inn) * share
    ports = tuple(-1 if port is None else port for port in (row.port, row.own))
    return Flow(begin, stop, out, inn, row.outcome == "failed", ports, start >= 0)


def in_order(flows, ports=True):
    def last(x):
        return (math.isnan(x), 0.0 if math.isnan(x) else x)

    return sorted(
        flows,
        key=lambda f: (
            f.start,
            f.fresh,  # one that goes on over the border comes first
            last(f.end),
            last(f.out),
            last(f.inn),
            f.failed,
            ports and f.ports,
        ),
    )


def stitched(flows):
    """A flow that starts within 1 s of the end of an earlier, longer than 30 s, on its ports goes on with it.

    An unknown port of the device may be any. Of several the one that started last (kernel: of the last 64).
    """
    joined = []
    for flow in in_order(flows):
        for j in reversed(range(len(joined))):
            old = joined[j]
            if (
                not flow.failed
                and not old.failed
                and old.ports[0] == flow.ports[0]
                and (old.ports[1] == flow.ports[1] or -1 in (old.ports[1], flow.ports[1]))
                and old.end - old.start >= 30.0 - TICK
                and abs(flow.start - old.end) <= 1.0 + TICK
            ):
                end = old.end if math.isnan(flow.end) else max(old.end, flow.end)
                joined[j] = old._replace(end=end, out=old.out + flow.out, inn=old.inn + flow.inn)
                break
        else:
            joined.append(flow)
    return joined


def observed(spans, seconds):
    """Seconds under a flow, or under a silence of at most four hours, edges included; at least a minute."""
    points = [(0.0, 0.0), *((a, a if math.isnan(b) else b) for a, b in spans), (seconds, seconds)]
    silent = reach = 0.0
    for start, end in sorted(points):
        if start - reach > 4 * HOUR:
            silent += start - reach
        reach = max(reach, end)
    return max(seconds - silent, 60.0)


def sessions(flows):
    """[(start, end, fresh)]: runs in which each flow starts at most 30 s after the latest end so far."""
    out = []
    for flow in flows:
        stop = flow.start if math.isnan(flow.end) else flow.end
        if out and flow.start <= out[-1][1] + 30.0 + TICK:
            start, end, fresh = out[-1]
            out[-1] = (start, max(end, stop), fresh and flow.fresh)
        else:
            out.append((flow.start, stop, flow.fresh))
    return out


def beats(starts):
    """Flow starts, those less than 2 s after the one before merged into it."""
    return [b for a, b in pairwise([-math.inf, *starts]) if b - a >= 2.0 - TICK]


# Cadence ------------------------------------------------------------------------------------------------

LEVEL = (
    "interval_entropy_ratio",
    "ratio_share_1_05",
    "ratio_share_1_3",
    "resultant_strength",
    "mode_share",
    "median_interval_seconds",
    "interval_mad_ratio",
    "cadence_score",
)


def gaps_of(times):
    """A gap below a second counts as one."""
    return [max(b - a, 1.0) for a, b in pairwise(times)]


def interval(window):
    """{feature: value} of the interval family, and whether the two levels' scores are too near to call."""
    out, levels = {}, []
    for prefix, times in (("session", window.session_starts), ("beat", window.beats)):
        values = gap_features(gaps_of(times)) if len(times) >= 6 else [NAN] * 8
        out |= {f"{prefix}_{name}": value for name, value in zip(LEVEL, values, strict=True)}
        if len(times) >= 6:
            levels.append((values[7], times, values[4]))
    out |= dict.fromkeys(("dominant_period_seconds", "jitter_ratio", "missed_beat_share"), NAN)
    out["part_cadence_score"] = NAN
    if levels:
        # Session starts, the first, if both are equal.
        out |= rhythm(gaps_of(max(levels, key=lambda level: level[2])[1]))
        score, times, _ = max(levels, key=lambda level: level[0])
        if len(times) >= 12:
            half = len(times) // 2
            parts = (times[:half], times[half // 2 : half // 2 + half], times[-half:])
            out["part_cadence_score"] = max(score, *(cadence(gaps_of(part)) for part in parts))
    unclear = len(levels) == 2 and levels[0][1] != levels[1][1] and abs(levels[0][0] - levels[1][0]) < 1e-9
    hours, times = window.observed / HOUR, window.beats
    out["beats_per_hour"] = len(times) / hours
    out["hour_coverage_ratio"] = min(len({round(t * 1e6) // 3_600_000_000 for t in times}) / max(hours, 1), 1)
    inside = times[-1] - times[0] if times else 0.0
    silences = [b - a for a, b in pairwise(times)]
    out["longest_silence_ratio"] = min(max(window.observed - inside, *silences, 0) / window.observed, 1)
    return out, unclear


def gap_features(gaps):
    n = len(gaps)
    median = statistics.median(gaps)
    bins = [0] * 13
    for gap in gaps:
        place = (math.log2(gap / median) + 3) / 6 * 13
        bins[min(max(math.floor(place), 0), 12)] += 1
    entropy = -sum(b / n * math.log(b / n) for b in bins if b) / math.log(13)
    # Shrunk: two more pairs that are not alike.
    alike = [sum(max(p) <= limit * min(p) for p in pairwise(gaps)) / (n - 1 + 2) for limit in (1.05, 1.3)]
    first, twice, thrice = band(gaps)
    share = (len(first) + len(twice) / 2 + len(thrice) / 3) / n
    mad = statistics.median(abs(g - median) for g in gaps)
    return [entropy, *alike, resultant(gaps), share, median, mad / median, cadence(gaps)]


def resultant(gaps):
    """Best phase coherence over 24 frequencies, less a renewal process's; of 128 quantiles if many."""
    n, median = len(gaps), statistics.median(gaps)
    quarter = sorted(gaps)[(n - 1) // 4]
    used = quantiles(gaps)
    mean = min(statistics.fmean(used), 4 * median)
    slow, fast = 1 / (1.4 * median), 1 / (0.6 * quarter)
    best = -math.inf
    for k in range(24):
        frequency = slow + k * (fast - slow) / 23
        length = abs(sum(cmath.exp(2j * math.pi * g * frequency) for g in used)) / len(used)
        chance = 1 / math.sqrt(1 + (2 * math.pi * mean * frequency) ** 2)
        best = max(best, (length - chance) / (1 - chance))
    return best * math.sqrt(len(used) / (len(used) + 8))


def quantiles(gaps):
    """128 evenly spread quantiles of many gaps; fewer stand for themselves."""
    n = len(gaps)
    return gaps if n <= 128 else [sorted(gaps)[(2 * i + 1) * n // 256] for i in range(128)]


def band(gaps):
    """The gaps in the densest ±25% band (the lowest of equals), those at twice and at thrice its middle."""
    gaps = sorted(gaps)
    bands = [[g for g in gaps if low <= g <= low * (1.25 / 0.75)] for low in gaps]
    first = max(bands, key=len)
    period = first[len(first) // 2]
    beyond = [g for g in gaps if g > first[-1]]
    return first, *([g for g in beyond if (m - 0.25) * period <= g <= (m + 0.25) * period] for m in (2, 3))


def rhythm(gaps):
    first, twice, thrice = band(gaps)
    period, last = first[len(first) // 2], len(first) - 1
    missed = len(twice) + 2 * len(thrice)
    return {
        "dominant_period_seconds": period,
        "jitter_ratio": (first[int(0.95 * last + 1e-9)] - first[int(0.05 * last + 1e-9)]) / period,
        "missed_beat_share": missed / (len(first) + len(twice) + len(thrice) + missed),
    }


def cadence(gaps):
    """Largest log-likelihood ratio of a beacon against chance over all periods that are gaps, / (n + 20).

    A gap in two bands counts for the lower; a period with more gaps at a multiple than at itself, or fewer
    than a tenth of them at itself, is none. Quantiles stand for many gaps.
    """
    logs = [math.log(g) for g in quantiles(gaps)]
    n, mean = len(logs), statistics.fmean(logs)
    spread = max(math.sqrt(statistics.fmean((x - mean) ** 2 for x in logs)), 1.0)
    chance = [-0.5 * ((x - mean) / spread) ** 2 - math.log(spread * math.sqrt(2 * math.pi)) for x in logs]
    best = 0.0
    for width in (0.18, 0.6):
        for period in logs:
            edges = [period + math.log(m) - 1e-9 for m in (1, 2, 3)]
            place = [next((m for m in range(3) if edges[m] <= x <= edges[m] + width), None) for x in logs]
            counts = [place.count(m) for m in range(3)]
            if counts[0] < max(counts) or counts[0] * 10 < n:
                continue
            ratio = 0.0
            for m, c in zip(place, chance, strict=True):
                if m is None:
                    ratio += math.log(place.count(None) / n)
                else:
                    ratio += math.log(counts[m] / n) - math.log(width) - c
            best = max(best, ratio)
    return best * len(gaps) / n / (len(gaps) + 20)


# Session, size, companion -------------------------------------------------------------------------------


def session(window):
    flows, parts = window.flows, window.sessions
    hours = window.observed / HOUR
    lengths = [end - start for start, end, _ in parts]
    sized = [(f.out, f.inn) for f in flows if not math.isnan(f.out + f.inn)]
    sent, volume = sum(a for a, _ in sized), sum(a + b for a, b in sized)
    out = {
        "sessions_per_hour": len(parts) / hours,
        "bytes_per_hour": volume / hours if sized else NAN,
        "upload_ratio": sent / volume if volume else NAN,
        "failed_ratio": statistics.fmean(f.failed for f in flows),
    }
    timed = [f for f in flows if not math.isnan(f.end)]
    names = ("longest_session_seconds", "connected_ratio", "median_session_seconds", "longest_flow_seconds")
    names += ("covered_ratio", "parallel_flows", "longest_chain_seconds", "seconds_per_kilobyte")
    if not timed:
        return out | dict.fromkeys(names, NAN)
    covered = reach = 0.0
    for f in timed:
        covered += max(f.end - max(f.start, reach), 0.0)
        reach = max(reach, f.end)
    values = (
        max(lengths),
        min(sum(lengths) / window.observed, 1.0),
        statistics.median(lengths),
        max(f.end - f.start for f in timed),
        min(covered / window.observed, 1.0),
        sum(f.end - f.start for f in timed) / covered if covered else NAN,
        chain(parts),
        sum(lengths) / (1 + volume / 1000) if sized else NAN,
    )
    return out | dict(zip(names, values, strict=True))


def chain(parts):
    longest, since = 0.0, parts[0][0]
    for before, now in pairwise([parts[0], *parts]):
        if now is not before and now[0] - before[1] >= min(now[1] - now[0], before[1] - before[0]):
            since = now[0]
        longest = max(longest, now[1] - since)
    return longest


def size(window):
    """Continued flows have no size of their own; below four known sizes nothing is known."""
    flows = [f for f in window.flows if f.fresh]
    out = {"out_size_autocorrelation": NAN, "exchange_symmetry": NAN}
    for prefix in ("out", "in"):
        values = [v for v in ((f.out if prefix == "out" else f.inn) for f in flows) if not math.isnan(v)]
        names = [f"{prefix}_size_{name}" for name in ("median_bytes", "mad_ratio", "mode_share")]
        out |= dict.fromkeys(names, NAN)
        if len(values) < 4:
            continue
        median = statistics.median(values)
        mad = statistics.median(abs(v - median) for v in values)
        densest = max(sum(low <= v <= low * 1.05 for v in values) for low in values)
        shares = [median, min(mad / max(median, 1.0), 10.0), densest / (len(values) + 2)]
        out |= dict(zip(names, shares, strict=True))
        if prefix == "out":
            out["out_size_autocorrelation"] = autocorrelation([math.log(1 + v) for v in values[:256]])
    pairs = [(f.out, f.inn) for f in flows if not math.isnan(f.out + f.inn) and max(f.out, f.inn) > 0]
    if len(pairs) >= 4:
        out["exchange_symmetry"] = statistics.fmean(min(p) / max(p) for p in pairs)
    return out


def autocorrelation(values):
    mean = statistics.fmean(values)
    variance = sum((v - mean) ** 2 for v in values)
    if variance <= 1e-9 * len(values):
        return 1.0  # all alike
    return sum((a - mean) * (b - mean) for a, b in pairwise(values)) / variance


def companion(key, found):
    """Of the window `key` of all `found`. An app as a whole is company where it names no destination."""
    device, app, dest, start = key
    mine = found[key].session_starts
    if len(mine) < 3:
        return dict.fromkeys(("companion_share", "companion_excess", "alone_share"), NAN)
    channels = {(key[0], key[1], key[3]) for key in found if key[2] != "*"}
    others = [
        t
        for (at, by, to, begin), window in found.items()
        if (at, begin) == (device, start) and (to != "*" or (at, by, begin) not in channels)
        if (by != app if dest == "*" else (by, to) != (app, dest))
        for t in window.session_starts
    ]
    together = share_near(mine, others, 10.0)
    chance = [
        share_near([(t + sign * 60.0 * minutes) % found[key].seconds for t in mine], others, 10.0)
        for minutes in (4, 7, 11)
        for sign in (1, -1)
    ]
    return {
        "companion_share": together,
        "companion_excess": together - statistics.fmean(chance),
        "alone_share": 1 - share_near(mine, others, 60.0),
    }


def share_near(starts, others, reach):
    return sum(any(abs(o - s) <= reach + TICK for o in others) for s in starts) / len(starts)
