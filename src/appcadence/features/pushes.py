"""How many pushes a session start follows, and how many would be followed by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from appcadence._types import FeatureMatrix
from appcadence.features._kernels import HALF_MICROSECOND, advance, bisect_left, kernel
from appcadence.features._parallel import fill

if TYPE_CHECKING:
    from appcadence.features.windows import Windows

WAKE_SECONDS = 30.0
"""Apple's limit for the work a background push may start."""
SHIFTS_SECONDS = np.array([-1500.0, -900.0, -420.0, 420.0, 900.0, 1500.0])
"""Shifted circularly within the window, so that the base rate needs nothing from outside of it."""
COUNTS = ("pushes", "answered_pushes", "answered_shifts", "session_starts", "pushed_session_starts")
"""Pushes; those that a start follows; the same of the pushes shifted, all shifts together; starts; those that
follow a push."""


def count(windows: Windows) -> FeatureMatrix:
    """(n, 5) `COUNTS` of each window; NaN where the app is unknown or the device has no push telemetry."""
    context = windows.context
    return fill(
        _count,
        windows.offsets,
        len(COUNTS),
        *windows.starts,
        windows.start_us,
        np.where(windows.app >= 0, context.push_grid[windows.device], np.nan),
        context.pushes.of(context.pair(windows.device, windows.app)),
        windows.seconds,
    )


@kernel
def _answers(push, starts, shift, reach, seconds):  # type: ignore[no-untyped-def]
    """How many sorted pushes, shifted circularly within the window, a session start follows in time."""
    n, count, i = len(push), 0, 0
    first = 0
    while first < n and push[first] + shift < (0.0 if shift < 0.0 else seconds):
        first += 1
    for k in range(n):
        # From the push that comes first after the turn: both lists ascend, and are walked once.
        at = first + k
        t = push[at if at < n else at - n] + shift
        t += seconds * ((t < 0.0) - (t >= seconds))
        while i < len(starts) and starts[i] < t:
            i += 1
        count += i < len(starts) and starts[i] <= t + reach
    return count


@kernel
def _count(  # type: ignore[no-untyped-def]
    lo, hi, out, _offsets, start_offsets, session_starts, window_us, grids, pushes, seconds
):
    push_lo, push_hi, push_us, _ = pushes
    for g in range(lo, hi):
        if np.isnan(grids[g]):
            continue
        first = bisect_left(push_us, push_lo[g], push_hi[g], window_us[g])
        last = bisect_left(push_us, first, push_hi[g], window_us[g] + np.int64(seconds * 1e6))
        n = last - first
        starts = session_starts[start_offsets[g] : start_offsets[g + 1]]
        out[g] = 0.0
        out[g, 0], out[g, 3] = n, len(starts)
        if not n:
            continue
        push = (push_us[first:last] - window_us[g]) * 1e-6
        reach = WAKE_SECONDS + grids[g] + HALF_MICROSECOND
        out[g, 1] = _answers(push, starts, 0.0, reach, seconds)
        for shift in SHIFTS_SECONDS:
            out[g, 2] += _answers(push, starts, shift, reach, seconds)
        i = np.int64(-1)
        for t in starts:
            i = advance(push, i, n, t)
            out[g, 4] += i >= 0 and t - push[i] <= reach
