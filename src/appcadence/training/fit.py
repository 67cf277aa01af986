"""Fits the models on injected windows and calibrates them on windows they did not see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.errors import TelemetryError
from appcadence.features.catalog import NAMES
from appcadence.models.alert_units import alert_unit
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration, device_days
from appcadence.models.detector import (
    STRATA,
    aligned,
    behaviour_score,
    forest_input,
    fuse,
    strata,
    tail_input,
)
from appcadence.models.eligibility import BEHAVIOURS, judged
from appcadence.models.surprise import DIRECTIONS, TailSurprise
from appcadence.models.trees import Trees
from appcadence.training.evaluate import Quality, quality
from appcadence.training.forest import fit_forest
from appcadence.training.supervised import THREADS, Hyperparameters, fit_classifier
from appcadence.training.truth import Truth, truth_of_carriers
from appcadence.training.verdicts import WEIGHT as VERDICT_WEIGHT

FOLDS = 5
MIN_STRATUM = 100
"""A stratum with fewer calibration windows is calibrated with all of them."""
WEIGHTS = np.ones(3)
"""Weights of classifier, surprise and forest: all three are logarithms of probabilities and add as they are.
Dividing each by its spread on a small benign baseline made the weights a matter of chance."""
_NAMES = [*NAMES, *(f"{name}_distance" for name in NAMES)]
_DIRECTIONS = np.concatenate([DIRECTIONS, DIRECTIONS])


@dataclass(frozen=True)
class Sample:
    """Eligible windows of one round, with features (n, n_features) and distances from its baseline."""

    frame: pd.DataFrame
    values: Matrix
    distances: Matrix
    implant: Codes
    round: Codes

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
        return cls(
            pd.concat(frames, ignore_index=True),
            np.vstack([s.values for s in samples]),
            np.vstack([s.distances for s in samples]),
            np.concatenate([s.implant for s in samples]),
            np.concatenate([s.round for s in samples]),
        )

    def take(self, mask: Mask) -> Sample:
        return Sample(
            self.frame[mask].reset_index(drop=True),
            self.values[mask],
            self.distances[mask],
            self.implant[mask],
            self.round[mask],
        )

    @property
    def malicious(self) -> Mask:
        return self.implant >= 0

    def units(self) -> Codes:
        """(n,) alert units; the same day of two rounds is two."""
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
    surprise: TailSurprise
    weights: Vector
    calibration: dict[str, Calibration]
    behaviours: dict[str, Vector]
    quality: Quality
    calibration_windows: int
    calibration_days: float
    tested: pd.DataFrame
    """The windows that quality was measured on, with what `Training.tested` lists."""


Choice = Callable[[Sample], Hyperparameters]


def fit(
    learn: list[Sample],
    clean: list[Sample],
    check: list[Sample],
    seed: int,
    weights: Vector = WEIGHTS,
    choose: Choice = lambda rows: Hyperparameters(),
) -> Fit:
    """Fit on `learn`; calibrate on `clean` and measure on `check` (both of held-out devices).

    Without held-out devices both are out-of-fold scores of `learn`, folded by channel. `choose` gives the
    hyper-parameters for the windows it is shown, and is never shown one that its choice is measured on.

    Raises:
        TelemetryError: without held-out devices, there are too few channels to hold any out.
    """
    rows = Sample.joined(learn)
    benign = rows.take(~rows.malicious)
    surprise = TailSurprise.fit(tail_input(benign.values, benign.distances))
    forest = fit_forest(forest_input(benign.distances), seed)
    classifier, text = classifier_of(rows, seed, choose(rows))
    if clean:
        held, tested = Sample.joined(clean), Sample.joined(check)
        models = [(classifier, np.ones(len(held.frame), np.bool_))]
        test_models = [(classifier, np.ones(len(tested.frame), np.bool_))]
    else:
        fold = fold_of(rows)
        folds = [k for k in range(FOLDS) if (fold == k).any()]
        if len(folds) == 1:
            raise TelemetryError(
                f"{len(fold)} windows of 6 beats or half an hour are of too few channels to hold any out; "
                "train on more devices or a longer capture"
            )
        parts = {k: rows.take(fold != k) for k in folds}
        by_fold = {k: classifier_of(part, seed, choose(part))[0] for k, part in parts.items()}
        tested, held = rows, benign
        test_models = [(by_fold[k], fold == k) for k in folds]
        models = [(by_fold[k], (fold == k)[~rows.malicious]) for k in folds]

    contributions, raw = _fused(held, models, surprise, forest, weights)
    calibration = _calibrate(held, raw)
    able = judged(held.frame)
    behaviours = {b: np.sort(behaviour_score(b, contributions)[able[b]]) for b in BEHAVIOURS}
    test_raw = _fused(tested, test_models, surprise, forest, weights)[1]
    score = np.empty(len(test_raw))
    for stratum, mask in strata(tested.frame).items():
        score[mask] = calibration[stratum].scale(test_raw[mask])
    return Fit(
        classifier=classifier,
        classifier_text=text,
        forest=forest,
        surprise=surprise,
        weights=weights,
        calibration=calibration,
        behaviours=behaviours,
        quality=quality(tested.frame, score, tested.truth(), tested.units(), tested.days()),
        calibration_windows=len(raw),
        calibration_days=held.days(),
        tested=tested.frame[["device_id", "app_id", "dest", "window_start", "observed_seconds"]].assign(
            kind=tested.frame["implant_kind"].astype(object),
            implant=tested.implant,
            round=tested.round,
            unit=tested.units(),
            score=score,
        ),
    )


def classifier_of(
    rows: Sample, seed: int, settings: Hyperparameters, threads: int = THREADS
) -> tuple[Trees, str]:
    """Every implant weighs the same however many windows it fills, both classes weigh the same, and what an
    analyst decided on weighs more."""
    key = rows.implant + rows.round * (int(rows.implant.max()) + 2)
    _, code, count = np.unique(key, return_inverse=True, return_counts=True)
    weight = np.where(rows.malicious, 1.0 / count[code], 1.0)
    weight[rows.frame["verdict"].notna()] *= VERDICT_WEIGHT
    weight[rows.malicious] *= (~rows.malicious).sum() / max(weight[rows.malicious].sum(), 1e-9)
    return fit_classifier(
        np.hstack([rows.values, rows.distances]),
        rows.malicious.astype(np.int64),
        weight,
        _NAMES,
        _DIRECTIONS,
        seed,
        settings,
        threads,
    )


def fold_of(rows: Sample) -> Codes:
    """(n,) fold of each window; all windows of a channel (or of an app) share one, over all rounds."""
    app = rows.frame["app_id"].astype(object)
    channel = (
        rows.frame["device_id"].astype(str)
        + "\x1f"
        + app.where(app.notna(), rows.frame["dest"].astype(object)).astype(str)
    )
    return np.asarray(pd.util.hash_array(channel.to_numpy(dtype=object), categorize=False) % FOLDS, np.int64)


def _fused(
    rows: Sample,
    models: list[tuple[Trees, Mask]],
    surprise: TailSurprise,
    forest: Trees,
    weights: Vector,
) -> tuple[Matrix, Vector]:
    contributions, raw = np.empty(rows.values.shape), np.empty(len(rows.frame))
    for classifier, mask in models:
        contributions[mask], raw[mask] = fuse(
            rows.values[mask], rows.distances[mask], classifier, surprise, forest, weights
        )
    return contributions, raw


def _calibrate(held: Sample, raw: Vector) -> dict[str, Calibration]:
    unit, days = held.units(), held.days()
    out = {}
    for stratum, mask in strata(held.frame).items():
        if mask.sum() < MIN_STRATUM:
            out[stratum] = Calibration.fit(raw, unit, days)
        else:
            part = held.take(mask)
            out[stratum] = Calibration.fit(raw[mask], part.units(), part.days())
    return {stratum: out[stratum] for stratum in STRATA}
