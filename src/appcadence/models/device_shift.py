"""A device of which too much is unusual at once: the device's day, not each of its channels, is what
changed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from appcadence._types import Codes, Mask, Vector
from appcadence.models.alert_units import alert_unit

LEVEL = -1.0
"""Units are counted above this score: calibrated ones exceed it e times a device-day, and one implant moves
the count by one."""
QUANTILE = 0.75
"""So often a calibrated device has no more units above the level than one that is left as it is."""
MIN_LEFT = 3
"""So many are always left above it: two C2 channels and a busy benign one are no change of the device."""
_DAY_SECONDS = 86_400.0
_MAX_COUNT = 200


def device_shift(frame: pd.DataFrame, score: Vector, ranked: Mask) -> Vector:
    """(n,) what each window's score is lowered by, at most 0, and the same for all of a device that begin
    together.

    A baseline of one night does not know the working day: then dozens of windows pass the threshold for the
    one reason that the device is used otherwise, or that its telemetry or identity changed. Where more alert
    units of a device exceed `LEVEL` than in three of four calibrated cases (Poisson, mean e per observed
    day), and more than `MIN_LEFT`, all of its windows are lowered until only as many do as on the mean day.
    Their order stays, and what stands out among them still does.

    Args:
        frame: a feature table of n windows, all that there are of each device and time.
        score: (n,) on the score's scale, NaN where there is too little evidence.
        ranked: (n,) which windows count.
    """
    out = np.zeros(len(frame))
    rows = np.flatnonzero(ranked & ~np.isnan(score))
    if not len(rows):
        return out
    owner_of = frame.groupby([frame["device_id"].astype(object), frame["window_start"]]).ngroup().to_numpy()
    observed = np.zeros(int(owner_of.max()) + 1)
    observed[owner_of] = frame["observed_seconds"]
    mean = np.exp(-LEVEL) * observed / _DAY_SECONDS
    allowed = np.maximum(_poisson_quantile(mean), MIN_LEFT)
    left = np.maximum(mean.astype(np.int64), MIN_LEFT)
    pair = alert_unit(frame)[rows] * len(observed) + owner_of[rows]
    unit, place = np.unique(pair, return_inverse=True)
    best = np.full(len(unit), -np.inf)
    np.maximum.at(best, place, score[rows])
    owner = unit % len(observed)
    loud = np.bincount(owner[best > LEVEL], minlength=len(observed)) > allowed
    order = np.lexsort((-best, owner))
    ranks = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    # The strongest unit that is one too many stands where the level is to be.
    surplus = order[(ranks == left[owner[order]]) & loud[owner[order]]]
    lowered = np.zeros(len(observed))
    lowered[owner[surplus]] = np.minimum(LEVEL - best[surplus], 0.0)
    return np.asarray(lowered[owner_of])


def _poisson_quantile(mean: Vector) -> Codes:
    """(n,) the smallest count that `QUANTILE` of the days do not exceed."""
    mean = np.minimum(mean, _MAX_COUNT / 2)
    term = np.exp(-mean)
    total, count = term.copy(), np.zeros(len(mean), np.int64)
    for k in range(1, _MAX_COUNT):
        more = total < QUANTILE
        if not more.any():
            break
        count[more] = k
        term = term * mean / k
        total = total + term
    return count
