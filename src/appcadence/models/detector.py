"""The detector: experts, and a classifier that corrects their sum, as one calibrated, additive score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence import findings
from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.config import DEFAULTS, Config
from appcadence.features._kernels import kernel
from appcadence.features.catalog import FAMILY_OF, NAMES, RELATIVE
from appcadence.features.columns import arrow
from appcadence.features.feature_table import require_features
from appcadence.features.history import History
from appcadence.features.windows import APP_LEVEL
from appcadence.models import reasons
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration, alert_unit, conformal, device_shift, discovered
from appcadence.models.eligibility import (
    BEHAVIOURS,
    FLEET_EVENT,
    SCORED,
    STATUSES,
    STRATA,
    barred,
    by_stratum,
    eligible,
    judged,
    statuses,
    strata,
)
from appcadence.models.experts import Experts
from appcadence.models.fusion import fuse
from appcadence.models.reference import Reference
from appcadence.models.scores import (
    BEHAVIOUR,
    CONTRIBUTION,
    EXPLAINED_ROWS,
    SCORES,
    finalized,
    ranks,
)
from appcadence.models.trees import Trees

_TOP_CONTRIBUTIONS = 8

_NAMES = pa.array(NAMES)
_NEW = NAMES.index("channel_is_new")
_RELATIVE = np.array(RELATIVE)
_STATUS = pa.array(STATUSES)
_OF_BEHAVIOUR = {b: [i for i, n in enumerate(NAMES) if FAMILY_OF[n] in of] for b, of in BEHAVIOURS.items()}


class _Scaled(NamedTuple):
    """(n,) each."""

    score: Vector
    p_value: Vector
    threshold: Vector
    """The score at which a window alerts."""
    unit_p: Vector
    spread: Vector
    shift: Vector
    """The shift of the score (see `device_shift`), at most 0."""


@dataclass(frozen=True)
class Detector:
    """Everything that scoring needs; immutable and thread-safe."""

    window: str
    baseline: AppBaseline = field(repr=False)
    history: History = field(repr=False)
    classifier: Trees = field(repr=False)
    classifier_text: str = field(repr=False)
    """LightGBM's own text of the classifier, for audit; scoring never reads it."""
    forest: Trees = field(repr=False)
    """A second opinion for triage. It found nothing that the score misses, and is not part of it."""
    experts: Experts = field(repr=False)
    weights: Matrix = field(repr=False)
    """(n_strata, 2) weights of the classifier's log-odds and of the experts' sum in the raw score."""
    calibration: dict[str, Calibration] = field(repr=False)
    """By stratum."""
    behaviours: dict[str, Vector] = field(repr=False)
    """Sorted benign scores of each behaviour."""
    reference: Reference = field(repr=False)
    """The reference for measuring drift; scoring never reads it."""
    excluded_families: tuple[str, ...] = ()
    """Feature families that the detector was trained without and must not use."""
    card: dict[str, Any] = field(default_factory=dict, repr=False)
    """What it was trained on, and how precise its promises are."""

    def parts(self, frame: pd.DataFrame) -> tuple[Matrix, Vector]:
        """Contributions (n, n_features) to the fused raw score, and the raw score (n,) itself."""
        distances, weights = self.baseline.distances(frame), by_stratum(frame, self.weights)
        return fuse(aligned(frame), distances, self.classifier, self.experts, weights)

    def score(
        self,
        frame: pd.DataFrame,
        settings: Config = DEFAULTS,
        *,
        fleet_event: Mask | None = None,
        version: str = "",
        name: str = "appcadence",
    ) -> pa.Table:
        """The scores table (see `SCORES`) of a feature table, in its row order.

        A `score` of 0 is exceeded by one benign alert unit per device-day; each further unit means a factor e
        fewer. The score is the sum of all contributions plus `device_shift` and a constant of the stratum.
        With too little evidence it is null, and there are no contributions. Windows of a `fleet_event` (n,)
        keep their score, have no rank, and alert only if they show a behaviour. Windows to local destinations
        are ranked and alert only if the settings ask for it. Alerts keep to the budget of the settings or, if
        set, to their false discovery rate over all alert units of the frame (Benjamini and Hochberg on
        conformal p-values, which are at least one over the number of calibration units: a small calibration
        finds nothing at a low rate). The thresholds of the settings decide which behaviours a window shows,
        and may bar alerts (see `eligibility.barred`). Alerts and the first 1,000 windows have reasons.

        Raises:
            SchemaError: a feature column is missing.
        """
        table, unit_p = self.measure(frame, settings, fleet_event=fleet_event, version=version, name=name)
        alert = table["alert"].to_numpy()
        if settings.alerts.false_discovery_rate is not None:
            alert = discovered(unit_p, alert_unit(frame), settings.alerts.false_discovery_rate)
        return finalized(table, ranks(table), alert)

    def measure(
        self,
        frame: pd.DataFrame,
        settings: Config = DEFAULTS,
        *,
        fleet_event: Mask | None = None,
        explained_from: float = -np.inf,
        version: str = "",
        name: str = "appcadence",
    ) -> tuple[pa.Table, Vector]:
        """Score a part of a larger frame; `finalized` adds what depends on the whole.

        Returns `SCORES` without ranks, and (n,) the p-values that `discovered` takes.

        Arguments and errors are those of `score`. Windows that score less than `explained_from` and do not
        alert get no reasons.
        """
        frame = hide(frame, self.excluded_families)
        values, group = aligned(frame), self.baseline.group_of(frame)
        distances = self.baseline.z_scores(values, group)
        able, evidence = judged(frame), eligible(frame)
        status = statuses(frame, evidence, fleet_event, settings.ranking.local_destinations)
        scored, event = status == SCORED, status == FLEET_EVENT
        # Often half of all windows have too little evidence; they are skipped.
        fused, raw = np.zeros((len(frame), len(NAMES))), np.full(len(frame), np.nan)
        asked, weights = (values[evidence], distances[evidence]), by_stratum(frame, self.weights)[evidence]
        fused[evidence], raw[evidence] = fuse(*asked, self.classifier, self.experts, weights)
        scale = self._scaled(frame, raw, scored, settings.alerts.alerts_per_device_day)
        contributions = fused / scale.spread[:, None]
        raw_contributions = contributions * scale.spread[:, None]
        behaviours = {b: self._behaviour(b, raw_contributions, able[b]) for b in BEHAVIOURS}
        shown = {b: behaviours[b][1] <= most for b, most in settings.tunables.bounds.items()}
        mute = barred(frame, able, shown, settings.tunables)
        # Newness alone is no reason in a fleet event: only windows that show a behaviour may alert.
        may = (scored | (event & np.logical_or.reduce(list(shown.values())))) & ~mute
        unit_p = np.where(may, scale.unit_p, np.nan)
        rate = settings.alerts.false_discovery_rate
        # With a rate, all windows that may still be discovered.
        alert = may & (scale.score >= scale.threshold if rate is None else unit_p <= rate)
        explained = alert | (_highest_scored(scored, scale.score) & (scale.score >= explained_from))
        said = self._findings(frame, values, distances, group, contributions, explained, scale.shift)
        columns = _keys(frame) | {
            "status": _STATUS.take(pa.array(status)),
            "score": _nullable(scale.score),
            "device_shift": pa.array(scale.shift),
            "p_value": _nullable(scale.p_value),
            "rank": pa.nulls(len(frame), pa.int64()),
            "alert": alert,
            **{b: _struct(BEHAVIOUR, map(_nullable, part)) for b, part in behaviours.items()},
            "behaviours": reasons.listed({b: shown[b] & (scored | event) for b in BEHAVIOURS}),
            "explained_by": reasons.explained_by(frame, distances),
            "contributions": self._top_contributions(evidence, values, group, contributions),
            "exception_id": pa.nulls(len(frame), pa.string()),
            "model_name": pa.repeat(pa.scalar(name, pa.string()), len(frame)),
            "model_version": pa.repeat(pa.scalar(version, pa.string()), len(frame)),
        }
        columns["reasons"], columns["findings"] = findings.columns(explained, said)
        return pa.table({f.name: columns[f.name] for f in SCORES}, SCORES), unit_p

    def _scaled(
        self, frame: pd.DataFrame, raw: Vector, ranked: Mask, alerts_per_device_day: float
    ) -> _Scaled:
        """Raw scores (n,), NaN = too little evidence, on the scale of their strata."""
        p_value, threshold, unit_p = (np.full(len(frame), np.nan) for _ in range(3))
        score, spread, shift = placed(frame, raw, ranked, self.calibration)
        lowered = raw + shift * spread
        for stratum, rows in strata(frame).items():
            calibration = self.calibration[stratum]
            threshold[rows] = calibration.threshold(alerts_per_device_day)
            p_value[rows] = calibration.p_values(lowered[rows])
            unit_p[rows] = calibration.unit_p_values(lowered[rows])
        p_value[np.isnan(raw)] = np.nan
        return _Scaled(score + shift, p_value, threshold, unit_p, spread, shift)

    def constant(self, stratum: str) -> float:
        """The constant of a stratum: score = constant + sum of contributions."""
        c = self.calibration[stratum]
        weight = self.weights[STRATA.index(stratum), 0]
        return float((weight * self.classifier.base - c.origin) / c.spread)

    def _behaviour(self, behaviour: str, contributions: Matrix, able: Mask) -> tuple[Vector, Vector]:
        value = behaviour_score(behaviour, contributions)
        p = conformal(self.behaviours[behaviour], value)
        return np.where(able, value, np.nan), np.where(able, p, np.nan)

    def _findings(
        self,
        frame: pd.DataFrame,
        values: Matrix,
        distances: Matrix,
        group: Codes,
        contributions: Matrix,
        rows: Mask,
        shift: Vector,
    ) -> list[list[findings.Finding]]:
        """The findings of each of the `rows` (n,)."""
        index = np.flatnonzero(rows)
        strongest = np.argsort(-contributions[index], axis=1, kind="stable")[:, : reasons.MAX_REASONS]
        expected = self.baseline.expected(group[index, None], strongest)
        at = index[:, None]
        unusual = reasons.unusual(strongest, values[at, strongest], expected, contributions[at, strongest])
        worth = self.experts.worth(values[index], distances[index])
        experts = reasons.said_by_experts(worth, values[index], distances[index])
        unchecked = reasons.unchecked(frame.iloc[index])
        lowered = reasons.lowered(shift[index])
        said = [
            reasons.told_once(a + b)[: reasons.MAX_REASONS] for a, b in zip(experts, unusual, strict=True)
        ]
        return [a + b + c for a, b, c in zip(said, unchecked, lowered, strict=True)]

    def _top_contributions(self, rows: Mask, values: Matrix, group: Codes, contributions: Matrix) -> pa.Array:
        """The strongest contributions of the chosen rows; empty lists for the others."""
        row = np.flatnonzero(rows)[:, None]
        top = np.empty((len(row), _TOP_CONTRIBUTIONS), np.int64)
        _strongest(contributions, row[:, 0], top)
        parts = (
            _NAMES.take(pa.array(top.ravel())),
            _nullable(values[row, top].ravel()),
            _nullable(self.baseline.expected(group[row], top).ravel()),
            pa.array(contributions[row, top].ravel()),
        )
        flat = _struct(CONTRIBUTION, parts)
        offsets = np.concatenate([[0], np.cumsum(rows, dtype=np.int32)]) * np.int32(top.shape[1])
        return pa.ListArray.from_arrays(pa.array(offsets), flat)


