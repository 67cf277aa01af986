"""Cadence score of gaps: a beacon's likelihood against chance."""

from __future__ import annotations

import math

import numpy as np

from appcadence.features._kernels import MAX_SKETCH, kernel, sketch, sort

PRIOR_GAPS = 20.0
"""Gaps without evidence that every sequence is given, so that few gaps score low."""
_MIN_PART = 12
_WIDTHS = (0.18, 0.6)  # of a beacon's log-gaps: sleep jitter up to 20% and up to 80%
_LOG_2, _LOG_3 = math.log(2.0), math.log(3.0)  # a gap of two or three periods is one or two missed beats
_MIN_SHARE = 10  # of the gaps, one in so many lies in the first band: fewer make no rhythm
_MIN_SPREAD = 1.0  # of log-gaps by chance, so that a narrow rhythm is not its own explanation


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
    return best * total / n / (total + PRIOR_GAPS)


@kernel
def score_gaps(ordered, scratch, own):  # type: ignore[no-untyped-def]
    """Cadence score of sorted gaps."""
    return _cadence(sketch(ordered, scratch[2]), len(ordered), scratch, own)


@kernel
def level_score(times, ordered, scratch, own):  # type: ignore[no-untyped-def]
    """Cadence score of the gaps between sorted starts."""
    n = len(times) - 1
    for i in range(n):
        ordered[i] = max(times[i + 1] - times[i], 1.0)
    sort(ordered[:n])
    return score_gaps(ordered[:n], scratch, own)


@kernel
def best_part(times, whole, ordered, scratch, own):  # type: ignore[no-untyped-def]
    """The largest of a whole's score and those of its halves; NaN below twelve starts."""
    if len(times) < _MIN_PART:
        return np.nan
    best, half = whole, len(times) // 2
    for first in (0, half // 2, len(times) - half):
        best = max(best, level_score(times[first : first + half], ordered, scratch, own))
    return best


@kernel
def weights():  # type: ignore[no-untyped-def]
    """c log c of every c up to the number of gaps that are scored."""
    own = np.zeros(MAX_SKETCH + 1)
    for c in range(1, MAX_SKETCH + 1):
        own[c] = c * math.log(c)
    return own
