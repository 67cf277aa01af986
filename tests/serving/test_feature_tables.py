"""Feature tables that went through files and other types score as the tables of `extract`."""

import numpy as np
import pandas as pd
import pytest
from make import fleet

from appcadence.errors import SchemaError
from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.serving.scorer import Scorer

NAMED = ["device_id", "app_id", "dest", "app_attribution", "category"]


@pytest.fixture(scope="module")
def scorer(fleet_model):
    return Scorer.load(fleet_model)


@pytest.fixture(scope="module")
def table(scorer):
    return extract(fleet(devices=2, days=2), history=scorer.detector.history)


@pytest.fixture(scope="module")
def scores(scorer, table):
    return scorer.score_windows(table)


@pytest.mark.parametrize("backend", [None, "numpy_nullable", "pyarrow"])
def test_a_table_that_was_a_csv_file_scores_the_same(scorer, table, scores, tmp_path, backend):
    table.to_csv(tmp_path / "table.csv", index=False)
    kept = pd.read_csv(tmp_path / "table.csv", **{"dtype_backend": backend} if backend else {})
    assert not (kept[list(NAMES)].dtypes == np.float32).any()
    pd.testing.assert_frame_equal(scorer.score_windows(kept), scores, check_exact=True)
    for i in (0, len(table) - 1):
        found, expected = scorer.explain(kept.iloc[[i]]), scorer.explain(table.iloc[[i]])
        assert scorer.explain(kept.iloc[i]).findings == found.findings == expected.findings
        pd.testing.assert_frame_equal(found.contributions, expected.contributions, check_exact=True)


@pytest.mark.parametrize("backend", ["numpy_nullable", "pyarrow"])
def test_nullable_types_are_taken(scorer, table, scores, backend):
    given = table.astype(dict.fromkeys(NAMED, object)).convert_dtypes(dtype_backend=backend)
    assert pd.api.types.is_extension_array_dtype(given["app_id"].dtype)
    pd.testing.assert_frame_equal(scorer.score_windows(given), scores, check_exact=True)


def test_digits_that_a_feature_does_not_have_count_nowhere(scorer, table, scores):
    doubles = table.astype(dict.fromkeys(NAMES, np.float64))
    nudged = doubles.assign(**{name: doubles[name] * (1 + 1e-12) for name in NAMES})
    pd.testing.assert_frame_equal(scorer.score_windows(nudged), scores, check_exact=True)
    row = nudged.iloc[0]
    channel = scorer.channel(row["app_id"], row["dest"], row["category"], row["destination_known"])
    found, expected = (channel.score(t[list(NAMES)].iloc[0].to_numpy(float), 20) for t in (nudged, table))
    np.testing.assert_array_equal(found.contributions, expected.contributions)


def test_without_a_category_none_is_known(scorer, table):
    without = table.drop(columns="category")
    expected = scorer.score_windows(table.assign(category=None))
    assert scorer.score_windows(without).equals(expected)
    assert scorer.explain(without.iloc[0]).findings == scorer.explain(without.iloc[[0]]).findings


def test_a_column_that_is_there_twice_is_refused(scorer, table):
    for name in ("dest", NAMES[5]):
        twice = pd.concat([table, table[[name]]], axis=1)
        for ask in (scorer.score_windows, lambda given: scorer.explain(given.iloc[[0]])):
            with pytest.raises(SchemaError, match=f"has 2 columns '{name}'; keep one"):
                ask(twice)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (NAMES[0], "much", f"'{NAMES[0]}' holds text; expected numbers"),
        (NAMES[0], "1.5", "holds text; expected numbers"),
        ("app_id", 7, "'app_id' holds integer; expected text"),
        ("device_id", 1.5, "'device_id' holds floating; expected text"),
        ("device_id", None, "'device_id': 1 of 1 values are unknown, but none may be"),
        ("dest", None, "'dest': 1 of 1 values are unknown"),
        ("window_start", None, "'window_start': 1 of 1 values are unknown"),
        ("window_start", 1_772_000_000, "'window_start' holds integer; expected times"),
        ("window_end", "soon", "'window_end' holds no times"),
        ("n_beats", None, "'n_beats': 1 of 1 values are unknown"),
        ("n_beats", 1.5, "'n_beats' holds fractions; expected counts"),
        ("observed_seconds", "86400", "holds text; expected numbers"),
        ("destination_known", 2, "expected true or false"),
        ("destination_known", None, "'destination_known': 1 of 1 values are unknown"),
    ],
)
def test_what_fits_no_column_is_refused_in_one_sentence(scorer, table, column, value, said):
    given = table.iloc[[0]].assign(**{column: pd.Series([value], table.index[:1], dtype=object)})
    for ask, what in (
        (scorer.score_windows, given),
        (scorer.explain, given),
        (scorer.explain, given.iloc[0]),
    ):
        with pytest.raises(SchemaError, match=said):
            ask(what)
