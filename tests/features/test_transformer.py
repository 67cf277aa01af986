"""The scikit-learn face of the feature step."""

import copy

import numpy as np
import pandas as pd
import pytest
from make import fleet
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from appcadence.errors import AppcadenceError
from appcadence.features import History, extract
from appcadence.features.catalog import NAMES
from appcadence.features.transformer import INDEX, FlowFeatures

NUMBERS = "fits a matrix of numbers; this step takes flows and says so (tested below on flows)"
REASONS = {
    "check_array_api_input": "no array goes in",
    "check_complex_data": "no numbers go in, so none are complex",
    "check_estimator_sparse_array": "no matrix goes in, so none is sparse",
    "check_estimator_sparse_matrix": "no matrix goes in, so none is sparse",
    "check_estimator_sparse_tag": "no matrix goes in, so none is sparse",
    "check_estimators_empty_data_messages": "a matrix without columns is no flow table, which the error says",
    "check_estimators_nan_inf": "a null is a legal value of a flow, and infinity reads as unknown",
    "check_fit2d_1feature": "columns go by name, and several are required",
    "check_fit2d_1sample": "one flow is enough",
    "check_transformer_data_not_an_array": "a table, not an array, goes in",
    **dict.fromkeys(
        (
            "check_dict_unchanged",
            "check_dont_overwrite_parameters",
            "check_dtype_object",
            "check_estimators_dtypes",
            "check_estimators_fit_returns_self",
            "check_estimators_overwrite_params",
            "check_estimators_pickle",
            "check_f_contiguous_array_estimator",
            "check_fit2d_predict1d",
            "check_fit_check_is_fitted",
            "check_fit_idempotent",
            "check_fit_score_takes_y",
            "check_methods_sample_order_invariance",
            "check_methods_subset_invariance",
            "check_n_features_in",
            "check_n_features_in_after_fitting",
            "check_pipeline_consistency",
            "check_positive_only_tag_during_fit",
            "check_readonly_memmap_input",
            "check_transformer_general",
            "check_transformer_preserve_dtypes",
        ),
        NUMBERS,
    ),
}


@parametrize_with_checks([FlowFeatures()], expected_failed_checks=lambda _: REASONS)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_every_exempted_check_exists():
    marks = test_scikit_learns_checks.pytestmark[0].args[1]
    names = {getattr(param, "values", param)[1].func.__name__ for param in marks}
    assert set(REASONS) - names == set()


@pytest.fixture(scope="module")
def tables():
    return fleet(devices=3, days=3)


def test_fitting_returns_self_changes_nothing_else_and_can_be_repeated(tables):
    step, before = FlowFeatures(window="6h"), dict(tables)
    assert step.fit(tables) is step and step.get_params() == {"window": "6h"}
    assert [name for name in vars(step) if name.endswith("_")] == ["history_"]
    once = step.transform(tables)
    pd.testing.assert_frame_equal(once, step.fit(tables).transform(tables))
    assert tables.keys() == before.keys() and all(tables[k] is before[k] for k in tables)
    pd.testing.assert_frame_equal(copy.deepcopy(step).transform(tables), once)
    with pytest.raises(NotFittedError):
        clone(step).transform(tables)


def test_rows_are_those_of_the_library(tables):
    got = FlowFeatures().fit_transform(tables)
    want = extract(tables, history=History.empty()).set_index(list(INDEX))
    assert list(got.columns) == list(NAMES) == list(FlowFeatures().get_feature_names_out())
    pd.testing.assert_frame_equal(
        got.sort_index(), want[list(NAMES)].sort_index(), check_categorical=False, check_index_type=False
    )


def test_the_fitted_past_makes_later_contacts_known(tables):
    flows = tables["flows"].to_pandas()
    cut = flows["start"].min() + pd.Timedelta(days=2)
    step = FlowFeatures().fit(flows[flows["start"] < cut])
    later = step.transform(flows[flows["start"] >= cut].reset_index(drop=True))
    channels = later[later.index.get_level_values("dest") != "*"]
    assert (channels["channel_is_new"] == 0).all() and (channels["channel_age_days"] > 0).all()


def test_it_heads_a_pipeline(tables):
    matrix = make_pipeline(FlowFeatures(), SimpleImputer(keep_empty_features=True)).fit_transform(tables)
    assert matrix.shape[1] == len(NAMES) and np.isfinite(matrix).all()


def test_another_window_is_refused_when_fitting(tables):
    with pytest.raises(AppcadenceError, match="such as 1h"):
        FlowFeatures(window="5h").fit(tables)
