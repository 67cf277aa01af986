"""Learned trees, flattened: the LightGBM classifier (small monotone trees, several bags) and the forest.

LightGBM learns a correction of the experts' sum, starting from the shipped starting model.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from appcadence._types import Codes, Matrix, Vector
from appcadence.features.catalog import FEATURES, NAMES
from appcadence.models.detector import Detector
from appcadence.models.experts import Experts
from appcadence.models.trees import Trees, join, leaf, scaled, tree
from appcadence.models.trees import tree as tree_of

BAGS = 5
_INFINITE = 1e300
"""LightGBM's dump writes this for an infinite threshold, which separates NaN from every number."""
THREADS = 2


@dataclass(frozen=True)
class Hyperparameters:
    """The hyperparameters that can be searched; the defaults are those of `appcadence train` without a
    search."""

    trees: int = 80
    """Per bag."""
    leaves: int = 5
    learning_rate: float = 0.1
    min_data_in_leaf: int = 10
    feature_fraction: float = 0.5
    lambda_l2: float = 1.0


def fit_classifier(
    rows: Matrix,
    target: Codes,
    weight: Vector,
    names: list[str],
    directions: Codes,
    seed: int,
    settings: Hyperparameters | None = None,
    start: Vector | None = None,
) -> tuple[Trees, str]:
    """Fit (n, n_features) rows, NaN allowed, to target 0/1; the raw value is the mean log-odds of the bags.

    `directions` (n_features,) constrains each feature: +1 never lowers, -1 never raises the log-odds, 0 is
    free. With `start` (n,), the known log-odds of each row, the ensemble is what must be added to them.
    Deterministic. Returns the flattened ensemble and LightGBM's model texts, for audit.
    """
    import lightgbm  # needed to train, never to score

    chosen = settings or Hyperparameters()

    def bag(number: int) -> tuple[str, list[Trees]]:
        data = lightgbm.Dataset(
            rows, target, weight=weight, init_score=start, feature_name=names, free_raw_data=True
        )
        params: dict[str, Any] = {
            "objective": "binary",
            "num_leaves": chosen.leaves,
            "learning_rate": chosen.learning_rate,
            "min_data_in_leaf": chosen.min_data_in_leaf,
            "feature_fraction": chosen.feature_fraction,
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": chosen.lambda_l2,
            "monotone_constraints": [int(d) for d in directions],
            "monotone_constraints_method": "basic",
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "seed": seed * BAGS + number,
            "verbosity": -1,
        }
        booster = lightgbm.train(params, data, chosen.trees)
        trees = [flatten(tree, rows.shape[1], 1.0 / BAGS) for tree in booster.dump_model()["tree_info"]]
        return booster.model_to_string(), trees

    # One thread per bag: threads that share one small model mostly wait for each other, and LightGBM's spin
    # while they wait.
    with ThreadPoolExecutor(THREADS) as pool:
        texts, parts = zip(*pool.map(bag, range(BAGS)), strict=True)
    return join([tree for trees in parts for tree in trees]), "\n".join(texts)


def flatten(tree: dict[str, Any], n_features: int, factor: float) -> Trees:
    """One tree of `Booster.dump_model()`, leaf values times `factor`.

    Equals LightGBM for NaN and every number but plus infinity: thresholds of `Trees` are finite.
    """
    nodes: list[tuple[int, float, int, int, bool, bool, float]] = []

    def add(node: dict[str, Any]) -> tuple[int, float]:
        index = len(nodes)
        nodes.append((-1, 0.0, 0, 0, False, False, float(node.get("leaf_value", 0.0)) * factor))
        if "split_feature" not in node:
            return index, float(node.get("leaf_count", 1) or 1)
        if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
            kind = f"{node['decision_type']}, missing {node['missing_type']}"
            raise ValueError(f"a split of type {kind} is not supported")
        left, n_left = add(node["left_child"])
        right, n_right = add(node["right_child"])
        expected = (nodes[left][6] * n_left + nodes[right][6] * n_right) / (n_left + n_right)
        feature, threshold = int(node["split_feature"]), float(node["threshold"])
        threshold = sys.float_info.max if threshold >= _INFINITE else threshold
        default_left, nan_is_zero = bool(node["default_left"]), node["missing_type"] == "None"
        nodes[index] = (feature, threshold, left, right, default_left, nan_is_zero, expected)
        return index, n_left + n_right

    add(tree["tree_structure"])
    return tree_of(n_features, *zip(*nodes, strict=True))


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
    `anomaly_score` turns it into scikit-learn's score. scikit-learn rounds rows to float32 before it compares
    them: round the rows to be scored too, or rows next to a threshold may take the other branch. Replace NaN
    by 0 before fitting; scoring takes NaN as 0.
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


TRUST_DAYS = 2.0
"""With a baseline of this many device-days, the local correction has weight 1/2."""
SIMULATED_TRUST = 0.25
"""Weight of what the shipped models learned beyond their experts, wherever real captures can contradict it:
with weight 1 they found fewer C2 channels there than their experts alone (docs/quality.md)."""
_DIRECTIONS = np.tile([f.direction for f in FEATURES], 2)
_NAMES = [*NAMES, *(f"{name}_distance" for name in NAMES)]
_MIN_WEIGHT = 0.05


def trust(device_days: float) -> float:
    """Weight of the local correction, in [0, 1), given the baseline's device-days."""
    return device_days / (device_days + TRUST_DAYS)


@dataclass(frozen=True)
class Start:
    """Log-odds before any local learning: the weighted sum of the experts plus the down-weighted trees of the
    starting model."""

    experts: Experts
    weight: float
    trees: Trees

    @classmethod
    def of(
        cls, experts: Experts, prior: Detector | None, rows: Matrix, target: Codes, weight: Vector
    ) -> Start:
        """The start from a starting model. Without one, a logistic regression on the experts' sum gives their
        weight.

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
    """The trees learned on top of a start."""

    base: Trees
    """The trees of the start, plus the constant that fits them to these rows."""
    trees: Trees
    text: str
    """LightGBM's, for audit."""

    def classifier(self, trusted: float) -> Trees:
        """The trees of the start, plus the correction with weight `trusted`."""
        return join([self.base, scaled(self.trees, trusted)]) if trusted else self.base


def correct(
    start: Start, rows: Matrix, target: Codes, weight: Vector, seed: int, settings: Hyperparameters
) -> Correction:
    """Learn what the start misses in telling target 1 from 0; targets are (n,)."""
    known = start.raw(rows)
    constant = _constant(known, target, weight)
    trees, text = fit_classifier(
        rows, target, weight, _NAMES, _DIRECTIONS, seed, settings, start=known + constant
    )
    return Correction(join([start.trees, leaf(constant, rows.shape[1])]), trees, text)


def _worth(experts: Experts, rows: Matrix) -> Vector:
    return np.asarray(experts.worth(rows[:, : len(NAMES)], rows[:, len(NAMES) :]).sum(axis=1))


def _constant(known: Vector, target: Codes, weight: Vector) -> float:
    """The constant to add to log-odds (n,) so that their mean probability is the share of target 1."""
    low, high = -50.0 - float(known.max()), 50.0 - float(known.min())
    share = float(np.average(target, weights=weight))
    for _ in range(60):
        middle = (low + high) / 2
        expected = np.average(1 / (1 + np.exp(-np.clip(known + middle, -50, 50))), weights=weight)
        low, high = (middle, high) if expected < share else (low, middle)
    return (low + high) / 2
