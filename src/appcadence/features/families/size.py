"""Regularity of payload sizes in each direction: uniform requests and answers are a beacon's."""

from __future__ import annotations

import math

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import kernel, median, median_deviation, sort
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.windows import Windows

_MIN_FLOWS = 4
_MAX_PAIRS = 256


def _direction(prefix: str, what: str) -> tuple[Feature, ...]:
    return (
        Feature(
            f"{prefix}_size_median_bytes",
            f"median bytes {what} per flow",
            f"bytes {what} per connection",
            unit="bytes",
            direction=0,
        ),
        Feature(
            f"{prefix}_size_mad_ratio",
            f"median absolute deviation / median of the bytes {what}, at most 10",
            f"relative spread of the bytes {what}",
            direction=-1,
        ),
        Feature(
            f"{prefix}_size_mode_share",
            f"share of flows whose bytes {what} lie in the densest 5% band, shrunk for few flows",
            f"share of connections with the same bytes {what}",
        ),
    )


FEATURES = (
    *_direction("out", "sent"),
    *_direction("in", "received"),
    Feature(
        "out_size_autocorrelation",
        "correlation of log(1 + bytes sent) with that of the flow before, first 256 flows",
        "correlation of each connection's bytes sent with the one before",
        direction=0,
    ),
    Feature(
        "exchange_symmetry",
        "mean over flows of the smaller / the larger of bytes sent and received",
        "likeness of bytes sent and received",
        source="ATT&CK AN1681: payload symmetry",
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 8) size features; NaN below four flows of known size. Continued flows have no size of their own."""
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        windows.bytes_out,
        windows.bytes_in,
        windows.fresh,
        int(np.diff(windows.offsets).max(initial=0)),
        wanted,
    )


@kernel
def _sizes(values, out, wanted):  # type: ignore[no-untyped-def]
    """Fill median, MAD ratio and mode share; sorts in place. The last only if wanted."""
    n = len(values)
    sort(values)
    middle = median(values)
    out[0] = middle
    out[1] = min(median_deviation(values, middle) / max(middle, 1.0), 10.0)
    if not wanted[2]:
        return
    best, hi = 0, 0
    for lo in range(n):
        while hi < n and values[hi] <= values[lo] * 1.05:
            hi += 1
        best = max(best, hi - lo)
        if hi == n:
            break
    out[2] = best / (n + 2.0)


@kernel
def _autocorrelation(values):  # type: ignore[no-untyped-def]
    n = len(values)
    mean = 0.0
    for i in range(n):
        values[i] = math.log(1.0 + values[i])
        mean += values[i] / n
    variance, product = 0.0, 0.0
    for i in range(n):
        variance += (values[i] - mean) ** 2
        if i:
            product += (values[i] - mean) * (values[i - 1] - mean)
    return product / variance if variance > 1e-9 * n else 1.0


@kernel
def _kernel(lo, hi, out, offsets, sent, received, fresh, most, wanted):  # type: ignore[no-untyped-def]
    up, down = np.empty(most), np.empty(most)
    for g in range(lo, hi):
        n_up, n_down, exchanges, likeness = 0, 0, 0, 0.0
        for i in range(offsets[g], offsets[g + 1]):
            if not fresh[i]:
                continue
            has_up, has_down = not np.isnan(sent[i]), not np.isnan(received[i])
            if has_up:
                up[n_up] = sent[i]
                n_up += 1
            if has_down:
                down[n_down] = received[i]
                n_down += 1
            if has_up and has_down:
                larger = max(sent[i], received[i])
                if larger > 0:
                    exchanges += 1
                    likeness += min(sent[i], received[i]) / larger
        if n_down >= _MIN_FLOWS and (wanted[3] or wanted[4] or wanted[5]):
            _sizes(down[:n_down], out[g, 3:6], wanted[3:6])
        if n_up >= _MIN_FLOWS:
            few = min(n_up, _MAX_PAIRS)
            if wanted[6]:
                for i in range(few):
                    down[i] = up[i]
                out[g, 6] = _autocorrelation(down[:few])
            if wanted[0] or wanted[1] or wanted[2]:
                _sizes(up[:n_up], out[g, :3], wanted[:3])
        if exchanges >= _MIN_FLOWS:
            out[g, 7] = likeness / exchanges


FAMILY = Family("size", ("flows",), FEATURES, compute)
