"""The models' scikit-learn manners, and that the numbers are those of the models."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from make import DAY0, fleet
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from appcadence.errors import SchemaError
from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.features.transformer import INDEX, FlowFeatures
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import aligned, forest_input
from appcadence.models.fusion import fuse
from appcadence.training.estimators import BaselineScaler, DetectorClassifier, FlatIsolationForest
from appcadence.training.fit import Sample, fit
from appcadence.training.injection import labelled, past_and_future
from appcadence.training.supervised import BAGS, Hyperparameters, anomaly_score, fit_forest

CUT = (DAY0 + 2 * 86400) * 1_000_000
SMALL = {"trees": 4}


@parametrize_with_checks(
    [BaselineScaler(), FlatIsolationForest(n_estimators=10), DetectorClassifier(trees=1)]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def tables():
    return fleet(devices=4, days=4)


@pytest.fixture(scope="module")
def past(tables):
    return extract(past_and_future(tables, CUT)[0])


@pytest.fixture(scope="module")
def later(tables):
    """Later windows with implants."""
    return labelled(tables, CUT, "24h", 0, 2.0)[0]


def test_the_scaler_gives_the_baselines_distances(past, later):
    scaler = BaselineScaler().fit(past)
    want = AppBaseline.fit(past).distances(later.frame)
    np.testing.assert_array_equal(scaler.transform(later.frame), want)
    jumbled = later.frame[later.frame.columns[::-1]].assign(more="text")
    np.testing.assert_array_equal(scaler.transform(jumbled), want)
    np.testing.assert_array_equal(scaler.transform(later.frame.set_index(list(INDEX))), want)
    assert np.isfinite(want).any() and np.nanstd(want) > 0.1


@pytest.mark.parametrize("column", ["device_id", "dest", NAMES[0], NAMES[-1]])
def test_a_table_without_a_key_or_a_feature_is_refused(past, column):
    with pytest.raises(SchemaError, match=f"lacks '{column}'"):
        BaselineScaler().fit(past.drop(columns=column))


def test_a_matrix_wider_than_the_catalogue_is_refused():
    with pytest.raises(ValueError, match=f"has {len(NAMES) + 1} columns"):
        BaselineScaler().fit(np.zeros((5, len(NAMES) + 1)))


def test_a_matrix_is_the_first_features_of_one_channel():
    rows = np.random.default_rng(0).random((40, 3))
    table = pd.DataFrame(rows, columns=list(NAMES[:3])).reindex(columns=list(NAMES))
    table = table.assign(device_id="d", app_id="a", dest="x.example", category=None)
    want = AppBaseline.fit(table).distances(table)
    np.testing.assert_array_equal(BaselineScaler().fit_transform(rows), want[:, :3])


def test_pandas_output_keeps_names_and_index(past):
    out = BaselineScaler().set_output(transform="pandas").fit_transform(past.set_index(list(INDEX)))
    assert list(out.columns) == list(NAMES) == list(BaselineScaler().fit(past).get_feature_names_out())
    assert list(out.index.names) == list(INDEX) and len(out) == len(past)
    np.testing.assert_array_equal(out, BaselineScaler().fit_transform(past))


@pytest.mark.parametrize("n", [1, 2, 40, 400])
def test_the_flat_forest_scores_as_scikit_learns(n):
    rng = np.random.default_rng(n)
    rows, other = rng.normal(size=(n, 7)), rng.normal(size=(200, 7)) * 2
    other[rng.random(other.shape) < 0.1] = np.nan
    ours = FlatIsolationForest(n_estimators=50, random_state=3).fit(rows)
    theirs = IsolationForest(n_estimators=50, random_state=3).fit(rows)
    filled = np.nan_to_num(other)
    np.testing.assert_allclose(ours.score_samples(other), theirs.score_samples(filled), rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        ours.decision_function(other), theirs.decision_function(filled), rtol=0, atol=1e-9
    )
    assert ours.offset_ == theirs.offset_
    clear = np.abs(ours.decision_function(other)) > 1e-9
    np.testing.assert_array_equal(ours.predict(other)[clear], theirs.predict(filled)[clear])


def test_a_pipeline_leads_from_flows_to_outliers(tables):
    pipeline = make_pipeline(FlowFeatures(), BaselineScaler(), FlatIsolationForest(n_estimators=20))
    before, after = past_and_future(tables, CUT)
    pipeline.fit(before)
    got = pipeline.score_samples(after)
    learned = FlowFeatures()
    first, second = learned.fit_transform(before).reset_index(), learned.transform(after).reset_index()
    baseline = AppBaseline.fit(first.assign(category=None))
    forest = fit_forest(forest_input(baseline.distances(first.assign(category=None))), 0, 20)
    distances = baseline.distances(second.assign(category=None))
    np.testing.assert_array_equal(got, -anomaly_score(forest.raw(forest_input(distances))))
    assert set(pipeline.predict(after)) <= {-1, 1} and len(got) == len(second)


def test_the_classifier_holds_the_models_that_training_fits(past, later):
    baseline = AppBaseline.fit(past)
    settings = Hyperparameters(trees=4, leaves=3)
    sample = Sample.of(later.frame, later.implant, baseline, 0)
    want = fit([sample], [], [], 1, choose=lambda rows: settings)
    got = DetectorClassifier(baseline, **asdict(settings), random_state=1)
    got.fit(later.frame, later.malicious)
    # The estimator holds nothing out, so that a correction that training would drop is kept.
    assert want.trusted == 1.0
    for part, array in want.classifier.arrays().items():
        np.testing.assert_array_equal(got.classifier_.arrays()[part], array, part)
    np.testing.assert_array_equal(got.experts_.thresholds, want.experts.thresholds)
    np.testing.assert_array_equal(got.experts_.steps, want.experts.steps)
    assert want.weights.tolist() == [[1.0, got.weight_]] * 3
    raw = fuse(sample.values, sample.distances, want.classifier, want.experts, want.weights[0])[1]
    np.testing.assert_array_equal(got.decision_function(later.frame), raw)
    assert raw[later.malicious].mean() > raw[~later.malicious].mean() + 1


def test_which_way_each_score_points(later):
    """An outlier detector's scores are lower, a classifier's higher, for what is more anomalous."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    forest = FlatIsolationForest(n_estimators=50).fit(rows)
    for score in (forest.score_samples, forest.decision_function):
        assert score(np.full((1, 4), 9.0)) < score(np.zeros((1, 4)))
    assert forest.predict(np.full((1, 4), 9.0)) == -1 and forest.decision_function(np.full((1, 4), 9.0)) < 0
    model = DetectorClassifier(**SMALL).fit(later.frame, np.where(later.malicious, "implant", "benign"))
    raw, shares = model.decision_function(later.frame), model.predict_proba(later.frame)
    np.testing.assert_allclose(shares[:, 1], 1 / (1 + np.exp(-raw)), rtol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert raw[later.malicious].mean() > raw[~later.malicious].mean()
    np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], model.predict(later.frame))


