"""Cadence: regularity of the gaps between session starts and between beats (METHODS: ratio regularity,
relative log-entropy, interval resultant, interval mode share)."""

from __future__ import annotations

import math

import numba
import numpy as np

from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature, Matrix
from appcadence.features.windows import Windows

MIN_STARTS = 6
"""Fewer starts than this mask a level: six gaps of anything look like a rhythm."""
_BINS = 13  # odd, so that the median is the centre of a bin
_MAX_GAPS = 256  # gaps the resultant looks at; more cost time and change nothing
_PERIODS = 24
_PER_LEVEL = 9

_jit = numba.njit(cache=True, nogil=True)


def _level(prefix: str, what: str) -> tuple[Feature, ...]:
    def make(name: str, unit: str, direction: int, meaning: str, phrase: str, source: str = "") -> Feature:
        return Feature(f"{prefix}_{name}", unit, direction, meaning, phrase, source)

    gaps = f"gaps between {what}"
    return (
        make(
            "interval_entropy_ratio",
            "ratio",
            -1,
            f"entropy of log2({gaps} / their median) in {_BINS} bins over ±3, / ln {_BINS}; 0 = one gap",
            f"entropy of the {gaps} (0 = clockwork, 1 = no pattern)",
            "relative log-bins",
        ),
        make(
            "ratio_share_1_05",
            "ratio",
            1,
            f"share of successive {gaps} within a factor of 1.05, shrunk for few gaps",
            f"share of successive {gaps} equal within 5%",
            "Slips' ratio test",
        ),
        make(
            "ratio_share_1_3",
            "ratio",
            1,
            "the same within a factor of 1.3",
            f"share of successive {gaps} equal within 30%",
        ),
        make(
            "ratio_share_5",
            "ratio",
            1,
            "the same within a factor of 5",
            f"share of successive {gaps} within a factor of five",
        ),
        make(
            "resultant_strength",
            "ratio",
            1,
            f"best phase coherence of the {gaps} over trial periods, less that of a renewal process",
            f"strength of one period in the {gaps}",
            "Rayleigh statistic on intervals",
        ),
        make(
            "dominant_period_seconds",
            "s",
            0,
            "the trial period of the best phase coherence",
            f"dominant period of {what}",
        ),
        make(
            "mode_share",
            "ratio",
            1,
            f"share of {gaps} in the densest ±25% band, part credit at two and three times it",
            f"share of {gaps} around one value",
        ),
        make("median_interval_seconds", "s", 0, f"median of the {gaps}", f"median of the {gaps}"),
        make(
            "interval_mad_ratio",
            "ratio",
            -1,
            f"median absolute deviation / median of the {gaps}",
            f"relative spread of the {gaps}",
        ),
    )


FEATURES = (
    *_level("session", "session starts"),
    *_level("beat", "connections"),
    Feature("beats_per_hour", "1/h", 0, "beats per observed hour", "connections an hour"),
    Feature(
        "hour_coverage_ratio",
        "ratio",
        1,
        "share of the observed hours (at least one) with a start",
        "share of hours with traffic",
    ),
    Feature(
        "longest_silence_ratio",
        "ratio",
        -1,
        "longest stretch between starts, or all observed time outside of them, / observed time",
        "longest silent stretch",
    ),
)


def compute(windows: Windows) -> Matrix:
    """(n, 21) cadence features; a level with fewer than six starts is NaN."""
    sessions = windows.sessions
    beat_offsets, beats = windows.beats
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        sessions.offsets,
        sessions.start,
        sessions.fresh,
        beat_offsets,
        beats,
        windows.observed_seconds,
    )


