"""Bytes of an app per interval, where its flows have none: how much, which way, and without the user?

A phone's own log counts them over five minutes awake and up to 42 asleep, so nothing here tells a rhythm.
"""

from __future__ import annotations

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import bisect_right, kernel
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.windows import Windows

FEATURES = (
    Feature(
        "usage_bytes_per_hour",
        "bytes both ways of the app's intervals per observed hour, an interval by the share of it inside",
        "bytes an hour of the app",
        unit="bytes",
        direction=0,
    ),
    Feature(
        "usage_upload_ratio",
        "bytes sent / all bytes of the app's intervals",
        "share of bytes sent by the app",
    ),
    Feature(
        "usage_userless_ratio",
        "share of the bytes in intervals during which the device was not in use at any time",
        "share of the app's bytes in intervals without the user",
        needs=("activity",),
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 3); NaN for the channels of an app and where nothing was counted for the app in the window."""
    context = windows.context
    whole = np.where((windows.dest < 0) | windows.nameless, context.pair(windows.device, windows.app), -1)
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        context.usage.of(whole),
        windows.use,
        windows.start_us,
        windows.observed_seconds,
        np.int64(windows.seconds * 1e6),
    )


@kernel
def _kernel(lo, hi, out, _offsets, usage, use, window_us, observed, width_us):  # type: ignore[no-untyped-def]
    usage_lo, usage_hi, first, last, sent, received = usage
    use_lo, use_hi, use_first, use_last = use
    for g in range(lo, hi):
        begin, stop = window_us[g], window_us[g] + width_us
        up, down, alone = 0.0, 0.0, 0.0
        for i in range(usage_lo[g], usage_hi[g]):
            inside = min(last[i], stop) - max(first[i], begin)
            if first[i] >= stop or inside <= 0:
                continue
            share = inside / (last[i] - first[i])
            up += sent[i] * share
            down += received[i] * share
            at = bisect_right(use_first, use_lo[g], use_hi[g], last[i]) - 1
            if at < use_lo[g] or use_last[at] < first[i]:
                alone += (sent[i] + received[i]) * share
        if up + down > 0.0:
            out[g, 0] = (up + down) * 3600.0 / observed[g]
            out[g, 1] = up / (up + down)
            if use_hi[g] > use_lo[g]:
                out[g, 2] = alone / (up + down)


FAMILY = Family("usage", ("usage",), FEATURES, compute)
