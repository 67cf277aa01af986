"""Cadence: regularity of the gaps between session starts and between beats (METHODS: ratio regularity,
relative log-entropy, interval resultant, interval mode share)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._cadence import best_part, score_gaps, weights
from appcadence.features._kernels import (
    MAX_SKETCH,
    MIN_STARTS,
    alike,
    kernel,
    median,
    median_deviation,
    sketch,
    sort,
)
from appcadence.features._parallel import fill
from appcadence.features.families import cadence
from appcadence.features.feature import Family, Feature
from appcadence.features.windows import Windows

_BINS = 13  # odd, so that the median is the centre of a bin
_EDGES = 2.0 ** (np.arange(1, _BINS) * 6.0 / _BINS - 3.0)
_PERIODS = 24
_BAND = 1.25 / 0.75
PER_LEVEL = 7


def _level(prefix: str, what: str) -> tuple[Feature, ...]:
    def make(name: str, meaning: str, phrase: str, **more: Any) -> Feature:
        return Feature(f"{prefix}_{name}", meaning, phrase, **more)

    gaps = f"gaps between {what}"
    return (
        make(
            "interval_entropy_ratio",
            f"entropy of log2({gaps} / their median) in {_BINS} bins over ±3, / ln {_BINS}; 0 = one gap",
            f"entropy of the {gaps} (0 = clockwork, 1 = no pattern)",
            direction=-1,
            source="relative log-bins",
        ),
        make(
            "ratio_share_1_05",
            f"share of successive {gaps} within a factor of 1.05, shrunk for few gaps",
            f"share of successive {gaps} equal within 5%",
            source="Slips' ratio test",
        ),
        make(
            "ratio_share_1_3",
            f"share of successive {gaps} within a factor of 1.3, shrunk for few gaps",
            f"share of successive {gaps} equal within 30%",
        ),
        make(
            "resultant_strength",
            f"best phase coherence of the {gaps} over trial periods, less that of a renewal process",
            f"strength of one period in the {gaps}",
            source="Rayleigh statistic on intervals",
        ),
        make(
            "mode_share",
            f"share of {gaps} in the densest ±25% band, part credit at two and three times it",
            f"share of {gaps} around one value",
        ),
        make(
            "median_interval_seconds", f"median of the {gaps}", f"median of the {gaps}", unit="s", direction=0
        ),
        make(
            "interval_mad_ratio",
            f"median absolute deviation / median of the {gaps}",
            f"relative spread of the {gaps}",
            direction=-1,
        ),
    )


FEATURES = (
    *_level("session", "session starts"),
    *_level("beat", "connections"),
    Feature(
        "dominant_period_seconds",
        "middle of the densest ±25% band of gaps, at the level with the larger mode share",
        "dominant period",
        unit="s",
        direction=0,
    ),
    Feature(
        "jitter_ratio",
        "(95th - 5th percentile) / dominant period of the gaps in its ±25% band",
        "jitter around the period",
        direction=-1,
    ),
    Feature(
        "missed_beat_share",
        "beats missing at two and three times the dominant period / beats due",
        "share of missed beats",
        direction=0,
    ),
    Feature("beats_per_hour", "beats per observed hour", "connections an hour", unit="1/h", direction=0),
    Feature(
        "hour_coverage_ratio",
        "share of the observed hours (at least one) with a start",
        "share of hours with traffic",
    ),
    Feature(
        "longest_silence_ratio",
        "longest stretch between starts, or all observed time outside of them, / observed time",
        "longest silent stretch",
        direction=-1,
    ),
)


@kernel
def _mode(gaps):  # type: ignore[no-untyped-def]
    """First gap of the densest band of sorted gaps, and the numbers in it, at twice and at three times it."""
    n = len(gaps)
    best, at, hi = 0, 0, 0
    for lo in range(n):
        while hi < n and gaps[hi] <= gaps[lo] * _BAND:
            hi += 1
        if hi - lo > best:
            best, at = hi - lo, lo
        if hi == n:
            break
    period = gaps[at + best // 2]
    twice, thrice = 0, 0
    for i in range(at + best, n):
        if gaps[i] > 3.25 * period:
            break
        twice += 1.75 * period <= gaps[i] <= 2.25 * period
        thrice += gaps[i] >= 2.75 * period
    return at, best, twice, thrice


@kernel
def _phase(turns, real, imaginary):  # type: ignore[no-untyped-def]
    """cos and sin of 2 pi turns, to 1e-7: series at half the angle, in a form that a vector unit can take."""
    for i in range(len(turns)):
        # Adding and taking away 1.5 * 2**52 rounds to the nearest whole turn.
        x = math.pi * (turns[i] - ((turns[i] + 6755399441055744.0) - 6755399441055744.0))
        y = x * x
        s = x * (
            1.0
            + y
            * (
                -1 / 6
                + y * (1 / 120 + y * (-1 / 5040 + y * (1 / 362880 + y * (-1 / 39916800 + y / 6227020800))))
            )
        )
        c = 1.0 + y * (
            -1 / 2 + y * (1 / 24 + y * (-1 / 720 + y * (1 / 40320 + y * (-1 / 3628800 + y / 479001600))))
        )
        real[i], imaginary[i] = c * c - s * s, 2.0 * s * c


@partial(kernel, fastmath={"reassoc", "contract"})
def _resultant(gaps, quarter, middle, scratch):  # type: ignore[no-untyped-def]
    used = len(gaps)
    x, y, c, s = scratch[0, :used], scratch[1, :used], scratch[2, :used], scratch[3, :used]
    turns = scratch[5, :used]
    lowest, highest = 1.0 / (1.4 * middle), 1.0 / (0.6 * quarter)
    step_frequency = (highest - lowest) / (_PERIODS - 1)
    total = 0.0
    for i in range(used):
        total += gaps[i]
        turns[i] = gaps[i] * lowest
    _phase(turns, x, y)
    # Evenly spaced frequencies turn the phase by a constant angle: two angles a gap instead of 24.
    for i in range(used):
        turns[i] = gaps[i] * step_frequency
    _phase(turns, c, s)
    mean = min(total / used, 4.0 * middle)
    best = -np.inf
    for k in range(_PERIODS):
        real = imaginary = 0.0
        for i in range(used):
            real += x[i]
            imaginary += y[i]
            x[i], y[i] = x[i] * c[i] - y[i] * s[i], x[i] * s[i] + y[i] * c[i]
        frequency = lowest + k * step_frequency
        length = math.sqrt(real * real + imaginary * imaginary) / used
        chance = 1.0 / math.sqrt(1.0 + (2.0 * math.pi * mean * frequency) ** 2)
        best = max(best, (length - chance) / (1.0 - chance))
    return best * math.sqrt(used / (used + 8.0))


@kernel
def _entropy(ordered, middle):  # type: ignore[no-untyped-def]
    n = len(ordered)
    entropy, i, count = 0.0, 0, 0
    for edge in _EDGES:
        count = i
        while i < n and ordered[i] < middle * edge:
            i += 1
        count = i - count
        if count:
            entropy -= count / n * math.log(count / n)
    if i < n:
        entropy -= (n - i) / n * math.log((n - i) / n)
    return entropy / math.log(_BINS)


@kernel
def gap_features(times, gaps, ordered, scratch, out, wanted, banded):  # type: ignore[no-untyped-def]
    """Fill a level's features that are wanted; returns its mode share, period, jitter and missed-beat share,
    which are asked for where `banded`."""
    n = len(times) - 1
    close, similar = 0, 0
    for i in range(n):
        gaps[i] = ordered[i] = max(times[i + 1] - times[i], 1.0)
        if i and (wanted[1] or wanted[2]):
            close += alike(gaps[i], gaps[i - 1], 1.05)
            similar += alike(gaps[i], gaps[i - 1], 1.3)
    out[1], out[2] = close / (n + 1), similar / (n + 1)
    if not (banded or wanted[0] or wanted[3:].any()):
        return 0.0, 0.0, 0.0, 0.0
    ordered = ordered[:n]
    sort(ordered)
    middle = median(ordered)
    out[5] = middle
    if wanted[0]:
        out[0] = _entropy(ordered, middle)
    if wanted[3]:
        out[3] = _resultant(sketch(ordered, scratch[4]), ordered[(n - 1) // 4], middle, scratch)
    if wanted[6]:
        out[6] = median_deviation(ordered, middle) / middle
    if not (banded or wanted[4]):
        return 0.0, 0.0, 0.0, 0.0
    at, best, twice, thrice = _mode(ordered)
    share = (best + twice / 2.0 + thrice / 3.0) / n
    out[4] = share
    period = ordered[at + best // 2]
    jitter = (ordered[at + (19 * (best - 1)) // 20] - ordered[at + (best - 1) // 20]) / period
    missed = twice + 2.0 * thrice
    return share, period, jitter, missed / (best + 2.0 * twice + 3.0 * thrice)


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo, hi, out, offsets, start_offsets, starts, beat_offsets, beats, observed, most, wanted
):
    of_sessions, of_beats = wanted[:PER_LEVEL], wanted[PER_LEVEL : 2 * PER_LEVEL]
    both, last = 2 * PER_LEVEL, len(wanted) - 3
    scored, parts = wanted[last:].any(), wanted[last + 2]
    needed = wanted[both : both + 3].any() or parts  # of both levels, the one that shows more
    of_either = of_sessions | of_beats
    with_sessions = needed or of_sessions.any() or wanted[last]
    with_beats = needed or of_beats.any() or wanted[last + 1]
    gaps, ordered = np.empty(most), np.empty(most)
    scratch, own = np.empty((6, MAX_SKETCH + 1)), weights()
    for g in range(lo, hi):
        times = beats[beat_offsets[g] : beat_offsets[g + 1]]
        if len(times) >= MIN_STARTS:
            level = out[g, PER_LEVEL:both]
            mine = starts[start_offsets[g] : start_offsets[g + 1]]
            share = period = jitter = missed = best = 0.0
            better = times
            # Sessions that begin in the window begin with a beat: as many of both are the same starts.
            same = len(mine) == len(times)
            if same or with_beats:
                asked = of_either if same else of_beats
                share, period, jitter, missed = gap_features(
                    times, gaps, ordered, scratch, level, asked, needed or scored
                )
                if scored:
                    best = score_gaps(ordered[: len(times) - 1], scratch, own)
            out[g, last + 1] = best
            if same:
                for k in range(PER_LEVEL):
                    out[g, k] = level[k]
                out[g, last] = best
            elif len(mine) >= MIN_STARTS and with_sessions:
                other = gap_features(
                    mine, gaps, ordered, scratch, out[g, :PER_LEVEL], of_sessions, needed or scored
                )
                if other[0] >= share:
                    share, period, jitter, missed = other
                if scored:
                    score = score_gaps(ordered[: len(mine) - 1], scratch, own)
                    out[g, last] = score
                    if score >= best:
                        best, better = score, mine
            if parts:
                out[g, last + 2] = best_part(better, best, ordered, scratch, own)
            out[g, both], out[g, both + 1], out[g, both + 2] = period, jitter, missed
        hours = observed[g] / 3600.0
        seen, last_hour, silence = 0, -1, 0.0
        previous = times[0] if len(times) else 0.0
        for t in times:
            hour = int(t // 3600.0)
            seen += hour != last_hour
            last_hour = hour
            silence = max(silence, t - previous)
            previous = t
        out[g, both + 3] = len(times) / hours
        out[g, both + 4] = min(seen / max(hours, 1.0), 1.0)
        # Against the observed time, so that half a day of telemetry is not half a day of silence.
        outside = observed[g] - (previous - times[0]) if len(times) else observed[g]
        out[g, both + 5] = min(max(silence, outside) / observed[g], 1.0)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 23) cadence features; a level with fewer than six starts is NaN."""
    return fill(
        _kernel,
        windows.offsets,
        len(wanted),
        *windows.starts,
        *windows.beats,
        windows.observed_seconds,
        int(np.diff(windows.beats[0]).max(initial=0)),
        wanted,
    )


FAMILY = Family("interval", ("flows",), (*FEATURES, *cadence.FEATURES), compute)
