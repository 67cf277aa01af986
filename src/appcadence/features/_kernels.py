"""What Numba kernels share: how they are compiled and cached, searching, sorting, medians, ties of time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np

from appcadence._compiled import Cache, compiled

HALF_MICROSECOND = 5e-7
"""Times are whole microseconds, which seconds as floats are not: half of one decides ties."""
MIN_STARTS = 6
"""Fewer starts than this are no rhythm: six gaps of anything look like one."""
SLACK_US = 10_000_000
"""A session may stand 8 s before its first packet, and work in the second before it began."""
MAX_SKETCH = 128
"""Quantiles that stand for more gaps where their order does not matter."""
_FEW = 32
_BUCKETS = 256
_SHARED = hashlib.sha256(
    b"".join(
        (files("appcadence") / name).read_bytes()
        for name in ("_types.py", "features/_kernels.py", "features/_cadence.py")
    )
).hexdigest()
"""The content of the files whose functions and constants any kernel may use."""


class _Cache(Cache):
    """Numba's cache on disk, whose keys hold the content of the shared files.

    By itself it notices an edit of the file that a kernel stands in, and of no other: it would answer an edit
    of a helper with the old machine code.
    """

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _SHARED)  # type: ignore[no-untyped-call]


def kernel(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function for many threads, and keep the machine code for later processes.

    It may use NumPy, `math`, what its own file defines, and names imported from this file, `_cadence` or
    `appcadence._types`: an edit of anything else would not be noticed. `options` are Numba's.
    """
    return compiled(function, _Cache, **options)


@kernel
def bisect_left(values, lo, hi, x):  # type: ignore[no-untyped-def]
    """First place from lo on, hi at most, where the sorted values are at least x."""
    while lo < hi:
        middle = (lo + hi) >> 1
        if values[middle] < x:
            lo = middle + 1
        else:
            hi = middle
    return lo


@kernel
def bisect_right(values, lo, hi, x):  # type: ignore[no-untyped-def]
    """First place from lo on, hi at most, where the sorted values are greater than x."""
    while lo < hi:
        middle = (lo + hi) >> 1
        if values[middle] <= x:
            lo = middle + 1
        else:
            hi = middle
    return lo


@kernel
def advance(values, at, hi, x):  # type: ignore[no-untyped-def]
    """The last place before hi where the sorted values are at most x, walked to from one before it."""
    while at + 1 < hi and values[at + 1] <= x:
        at += 1
    return at


@kernel
def reached(first, last, lo, hi, t, after_us):  # type: ignore[no-untyped-def]
    """Whether t is in one of the sorted, disjoint spans, up to the slack before it or so long after."""
    at = bisect_right(first, lo, hi, t + SLACK_US) - 1
    return at >= lo and t - last[at] <= after_us


@kernel
def micros(seconds):  # type: ignore[no-untyped-def]
    """Seconds in whole microseconds."""
    return np.int64(np.rint(seconds * 1e6))


@kernel
def sort(values):  # type: ignore[no-untyped-def]
    """Sort floats that are not negative, in place: they are ordered like their bits."""
    _sort_bits(values.view(np.int64))


@kernel
def _sort_bits(values):  # type: ignore[no-untyped-def]
    """Sort whole numbers that are not negative, in place: by their leading bits, then by insertion."""
    n = len(values)
    if n > _FEW:
        low = high = values[0]
        for x in values:
            low, high = min(low, x), max(high, x)
        shift = 0
        while (high - low) >> shift >= _BUCKETS:
            shift += 1
        ends = np.zeros(_BUCKETS + 1, np.int64)
        for x in values:
            ends[((x - low) >> shift) + 1] += 1
        for bucket in range(_BUCKETS):
            ends[bucket + 1] += ends[bucket]
        for x in values.copy():
            bucket = (x - low) >> shift
            values[ends[bucket]] = x
            ends[bucket] += 1
        begin = 0
        for bucket in range(_BUCKETS if shift else 0):
            if ends[bucket] - begin > _FEW:
                _sort_bits(values[begin : ends[bucket]])
            begin = ends[bucket]
    for i in range(1, n):
        x, j = values[i], i
        while j > 0 and values[j - 1] > x:
            values[j] = values[j - 1]
            j -= 1
        values[j] = x


@kernel
def median(ordered):  # type: ignore[no-untyped-def]
    """Median of sorted values."""
    n = len(ordered)
    return 0.5 * (ordered[(n - 1) // 2] + ordered[n // 2])


@kernel
def median_deviation(ordered, centre):  # type: ignore[no-untyped-def]
    """Median absolute deviation: of sorted values it is two sorted lists, walked to the middle."""
    n = len(ordered)
    right = n // 2
    left = right - 1
    low = high = 0.0
    for _ in range(n // 2 + 1):
        low = high
        if left < 0 or (right < n and ordered[right] - centre < centre - ordered[left]):
            high = ordered[right] - centre
            right += 1
        else:
            high = centre - ordered[left]
            left -= 1
    return high if n % 2 else 0.5 * (low + high)


@kernel
def sketch(ordered, out):  # type: ignore[no-untyped-def]
    """The sorted values, or evenly spread quantiles of them where they are many."""
    n = len(ordered)
    if n <= MAX_SKETCH:
        return ordered
    for i in range(MAX_SKETCH):
        out[i] = ordered[(2 * i + 1) * n // (2 * MAX_SKETCH)]
    return out[:MAX_SKETCH]


@kernel
def alike(a, b, factor):  # type: ignore[no-untyped-def]
    """Whether two positive numbers differ by a factor at most."""
    return max(a, b) <= factor * min(a, b)


@kernel
def precedes(rows, a, b):  # type: ignore[no-untyped-def]
    """Whether row a comes before row b by the columns from the left; NaN last."""
    for k in range(rows.shape[1]):
        x, y = rows[a, k], rows[b, k]
        if x < y or (x == x and y != y):
            return True
        if y < x or (y == y and x != x):
            return False
    return False


@kernel
def sort_rows(rows):  # type: ignore[no-untyped-def]
    """Sort the rows of a matrix in place, by the columns from the left: a merge sort of their places."""
    n = len(rows)
    at = min(n, 1)  # a literal would be a signature of its own, compiled beside the other
    while at < n and not precedes(rows, at, at - 1):
        at += 1
    if at >= n:
        return
    order, other = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        order[i] = i
    width = 1
    while width < n:
        for begin in range(0, n, 2 * width):
            middle, end = min(begin + width, n), min(begin + 2 * width, n)
            i, j = begin, middle
            for k in range(begin, end):
                if i < middle and (j == end or not precedes(rows, order[j], order[i])):
                    other[k] = order[i]
                    i += 1
                else:
                    other[k] = order[j]
                    j += 1
        order, other = other, order
        width *= 2
    moved = rows.copy()
    for i in range(n):
        for k in range(rows.shape[1]):
            rows[i, k] = moved[order[i], k]
