"""Flattened ensembles equal their libraries, explain themselves, and cannot be made to misbehave."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from handmade import staircase
from hypothesis import given, settings
from hypothesis import strategies as st

from appcadence.errors import BundleError
from appcadence.models.trees import Trees, join
from appcadence.training.supervised import (
    BAGS,
    anomaly_score,
    average_path_length,
    fit_classifier,
    fit_forest,
    flatten,
)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 8))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 3] = np.nan_to_num(x[:, 3])  # a column that training never saw missing
    return x


@pytest.fixture(scope="module")
def classifier(rows):
    target = (np.nan_to_num(rows[:, 0]) + 2 * np.nan_to_num(rows[:, 1]) > 0.5).astype(np.int64)
    names = [f"f{i}" for i in range(8)]
    return fit_classifier(rows, target, np.ones(len(rows)), names, np.array([1, 0, -1, 0, 0, 0, 0, 0]), 0)


@pytest.fixture(scope="module")
def forest(rows):
    return fit_forest(np.nan_to_num(rows), 0)


def test_forest_equals_scikit_learn(rows, forest):
    from sklearn.ensemble import IsolationForest

    x = np.nan_to_num(rows).astype(np.float32)
    twin = IsolationForest(n_estimators=200, max_samples=256, random_state=0).fit(x)
    np.testing.assert_allclose(anomaly_score(forest.raw(x)), -twin.score_samples(x), rtol=0, atol=1e-12)
    for n in (1, 2, 3, 50):
        twin = IsolationForest(n_estimators=200, max_samples=n, random_state=1).fit(x[:n])
        small = anomaly_score(fit_forest(x[:n].astype(np.float64), 1).raw(x))
        np.testing.assert_allclose(small, -twin.score_samples(x), rtol=0, atol=1e-12)


def test_classifier_equals_lightgbm_missing_values_included(rows, classifier):
    import lightgbm

    trees, text = classifier
    bags = ["tree\n" + part for part in text.split("tree\n") if part.strip()]
    assert len(bags) == BAGS
    probe = rows.copy()
    probe[::7, 3] = np.nan
    # The dump writes an infinite threshold as 1e300, so what lies above tells the two apart.
    extremes = np.array([np.nan, 0.0, 1e-36, 1e300, 1e301, np.finfo(np.float64).max, -1e300, -np.inf])
    probe = np.vstack([probe, np.repeat(extremes[:, None], 8, axis=1)])
    want = np.mean([lightgbm.Booster(model_str=b).predict(probe, raw_score=True) for b in bags], axis=0)
    np.testing.assert_allclose(trees.raw(probe), want, rtol=0, atol=1e-12)


def test_classifier_is_monotone_and_repeatable(rows, classifier):
    trees, text = classifier
    low, high = rows.copy(), rows.copy()
    low[:, 0], high[:, 0] = -1.0, 1.0
    assert (trees.raw(high) >= trees.raw(low) - 1e-12).all()
    target = (np.nan_to_num(rows[:, 0]) + 2 * np.nan_to_num(rows[:, 1]) > 0.5).astype(np.int64)
    again = fit_classifier(
        rows, target, np.ones(len(rows)), [f"f{i}" for i in range(8)], np.array([1, 0, -1, 0, 0, 0, 0, 0]), 0
    )
    assert again[1] == text


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-9, 9) | st.just(np.nan)] * 8), min_size=1, max_size=20))
def test_contributions_add_up(forest, classifier, values):
    probe = np.array(values)
    for trees in (forest, classifier[0]):
        raw, parts = trees.contributions(probe)
        np.testing.assert_allclose(trees.base + parts.sum(axis=1), raw, rtol=0, atol=1e-9)


def test_round_trip(forest, rows):
    again = Trees.from_arrays(forest.arrays("x."), "x.")
    assert (again.raw(np.nan_to_num(rows)) == forest.raw(np.nan_to_num(rows))).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("left", lambda a: a * 0),  # a loop
        ("roots", lambda a: np.repeat(a, 50)),
        ("roots", lambda a: a[:, None]),
        ("left", lambda a: np.where(a > 0, a + 1, a).astype(np.int32)),  # nodes shared by two parents
        ("right", lambda a: a + 10**6),
        ("feature", lambda a: a + 100),
        ("roots", lambda a: a - 5),
        ("threshold", lambda a: a * np.nan),
        ("threshold", lambda a: a + np.inf),
        ("n_features", lambda a: a[None]),
        ("n_features", lambda a: a - 8),
        ("n_features", lambda a: 8),
        ("expected", lambda a: a / 0.0),
        ("feature", lambda a: a[:-1]),
        ("threshold", lambda a: a.astype(np.float32)),
        ("left", None),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_hostile_arrays_are_refused(forest, name, change):
    arrays = forest.arrays()
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    with pytest.raises(BundleError):
        Trees.from_arrays(arrays)


def test_wrong_width_names_both(forest):
    with pytest.raises(ValueError, match=r"\(3, 5\).*\(n, 8\)"):
        forest.raw(np.zeros((3, 5)))


def test_scoring_imports_no_training_library():
    code = (
        "import sys, appcadence.serving; "
        "bad = {'sklearn', 'lightgbm', 'mlflow', 'matplotlib', 'appcadence.training'} & set(sys.modules); "
        "sys.exit(', '.join(sorted(bad)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_a_value_at_the_threshold_goes_left_and_what_is_unknown_where_it_is_told():
    trees = staircase(0, [0.5, 2.0], 1)
    asked = np.array([[0.5], [np.nextafter(0.5, 1)], [2.0], [np.nextafter(2.0, 3)], [np.nan]])
    assert trees.raw(asked).tolist() == [0, 1, 1, 2, 0]
    right = replace(trees, default_left=~trees.default_left)
    assert right.raw(asked[-1:]).tolist() == [2]
    # As nought, it is asked like any other number.
    zero = replace(right, nan_is_zero=~right.nan_is_zero, threshold=trees.threshold - 1.0)
    assert zero.raw(asked[-1:]).tolist() == [1]
    low = replace(trees, expected=trees.expected + np.array([0.25, 0.75, 0, 0, 0]))
    raw, parts = join([low, low]).contributions(asked)
    assert raw.tolist() == [0, 2, 2, 4, 0] and (raw - parts[:, 0] == 0.5).all()


def test_what_is_expected_at_a_split_is_the_mean_of_its_windows():
    split = {"split_feature": 0, "decision_type": "<=", "missing_type": "NaN", "default_left": True}
    leaves = [{"leaf_value": 8.0, "leaf_count": 1}, {"leaf_value": 0.0, "leaf_count": 3}]
    inner = split | {"threshold": 1.0, "left_child": leaves[0], "right_child": leaves[1]}
    whole = split | {
        "threshold": 2.0,
        "left_child": inner,
        "right_child": {"leaf_value": -2.0, "leaf_count": 4},
    }
    trees = flatten({"tree_structure": whole}, 1, 0.5)
    assert trees.base == 0.5 * (8 + 0 * 3 - 2 * 4) / 8 and trees.expected[1] == 0.5 * 8 / 4
    assert trees.raw(np.array([[1.0], [2.0], [2.1], [np.nan]])).tolist() == [4, 0, -1, 4]


def test_the_forest_expects_the_mean_of_what_it_learned_from():
    rows = np.random.default_rng(2).normal(size=(60, 3)).astype(np.float32).astype(np.float64)
    trees = fit_forest(rows, 0, trees=20)
    assert trees.base == pytest.approx(trees.raw(rows).mean())


def test_the_mean_depth_of_few_samples():
    # Of three samples one is told apart at once, two after one question more: (1 + 2 + 2) / 3.
    assert average_path_length(np.array([0.0, 1, 2, 3])) == pytest.approx([0, 0, 1, 1.207392357586557])
