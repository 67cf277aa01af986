"""One window at a time: the numbers of the whole table, from arrays, and a row explained."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from appcadence.errors import SchemaError
from appcadence.features import extract
from appcadence.features.catalog import FAMILY_OF, NAMES
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.findings import of_row
from appcadence.models.detector import forest_input
from appcadence.serving import Scorer
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import past_and_future
from appcadence.training.supervised import anomaly_score
from appcadence.training.train import train

DAY_US = 86_400_000_000
KEYS = ("app_id", "dest", "category", "destination_known")


@pytest.fixture(scope="module")
def halves():
    tables = load(simulate(24, 6, 9, implants_per_device_day=1.0).tables)
    middle = int(micros(tables["flows"]["start"]).min()) // DAY_US * DAY_US + 3 * DAY_US
    return past_and_future(tables, middle)


@pytest.fixture(scope="module")
def scorer(halves):
    return Scorer(train(halves[0]).detector, "version")


@pytest.fixture(scope="module")
def frame(halves, scorer):
    """Windows of known and unknown apps, some with an app, a channel or a category that nobody ever met."""
    table = extract(halves[1], history=scorer.detector.history)
    table = table.astype(dict.fromkeys(KEYS, object)).sample(4000, random_state=3).reset_index(drop=True)
    table.loc[::10, "app_id"] = "com.never.seen"
    table.loc[::15, "dest"] = "never.seen.example"
    table.loc[::6, "category"] = None
    return table


@pytest.fixture(scope="module")
def scores(scorer, frame):
    return scorer.score_windows(frame)


def one_by_one(scorer, frame):
    """What each window's channel says of it, and the channels."""
    keys = [tuple(None if x != x else x for x in key) for key in frame[list(KEYS)].itertuples(index=False)]
    looked_up = {key: scorer.channel(*key) for key in set(keys)}
    channels = [looked_up[key] for key in keys]
    windows = zip(channels, frame[list(NAMES)].to_numpy(), frame["n_beats"], strict=True)
    return [channel.score(values, n_beats) for channel, values, n_beats in windows], channels


def test_arrays_give_the_numbers_of_the_table_bit_for_bit(scorer, frame, scores):
    got, _ = one_by_one(scorer, frame)
    assert frame[list(NAMES)].isna().any(axis=None) and frame["app_id"].isna().any()
    assert 100 < scores["score"].isna().sum() < len(frame) / 2
    score, p = (np.array([getattr(window, name) for window in got]) for name in ("score", "p_value"))
    shift = scores["device_shift"].to_numpy()
    np.testing.assert_array_equal(score + shift, scores["score"])
    np.testing.assert_array_equal(p[shift == 0], scores["p_value"][shift == 0])
    lowered = (shift < 0) & ~np.isnan(score)
    assert (p[lowered] <= scores["p_value"][lowered]).all() and lowered.any() and not lowered.all()
    for window, parts in zip(got, scores["contributions"], strict=True):
        shown = [window.contributions[NAMES.index(part["feature"])] for part in parts]
        assert shown == [part["contribution"] for part in parts]


def test_members_and_contributions_add_up(scorer, frame):
    got, channels = one_by_one(scorer, frame[:500])
    seen = 0
    for window, channel in zip(got, channels, strict=True):
        if not np.isnan(window.score):
            fused = channel.weights @ [window.classifier, window.experts]
            raw = channel.calibration.scale(fused)
            assert window.score == pytest.approx(raw, abs=1e-12)
            assert window.score == pytest.approx(channel.constant + window.contributions.sum(), abs=1e-9)
            seen += 1
    assert seen > 300


def test_the_forests_second_opinion_is_that_of_the_table(scorer, frame):
    some, detector = frame[:200], scorer.detector
    whole = detector.forest.raw(forest_input(detector.baseline.distances(some)))
    _, channels = one_by_one(scorer, some)
    rows = some[list(NAMES)].to_numpy()
    alone = [channel.forest(row) for channel, row in zip(channels, rows, strict=True)]
    assert alone == whole.tolist()
    assert all(0 < one <= 1 for one in anomaly_score(whole))


LATER = ("rank", "reasons", "findings")
"""What a window gets once all of a run are known."""


def test_how_many_devices_come_together_changes_nothing(scorer, frame):
    together = scorer.detector.score(frame)
    for device in frame["device_id"].unique()[:6]:
        (index,) = np.nonzero((frame["device_id"] == device).to_numpy())
        alone = scorer.detector.score(frame.iloc[index])
        assert alone.drop_columns(LATER).equals(together.take(index).drop_columns(LATER))


