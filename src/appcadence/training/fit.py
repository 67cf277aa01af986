"""Fits the models on injected windows and calibrates them on windows they did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.errors import TelemetryError
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration, alert_unit, device_days
from appcadence.models.detector import (
    Detector,
    aligned,
    behaviour_score,
    forest_input,
    placed,
)
from appcadence.models.eligibility import BEHAVIOURS, STRATA, by_stratum, judged, strata
from appcadence.models.experts import Experts
from appcadence.models.fusion import fuse
from appcadence.models.trees import Trees
from appcadence.training.evaluate import average_precision
from appcadence.training.supervised import Correction, Hyperparameters, Start, correct, fit_forest
from appcadence.training.truth import VERDICT_WEIGHT, Truth, truth_of_carriers

FOLDS = 5
MIN_STRATUM = 100
"""A stratum with fewer calibration windows is calibrated on the windows of all strata."""
MAX_LOSS = 0.05
WEIGHTS = np.ones((len(STRATA), 2))
"""Weights of classifier and experts by stratum; that of the experts multiplies their weight in the start."""


@dataclass(frozen=True)
class Sample:
    """Eligible windows of one round, with features (n, n_features) and distances from its baseline."""

    frame: pd.DataFrame
    values: Matrix
    distances: Matrix
    implant: Codes
    round: Codes
    _ARRAYS: ClassVar = ("values", "distances", "implant", "round")

    @classmethod
    def of(cls, frame: pd.DataFrame, implant: Codes, baseline: AppBaseline, number: int) -> Sample:
        return cls(frame, aligned(frame), baseline.distances(frame), implant, np.full(len(frame), number))

    @classmethod
    def joined(cls, samples: list[Sample]) -> Sample:
        if len(samples) == 1:
            return samples[0]
        # Categories differ between rounds; plain objects join without a warning.
        frames = [
            s.frame.astype({c: object for c in s.frame.columns if s.frame[c].dtype == "category"})
            for s in samples
        ]
        arrays = {name: np.concatenate([getattr(s, name) for s in samples]) for name in cls._ARRAYS}
        return cls(pd.concat(frames, ignore_index=True), **arrays)

    def take(self, mask: Mask) -> Sample:
        arrays = {name: getattr(self, name)[mask] for name in self._ARRAYS}
        return Sample(self.frame[mask].reset_index(drop=True), **arrays)

    @property
    def malicious(self) -> Mask:
        return self.implant >= 0

    def units(self) -> Codes:
        """(n,) alert units; a unit that occurs in two rounds counts as two."""
        return np.asarray(
            np.unique(alert_unit(self.frame) + self.round * (len(self.frame) + 1), return_inverse=True)[1]
        )

    def truth(self) -> Truth:
        """Implant-days: one carrier of implants on one day of one round."""
        return truth_of_carriers(self.frame, self.implant, self.round)

    def days(self) -> float:
        return sum(device_days(self.frame[self.round == r]) for r in np.unique(self.round))


@dataclass(frozen=True)
class Fit:
    """Fitted and calibrated models."""

    classifier: Trees
    classifier_text: str
    forest: Trees
    experts: Experts
    weights: Matrix
    """(n_strata, 2) of classifier and experts."""
    calibration: dict[str, Calibration]
    behaviours: dict[str, Vector]
    calibration_windows: int
    calibration_days: float
    """Observed device-days behind the calibration; variants of one day count once."""
    trusted: float
    """Weight of what was learned here, in [0, 1); 0 if it found no more than the start."""
    tested: pd.DataFrame
    """The windows that quality was measured on, with the columns of `Training.tested`."""


Choice = Callable[[Sample], Hyperparameters]
_Judge = tuple[Correction, Mask]


def fit(
    learn: list[Sample],
    clean: list[Sample],
    check: list[Sample],
    seed: int,
    weights: Matrix = WEIGHTS,
    choose: Choice = lambda rows: Hyperparameters(),
    prior: Detector | None = None,
    trusted: float = 1.0,
) -> Fit:
    """Fit on `learn`; calibrate on `clean` and measure on `check` (both of held-out devices).

    Without held-out devices, both use out-of-fold scores of `learn`, with folds by channel and kind of
    implant. `choose` returns the hyperparameters for the windows it is given, which never include windows
    that its choice is measured on. `prior` is the model to start from. `trusted` is the weight of the local
    correction; it drops to 0 if the correction finds no more than the start alone on windows it was not
    fitted on.

    Raises:
        TelemetryError: there are too few channels to learn both classes, or to hold any of each out.
    """
    rows = Sample.joined(learn)
    fold = fold_of(rows)
    if min(len(np.unique(fold[mask])) for mask in (rows.malicious, ~rows.malicious)) < (1 if clean else 2):
        raise TelemetryError(
            f"{len(fold)} windows of 6 beats or half an hour come from too few channels to hold any out; "
            "train on more devices or a longer capture"
        )
    benign = rows.take(~rows.malicious)
    start = start_of(rows, prior)
    experts = start.experts
    learned = correct(start, *labelled_rows(rows), seed, choose(rows))
    if clean:
        held, tested = Sample.joined(clean), Sample.joined(check)
        judges = [(learned, np.ones(len(held.frame), np.bool_))]
        test_judges = [(learned, np.ones(len(tested.frame), np.bool_))]
    else:
        folds = [k for k in range(FOLDS) if (fold == k).any()]
        parts = {k: rows.take(fold != k) for k in folds}
        by_fold = {k: correct(start, *labelled_rows(part), seed, choose(part)) for k, part in parts.items()}
        tested, held = rows, benign
        test_judges = [(by_fold[k], fold == k) for k in folds]
        judges = [(by_fold[k], (fold == k)[~rows.malicious]) for k in folds]

    weights = weights * np.array([1.0, start.weight])
    without, with_it = (_fused(tested, test_judges, experts, weights, t)[1] for t in (0.0, trusted))
    if not _proven(tested, test_judges, without, with_it):
        trusted, with_it = 0.0, without
    contributions, raw = _fused(held, judges, experts, weights, trusted)
    calibration = _calibrate(held, raw)
    able = judged(held.frame)
    behaviours = {b: np.sort(behaviour_score(b, contributions)[able[b]]) for b in BEHAVIOURS}
    score = _as_scored(tested, with_it, calibration)[0]
    return Fit(
        classifier=learned.classifier(trusted),
        classifier_text=learned.text,
        forest=fit_forest(forest_input(benign.distances), seed),
        experts=experts,
        weights=weights,
        calibration=calibration,
        behaviours=behaviours,
        calibration_windows=len(raw),
        calibration_days=device_days(held.frame),
        trusted=trusted,
        tested=tested.frame[["device_id", "app_id", "dest", "window_start", "observed_seconds"]].assign(
            kind=tested.frame["implant_kind"].astype(object),
            implant=tested.implant,
            round=tested.round,
            unit=tested.units(),
            score=score,
        ),
    )


def start_of(rows: Sample, prior: Detector | None) -> Start:
    """The start of learning: experts fitted on the benign windows, and the model to start from."""
    benign = rows.take(~rows.malicious)
    experts = Experts.fit(benign.values, benign.distances, None if prior is None else prior.experts)
    return Start.of(experts, prior, *labelled_rows(rows))


def labelled_rows(rows: Sample) -> tuple[Matrix, Codes, Vector]:
    """Rows (n, 2 n_features), target and weight (n,) to learn from.

    Every implant has the same weight however many windows it fills, both classes have the same total weight,
    and windows that an analyst decided on have more.
    """
    key = rows.implant + rows.round * (int(rows.implant.max()) + 2)
    _, code, count = np.unique(key, return_inverse=True, return_counts=True)
    weight = np.where(rows.malicious, 1.0 / count[code], 1.0)
    weight[rows.frame["verdict"].notna()] *= VERDICT_WEIGHT
    weight[rows.malicious] *= (~rows.malicious).sum() / max(weight[rows.malicious].sum(), 1e-9)
    return np.hstack([rows.values, rows.distances]), rows.malicious.astype(np.int64), weight


def _proven(rows: Sample, judges: list[_Judge], without: Vector, with_it: Vector) -> bool:
    """Whether the correction finds more in windows of channels (or devices) and kinds that it did not learn
    from.

    Average precision must rise in the mean of the folds, and must not fall in any fold by more than
    `MAX_LOSS`.
    """
    gains = []
    for _, mask in judges:
        target = rows.malicious[mask]
        if 0 < target.sum() < len(target):
            gains.append(average_precision(with_it[mask], target) - average_precision(without[mask], target))
    return bool(gains) and float(np.mean(gains)) > 0 and min(gains) > -MAX_LOSS


def fold_of(rows: Sample) -> Codes:
    """(n,) fold of each window. All windows of a channel (or of an app) share one, over all rounds, and so do
    all implants of a kind if there are enough kinds: a fold is judged by models that saw neither."""
    app = rows.frame["app_id"].astype(object)
    channel = (
        rows.frame["device_id"].astype(str)
        + "\x1f"
        + app.where(app.notna(), rows.frame["dest"].astype(object)).astype(str)
    )
    fold = pd.util.hash_array(channel.to_numpy(dtype=object), categorize=False) % FOLDS
    kind, kinds = pd.factorize(rows.frame["implant_kind"].astype(object), sort=True)
    by_kind = rows.malicious & (len(kinds) >= FOLDS)
    return np.where(by_kind, kind % FOLDS, fold).astype(np.int64)


def _fused(
    rows: Sample, judges: list[_Judge], experts: Experts, weights: Matrix, trusted: float
) -> tuple[Matrix, Vector]:
    contributions, raw = np.empty(rows.values.shape), np.empty(len(rows.frame))
    of_row = by_stratum(rows.frame, weights)
    for learned, mask in judges:
        contributions[mask], raw[mask] = fuse(
            rows.values[mask], rows.distances[mask], learned.classifier(trusted), experts, of_row[mask]
        )
    return contributions, raw


def _calibrate(held: Sample, raw: Vector) -> dict[str, Calibration]:
    """Calibrate on scores as scoring gives them, after a device's unusual day is lowered."""
    return _calibrated(held, _as_scored(held, raw, _calibrated(held, raw))[1])


def _as_scored(rows: Sample, raw: Vector, calibration: dict[str, Calibration]) -> tuple[Vector, Vector]:
    """Scores and raw scores (n,), unusual days of a device lowered as scoring does, each round by itself.

    Implants do not count: a round holds more of them at once than an attack on one device would.
    """
    score, lowered = np.empty(len(raw)), raw.copy()
    for number in np.unique(rows.round):
        mine = rows.round == number
        frame = rows.frame[mine].reset_index(drop=True)
        scaled, spread, shift = placed(frame, raw[mine], ~rows.malicious[mine], calibration)
        score[mine] = scaled + shift
        lowered[mine] += shift * spread
    return score, lowered


def _calibrated(held: Sample, raw: Vector) -> dict[str, Calibration]:
    unit, days = held.units(), held.days()
    out = {}
    for stratum, mask in strata(held.frame).items():
        if mask.sum() < MIN_STRATUM:
            out[stratum] = Calibration.fit(raw, unit, days)
        else:
            part = held.take(mask)
            out[stratum] = Calibration.fit(raw[mask], part.units(), part.days())
    return {stratum: out[stratum] for stratum in STRATA}
