"""Lag to the push: do sessions follow this app's pushes more often than chance would make them?

A push log has a grid (an exact log about 0 s, PowerLog 60 s): a push stamped t came within the grid after t,
so an answer is looked for until the wake time after the grid. A coarse grid therefore weakens the test, and
where chance alone would answer half of the pushes the coupling is NaN: this log cannot tell.
"""

from __future__ import annotations

import math

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import (
    HALF_MICROSECOND,
    advance,
    bisect_left,
    bisect_right,
    kernel,
    median,
    sort,
)
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.pushes import SHIFTS_SECONDS, WAKE_SECONDS
from appcadence.features.windows import Windows

GRACE_SECONDS = 30.0
"""A device in use this short a time ago does not count as locked."""
MAX_CHANCE = 0.5
MIN_PUSHES = 3
MIN_FADED_PUSHES = 2.5
"""Three over a few days, some of which count less by now."""
PRIOR_PUSHES = 3.0
"""Pushes or starts without effect that are added to those of the days, so that few prove little."""

FEATURES = (
    Feature(
        "pushes_per_hour",
        "pushes of this app per hour in which flows or they were seen",
        "pushes an hour",
        unit="1/h",
        direction=0,
    ),
    Feature(
        "silent_pushes_per_hour",
        "silent pushes (content-available or priority 5) in such an hour; Apple asks for at most 2-3",
        "silent pushes an hour",
        unit="1/h",
        source="Apple: Pushing background updates to your app",
    ),
    Feature(
        "push_grid_seconds",
        "grid of the device's push log: lags and couplings are known no finer",
        "grid of the push log",
        unit="s",
        direction=0,
    ),
    Feature(
        "median_push_lag_seconds",
        "median time from an answered push to the next session start; NaN on a grid wider than 30 s",
        "median time from a push to the next session",
        unit="s",
        direction=-1,
    ),
    Feature(
        "push_answered_share",
        "share of pushes followed by a session start within 30 s plus the push log's grid",
        "share of pushes followed by traffic",
        direction=0,
    ),
    Feature(
        "push_coupling_excess",
        "push_answered_share less the mean of the same with the pushes shifted by 7 to 25 minutes; NaN where "
        "that chance exceeds a half",
        "traffic after pushes beyond chance",
    ),
    Feature(
        "push_coupling_surprise",
        "-log10 of the binomial probability of as many answered pushes at the shifted pushes' rate",
        "surprise at so much traffic after pushes",
        unit="decades",
        source="binomial test",
    ),
    Feature(
        "push_session_share",
        "share of session starts within 30 s plus the grid after a push",
        "share of sessions started by pushes",
    ),
    Feature(
        "flows_per_push",
        "flows that start within the wake time of a push / pushes",
        "connections per push",
        unit="count",
    ),
    Feature(
        "bytes_out_per_push",
        "bytes sent by flows that start within the wake time of a push / pushes",
        "bytes sent per push",
        unit="bytes",
    ),
    Feature(
        "locked_push_upload_share",
        "share of the silent pushes on a locked device followed by a flow that sends more than it receives",
        "share of silent pushes followed by an upload while locked",
        needs=("activity",),
    ),
    Feature(
        "push_coupling_days_excess",
        "(answered pushes less those answered by chance) / (pushes + 3) over the days with contact, each "
        "half after 14 days, the window included: few pushes a day show only here; NaN for apps as a whole, "
        "without a push in the window or three over the days, and where chance exceeds a half",
        "traffic after pushes beyond chance, over days",
        needs=("history",),
    ),
    Feature(
        "push_session_days_share",
        "session starts after a push / (session starts + 3) over the same days; NaN where that is",
        "share of sessions started by pushes, over days",
        needs=("history",),
    ),
)
_OVER_DAYS = slice(11, 13)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 13); NaN where the device has no push telemetry; couplings NaN below three pushes."""
    context = windows.context
    out = fill(
        _kernel,
        windows.offsets,
        len(FEATURES),
        windows.flow_start,
        windows.bytes_out,
        windows.bytes_in,
        windows.fresh,
        *windows.starts,
        windows.push_counts,
        windows.start_us,
        np.where(windows.app >= 0, context.push_grid[windows.device], np.nan),
        context.pushes.of(context.pair(windows.device, windows.app)),
        windows.use,
        windows.observed_seconds,
        windows.seconds,
        len(SHIFTS_SECONDS),
        WAKE_SECONDS,
    )
    if wanted[_OVER_DAYS].any() and windows.compared is not None:
        out[: windows.n_channels, _OVER_DAYS] = _over_days(windows.compared.pushed)
    return out


def _over_days(counts: np.ndarray) -> FeatureMatrix:
    """(n, 2) the last two features from the counts of the days."""
    out = np.full((len(counts), 2), np.nan, np.float32)
    rows = np.flatnonzero(counts[:, 0] >= MIN_FADED_PUSHES)
    pushes, answered, shifted, starts, woken = counts[rows].astype(np.float64).T
    by_chance = shifted / len(SHIFTS_SECONDS)
    out[rows, 0] = (answered - by_chance) / (pushes + PRIOR_PUSHES)
    out[rows, 1] = woken / (starts + PRIOR_PUSHES)
    out[rows[by_chance > MAX_CHANCE * pushes]] = np.nan
    return out


@kernel
def _tail(k, n, p):  # type: ignore[no-untyped-def]
    """P(X >= k) of a binomial (n, p), 0 < p < 1."""
    if k <= 0:
        return 1.0
    # The shorter side is summed away from the middle, where a term that underflows is truly nothing.
    first = k if k > n * p else k - 1
    log_choose = math.lgamma(n + 1.0) - math.lgamma(first + 1.0) - math.lgamma(n - first + 1.0)
    term = math.exp(log_choose + first * math.log(p) + (n - first) * math.log(1.0 - p))
    total = 0.0
    if k > n * p:
        for i in range(k, n + 1):
            total += term
            term *= (n - i) / (i + 1.0) * p / (1.0 - p)
        return min(total, 1.0)
    for i in range(k - 1, -1, -1):
        total += term
        term *= i / (n - i + 1.0) * (1.0 - p) / p
    return max(1.0 - total, 0.0)


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
    session_starts,
    counts,
    window_us,
    grids,
    pushes,
    use,
    observed,
    seconds,
    shifts,
    wake,
):
    push_lo, push_hi, push_us, silent = pushes
    use_lo, use_hi, use_first, use_last = use
    for g in range(lo, hi):
        grid = grids[g]
        if np.isnan(grid):
            continue
        first = bisect_left(push_us, push_lo[g], push_hi[g], window_us[g])
        last = bisect_left(push_us, first, push_hi[g], window_us[g] + np.int64(seconds * 1e6))
        n = last - first
        # The push log may know of hours in which no flow was seen.
        hours = max(observed[g], (push_us[last - 1] - push_us[first]) * 1e-6 if n else 0.0) / 3600.0
        out[g, 0] = n / hours
        quiet = 0
        for i in range(first, last):
            quiet += silent[i]
        out[g, 1] = quiet / hours
        out[g, 2] = grid
        if n < MIN_PUSHES:
            continue
        starts = session_starts[start_offsets[g] : start_offsets[g + 1]]
        push = (push_us[first:last] - window_us[g]) * 1e-6
        reach = wake + grid + HALF_MICROSECOND
        answered, shifted = int(counts[g, 1]), float(counts[g, 2])
        chance = shifted / (n * shifts)
        out[g, 4] = answered / n
        if chance <= MAX_CHANCE:
            out[g, 5] = answered / n - chance
            # Half an answer more among the shifted pushes: none seen is no proof of a rate of zero.
            rate = (shifted + 0.5) / (n * shifts + 1.0)
            out[g, 6] = max(-math.log10(max(_tail(answered, n, rate), 1e-300)), 0.0)
        if grid <= wake and answered:
            lags, k = np.empty(answered), 0
            for t in push:
                i = bisect_right(starts, np.int64(0), len(starts), t - 1e-9)
                if i < len(starts) and starts[i] <= t + reach:
                    lags[k] = starts[i] - t
                    k += 1
            sort(lags[:k])
            out[g, 3] = median(lags[:k])
        if len(starts):
            out[g, 7] = counts[g, 4] / len(starts)
        total, sized, flows = 0.0, 0, 0
        last = np.int64(-1)
        for i in range(offsets[g], offsets[g + 1]):
            if not flow_fresh[i]:
                continue
            last = advance(push, last, n, flow_start[i])
            after = last >= 0 and flow_start[i] - push[last] <= reach
            flows += after
            if after and not np.isnan(sent[i]):
                sized += 1
                total += sent[i]
        out[g, 8] = flows / n
        if sized or not flows:
            out[g, 9] = total / n
        u0, u1 = use_lo[g], use_hi[g]
        if u1 == u0:
            continue
        locked, uploads = 0, 0
        for j in range(n):
            at = bisect_right(use_first, u0, u1, push_us[first + j]) - 1
            in_use = at >= u0 and (push_us[first + j] - use_last[at]) * 1e-6 <= GRACE_SECONDS
            if not silent[first + j] or in_use:
                continue
            locked += 1
            i = bisect_right(flow_start, offsets[g], offsets[g + 1], push[j] - 1e-9)
            while i < offsets[g + 1] and flow_start[i] <= push[j] + reach:
                if flow_fresh[i] and sent[i] > received[i]:
                    uploads += 1
                    break
                i += 1
        if locked:
            out[g, 10] = uploads / locked


FAMILY = Family("notification", ("notifications",), FEATURES, compute)