def test_without_a_baseline_the_benign_windows_are_one(later):
    got = DetectorClassifier(**SMALL).fit(later.frame, later.malicious)
    want = AppBaseline.fit(later.frame[~later.malicious])
    np.testing.assert_array_equal(got.baseline_.distances(later.frame), want.distances(later.frame))


def test_the_score_is_the_experts_sum_and_what_the_trees_add(later):
    y = np.where(later.malicious, "implant", "benign")
    got = DetectorClassifier(**SMALL).fit(later.frame, y)
    values, distances = aligned(later.frame), got.baseline_.distances(later.frame)
    added = got.classifier_.raw(np.hstack([values, distances]))
    want = got.weight_ * got.experts_.worth(values, distances).sum(axis=1) + added
    np.testing.assert_allclose(got.decision_function(later.frame), want, rtol=0, atol=1e-12)
    # The start's own leaf, the constant and five bags.
    assert len(got.classifier_.roots) == 2 + BAGS * SMALL["trees"]
    assert list(got.classes_) == ["benign", "implant"] and set(got.predict(later.frame)) == {*got.classes_}


def test_classes_are_learned_where_they_differ_in_the_suspicious_direction():
    """Why the estimator is tagged `poor_score`: the other direction cannot be learned, and is not."""
    entropy, y = make_blobs(200, centers=[[-2.0], [2.0]], random_state=0)
    model = DetectorClassifier(trees=20)
    assert NAMES[0] == "session_interval_entropy_ratio"
    assert model.fit(entropy, 1 - y).score(entropy, 1 - y) > 0.95
    assert model.fit(entropy, y).score(entropy, y) == 0.5


def test_a_clone_has_the_parameters_and_nothing_learned(past, later):
    model = DetectorClassifier(AppBaseline.fit(past), leaves=3, **SMALL).fit(later.frame, later.malicious)
    twin = clone(model)
    assert twin.get_params().keys() == model.get_params().keys() and twin.leaves == 3
    with pytest.raises(NotFittedError):
        twin.decision_function(later.frame)
    twin.fit(later.frame, later.malicious)
    np.testing.assert_array_equal(twin.decision_function(later.frame), model.decision_function(later.frame))


def test_every_hyperparameter_is_an_argument_with_its_default():
    assert asdict(Hyperparameters()).items() <= DetectorClassifier().get_params().items()


def test_a_grid_search_compares_two_values(past, later):
    search = GridSearchCV(
        DetectorClassifier(AppBaseline.fit(past), **SMALL),
        {"leaves": [2, 6]},
        scoring="average_precision",
        cv=2,
        error_score="raise",
    ).fit(later.frame, later.malicious.astype(int))
    assert (search.cv_results_["mean_test_score"] > later.malicious.mean()).all()
    assert search.best_params_["leaves"] in (2, 6)
    best = DetectorClassifier(AppBaseline.fit(past), **SMALL, **search.best_params_)
    best.fit(later.frame, later.malicious.astype(int))
    np.testing.assert_array_equal(search.decision_function(later.frame), best.decision_function(later.frame))
    assert aligned(later.frame).shape[1] == search.n_features_in_
