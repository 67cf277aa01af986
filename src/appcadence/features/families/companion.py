"""Do a channel's sessions start when the device's other channels start? Presence and wake-ups as the
traffic itself betrays them, where there is no activity telemetry."""

from __future__ import annotations

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.features._kernels import HALF_MICROSECOND, kernel
from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature
from appcadence.features.windows import Windows

NEAR_SECONDS = 10.0
ALONE_SECONDS = 60.0
SHIFTS_SECONDS = np.array([-660.0, -420.0, -240.0, 240.0, 420.0, 660.0])
"""Shifted circularly within the window, so that the base rate needs nothing from outside of it."""
_MIN_STARTS = 3
_CELL_SECONDS = 20.0

FEATURES = (
    Feature(
        "companion_share",
        "share of session starts with one of another channel of the device within 10 s",
        "share of sessions that start together with other traffic",
        direction=-1,
    ),
    Feature(
        "companion_excess",
        "companion_share less the mean of the same with the starts shifted by 4, 7 and 11 minutes",
        "starts together with other traffic beyond chance",
        direction=-1,
    ),
    Feature(
        "alone_share",
        "share of session starts with no other channel's start within 60 s",
        "share of sessions that start alone",
    ),
)


def compute(windows: Windows, wanted: Mask) -> FeatureMatrix:
    """(n, 3); NaN below three session starts. For an app's window, other channels are other apps'.

    Only what lies in the same window counts.
    """
    start_offsets, starts = windows.starts
    order, offsets = windows.by_device_interval
    # Balanced by session starts: a window's work grows with them.
    weights = np.concatenate([[0], np.cumsum(np.diff(start_offsets)[order])])[offsets]
    out = np.full((windows.n, len(FEATURES)), np.nan, np.float32)
    fill(
        _kernel,
        weights,
        0,
        out,
        offsets,
        order,
        start_offsets,
        starts,
        windows.app,
        windows.dest,
        (windows.dest >= 0) & ~windows.nameless,
        windows.seconds,
        wanted,
    )
    return out


@kernel
def _kernel(  # type: ignore[no-untyped-def]
    lo,
    hi,
    _unused,
    _weights,
    out,
    group_offsets,
    group_windows,
    start_offsets,
    starts,
    app,
    dest,
    named,
    seconds,
    wanted,
):
    cells = int(seconds / _CELL_SECONDS) + 2
    position = np.zeros(cells + 1, np.int64)
    most = 0
    for m in range(lo, hi):
        count = 0
        for w in group_windows[group_offsets[m] : group_offsets[m + 1]]:
            if dest[w] >= 0:
                count += start_offsets[w + 1] - start_offsets[w]
        most = max(most, count)
    times, owners = np.empty(most), np.empty(most, np.int64)
    for m in range(lo, hi):
        members = group_windows[group_offsets[m] : group_offsets[m + 1]]
        # The device's session starts by 20 s cell: a counting sort, then every question is a short range.
        position[:] = 0
        for w in members:
            if dest[w] >= 0:
                for t in starts[start_offsets[w] : start_offsets[w + 1]]:
                    position[int(t / _CELL_SECONDS) + 1] += 1
        for c in range(cells):
            position[c + 1] += position[c]
        for w in members:
            if dest[w] >= 0:
                for t in starts[start_offsets[w] : start_offsets[w + 1]]:
                    c = int(t / _CELL_SECONDS)
                    times[position[c]], owners[position[c]] = t, w
                    position[c] += 1
        # After the sort, position[c] is the end of cell c, which is where cell c + 1 begins.
        for w in members:
            n = start_offsets[w + 1] - start_offsets[w]
            if n < _MIN_STARTS:
                continue
            together, chance, alone = 0, 0, 0
            for t in starts[start_offsets[w] : start_offsets[w + 1]]:
                near = _accompanied(times, owners, position, app, named, w, t, NEAR_SECONDS, cells)
                together += near
                alone += (
                    wanted[2]
                    and not near
                    and not _accompanied(times, owners, position, app, named, w, t, ALONE_SECONDS, cells)
                )
                for shift in SHIFTS_SECONDS if wanted[1] else SHIFTS_SECONDS[:0]:
                    moved = t + shift
                    moved += seconds * ((moved < 0.0) - (moved >= seconds))
                    chance += _accompanied(times, owners, position, app, named, w, moved, NEAR_SECONDS, cells)
            out[w, 0] = together / n
            out[w, 1] = together / n - chance / (n * len(SHIFTS_SECONDS))
            out[w, 2] = alone / n


@kernel
def _accompanied(times, owners, position, app, named, w, t, reach, cells):  # type: ignore[no-untyped-def]
    first = max(int((t - reach - HALF_MICROSECOND) / _CELL_SECONDS), 0)
    last = min(int((t + reach + HALF_MICROSECOND) / _CELL_SECONDS), cells - 1)
    for k in range(position[first - 1] if first else 0, position[last]):
        if abs(times[k] - t) <= reach + HALF_MICROSECOND:
            other = owners[k]
            if app[other] != app[w] or (named[w] and other != w):
                return True
    return False


FAMILY = Family("companion", ("flows",), FEATURES, compute)
