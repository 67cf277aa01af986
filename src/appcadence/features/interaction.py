"""Lag to the user: was anyone using the app, or the device, when each session began?"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features._parallel import fill
from appcadence.features.columns import micros
from appcadence.features.feature import Family, Feature, Matrix
from appcadence.features.windows import Windows

GRACE_SECONDS = 30.0
"""A session this soon after use still belongs to it: Apple's grace after backgrounding."""
IDLE_SECONDS = 3600.0
_OPEN = np.iinfo(np.int64).max // 4
_jit = numba.njit(cache=True, nogil=True)

FEATURES = (
    Feature(
        "median_seconds_since_foreground",
        "s",
        1,
        "median time from the app's last foreground to each session start; 0 while in front",
        "median time since the app was in front",
    ),
    Feature(
        "median_seconds_since_unlock",
        "s",
        1,
        "median time from the device's last use to each session start; 0 while unlocked",
        "median time since the device was unlocked",
    ),
    Feature(
        "background_share",
        "ratio",
        1,
        "share of session starts more than 30 s after the app was in front",
        "share of sessions without the app in front",
    ),
    Feature(
        "userless_share",
        "ratio",
        1,
        "share of session starts more than 30 s after the device was unlocked",
        "share of sessions while the device was locked",
    ),
    Feature(
        "idle_hour_share",
        "ratio",
        1,
        "share of session starts more than an hour after the last unlock",
        "share of sessions after an hour without the user",
    ),
    Feature(
        "userless_excess_ratio",
        "ratio",
        1,
        "userless_share less the share of the observed time in which the device was locked",
        "sessions while locked beyond chance",
    ),
)


def compute(windows: Windows) -> Matrix:
    """(n, 6) lags; NaN where the device has no activity telemetry or no session began in the window."""
    activity = windows.tables.get("activity")
    if activity is None or not len(activity):
        return np.full((windows.n, len(FEATURES)), np.nan)
    device = windows.codes(activity["device_id"], windows.devices)
    app = windows.codes(activity["app_id"], windows.apps)
    kind = activity["kind"].cast(pa.string())
    start, end = micros(activity["start"]), micros(pc.fill_null(activity["end"].cast(pa.int64()), _OPEN))
    unlocked = pc.is_in(kind, pa.array(["device_unlocked", "screen_on"])).to_numpy() & (device >= 0)
    foreground = pc.equal(kind, "app_foreground").to_numpy() & (device >= 0)
    use = _merged(device[unlocked], start[unlocked], end[unlocked], len(windows.devices))
    keep = foreground & (app >= 0)
    width = max(len(windows.apps), 1)
    key = device[keep] * width + app[keep]
    front = _merged(key, start[keep], end[keep], len(windows.devices) * width)
    has_front = np.zeros(len(windows.devices), np.bool_)
    has_front[device[foreground]] = True
    s = windows.sessions
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        s.offsets,
        s.start,
        s.fresh,
        windows.start_us,
        windows.device,
        windows.app,
        width,
        has_front,
        *use,
        *front,
        windows.observed_seconds,
        windows.seconds,
    )


def _merged(key: np.ndarray, start: np.ndarray, end: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """CSR of disjoint intervals by key."""
    order = np.lexsort((end, start, key))
    return tuple(_merge(key[order], start[order], np.maximum(end, start)[order], n))


@_jit
def _merge(key, start, end, n):  # type: ignore[no-untyped-def]
    offsets = np.zeros(n + 1, np.int64)
    first, last = start.copy(), end.copy()
    k = 0
    for i in range(len(key)):
        if i and key[i] == key[i - 1] and start[i] <= last[k - 1]:
            last[k - 1] = max(last[k - 1], end[i])
        else:
            first[k], last[k] = start[i], end[i]
            k += 1
            offsets[key[i] + 1] += 1
    for g in range(n):
        offsets[g + 1] += offsets[g]
    return offsets, first[:k].copy(), last[:k].copy()


@_jit
def _since(first, last, lo, hi, t):  # type: ignore[no-untyped-def]
    """Seconds from the end of the latest interval that began at or before t; NaN if there is none."""
    i = lo + np.searchsorted(first[lo:hi], t, side="right") - 1
    if i < lo:
        return np.nan
    return max(t - last[i], 0) * 1e-6


@_jit
def _overlap(first, last, lo, hi, begin, stop):  # type: ignore[no-untyped-def]
    total = 0
    i = max(lo, lo + np.searchsorted(first[lo:hi], begin, side="right") - 1)
    while i < hi and first[i] < stop:
        total += max(min(last[i], stop) - max(first[i], begin), 0)
        i += 1
    return total * 1e-6


@_jit
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    offsets,
    session_offsets,
    session_start,
    fresh,
    window_us,
    device,
    app,
    width,
    has_front,
    use_offsets,
    use_first,
    use_last,
    front_offsets,
    front_first,
    front_last,
    observed,
    seconds,
):
    for g in range(lo, hi):
        a, b = session_offsets[g], session_offsets[g + 1]
        starts = session_start[a:b][fresh[a:b]]
        n = len(starts)
        if n == 0:
            continue
        d = device[g]
        u0, u1 = use_offsets[d], use_offsets[d + 1]
        lag = np.empty(n)
        if u1 > u0:
            userless, idle = 0, 0
            for i in range(n):
                t = window_us[g] + np.int64(np.rint(starts[i] * 1e6))
                wait = _since(use_first, use_last, u0, u1, t)
                # Before the first use on record the device was locked for at least that long.
                lag[i] = IDLE_SECONDS if np.isnan(wait) else wait
                userless += lag[i] > GRACE_SECONDS
                idle += lag[i] > IDLE_SECONDS
            out[g, 1] = np.median(lag)
            out[g, 3] = userless / n
            out[g, 4] = idle / n
            used = _overlap(use_first, use_last, u0, u1, window_us[g], window_us[g] + np.int64(seconds * 1e6))
            out[g, 5] = userless / n - (1.0 - min(used / observed[g], 1.0))
        if app[g] >= 0 and has_front[d]:
            f0, f1 = front_offsets[d * width + app[g]], front_offsets[d * width + app[g] + 1]
            background = 0
            for i in range(n):
                t = window_us[g] + np.int64(np.rint(starts[i] * 1e6))
                wait = _since(front_first, front_last, f0, f1, t)
                lag[i] = seconds if np.isnan(wait) else min(wait, seconds)
                background += lag[i] > GRACE_SECONDS
            out[g, 0] = np.median(lag)
            out[g, 2] = background / n


FAMILY = Family("interaction", ("activity",), FEATURES, compute)