@kernel
def _strongest(contributions, rows, out):  # type: ignore[no-untyped-def]
    """Fill in the places of the largest contributions of some rows, whatever their sign, in order; of equal
    ones, the first come first."""
    width = out.shape[1]
    for i in range(len(rows)):
        own, top = np.abs(contributions[rows[i]]), out[i]
        for k in range(len(own)):
            if k >= width and own[k] <= own[top[width - 1]]:
                continue
            j = min(k, width - 1)
            while j > 0 and own[top[j - 1]] < own[k]:
                top[j] = top[j - 1]
                j -= 1
            top[j] = k


def placed(
    frame: pd.DataFrame, raw: Vector, ranked: Mask, calibration: Mapping[str, Calibration]
) -> tuple[Vector, Vector, Vector]:
    """Scores of raw scores (n,), the spread of each one's stratum, and the `device_shift` that the `ranked`
    (n,) scores cause, each (n,). On the raw scale the shift is shift times spread."""
    score, spread = calibrated(frame, raw, calibration)
    return score, spread, device_shift(frame, score, ranked)


def calibrated(
    frame: pd.DataFrame, raw: Vector, calibration: Mapping[str, Calibration]
) -> tuple[Vector, Vector]:
    """Scores of raw scores (n,) before any `device_shift`, and the spread of each one's stratum."""
    scale = np.array([[calibration[name].origin, calibration[name].spread] for name in STRATA])
    origin, spread = by_stratum(frame, scale).T
    return (raw - origin) / spread, spread


