"""The scoring library: what it refuses."""

import pandas as pd
import pytest
from make import fleet

from appcadence.errors import SchemaError
from appcadence.features import extract
from appcadence.features.catalog import SCHEMA_ID
from appcadence.features.partition import write_features
from appcadence.serving.scorer import Scorer


@pytest.fixture(scope="module")
def scorer(fleet_model):
    return Scorer.load(fleet_model)


@pytest.mark.parametrize("window", ["6h", "7d"])
def test_a_feature_table_of_another_window_is_refused(scorer, window):
    table = extract(fleet(devices=1, days=2), window=window)
    found = "168h" if window == "7d" else window
    for ask in (scorer.score_windows, scorer.explain):
        with pytest.raises(SchemaError, match=f"a window of {found}, the model is for windows of 24h"):
            ask(table.iloc[[0]])
    with pytest.raises(SchemaError, match=f"a window of {found}"):
        scorer.explain(table.iloc[0])


def test_one_window_of_another_length_is_enough(scorer):
    table = extract(fleet(devices=1, days=2))
    assert len(scorer.score_windows(table)) == len(table)
    assert scorer.score_windows(table.iloc[:0]).empty
    table.loc[len(table) - 1, "window_end"] -= pd.Timedelta(1, "s")
    with pytest.raises(SchemaError, match=r"a window of 23\.9997h"):
        scorer.score_windows(table)
    table.loc[len(table) - 1, "window_end"] = pd.NaT
    with pytest.raises(SchemaError, match="a window of nanh"):
        scorer.score_windows(table)


@pytest.mark.parametrize("name", ["window_start", "window_end"])
def test_a_table_without_its_window_is_refused(scorer, name):
    table = extract(fleet(devices=1, days=2)).drop(columns=name)
    for ask, given in ((scorer.score_windows, table), (scorer.explain, table.iloc[0])):
        with pytest.raises(SchemaError, match=f"lacks '{name}'"):
            ask(given)


def test_a_feature_table_of_another_schema_is_refused_with_both_named(scorer, tmp_path):
    write_features(fleet(devices=1, days=2), tmp_path / "f.parquet")
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert table.attrs == extract(fleet(devices=1, days=2)).attrs == {"feature_schema": SCHEMA_ID}
    expected = scorer.score_windows(table)
    other = table.copy()
    other.attrs["feature_schema"] = "0123456789ab"
    for ask, given in ((scorer.score_windows, other), (scorer.explain, other.iloc[:1])):
        with pytest.raises(SchemaError, match=f"of feature schema 0123456789ab, the model of {SCHEMA_ID}"):
            ask(given)
    other.attrs.clear()  # of other origin, such as JSON
    assert scorer.score_windows(other).equals(expected)
