"""Regularity of payload sizes in each direction: uniform requests and answers are a beacon's."""

from __future__ import annotations

import numba
import numpy as np

from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature, Matrix
from appcadence.features.windows import Windows

_MIN_FLOWS = 4

_jit = numba.njit(cache=True, nogil=True)


def _direction(prefix: str, what: str) -> tuple[Feature, ...]:
    return (
        Feature(
            f"{prefix}_size_median_bytes",
            "bytes",
            0,
            f"median bytes {what} per flow",
            f"bytes {what} per connection",
        ),
        Feature(
            f"{prefix}_size_mad_ratio",
            "ratio",
            -1,
            f"median absolute deviation / median of the bytes {what}",
            f"relative spread of the bytes {what}",
        ),
        Feature(
            f"{prefix}_size_mode_share",
            "ratio",
            1,
            f"share of flows whose bytes {what} lie in the densest 5% band",
            f"share of connections with the same bytes {what}",
        ),
    )


FEATURES = (*_direction("out", "sent"), *_direction("in", "received"))


def compute(windows: Windows) -> Matrix:
    """(n, 6) size features; NaN below four flows of known size."""
    return fill(_kernel, windows.offsets, len(FEATURES), windows.bytes_out, windows.bytes_in, windows.fresh)


@_jit
def _sizes(values, out):  # type: ignore[no-untyped-def]
    values = values[~np.isnan(values)]
    n = len(values)
    if n < _MIN_FLOWS:
        return
    values.sort()
    median = 0.5 * (values[(n - 1) // 2] + values[n // 2])
    out[0] = median
    deviation = np.sort(np.abs(values - median))
    out[1] = min(0.5 * (deviation[(n - 1) // 2] + deviation[n // 2]) / max(median, 1.0), 10.0)
    best, hi = 0, 0
    for lo in range(n):
        while hi < n and values[hi] <= values[lo] * 1.05:
            hi += 1
        best = max(best, hi - lo)
    out[2] = best / (n + 2.0)


@_jit
def _kernel(lo, hi, out, offsets, sent, received, fresh):  # type: ignore[no-untyped-def]
    for g in range(lo, hi):
        a, b = offsets[g], offsets[g + 1]
        _sizes(sent[a:b][fresh[a:b]], out[g, :3])
        _sizes(received[a:b][fresh[a:b]], out[g, 3:])


FAMILY = Family("size", ("flows",), FEATURES, compute)
