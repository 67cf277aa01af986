"""The isolation forest, flattened: mean isolation depth as an additive score."""

from __future__ import annotations

import numpy as np

from appcadence._types import Matrix, Vector
from appcadence.models.trees import Trees, join, tree

TREES = 200
SUBSAMPLE = 256


def average_path_length(n: Vector) -> Vector:
    """Mean depth of an unsuccessful search in a binary tree of n samples (Liu, Ting and Zhou, 2008)."""
    n = np.asarray(n, np.float64)
    big = np.maximum(n, 3.0)
    depth = 2.0 * (np.log(big - 1.0) + np.euler_gamma) - 2.0 * (big - 1.0) / big
    return np.where(n <= 1, 0.0, np.where(n == 2, 1.0, depth))


def fit_forest(rows: Matrix, seed: int, trees: int = TREES) -> Trees:
    """Fit scikit-learn's isolation forest on (n, n_features) complete rows.

    The raw value of a row is -(mean depth) / c(subsample), in about [-2, 0], higher = more anomalous;
    `anomaly_score` turns it into scikit-learn's number. scikit-learn rounds rows to float32 before it
    compares them: round the rows to be scored too, or those next to a threshold may take the other side.
    Missing must be replaced by 0 before fitting; when scoring, NaN is taken as 0.
    """
    from sklearn.ensemble import IsolationForest  # needed to train, never to score

    forest = IsolationForest(n_estimators=trees, max_samples=min(SUBSAMPLE, len(rows)), random_state=seed)
    forest.fit(rows.astype(np.float32))
    scale = trees * float(average_path_length(np.array([forest.max_samples_]))[0])
    return join([_flatten(e.tree_, rows.shape[1], scale, trees) for e in forest.estimators_])


def anomaly_score(raw: Vector) -> Vector:
    """scikit-learn's anomaly score (its `-score_samples`), in (0, 1], from raw values of the forest."""
    return np.asarray(2.0**raw)


def _flatten(found, n_features: int, scale: float, trees: int) -> Trees:  # type: ignore[no-untyped-def]
    left, right = found.children_left, found.children_right
    samples = found.n_node_samples.astype(np.float64)
    depth = np.zeros(len(left))
    for node in range(len(left)):
        if left[node] >= 0:
            depth[left[node]] = depth[right[node]] = depth[node] + 1
    # A lone sample cannot be isolated: scikit-learn then takes the mean depth for the expected one.
    expected = -(depth + average_path_length(samples)) / scale if scale else np.full(len(left), -1.0 / trees)
    for node in range(len(left) - 1, -1, -1):
        if left[node] >= 0:
            a, b = left[node], right[node]
            expected[node] = (samples[a] * expected[a] + samples[b] * expected[b]) / samples[node]
    inner = left >= 0
    feature, threshold = np.where(inner, found.feature, -1), np.where(inner, found.threshold, 0.0)
    places = np.maximum(left, 0), np.maximum(right, 0)
    never, always = np.zeros(len(left)), np.ones(len(left))
    return tree(n_features, feature, threshold, *places, never, always, expected)
