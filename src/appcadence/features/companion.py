"""Do a channel's sessions start when the device's other channels start? Presence and wake-ups as the
traffic itself betrays them, where there is no activity telemetry."""

from __future__ import annotations

import numba
import numpy as np

from appcadence.features._parallel import fill
from appcadence.features.feature import Family, Feature, Matrix
from appcadence.features.windows import Windows

NEAR_SECONDS = 10.0
ALONE_SECONDS = 60.0
_SHIFTS_US = np.array([-660, -420, -240, 240, 420, 660]) * 1_000_000
_MIN_STARTS = 3
_jit = numba.njit(cache=True, nogil=True)

FEATURES = (
    Feature(
        "companion_share",
        "ratio",
        -1,
        "share of session starts with one of another channel of the device within 10 s",
        "share of sessions that start together with other traffic",
    ),
    Feature(
        "companion_excess",
        "ratio",
        -1,
        "companion_share less the mean of the same with the starts shifted by 4, 7 and 11 minutes",
        "starts together with other traffic beyond chance",
    ),
    Feature(
        "alone_share",
        "ratio",
        1,
        "share of session starts with no other channel's start within 60 s",
        "share of sessions that start alone",
    ),
)


def compute(windows: Windows) -> Matrix:
    """(n, 3); NaN below three session starts. For an app's window, other channels are other apps'."""
    s = windows.sessions
    n = windows.n_channels
    count = np.diff(s.offsets[: n + 1])
    # The first n windows are channels: their sessions are the device's starts.
    fresh = s.fresh[: s.offsets[n]]
    owner = np.repeat(np.arange(n), count)[fresh]
    when = windows.start_us[owner] + np.rint(s.start[: s.offsets[n]][fresh] * 1e6).astype(np.int64)
    device = windows.device[owner]
    order = np.lexsort((windows.dest[owner], windows.app[owner], when, device))
    offsets = np.searchsorted(device[order], np.arange(len(windows.devices) + 1))
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
        windows.dest,
        offsets,
        when[order],
        windows.app[owner][order],
        windows.dest[owner][order],
    )


@_jit
def _accompanied(times, apps, dests, lo, hi, t, reach, app, dest):  # type: ignore[no-untyped-def]
    i = lo + np.searchsorted(times[lo:hi], t - reach)
    while i < hi and times[i] <= t + reach:
        if apps[i] != app or (dest >= 0 and dests[i] != dest):
            return True
        i += 1
    return False


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
    dest,
    device_offsets,
    times,
    apps,
    dests,
):
    near, alone_reach = np.int64(NEAR_SECONDS * 1e6), np.int64(ALONE_SECONDS * 1e6)
    for g in range(lo, hi):
        a, b = session_offsets[g], session_offsets[g + 1]
        starts = session_start[a:b][fresh[a:b]]
        n = len(starts)
        if n < _MIN_STARTS:
            continue
        d0, d1 = device_offsets[device[g]], device_offsets[device[g] + 1]
        together, chance, alone = 0, 0, 0
        for x in starts:
            t = window_us[g] + np.int64(np.rint(x * 1e6))
            together += _accompanied(times, apps, dests, d0, d1, t, near, app[g], dest[g])
            alone += not _accompanied(times, apps, dests, d0, d1, t, alone_reach, app[g], dest[g])
            for shift in _SHIFTS_US:
                chance += _accompanied(times, apps, dests, d0, d1, t + shift, near, app[g], dest[g])
        out[g, 0] = together / n
        out[g, 1] = together / n - chance / (n * len(_SHIFTS_US))
        out[g, 2] = alone / n


FAMILY = Family("companion", ("flows",), FEATURES, compute)