def hide(table: pd.DataFrame, families: tuple[str, ...]) -> pd.DataFrame:
    """The feature table with some families set to unknown."""
    hidden = [name for name in NAMES if FAMILY_OF[name] in families]
    return table.assign(**dict.fromkeys(hidden, np.nan)) if hidden else table


def forest_input(distances: Matrix) -> Matrix:
    """Distances with NaN as 0, "as expected", in float32 precision; NaN would make a forest rank by what is
    missing."""
    return np.where(np.isnan(distances), 0.0, distances).astype(np.float32).astype(np.float64)


def comparable(values: Matrix, distances: Matrix) -> Matrix:
    """Distances for features that are compared with the baseline, values for the others."""
    return np.where(_RELATIVE, distances, values)


def aligned(frame: pd.DataFrame) -> Matrix:
    """(n, n_features) float64 in catalogue order, whatever the column order of the frame.

    All channels of a device without a past are new.

    Raises:
        SchemaError: feature columns are missing, or the frame has another feature schema.
    """
    require_features(frame)
    return without_past(frame.loc[:, list(NAMES)].to_numpy(), (frame["dest"] == APP_LEVEL).to_numpy())


def without_past(given: npt.NDArray[Any], app_level: Mask) -> Matrix:
    """Feature values (n, n_features), in float32 precision as features are, with channels of devices without
    a past marked as new; `app_level` (n,) marks windows of a whole app, which are no channel."""
    with np.errstate(over="ignore"):
        values = given.astype(np.float32, copy=False).astype(np.float64, order="C")
    values[np.isnan(values[:, _NEW]) & ~app_level, _NEW] = 1.0
    return values