@_jit
def _mode(gaps):  # type: ignore[no-untyped-def]
    """Credit of the densest band [P(1-.25), P(1+.25)] of sorted gaps, and its centre."""
    n = len(gaps)
    best, at, hi = 0, 0, 0
    for lo in range(n):
        hi = max(hi, lo)
        while hi < n and gaps[hi] <= gaps[lo] * (1.25 / 0.75):
            hi += 1
        if hi - lo > best:
            best, at = hi - lo, lo
    period = gaps[at + best // 2]
    credit = float(best)
    for multiple, weight in ((2.0, 0.5), (3.0, 1.0 / 3.0)):
        lo = max(np.searchsorted(gaps, (multiple - 0.25) * period), at + best)
        top = np.searchsorted(gaps, (multiple + 0.25) * period, side="right")
        credit += weight * max(top - lo, 0)
    return credit / n


@_jit
def _resultant(gaps, quarter, median):  # type: ignore[no-untyped-def]
    n = len(gaps)
    step = max(1, n // _MAX_GAPS)
    total, used = 0.0, 0
    for i in range(0, n, step):
        total += gaps[i]
        used += 1
    mean = min(total / used, 4.0 * median)
    lowest, highest = 1.0 / (1.4 * median), 1.0 / (0.6 * quarter)
    step_frequency = (highest - lowest) / (_PERIODS - 1)
    real, imaginary = np.zeros(_PERIODS), np.zeros(_PERIODS)
    for i in range(0, n, step):
        # Evenly spaced frequencies turn the phase by a constant angle: two angles a gap instead of 24.
        angle, turn = 2.0 * math.pi * gaps[i] * lowest, 2.0 * math.pi * gaps[i] * step_frequency
        x, y, c, s = math.cos(angle), math.sin(angle), math.cos(turn), math.sin(turn)
        for k in range(_PERIODS):
            real[k] += x
            imaginary[k] += y
            x, y = x * c - y * s, x * s + y * c
    best, period = -np.inf, median
    for k in range(_PERIODS):
        frequency = lowest + k * step_frequency
        length = math.sqrt(real[k] ** 2 + imaginary[k] ** 2) / used
        chance = 1.0 / math.sqrt(1.0 + (2.0 * math.pi * mean * frequency) ** 2)
        strength = (length - chance) / (1.0 - chance) * math.sqrt(used / (used + 8.0))
        if strength > best:
            best, period = strength, 1.0 / frequency
    return best, period


@_jit
def _gap_features(times, out):  # type: ignore[no-untyped-def]
    n = len(times) - 1
    gaps = np.empty(n)
    for i in range(n):
        gaps[i] = max(times[i + 1] - times[i], 1.0)
    within = np.zeros(3)
    for i in range(1, n):
        ratio = max(gaps[i], gaps[i - 1]) / min(gaps[i], gaps[i - 1])
        within[0] += ratio <= 1.05
        within[1] += ratio <= 1.3
        within[2] += ratio <= 5.0
    for k in range(3):
        out[1 + k] = within[k] / (n - 1 + 2)
    ordered = np.sort(gaps)
    median = 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])
    counts = np.zeros(_BINS)
    deviation = np.empty(n)
    for i in range(n):
        place = min(max(math.log2(gaps[i] / median), -2.999999), 2.999999)
        counts[int((place + 3.0) / 6.0 * _BINS)] += 1
        deviation[i] = abs(gaps[i] - median)
    entropy = 0.0
    for count in counts:
        if count > 0:
            entropy -= count / n * math.log(count / n)
    out[0] = entropy / math.log(_BINS)
    strength, period = _resultant(gaps, ordered[(n - 1) // 4], median)
    out[4], out[5] = strength, period
    out[6] = _mode(ordered)
    out[7] = median
    deviation.sort()
    out[8] = 0.5 * (deviation[(n - 1) // 2] + deviation[n // 2]) / median


@_jit
def _kernel(  # type: ignore[no-untyped-def]
    lo, hi, out, offsets, session_offsets, session_start, session_fresh, beat_offsets, beats, observed
):
    for g in range(lo, hi):
        a, b = session_offsets[g], session_offsets[g + 1]
        times = session_start[a:b][session_fresh[a:b]]
        if len(times) >= MIN_STARTS:
            _gap_features(times, out[g, :_PER_LEVEL])
        times = beats[beat_offsets[g] : beat_offsets[g + 1]]
        if len(times) >= MIN_STARTS:
            _gap_features(times, out[g, _PER_LEVEL : 2 * _PER_LEVEL])
        hours = observed[g] / 3600.0
        seen, last_hour, silence = 0, -1, 0.0
        previous = times[0] if len(times) else 0.0
        for t in times:
            hour = int(t // 3600.0)
            seen += hour != last_hour
            last_hour = hour
            silence = max(silence, t - previous)
            previous = t
        out[g, 18] = len(times) / hours
        out[g, 19] = min(seen / max(hours, 1.0), 1.0)
        # Against the observed time, so that half a day of telemetry is not half a day of silence.
        outside = observed[g] - (previous - times[0]) if len(times) else observed[g]
        out[g, 20] = min(max(silence, outside) / observed[g], 1.0)


FAMILY = Family("interval", ("flows",), FEATURES, compute)
