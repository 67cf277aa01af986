"""The cadence score: a beacon's likelihood against chance, at both levels and in parts of the time."""

from __future__ import annotations

import math

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import MAX_SKETCH, MIN_STARTS, kernel, sketch, sort
from appcadence.features._parallel import fill
from appcadence.features.feature import Feature
from appcadence.features.windows import Windows

_MIN_PART = 12
_WIDTHS = (0.18, 0.6)  # of a beacon's log-gaps: sleep jitter up to 20% and up to 80%
_LOG_2, _LOG_3 = math.log(2.0), math.log(3.0)  # a gap of two or three periods is one or two missed beats
_MIN_SHARE = 10  # of the gaps, one in so many lies in the first band: fewer make no rhythm
_MIN_SPREAD = 1.0  # of log-gaps by chance, so that a narrow rhythm is not its own explanation
_PRIOR_GAPS = 20.0  # gaps without evidence that every sequence is given, so that few gaps score low


def _score(name: str, what: str, phrase: str) -> Feature:
    meaning = (
        f"{what}: log-likelihood ratio of a beacon (jitter to 20% or 80%, missed beats) against chance, in "
        f"nats, / (number of gaps + {_PRIOR_GAPS:.0f}); 0 = chance, about 2.6 = clockwork"
    )
    return Feature(name, "nats", 1, meaning, phrase, "generalised likelihood ratio")


FEATURES = (
    _score(
        "session_cadence_score", "gaps between session starts", "evidence for a beacon in the session starts"
    ),
    _score("beat_cadence_score", "gaps between connections", "evidence for a beacon in the connections"),
    _score(
        "part_cadence_score",
        "largest of all and of the first, middle and last half of at least 12 starts, at the level with the "
        "larger score, so that a beacon that begins at noon is not diluted by the morning",
        "evidence for a beacon in a part of the time",
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 3); NaN below six starts, the last below twelve."""
    if not wanted.any():
        return np.full((windows.n, len(FEATURES)), np.nan, np.float32)
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        *windows.starts,
        *windows.beats,
        int(np.diff(windows.beats[0]).max(initial=0)),
        wanted,
    )


@kernel
def _cadence(ordered, total, scratch, own):  # type: ignore[no-untyped-def]
    """Cadence score of sorted gaps (seconds, at least 1): how much a beacon beats chance.

    Chance: the lognormal with the gaps' own log-mean and log-spread, but a spread of at least 1. Beacon of
    period P and width w: log-gaps uniform on [log mP, log mP + w] for m = 1, 2, 3, each m with its observed
    share and none above the first's, all other gaps as by chance. The score is the largest log-likelihood
    ratio over all P that are gaps, with a tenth of the gaps in the first band, and both widths, in nats,
    / (gaps + 20). It does not see the order of the gaps, nor tell jitter below 20% apart. `ordered` stands
    for `total` gaps; `own` holds c log c for every c up to their number.
    """
    n = len(ordered)
    logs, surprise = scratch[0], scratch[1]
    mean = square = 0.0
    for i in range(n):
        logs[i] = math.log(ordered[i])
        mean += logs[i] / n
    for i in range(n):
        square += (logs[i] - mean) ** 2 / n
    spread = max(math.sqrt(square), _MIN_SPREAD)
    constant = math.log(spread * math.sqrt(2.0 * math.pi))
    surprise[0] = 0.0  # by chance, cumulative over the sorted gaps
    for i in range(n):
        surprise[i + 1] = surprise[i] + 0.5 * ((logs[i] - mean) / spread) ** 2 + constant
    best, all_gaps = 0.0, math.log(n)
    for width in _WIDTHS:
        cost = all_gaps + math.log(width)
        low1 = high1 = low2 = high2 = low3 = high3 = 0
        for i in range(n):
            edge = logs[i] - 1e-9
            while low1 < n and logs[low1] < edge:
                low1 += 1
            while high1 < n and logs[high1] <= edge + width:
                high1 += 1
            once = high1 - low1
            if once * _MIN_SHARE < n:
                continue
            edge += _LOG_2
            while low2 < n and logs[low2] < edge:
                low2 += 1
            while high2 < n and logs[high2] <= edge + width:
                high2 += 1
            begin2 = max(low2, high1)
            end2 = max(high2, begin2)
            edge += _LOG_3 - _LOG_2
            while low3 < n and logs[low3] < edge:
                low3 += 1
            while high3 < n and logs[high3] <= edge + width:
                high3 += 1
            begin3 = max(low3, end2)
            end3 = max(high3, begin3)
            twice, thrice = end2 - begin2, end3 - begin3
            if twice > once or thrice > once:
                continue  # P is a fraction of the period
            beats = once + twice + thrice
            evidence = own[once] + own[twice] + own[thrice] - beats * cost
            evidence += surprise[high1] - surprise[low1] + surprise[end2] - surprise[begin2]
            evidence += surprise[end3] - surprise[begin3]
            best = max(best, evidence + own[n - beats] - (n - beats) * all_gaps)
    return best * total / n / (total + _PRIOR_GAPS)


@kernel
def level_score(times, ordered, scratch, own):  # type: ignore[no-untyped-def]
    """Cadence score of the gaps between sorted starts."""
    n = len(times) - 1
    for i in range(n):
        ordered[i] = max(times[i + 1] - times[i], 1.0)
    sort(ordered[:n])
    return _cadence(sketch(ordered[:n], scratch[2]), n, scratch, own)


@kernel
def _kernel(lo, hi, out, offsets, start_offsets, starts, beat_offsets, beats, most, wanted):  # type: ignore[no-untyped-def]
    ordered = np.empty(most)
    scratch, own = np.empty((3, MAX_SKETCH + 1)), np.zeros(MAX_SKETCH + 1)
    for c in range(1, MAX_SKETCH + 1):
        own[c] = c * math.log(c)
    for g in range(lo, hi):
        times = beats[beat_offsets[g] : beat_offsets[g + 1]]
        if len(times) < MIN_STARTS:
            continue
        mine = starts[start_offsets[g] : start_offsets[g + 1]]
        best = 0.0
        if wanted[1] or wanted[2] or len(mine) == len(times):
            best = level_score(times, ordered, scratch, own)
        out[g, 1] = best
        # Sessions that begin in the window begin with a beat: as many of both are the same starts.
        if len(mine) == len(times):
            out[g, 0] = best
        elif len(mine) >= MIN_STARTS and (wanted[0] or wanted[2]):
            score = level_score(mine, ordered, scratch, own)
            out[g, 0] = score
            if score >= best:
                best, times = score, mine
        if wanted[2] and len(times) >= _MIN_PART:
            half = len(times) // 2
            for first in (0, half // 2, len(times) - half):
                best = max(best, level_score(times[first : first + half], ordered, scratch, own))
            out[g, 2] = best
