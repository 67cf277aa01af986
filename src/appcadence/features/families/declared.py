"""Conflict with what the app declares and with what Apple documents for background work and pushes."""

from __future__ import annotations

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import (
    HALF_MICROSECOND,
    MIN_STARTS,
    SLACK_US,
    advance,
    alike,
    bisect_left,
    bisect_right,
    kernel,
    median,
    micros,
    reached,
    sort,
)
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.flows import FOREIGN_PUSH, PROVIDER
from appcadence.features.windows import Windows

SCHEDULER_FLOOR_SECONDS = 900.0
"""Background refresh never comes more often than about this."""
GRACE_SECONDS = 30.0
"""What may run on after the app left the front, and how long a push handler has."""
_MIN_GAPS = 4
_UNEXPECTED = 4

FEATURES = (
    Feature(
        "undeclared_background_rhythm",
        "share of successive gaps within a factor of 1.3 among background sessions that follow no push to "
        "the app within 30 s plus the grid and begin with no work that iOS had scheduled for it, shrunk for "
        "few, if the app declares no background mode and no extension that runs by itself; else 0",
        "regular background traffic of an app without a background mode",
        source="Apple: UIBackgroundModes",
        needs=("inventory", "activity"),
        uses=("notifications", "tasks"),
    ),
    Feature(
        "below_scheduler_floor_share",
        "share of the gaps under 15 minutes between background sessions that follow no push and begin with "
        "no scheduled work, shrunk for few, if the app declares neither a mode nor an extension that may "
        "stay awake; else 0",
        "background sessions closer than the scheduler allows",
        source="Apple: BGAppRefreshTask",
        needs=("inventory", "activity"),
        uses=("notifications", "tasks"),
    ),
    Feature(
        "background_work_seconds",
        "longest background session (of one that goes on, what lies in the window) beyond the 30 s a handler "
        "has, those that begin with scheduled work left out, if the app declares neither a mode nor an "
        "extension that may stay awake; else 0",
        "background work beyond 30 seconds",
        unit="s",
        source="Apple: application(_:didReceiveRemoteNotification:fetchCompletionHandler:)",
        needs=("inventory", "activity"),
        uses=("tasks",),
    ),
    Feature(
        "undeclared_push_work_share",
        "share of silent pushes followed by a session within 30 s plus the grid, if the app does not declare "
        "remote-notification; else 0",
        "work after silent pushes without the mode for it",
        source="Apple: Pushing background updates to your app",
        needs=("inventory", "notifications"),
    ),
    Feature(
        "unexpected_host_share",
        "share of flows to a destination outside the app's expected hosts; NaN where it names none",
        "traffic outside the app's expected hosts",
        needs=("inventory",),
    ),
    Feature(
        "unapproved_app",
        "1 if the inventory says that the app is not approved, 0 if it is",
        "app without approval",
        needs=("inventory",),
    ),
    Feature(
        "provider_endpoint_share",
        "share of flows to the provider side of the push service, where only servers connect",
        "connections to the push service's server side",
        source="Apple HT203609",
    ),
    Feature(
        "foreign_push_port_share",
        "share of flows to port 5223 of an address that is not Apple's, or to such an address by the name of "
        "a push server",
        "connections to a stranger as if to the push service",
        source="Apple HT203609",
    ),
    Feature(
        "expected_rhythm_ratio",
        "shortest approved period / median gap between beats; above 1 = faster than approved, NaN where the "
        "inventory names no period or there are fewer than six beats",
        "connections against the approved rhythm",
        unit="times",
        needs=("inventory",),
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 9); NaN where the inventory does not know the app, or not this of it, or nothing happened."""
    context = windows.context
    declared, pair = context.declarations, context.pair(windows.device, windows.app)
    profile = np.full(windows.n, -1) if declared is None else declared.of_windows(windows.device, windows.app)

    def field(name: str) -> np.ndarray:
        if declared is None:
            return np.full(windows.n, np.nan)
        return np.asarray(np.append(getattr(declared, name), np.nan)[profile])

    out = fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        (windows.flags & PROVIDER) != 0,
        (windows.flags & FOREIGN_PUSH) != 0,
        *windows.sessions,
        *windows.starts,
        windows.start_us,
        field("background"),
        field("continuous"),
        field("remote_notification"),
        context.fronted[windows.device] & windows.activity_logged,
        context.front.of(pair),
        context.tasks.of(pair),
        context.push_grid[windows.device],
        context.pushes.of(pair),
        windows.seconds,
        *windows.beats,
        field("period_seconds"),
    )
    if wanted[_UNEXPECTED]:
        out[:, _UNEXPECTED] = _unexpected(windows, profile)
    out[:, 5] = 1.0 - field("approved")
    return out


def _unexpected(windows: Windows, profile: np.ndarray) -> np.ndarray:
    """(n,) share of flows to unexpected hosts: of a channel all or none, of an app its channels' mean; NaN
    where the destination is not known."""
    share = np.full(windows.n, np.nan)
    declared, n = windows.context.declarations, windows.n_channels
    known = np.flatnonzero((profile[:n] >= 0) & ~windows.nameless[:n])
    if declared is None or not len(known):
        return share
    width, names = len(windows.dests) + 1, windows.dests.to_numpy()
    pairs, inverse = np.unique(profile[known] * width + windows.dest[known], return_inverse=True)
    expected = [
        declared.expects(p, d, names[d])
        for p, d in zip(*(codes.tolist() for codes in np.divmod(pairs, width)), strict=True)
    ]
    share[known] = 1.0 - np.array(expected)[inverse]
    # An app window's flows are those of its channels at the same time, but for those on the local network.
    flows = np.diff(windows.offsets)
    n_apps = max(len(windows.apps), 1)
    key = windows.device_interval.astype(np.int64) * n_apps + windows.app
    unique, code = np.unique(key[n:], return_inverse=True)
    known = known[~windows.local[windows.dest[known]]]
    at = np.searchsorted(unique, key[known])
    total = np.bincount(at, flows[known], len(unique))
    outside = np.bincount(at, flows[known] * share[known], len(unique))
    share[n:] = (outside / np.where(total > 0, total, np.nan))[code]
    return share


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    out,
    offsets,
    to_provider,
    to_stranger,
    session_offsets,
    session_start,
    session_end,
    fresh,
    start_offsets,
    starts,
    window_us,
    background,
    continuous,
    remote,
    fronted,
    front,
    tasks,
    grid,
    pushes,
    seconds,
    beat_offsets,
    beats,
    period,
):
    front_lo, front_hi, front_first, front_last = front
    task_lo, task_hi, task_first, task_last = tasks
    push_lo, push_hi, push_us, silent = pushes
    for g in range(lo, hi):
        provider, foreign = 0, 0
        for i in range(offsets[g], offsets[g + 1]):
            provider += to_provider[i]
            foreign += to_stranger[i]
        flows = offsets[g + 1] - offsets[g]
        out[g, 6], out[g, 7] = provider / flows, foreign / flows
        times = beats[beat_offsets[g] : beat_offsets[g + 1]]
        if len(times) >= MIN_STARTS and not np.isnan(period[g]):
            between = np.empty(len(times) - 1)
            for i in range(len(between)):
                between[i] = times[i + 1] - times[i]
            sort(between)
            out[g, 8] = period[g] / median(between)
        a, b = session_offsets[g], session_offsets[g + 1]
        if fronted[g] and not np.isnan(background[g]):
            f0, f1 = front_lo[g], front_hi[g]
            at = bisect_right(front_first, f0, f1, window_us[g]) - 1
            previous, gap = -1.0, -1.0
            gaps, short, pairs, similar, longest = 0, 0, 0, 0, 0.0
            alone = 0
            reach_us = micros(GRACE_SECONDS + (0.0 if np.isnan(grid[g]) else grid[g]))
            for i in range(a, b):
                t = window_us[g] + micros(session_start[i])
                at = advance(front_first, at, f1, t)
                if at >= f0 and (t - front_last[at]) * 1e-6 <= GRACE_SECONDS:
                    continue
                if reached(task_first, task_last, task_lo[g], task_hi[g], t, SLACK_US):
                    continue
                alone += 1
                longest = max(longest, session_end[i] - session_start[i])
                if not fresh[i] or reached(push_us, push_us, push_lo[g], push_hi[g], t, reach_us):
                    continue
                if previous >= 0.0:
                    now = max(session_start[i] - previous, 1.0)
                    gaps += 1
                    short += now < SCHEDULER_FLOOR_SECONDS - HALF_MICROSECOND
                    if gap > 0.0:
                        pairs += 1
                        similar += alike(now, gap, 1.3)
                    gap = now
                previous = session_start[i]
            if pairs >= _MIN_GAPS:
                out[g, 0] = similar / (pairs + 2.0) if background[g] == 0.0 else 0.0
            if gaps:
                out[g, 1] = short / (gaps + 2.0) if continuous[g] == 0.0 else 0.0
            if alone:
                out[g, 2] = max(longest - GRACE_SECONDS, 0.0) if continuous[g] == 0.0 else 0.0
        if not np.isnan(grid[g]) and not np.isnan(remote[g]):
            first = bisect_left(push_us, push_lo[g], push_hi[g], window_us[g])
            last = bisect_left(push_us, first, push_hi[g], window_us[g] + np.int64(seconds * 1e6))
            count, worked = 0, 0
            reach = GRACE_SECONDS + grid[g] + HALF_MICROSECOND
            for j in range(first, last):
                if not silent[j]:
                    continue
                count += 1
                t = (push_us[j] - window_us[g]) * 1e-6
                i = bisect_right(starts, start_offsets[g], start_offsets[g + 1], t - 1e-9)
                worked += i < start_offsets[g + 1] and starts[i] <= t + reach
            if count:
                out[g, 3] = worked / count if remote[g] == 0.0 else 0.0


FAMILY = Family("declared", ("flows",), FEATURES, compute, relative=False)
