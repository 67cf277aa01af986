"""Lag to the push: do sessions follow this app's pushes more often than chance would have it?"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features._parallel import fill
from appcadence.features.columns import micros
from appcadence.features.feature import Family, Feature, Matrix
from appcadence.features.windows import Windows

WAKE_SECONDS = 30.0
"""Apple's limit for the work a background push may start."""
_SHIFTS_SECONDS = np.array([-1500.0, -900.0, -420.0, 420.0, 900.0, 1500.0])
_MIN_PUSHES = 3
_jit = numba.njit(cache=True, nogil=True)

FEATURES = (
    Feature("pushes_per_hour", "1/h", 0, "pushes of this app per observed hour", "pushes an hour"),
    Feature(
        "silent_pushes_per_hour",
        "1/h",
        1,
        "silent pushes (content-available or priority 5) per observed hour; Apple asks for at most 2-3",
        "silent pushes an hour",
        "Apple: Pushing background updates to your app",
    ),
    Feature(
        "push_answered_share",
        "ratio",
        0,
        "share of pushes followed by a session start within 30 s plus the push log's grid",
        "share of pushes followed by traffic",
    ),
    Feature(
        "push_coupling_excess",
        "ratio",
        1,
        "push_answered_share less the mean of the same with the pushes shifted by 7 to 25 minutes",
        "traffic after pushes beyond chance",
    ),
    Feature(
        "push_session_share",
        "ratio",
        1,
        "share of session starts within 30 s plus the grid after a push",
        "share of sessions started by pushes",
    ),
    Feature(
        "bytes_out_per_push",
        "bytes",
        1,
        "bytes sent by flows that start within the wake time of a push / pushes",
        "bytes sent per push",
    ),
)


def compute(windows: Windows) -> Matrix:
    """(n, 6); NaN where the device has no push telemetry; couplings NaN below three pushes."""
    pushes = windows.tables.get("notifications")
    if pushes is None or not len(pushes):
        return np.full((windows.n, len(FEATURES)), np.nan)
    device = windows.codes(pushes["device_id"], windows.devices)
    app = windows.codes(pushes["app_id"], windows.apps)
    received = pc.equal(pushes["kind"].cast(pa.string()), "push_received").to_numpy() & (device >= 0)
    told = np.zeros(len(windows.devices), np.bool_)
    told[device[received]] = True
    grid = np.zeros(len(windows.devices))
    np.maximum.at(grid, device[received], pushes["time_resolution_seconds"].to_numpy()[received])
    keep = received & (app >= 0)
    width = max(len(windows.apps), 1)
    key = device[keep] * width + app[keep]
    when = micros(pushes["time"])[keep]
    silent = pc.fill_null(pushes["content_available"], False).to_numpy() | (
        pc.fill_null(pushes["priority"], 0).to_numpy() == 5
    )
    order = np.lexsort((silent[keep], when, key))
    offsets = np.searchsorted(key[order], np.arange(len(windows.devices) * width + 1))
    s = windows.sessions
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        windows.flow_start,
        windows.bytes_out,
        windows.fresh,
        s.offsets,
        s.start,
        s.fresh,
        windows.start_us,
        windows.device,
        windows.app,
        width,
        told,
        grid,
        offsets,
        when[order],
        silent[keep][order],
        windows.observed_seconds,
        windows.seconds,
    )


@_jit
def _answered(push, starts, shift, reach):  # type: ignore[no-untyped-def]
    count = 0
    for t in push:
        i = np.searchsorted(starts, t + shift)
        count += i < len(starts) and starts[i] <= t + shift + reach
    return count / len(push)


@_jit
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    offsets,
    flow_start,
    sent,
    flow_fresh,
    session_offsets,
    session_start,
    session_fresh,
    window_us,
    device,
    app,
    width,
    told,
    grid,
    push_offsets,
    push_us,
    silent,
    observed,
    seconds,
):
    for g in range(lo, hi):
        d = device[g]
        if app[g] < 0 or not told[d]:
            continue
        p0, p1 = push_offsets[d * width + app[g]], push_offsets[d * width + app[g] + 1]
        first = p0 + np.searchsorted(push_us[p0:p1], window_us[g])
        last = p0 + np.searchsorted(push_us[p0:p1], window_us[g] + np.int64(seconds * 1e6))
        hours = observed[g] / 3600.0
        n = last - first
        out[g, 0] = n / hours
        out[g, 1] = silent[first:last].sum() / hours
        a, b = session_offsets[g], session_offsets[g + 1]
        starts = session_start[a:b][session_fresh[a:b]]
        if n < _MIN_PUSHES or len(starts) == 0:
            continue
        push = (push_us[first:last] - window_us[g]) * 1e-6
        reach = WAKE_SECONDS + grid[d]
        share = _answered(push, starts, 0.0, reach)
        chance = 0.0
        for shift in _SHIFTS_SECONDS:
            chance += _answered(push, starts, shift, reach) / len(_SHIFTS_SECONDS)
        out[g, 2] = share
        out[g, 3] = share - chance
        woken = 0
        for t in starts:
            i = np.searchsorted(push, t, side="right") - 1
            woken += i >= 0 and t - push[i] <= reach
        out[g, 4] = woken / len(starts)
        total, sized = 0.0, False
        for i in range(offsets[g], offsets[g + 1]):
            j = np.searchsorted(push, flow_start[i], side="right") - 1
            if flow_fresh[i] and not np.isnan(sent[i]):
                sized = True
                if j >= 0 and flow_start[i] - push[j] <= reach:
                    total += sent[i]
        if sized:
            out[g, 5] = total / n


FAMILY = Family("notification", ("notifications",), FEATURES, compute)
