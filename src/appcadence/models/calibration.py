"""From raw scores to the score's scale, p-values and the alert budget, on held-out benign windows.

The alert unit is an app on a device on a day, or a destination where the app is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask, Vector
from appcadence.errors import BundleError
from appcadence.features.columns import arrow

KEYS = ("device_id", "app_id", "dest", "window_start")
"""The columns that determine the alert unit of a window."""
UNITS = pa.schema(
    [("device_id", pa.string()), ("kind", pa.string()), ("name", pa.string()), ("day", pa.date32())]
)
"""The columns that identify a unit: `kind` is app or destination, `name` its name; days are UTC."""


def alert_units(windows: pa.Table | pd.DataFrame) -> pa.Table:
    """The unit of each of n windows, as `UNITS`; the windows have `KEYS`."""
    device, app, dest = (_texts(windows, name) for name in KEYS[:3])
    start = windows["window_start"]
    start = arrow(start) if isinstance(start, pd.Series) else start
    # A cast to days would round times before 1970 towards that year.
    day = pc.floor_temporal(start.cast(pa.timestamp("us")), unit="day").cast(pa.date32())
    kind = pc.if_else(pc.is_valid(app), "app", "destination")
    return pa.table([device, kind, pc.coalesce(app, dest), day], UNITS)


def alert_unit(windows: pa.Table | pd.DataFrame) -> Codes:
    """(n,) code of each window's alert unit, in order of `UNITS`."""
    units = alert_units(windows).to_pandas(date_as_object=False)
    return np.asarray(units.groupby(UNITS.names).ngroup(), np.int64)


def _texts(windows: pa.Table | pd.DataFrame, name: str) -> pa.ChunkedArray:
    column = windows[name]
    if isinstance(column, pd.Series):
        return pa.chunked_array([pa.array(column.astype(object), pa.string(), from_pandas=True)])
    return column.cast(pa.string())


_TAIL_UNITS_PER_DAY = 3.0
_MIN_TAIL = 8
_PRIOR_SPREAD = 1.0
_PRIOR_UNITS = 10.0
"""The spread is shrunk to one as if ten more units had shown it: well-calibrated benign log-odds fall by a
factor e per unit, and the tail of a small baseline is rough."""


def device_days(frame: pd.DataFrame) -> float:
    """Observed device-days of a feature table."""
    distinct = frame.loc[:, ["device_id", "window_start", "observed_seconds"]].astype({"device_id": object})
    return float(distinct.drop_duplicates(["device_id", "window_start"])["observed_seconds"].sum() / 86400.0)


def conformal(benign: Vector, value: Vector) -> Vector:
    """(n,) split-conformal p-values (1 + #benign >= value) / (#benign + 1) by sorted benign values (m,)."""
    above = len(benign) - np.searchsorted(benign, value, "left")
    return np.asarray((1.0 + above) / (len(benign) + 1.0))


def strongest(unit: Codes, score: Vector) -> Vector:
    """Highest score of each unit."""
    best = np.full(int(unit.max()) + 1 if len(unit) else 0, -np.inf)
    np.maximum.at(best, unit, score)
    return np.asarray(best[np.isfinite(best)])


def adjusted_p_values(p: Vector) -> Vector:
    """(n,) the false discovery rate at which each of n p-values in [0, 1] first becomes a discovery.

    Benjamini and Hochberg's step-up procedure (1995); it holds for independent or positively dependent tests.
    """
    order = np.argsort(p)
    stepped = p[order] * (len(p) / np.arange(1, len(p) + 1))
    out = np.empty_like(p)
    out[order] = np.minimum.accumulate(stepped[::-1])[::-1]
    return np.minimum(out, 1.0)


