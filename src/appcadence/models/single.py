"""Scoring of single windows from arrays, and full explanations of single rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.features.catalog import FAMILY_OF, NAMES
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding, of_row
from appcadence.models.calibration import Calibration
from appcadence.models.detector import Detector, aligned, forest_input, without_past
from appcadence.models.eligibility import READS, STRATA, eligible, strata
from appcadence.models.fusion import combine, members

_READS = {name: NAMES.index(name) for name in READS}


class WindowScore(NamedTuple):
    """The result of `Channel.score`."""

    score: float
    """As in the scores table: one benign alert unit per device-day exceeds 0. NaN with too little evidence,
    as is `p_value`."""
    p_value: float
    classifier: float
    """Log-odds of the classifier."""
    experts: float
    """Sum of the worths of the experts' statistics; 0 = nothing unusual."""
    contributions: Vector
    """(n_features,) in catalogue order; with `Channel.constant` they sum to the score."""


@dataclass(frozen=True)
class Channel:
    """What scoring needs to know about an app and destination, looked up once; threads may share it.

    The numbers equal those of `Detector.score` for the same window, bit for bit, unless the rest of its
    device is unusual too (see `device_shift`).
    """

    detector: Detector
    group: Codes
    """(1,) its group in the baseline (see `AppBaseline.group_of`)."""
    calibration: Calibration
    weights: Vector
    """(2,) of classifier and experts (see `Detector.weights`)."""
    constant: float
    """See `Detector.constant`."""
    app_level: Mask
    """(1,) whether it stands for an app with all of its destinations."""
    hidden: Codes
    """Places of the features that the detector must not use."""

    @classmethod
    def of(
        cls,
        detector: Detector,
        app_id: str | None,
        dest: str,
        category: str | None = None,
        destination_known: bool = True,
    ) -> Channel:
        """The channel of an app (None = unknown) to a destination, or to all of its destinations ("*").

        `category` is the app's in the inventory; channels that the baseline does not know are judged by it.
        Without `destination_known` the app comes from a phone's own log, and `dest` is "*".
        """
        frame = pd.DataFrame([[app_id, dest, category]], columns=["app_id", "dest", "category"], dtype=object)
        frame["destination_known"] = destination_known
        (stratum,) = (name for name, rows in strata(frame).items() if rows[0])
        hidden = [i for i, name in enumerate(NAMES) if FAMILY_OF[name] in detector.excluded_families]
        group = detector.baseline.group_of(frame)
        return cls(
            detector,
            group,
            detector.calibration[stratum],
            detector.weights[STRATA.index(stratum)],
            detector.constant(stratum),
            np.array([dest == APP_LEVEL]),
            np.array(hidden, np.int64),
        )

    def score(self, values: npt.ArrayLike, n_beats: int) -> WindowScore:
        """Score one window.

        Args:
            values: (n_features,) in catalogue order (`appcadence.features.NAMES`), NaN = unknown.
            n_beats: beats of the window: its flow starts, those less than 2 s apart merged.

        Raises:
            ValueError: there are not as many values as features.
        """
        row = self._row(values)
        detector, calibration = self.detector, self.calibration
        distances = detector.baseline.z_scores(row, self.group)
        said = members(row, distances, detector.classifier, detector.experts)
        contributions, raw = combine(said, self.weights)
        score, p = np.nan, np.nan
        if eligible({name: float(row[0, i]) for name, i in _READS.items()} | {"n_beats": n_beats}):
            score, p = float(calibration.scale(raw)[0]), float(calibration.p_values(raw)[0])
        classifier, experts = (float(value[0]) for value, _ in said)
        return WindowScore(score, p, classifier, experts, contributions[0] / calibration.spread)

    def forest(self, values: npt.ArrayLike) -> float:
        """The raw value of the forest for one window, in about [-2, 0]; it is no part of the score.

        `training.supervised.anomaly_score` converts it to scikit-learn's. Arguments and errors are those of
        `score`.
        """
        distances = self.detector.baseline.z_scores(self._row(values), self.group)
        return float(self.detector.forest.raw(forest_input(distances))[0])

    def _row(self, values: npt.ArrayLike) -> Matrix:
        """(1, n_features) what the detector may see of the values."""
        row = np.array(values, np.float64).reshape(1, -1)
        if row.shape[1] != len(NAMES):
            raise ValueError(f"{row.shape[1]} values were given; the catalogue has {len(NAMES)} features")
        if len(self.hidden):
            row[:, self.hidden] = np.nan
        return without_past(row, self.app_level)


@dataclass(frozen=True)
class Explanation:
    """The full explanation of one window."""

    status: str
    """scored or insufficient_evidence"""
    score: float
    """`constant` plus the sum of all contributions; NaN with too little evidence, as is `p_value`."""
    p_value: float
    behaviours: tuple[str, ...]
    """Those it shows."""
    explained_by: tuple[str, ...]
    """Codes of findings for a benign explanation (see `appcadence.findings`)."""
    findings: tuple[Finding, ...]
    """Reasons, the strongest first, then what could not be checked; `Finding.text` is the wording."""
    constant: float
    contributions: pd.DataFrame
    """(n_features, 4) feature, value, expected and contribution, the strongest first; NaN where a value is
    unknown, or where none is expected."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(finding.text for finding in self.findings)


def explain(detector: Detector, row: pd.Series | pd.DataFrame) -> Explanation:
    """Explain one row of a feature table.

    Raises:
        SchemaError: a feature is missing.
        ValueError: it is not one row.
    """
    frame = row.to_frame().T.infer_objects() if isinstance(row, pd.Series) else row
    if len(frame) != 1:
        raise ValueError(f"explain takes one row of a feature table, got {len(frame)}")
    (said,) = detector.measure(frame)[0].to_pylist()
    app_id, category = (None if pd.isna(x := frame[n].iloc[0]) else str(x) for n in ("app_id", "category"))
    channel = Channel.of(detector, app_id, str(frame["dest"].iloc[0]), category)
    values = aligned(frame)[0].copy()
    found = channel.score(values, int(frame["n_beats"].iloc[0]))
    values[channel.hidden] = np.nan
    table = pd.DataFrame(
        {
            "feature": NAMES,
            "value": values,
            "expected": detector.baseline.expected(channel.group, np.arange(len(NAMES))),
            "contribution": found.contributions,
        }
    )
    strongest = np.argsort(-np.abs(found.contributions), kind="stable")
    return Explanation(
        status=said["status"],
        score=found.score,
        p_value=found.p_value,
        behaviours=tuple(said["behaviours"]),
        explained_by=tuple(said["explained_by"]),
        findings=tuple(of_row(said)),
        constant=channel.constant,
        contributions=table.iloc[strongest].reset_index(drop=True),
    )
