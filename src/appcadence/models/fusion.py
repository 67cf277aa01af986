"""Classifier and experts as one raw score, with the contribution of each feature."""

from __future__ import annotations

import numpy as np

from appcadence._types import Matrix, Vector
from appcadence.features._kernels import kernel
from appcadence.features.catalog import FEATURES
from appcadence.models.experts import Experts
from appcadence.models.trees import Trees

Member = tuple[Vector, Matrix]
Members = tuple[Member, Member]


def fuse(
    values: Matrix, distances: Matrix, classifier: Trees, experts: Experts, weights: Vector | Matrix
) -> tuple[Matrix, Vector]:
    """Contributions (n, n_features) and fused raw scores (n,) from feature values and baseline distances;
    weights as in `combine`."""
    return combine(members(values, distances, classifier, experts), weights)


def members(values: Matrix, distances: Matrix, classifier: Trees, experts: Experts) -> Members:
    """Raw values (n,) and contributions (n, n_features) of classifier and experts."""
    width = len(FEATURES)
    log_odds, by_column = classifier.contributions(np.hstack([values, distances]))
    worth = experts.contributions(values, distances)
    return (log_odds, by_column[:, :width] + by_column[:, width:]), (worth.sum(axis=1), worth)


def combine(parts: Members, weights: Vector | Matrix) -> Member:
    """Contributions (n, n_features) and fused raw scores (n,) of the members, with weights (2,) or (n, 2)."""
    (log_odds, corrections), (worth, evidence) = parts
    contributions, raw = np.empty_like(evidence), np.empty_like(worth)
    _weigh(log_odds, corrections, worth, evidence, weights.reshape(-1, 2), contributions, raw)
    return contributions, raw


@kernel
def _weigh(log_odds, corrections, worth, evidence, weights, contributions, raw):  # type: ignore[no-untyped-def]
    for i in range(len(raw)):
        own = weights[i if len(weights) > 1 else 0]
        raw[i] = own[0] * log_odds[i] + own[1] * worth[i]
        for k in range(contributions.shape[1]):
            contributions[i, k] = own[0] * corrections[i, k] + own[1] * evidence[i, k]
