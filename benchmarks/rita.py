"""RITA's timing score, written from its published definition and checked against its published vectors."""

from __future__ import annotations

import numpy as np


def timing_score(intervals: np.ndarray) -> float:
    """Mean of 1 - |Bowley skewness| and (median - MAD) / median of the intervals, in [0, 1].

    Quartiles are medians of the halves without the middle; the skewness is 0 where the quartiles coincide
    with the median. Fewer than three intervals score 0.

    >>> timing_score(np.full(9, 60.0))
    1.0
    >>> round(timing_score(np.arange(98.0, 103.0)), 3)
    0.995
    >>> round(timing_score(np.array([98.0, 300.0] * 5)), 3)
    0.746
    >>> round(timing_score(np.array([1, 299, 25, 4975, 90, 2, 42, 500, 1500.0])), 3)
    0.083
    """
    x = np.sort(np.asarray(intervals, float))
    n = len(x)
    if n < 3:
        return 0.0
    low, middle, high = np.median(x[: n // 2]), np.median(x), np.median(x[(n + 1) // 2 :])
    flat = high - low <= 0 or middle in (low, high)
    skew = 0.0 if flat else (low + high - 2 * middle) / (high - low)
    mad = np.median(np.abs(x - middle))
    regular = max((middle - mad) / middle, 0.0) if middle > 0 else 0.0
    return float((1 - abs(skew) + regular) / 2)
