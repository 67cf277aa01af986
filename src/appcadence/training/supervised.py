"""The LightGBM classifier: small monotone trees, several bags, flattened."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from appcadence._types import Codes, Matrix, Vector
from appcadence.models.trees import Trees, join
from appcadence.models.trees import tree as tree_of

BAGS = 5
_INFINITE = 1e300
"""What LightGBM's dump writes for an infinite threshold, at which it parts NaN from every number."""
THREADS = 2


@dataclass(frozen=True)
class Hyperparameters:
    """What may be searched for; the defaults are what `appcadence train` uses without a search."""

    trees: int = 80
    """A bag."""
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
    free. With `start` (n,), log-odds that are known of each row, the ensemble is what has to be added to
    them. Deterministic. Returns the flattened ensemble and LightGBM's model texts, for audit.
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

    # A thread a bag: threads that share one small model wait for each other most of the time, and LightGBM's
    # spin while they do.
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
