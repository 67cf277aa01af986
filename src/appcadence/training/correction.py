"""What LightGBM adds to the experts: a correction of their sum that begins where the shipped model ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from appcadence._types import Codes, Matrix, Vector
from appcadence.features.catalog import FEATURES, NAMES
from appcadence.models.detector import Detector
from appcadence.models.experts import Experts
from appcadence.models.trees import Trees, join, leaf, scaled
from appcadence.training.supervised import Hyperparameters, fit_classifier

TRUST_DAYS = 2.0
"""A baseline of so many device-days moves the score half of the way from the reference to what it teaches."""
SIMULATED_TRUST = 0.25
"""So much of what the shipped models learned beyond their experts counts where real captures can contradict
it: at one, they found fewer C2 channels on them than their experts alone (docs/quality.md)."""
_DIRECTIONS = np.tile([f.direction for f in FEATURES], 2)
_NAMES = [*NAMES, *(f"{name}_distance" for name in NAMES)]
_MIN_WEIGHT = 0.05


def trust(device_days: float) -> float:
    """How much of the local correction counts, in [0, 1), given the baseline's device-days."""
    return device_days / (device_days + TRUST_DAYS)


@dataclass(frozen=True)
class Start:
    """Log-odds before anything is learned here: the weighted sum of the experts, and what is trusted of the
    reference's trees."""

    experts: Experts
    weight: float
    trees: Trees

    @classmethod
    def of(
        cls, experts: Experts, prior: Detector | None, rows: Matrix, target: Codes, weight: Vector
    ) -> Start:
        """From a starting model; without one, the experts' weight is that of a logistic regression on their
        sum.

        `rows` is (n, 2 n_features), values and distances.
        """
        if prior is not None:
            trees = scaled(prior.classifier, SIMULATED_TRUST)
            return cls(experts, float(prior.weights[0, 1]), trees)
        from sklearn.linear_model import LogisticRegression  # needed to train, never to score

        worth = _worth(experts, rows)
        slope = LogisticRegression().fit(worth[:, None], target, sample_weight=weight).coef_[0, 0]
        return cls(experts, max(float(slope), _MIN_WEIGHT), leaf(0.0, rows.shape[1]))

    def raw(self, rows: Matrix) -> Vector:
        """(n,) log-odds, up to a constant."""
        return self.weight * _worth(self.experts, rows) + self.trees.raw(rows)


@dataclass(frozen=True)
class Correction:
    """What was learned on top of a start."""

    base: Trees
    """The start's trees and the constant that fits them to these rows."""
    trees: Trees
    text: str
    """LightGBM's, for audit."""

    def classifier(self, trusted: float) -> Trees:
        """The trees of the start, with so much of the correction."""
        return join([self.base, scaled(self.trees, trusted)]) if trusted else self.base


def correct(
    start: Start, rows: Matrix, target: Codes, weight: Vector, seed: int, settings: Hyperparameters
) -> Correction:
    """Learn to tell target 1 from 0, (n,) each, where the start alone does not."""
    known = start.raw(rows)
    constant = _constant(known, target, weight)
    trees, text = fit_classifier(
        rows, target, weight, _NAMES, _DIRECTIONS, seed, settings, start=known + constant
    )
    return Correction(join([start.trees, leaf(constant, rows.shape[1])]), trees, text)


def _worth(experts: Experts, rows: Matrix) -> Vector:
    return np.asarray(experts.worth(rows[:, : len(NAMES)], rows[:, len(NAMES) :]).sum(axis=1))


def _constant(known: Vector, target: Codes, weight: Vector) -> float:
    """What has to be added to log-odds (n,) so that their mean probability is the share of target 1."""
    low, high = -50.0 - float(known.max()), 50.0 - float(known.min())
    share = float(np.average(target, weights=weight))
    for _ in range(60):
        middle = (low + high) / 2
        expected = np.average(1 / (1 + np.exp(-np.clip(known + middle, -50, 50))), weights=weight)
        low, high = (middle, high) if expected < share else (low, middle)
    return (low + high) / 2
