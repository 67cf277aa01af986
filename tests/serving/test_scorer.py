"""The scoring library: what it refuses, copies, and takes from the run before."""

import copy
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from make import fleet, flows, together

from appcadence.errors import AppcadenceError, SchemaError, TelemetryError
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
    with pytest.raises(SchemaError, match=r"'window_end': 1 of .* values are unknown"):
        scorer.score_windows(table)


@pytest.mark.parametrize("name", ["window_start", "window_end", "app_id", "n_beats"])
def test_a_table_without_its_keys_is_refused(scorer, name):
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


def test_times_that_were_kept_as_text_are_times(scorer):
    table = extract(fleet(devices=2, days=2), history=scorer.detector.history)
    text = table.assign(**{name: table[name].astype(str) for name in ("window_start", "window_end")})
    expected, found = scorer.score_windows(table), scorer.score_windows(text)
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(SchemaError, match="a DataFrame, not of type Series"):
        scorer.score_windows(table.iloc[0])


def test_scorers_compare_and_hash_by_identity(scorer):
    other = pickle.loads(pickle.dumps(scorer))
    assert scorer != other and len({scorer, other, scorer}) == 2
    assert other.version == scorer.version


def test_a_copy_starts_without_what_update_has_seen(fleet_model):
    live = Scorer.load(fleet_model)
    live.update(fleet(devices=1, days=2)["flows"])
    assert live.live.closed_until is not None
    for made in (copy.copy(live), copy.deepcopy(live), pickle.loads(pickle.dumps(live))):
        assert made.live.closed_until is None


def test_whatever_prints_a_scorer_gets_a_line(scorer):
    said = repr(scorer)
    assert said == f"Scorer(detector={scorer.detector!r}, version={scorer.version!r}, signer=None)"
    assert repr(scorer.detector) == "Detector(window='24h', excluded_families=())"
    assert len(repr(scorer.channel("com.a", "a.example"))) < 1000
    assert all(len(repr(c)) < 200 for c in scorer.detector.calibration.values())


@pytest.mark.parametrize("number", [np.int64(2), np.float32(2), np.float64(2), Fraction(2), 2])
def test_any_real_number_is_a_budget(scorer, number):
    tables = fleet(devices=1, days=2)
    expected = scorer.score(tables, alerts_per_device_day=2.0)
    assert scorer.score(tables, alerts_per_device_day=number).equals(expected)
    assert scorer.score_windows(extract(tables), alerts_per_device_day=number) is not None
    rate = number / 4
    expected = scorer.score(tables, false_discovery_rate=0.5)
    assert scorer.score(tables, false_discovery_rate=rate).equals(expected)


@pytest.mark.parametrize("budget", [None, "2", True, np.True_, 2j, float("nan"), np.int64(0), 10**400])
def test_what_is_no_budget_is_refused(scorer, budget):
    tables = fleet(devices=1, days=2)
    for ask, given in (
        (scorer.score, tables),
        (scorer.score_windows, extract(tables)),
        (scorer.update, tables["flows"]),
    ):
        with pytest.raises(AppcadenceError, match=r"alerts_per_device_day is .*; expected a number above 0"):
            ask(given, alerts_per_device_day=budget)


_WITHOUT_WARNINGS = """
import sys
import pyarrow.parquet as pq
from appcadence import Scorer, extract
flows = pq.read_table(sys.argv[2])
frame = flows.to_pandas()
scorer = Scorer.load(sys.argv[1])
table = extract({"flows": flows})
for given in (flows, frame):
    scorer.score({"flows": given})
    scorer.score({"flows": given}, false_discovery_rate=0.1)
scorer.score_windows(table)
scorer.explain(table.iloc[0])
assert len(scorer.update(frame, until="2100-01-01T00:00Z"))
"""


def test_scoring_warns_of_nothing_where_warnings_are_errors(fleet_model, tmp_path):
    pq.write_table(fleet(devices=1, days=2)["flows"], tmp_path / "flows.parquet")
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        _WITHOUT_WARNINGS,
        fleet_model,
        tmp_path / "flows.parquet",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def day(tables, number):
    """The tables with the flows that start on one day."""
    days = (tables["flows"]["start"].to_pandas() - pd.Timestamp("2026-03-02", tz="UTC")).dt.days
    return {**tables, "flows": tables["flows"].filter((days == number).to_numpy())}


def test_a_day_after_the_other_equals_both_at_once(scorer):
    tables = fleet(devices=3, days=2)
    first = scorer.run(day(tables, 0))
    second = scorer.run(day(tables, 1), history=first.history)
    both = scorer.run(tables)
    assert second.history.contacts.equals(both.history.contacts)
    key = ["device_id", "app_id", "dest", "window_start"]
    parts = pd.concat([run.scores.to_pandas() for run in (first, second)])
    together = both.scores.to_pandas().sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(
        parts.sort_values(key, ignore_index=True)[[*key, "score"]], together[[*key, "score"]]
    )


def test_a_history_that_knows_the_future_is_refused(scorer):
    tables = fleet(devices=1, days=2)
    tables["flows"] = together(tables["flows"], flows([100.0, 100_000.0], "phone-00", "com.new", "n.example"))
    later = scorer.run(tables).history
    with pytest.raises(TelemetryError, match=r"contacts up to 2026-03-03 .*begin at 2026-03-02 00:00"):
        scorer.run(tables, history=later)
    with pytest.raises(TelemetryError, match="knows contacts up to"):
        scorer.resumed(later, "2026-03-03T00:00Z")
    with pytest.raises(AppcadenceError, match="expected the end of a window"):
        scorer.resumed(later, "2026-03-04T01:00Z")