def behaviour_score(behaviour: str, contributions: Matrix) -> Vector:
    """(n,) sum of the contributions of the behaviour's families."""
    total = np.zeros(len(contributions))
    # Feature by feature: NumPy would add a single row in another order than many.
    for i in _OF_BEHAVIOUR[behaviour]:
        total += contributions[:, i]
    return total


def _keys(frame: pd.DataFrame) -> dict[str, Any]:
    """The columns that identify a window and count its evidence."""
    # Names stay dictionary codes: as Python strings they would cost more than the score.
    names = ("device_id", "app_id", "dest", "app_attribution")
    numbers = ("window_start", "window_end", "observed_seconds", "n_flows", "n_sessions", "n_beats")
    return {name: arrow(frame[name]).cast(pa.string()) for name in names} | {
        name: arrow(frame[name]).cast(SCORES.field(name).type) for name in numbers
    }


def _highest_scored(scored: Mask, score: Vector) -> Mask:
    """(n,) the `EXPLAINED_ROWS` highest of the scored."""
    order = np.argsort(np.where(scored, -score, np.inf), kind="stable")
    first = np.zeros(len(score), np.bool_)
    first[order[:EXPLAINED_ROWS]] = True
    return first & scored


def _struct(kind: pa.StructType, columns: Iterable[pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(list(columns), fields=list(kind))


def _nullable(values: Vector) -> pa.Array:
    return pa.array(values, pa.float64(), mask=np.isnan(values))