def discovered(p: Vector, unit: Codes, rate: float) -> Mask:
    """(n,) windows that alert if at most `rate` of the alerting units should be benign.

    Uses `adjusted_p_values` over units; `p` (n,) are `unit_p_values` of windows, NaN = not scored.

    Raises:
        ValueError: the rate is not between 0 and 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the false discovery rate must lie between 0 and 1, got {rate}")
    least = np.full(int(unit.max()) + 1 if len(unit) else 0, np.inf)
    np.minimum.at(least, unit, np.nan_to_num(p, nan=np.inf))
    least = least[np.isfinite(least)]
    sure = least[adjusted_p_values(least) <= rate]
    return np.asarray(p <= sure.max(initial=-np.inf))


@dataclass(frozen=True)
class Calibration:
    """Benign held-out scores, sorted, and the two constants of the scale.

    With k unit scores above t_k in D device-days, the tail above t_k is modelled as exponential with scale
    `spread` = mean excess (peaks over threshold, shrunk to 1); `origin` = t_k + spread * ln(k / D) is the
    level that one unit per device-day exceeds. On the scale (raw - origin) / spread, exp(-score) units per
    device-day exceed a score, so 0 is one alert per device-day. This holds while later windows are
    exchangeable with the calibration windows: same telemetry, same apps, same season.
    """

    origin: float
    spread: float
    device_days: float
    windows: Vector = field(repr=False)
    """(n,) sorted raw scores of benign windows."""
    units: Vector = field(repr=False)
    """(m,) sorted raw scores of benign alert units."""

    @classmethod
    def fit(cls, raw: Vector, unit: Codes, days: float) -> Calibration:
        """`raw` (n,) benign scores, `unit` (n,) their alert units, `days` observed device-days."""
        units = np.sort(strongest(unit, raw))
        if len(units) < 2 or days <= 0:
            return cls(0.0, 1.0, max(days, 1e-9), np.sort(raw), units)
        k = int(min(max(_TAIL_UNITS_PER_DAY * days, _MIN_TAIL), len(units) - 1))
        at = units[-k - 1]
        excess = float(np.sum(units[-k:] - at))
        spread = (excess + _PRIOR_UNITS * _PRIOR_SPREAD) / (k + _PRIOR_UNITS)
        return cls(float(at + spread * np.log(k / days)), spread, days, np.sort(raw), units)

    def scale(self, raw: Vector) -> Vector:
        return (raw - self.origin) / self.spread

    def p_values(self, raw: Vector) -> Vector:
        """`conformal` p-values of windows, in (0, 1], at least 1 / (n + 1)."""
        return conformal(self.windows, raw)

    def unit_p_values(self, raw: Vector) -> Vector:
        """`conformal` p-values of alert units, by their strongest window."""
        return conformal(self.units, raw)

    def threshold(self, alerts_per_device_day: float) -> float:
        """The score that benign units exceed `alerts_per_device_day` times a device-day.

        Raises:
            ValueError: the rate is not positive.
        """
        if not alerts_per_device_day > 0:
            raise ValueError(f"alerts per device-day must be positive, got {alerts_per_device_day}")
        k = int(alerts_per_device_day * self.device_days)
        if _MIN_TAIL <= k < len(self.units):
            return float(self.scale(self.units[-k - 1]))
        return float(-np.log(alerts_per_device_day))

    def to_frame(self) -> pd.DataFrame:
        kinds = {"windows": self.windows, "units": self.units}
        constants = {"origin": self.origin, "spread": self.spread, "device_days": self.device_days}
        rows = [pd.DataFrame({"kind": name, "value": values}) for name, values in kinds.items()]
        rows += [pd.DataFrame({"kind": [name], "value": [value]}) for name, value in constants.items()]
        return pd.concat(rows, ignore_index=True)

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Calibration:
        values = {str(kind): rows.to_numpy(np.float64) for kind, rows in frame.groupby("kind")["value"]}
        try:
            origin, spread, days = (float(values[name][0]) for name in ("origin", "spread", "device_days"))
        except KeyError as error:
            raise BundleError(f"calibration lacks {error}") from None
        if not (np.isfinite(frame["value"]).all() and spread > 0 and days > 0):
            raise BundleError(
                "calibration holds a value that is not finite, or a spread or span that is not positive"
            )
        empty = np.empty(0)
        return cls(
            origin, spread, days, np.sort(values.get("windows", empty)), np.sort(values.get("units", empty))
        )


LEVEL = -1.0
"""Units above this score are counted: e per device-day in calibration. One implant moves the count by one."""
QUANTILE = 0.75
"""A device's day is lowered if its count exceeds this quantile of calibrated days."""
MIN_LEFT = 3
"""This many units always stay above the level: two C2 channels and a busy benign one are no unusual day."""
_DAY_SECONDS = 86_400.0
_MAX_COUNT = 200


def device_shift(frame: pd.DataFrame, score: Vector, ranked: Mask) -> Vector:
    """(n,) the shift of each window's score, at most 0; equal for all windows of a device that begin
    together.

    A baseline of one night does not know the working day: dozens of windows then pass the threshold only
    because the device is used differently, or because its telemetry or identity changed. If more alert units
    of a device exceed `LEVEL` than on three of four calibrated days (Poisson, mean e per observed day), and
    more than `MIN_LEFT`, all of its windows are lowered until only as many do as on a mean day. Their order
    does not change, and outliers among them still stand out.

    Args:
        frame: a feature table of n windows, complete for each device and time.
        score: (n,) on the score's scale, NaN if there is too little evidence.
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
    # The strongest surplus unit is moved to the level.
    surplus = order[(ranks == left[owner[order]]) & loud[owner[order]]]
    lowered = np.zeros(len(observed))
    lowered[owner[surplus]] = np.minimum(LEVEL - best[surplus], 0.0)
    return np.asarray(lowered[owner_of])


def _poisson_quantile(mean: Vector) -> Codes:
    """(n,) the smallest count that at least `QUANTILE` of the days do not exceed."""
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
