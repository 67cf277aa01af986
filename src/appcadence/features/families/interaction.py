"""Lag to the user: was anyone using the app, or the device, when each session began?"""

from __future__ import annotations

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import (
    SLACK_US,
    advance,
    alike,
    bisect_right,
    kernel,
    median,
    micros,
    reached,
    sort,
)
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.windows import Windows

GRACE_SECONDS = 30.0
"""A session this soon after use still belongs to it: Apple's grace after backgrounding."""
IDLE_SECONDS = 3600.0
_MIN_GAPS = 4

FEATURES = (
    Feature(
        "median_seconds_since_foreground",
        "median time from the app's last foreground to each session start, at most the window's length",
        "median time since the app was in front",
        unit="s",
    ),
    Feature(
        "p90_seconds_since_foreground",
        "90th percentile of the time from the app's last foreground to each session start",
        "time since the app was in front, 90th percentile",
        unit="s",
    ),
    Feature(
        "median_seconds_since_unlock",
        "median time from the device's last use to each session start; an hour before any use on record",
        "median time since the device was unlocked",
        unit="s",
    ),
    Feature(
        "p90_seconds_since_unlock",
        "90th percentile of the time from the device's last use to each session start",
        "time since the device was unlocked, 90th percentile",
        unit="s",
    ),
    Feature(
        "background_share",
        "share of session starts more than 30 s after the app was in front",
        "share of sessions without the app in front",
    ),
    Feature(
        "userless_share",
        "share of session starts more than 30 s after the device was unlocked",
        "share of sessions while the device was locked",
    ),
    Feature(
        "userless_bytes_share",
        "share of the bytes whose flows start more than 30 s after the device was unlocked",
        "share of bytes while the device was locked",
    ),
    Feature(
        "idle_hour_share",
        "share of session starts more than an hour after the last unlock",
        "share of sessions after an hour without the user",
    ),
    Feature(
        "userless_excess_ratio",
        "userless_share less the share of the observed time in which the device was locked",
        "sessions while locked beyond chance",
    ),
    Feature(
        "userless_ratio_share_1_3",
        "share of successive gaps within a factor of 1.3 among sessions that start in one stretch without "
        "the user, shrunk for few gaps: the rhythm that presence does not explain",
        "share of equal gaps between sessions while the device was locked",
    ),
    Feature(
        "scheduled_start_share",
        "share of session starts within 10 s of work that iOS had scheduled for the app, background "
        "transfers among it; NaN where the device reports no such work",
        "share of sessions that iOS's scheduler explains",
        direction=0,
        source="Apple: BGTaskScheduler, URLSession background transfers",
        needs=("tasks",),
    ),
    Feature(
        "unexplained_sessions_per_hour",
        "sessions an observed hour that start more than 30 s after the device was in use, not within 10 s of "
        "work that iOS had scheduled for the app and not within 30 s (and the grid) of a push to it; NaN "
        "where the device does not report all three, 0 where the app declares a mode that keeps it awake",
        "sessions that neither the user, a push nor iOS's scheduler explains",
        unit="1/h",
        source="Apple: Pushing background updates to your app; BGTaskScheduler",
        needs=("notifications", "tasks"),
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 12) lags; NaN where the activity log is silent or no session began in the window."""
    context = windows.context
    pair = context.pair(windows.device, windows.app)
    return fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        windows.flow_start,
        windows.bytes_out,
        windows.bytes_in,
        windows.fresh,
        *windows.starts,
        windows.start_us,
        windows.use,
        context.front.of(pair),
        (windows.app >= 0) & context.fronted[windows.device] & windows.activity_logged,
        context.tasks.of(pair),
        (windows.app >= 0) & context.tasked[windows.device],
        context.pushes.of(pair),
        context.push_grid[windows.device],
        _declared_awake(windows),
        windows.observed_seconds,
        windows.seconds,
        int(np.diff(windows.starts[0]).max(initial=0)),
    )


def _declared_awake(windows: Windows) -> np.ndarray:
    """(n,) whether the app declares a background mode that lets it run at any time."""
    declared = windows.context.declarations
    if declared is None:
        return np.zeros(windows.n, np.bool_)
    continuous = np.append(declared.continuous, np.nan)
    return np.asarray(continuous[declared.of_windows(windows.device, windows.app)] == 1.0)


@kernel
def _overlap(first, last, lo, hi, begin, stop):  # type: ignore[no-untyped-def]
    total = 0
    i = max(lo, bisect_right(first, lo, hi, begin) - 1)
    while i < hi and first[i] < stop:
        total += max(min(last[i], stop) - max(first[i], begin), 0)
        i += 1
    return total * 1e-6


@kernel
def _quantiles(values):  # type: ignore[no-untyped-def]
    """Median and 90th percentile (the value at rank ceil(.9 n)); sorts in place."""
    n = len(values)
    sort(values)
    return median(values), values[(9 * n + 9) // 10 - 1]


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    offsets,
    flow_start,
    sent,
    received,
    flow_fresh,
    start_offsets,
    starts,
    window_us,
    use,
    front,
    fronted,
    tasks,
    tasked,
    pushes,
    grid,
    awake,
    observed,
    seconds,
    most,
):
    use_lo, use_hi, use_first, use_last = use
    front_lo, front_hi, front_first, front_last = front
    task_lo, task_hi, task_first, task_last = tasks
    push_lo, push_hi, push_us, _ = pushes
    lag = np.empty(most)
    for g in range(lo, hi):
        mine = starts[start_offsets[g] : start_offsets[g + 1]]
        n = len(mine)
        if n == 0:
            continue
        u0, u1 = use_lo[g], use_hi[g]
        if u1 > u0:
            stop_us = window_us[g] + np.int64(seconds * 1e6)
            begin = bisect_right(use_first, u0, u1, window_us[g]) - 1
            userless, idle, at = 0, 0, begin
            previous, gap, stretch, similar, pairs = -1.0, -1.0, -2, 0, 0
            for k in range(n):
                t = window_us[g] + micros(mine[k])
                at = advance(use_first, at, u1, t)
                # Before the first use on record the device was locked for at least that long.
                wait = max(t - use_last[at], 0) * 1e-6 if at >= u0 else IDLE_SECONDS
                lag[k] = wait
                idle += wait > IDLE_SECONDS
                if wait <= GRACE_SECONDS:
                    continue
                userless += 1
                if at == stretch:
                    now = max(mine[k] - previous, 1.0)
                    if gap > 0.0:
                        pairs += 1
                        similar += alike(now, gap, 1.3)
                    gap = now
                else:
                    gap = -1.0
                previous, stretch = mine[k], at
            out[g, 2], out[g, 3] = _quantiles(lag[:n])
            out[g, 5] = userless / n
            out[g, 7] = idle / n
            used = _overlap(use_first, use_last, u0, u1, window_us[g], stop_us)
            out[g, 8] = userless / n - (1.0 - min(used / observed[g], 1.0))
            if pairs >= _MIN_GAPS:
                out[g, 9] = similar / (pairs + 2.0)
            at, total, alone = begin, 0.0, 0.0
            for i in range(offsets[g], offsets[g + 1]):
                if not flow_fresh[i] or np.isnan(sent[i]) or np.isnan(received[i]):
                    continue
                t = window_us[g] + micros(flow_start[i])
                at = advance(use_first, at, u1, t)
                total += sent[i] + received[i]
                if at < u0 or (t - use_last[at]) * 1e-6 > GRACE_SECONDS:
                    alone += sent[i] + received[i]
            if total > 0.0:
                out[g, 6] = alone / total
        if fronted[g]:
            f0, f1 = front_lo[g], front_hi[g]
            background = 0
            at = bisect_right(front_first, f0, f1, window_us[g]) - 1
            for k in range(n):
                t = window_us[g] + micros(mine[k])
                at = advance(front_first, at, f1, t)
                wait = min(max(t - front_last[at], 0) * 1e-6, seconds) if at >= f0 else seconds
                lag[k] = wait
                background += wait > GRACE_SECONDS
            out[g, 0], out[g, 1] = _quantiles(lag[:n])
            out[g, 4] = background / n
        if tasked[g] and u1 > u0:
            t0, t1, p0, p1 = task_lo[g], task_hi[g], push_lo[g], push_hi[g]
            reach = 0 if np.isnan(grid[g]) else np.int64((GRACE_SECONDS + grid[g]) * 1e6)
            scheduled, unexplained = 0, 0
            for k in range(n):
                t = window_us[g] + micros(mine[k])
                by_ios = reached(task_first, task_last, t0, t1, t, SLACK_US)
                scheduled += by_ios
                by_user = reached(use_first, use_last, u0, u1, t, micros(GRACE_SECONDS))
                by_push = reached(push_us, push_us, p0, p1, t, reach)
                unexplained += not (by_ios or by_user or by_push or awake[g])
            out[g, 10] = scheduled / n
            if reach > 0:
                out[g, 11] = unexplained * 3600.0 / observed[g]


FAMILY = Family("interaction", ("activity",), FEATURES, compute)