def test_a_window_by_itself_lacks_nothing_but_the_shift_of_its_device(scorer, frame):
    together = scorer.detector.score(frame)
    follows = {"device_shift", "score", "p_value", "alert", *LATER}
    shifts = []
    for i in range(0, len(frame), 200):
        (alone,) = scorer.detector.score(frame.iloc[[i]]).to_pylist()
        (row,) = together.slice(i, 1).to_pylist()
        shifts.append(row["device_shift"])
        assert alone["device_shift"] == 0
        assert all(alone[k] == row[k] for k in row.keys() - follows)
        if row["score"] is None:
            assert alone["score"] is None and not row["alert"]
            continue
        assert row["score"] == alone["score"] + row["device_shift"]
        assert row["p_value"] >= alone["p_value"] and alone["alert"] >= row["alert"]
        if row["device_shift"] == 0:
            assert (row["p_value"], row["alert"]) == (alone["p_value"], alone["alert"])
    assert any(shifts) and not all(shifts)


def test_threads_share_a_channel(scorer, frame):
    channel = scorer.channel("com.never.seen", "never.seen.example")
    rows = frame[list(NAMES)].to_numpy()[:400]
    alone = [channel.score(row, 20).score for row in rows]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda row: channel.score(row, 20).score, rows)) == alone


def test_what_the_detector_must_not_see_moves_nothing(scorer, frame):
    blind = Scorer(replace(scorer.detector, excluded_families=("novelty",)), "version")
    want = blind.score_windows(frame[:300])
    assert not want["score"].equals(scorer.score_windows(frame[:300])["score"])
    windows, _ = one_by_one(blind, frame[:300])
    np.testing.assert_array_equal(np.array([w.score for w in windows]) + want["device_shift"], want["score"])
    table = blind.explain(frame.iloc[0]).contributions
    assert table.loc[table["feature"].map(FAMILY_OF) == "novelty", "value"].isna().all()


def test_a_wrong_number_of_values_is_refused(scorer):
    with pytest.raises(ValueError, match="3 values were given; the catalogue has"):
        scorer.channel("com.a", "a.example").score([1.0, 2.0, 3.0], 10)
    with pytest.raises(ValueError, match="3 values were given; the catalogue has"):
        scorer.channel("com.a", "a.example").forest([1.0, 2.0, 3.0])


@pytest.mark.parametrize("as_row", [lambda frame, i: frame.iloc[i], lambda frame, i: frame.iloc[[i]]])
def test_a_row_is_explained_as_the_table_has_it(as_row, scorer, frame, scores):
    ranked = scores["rank"].dropna().sort_values().index
    unknown = frame.index[frame["app_id"].isna() & scores["score"].notna()]
    for i in [*ranked[:5], ranked[-1], *unknown[:5]]:
        before = frame.iloc[i].copy()
        found, row = scorer.explain(as_row(frame, i)), scores.iloc[i]
        assert (found.status, found.score + row["device_shift"]) == (row["status"], row["score"])
        assert found.p_value <= row["p_value"]
        assert found.behaviours == tuple(row["behaviours"])
        assert found.explained_by == tuple(row["explained_by"])
        # Of the device's other windows a row knows nothing.
        said = tuple(f.text for f in of_row(row) if f.code != "device_unusual")
        assert found.reasons or row["status"] != "scored"
        assert found.reasons == said or row["rank"] > 1000
        total = found.constant + found.contributions["contribution"].sum()
        assert total == pytest.approx(found.score, abs=1e-9)
        shown = found.contributions.iloc[: len(row["contributions"])].astype(object)
        assert shown.where(shown.notna(), None).to_dict("records") == list(row["contributions"])
        assert sorted(found.contributions["feature"]) == sorted(NAMES)
        assert frame.iloc[i].equals(before)


def test_a_window_with_too_little_evidence_is_explained_without_a_score(scorer, frame, scores):
    i = scores.index[scores["status"] == "insufficient_evidence"][0]
    found = scorer.explain(frame.iloc[i])
    assert found.status == "insufficient_evidence" and np.isnan(found.score) and np.isnan(found.p_value)
    assert not found.behaviours and not found.reasons and len(found.contributions) == len(NAMES)


def test_what_is_no_row_of_a_feature_table_is_refused(scorer, frame):
    with pytest.raises(ValueError, match="one row of a feature table, got 2"):
        scorer.explain(frame[:2])
    with pytest.raises(SchemaError, match="lacks 1 column"):
        scorer.explain(frame.iloc[0].drop(NAMES[3]))
