"""Scores, alerts, ranks and reasons of a few chosen numbers, worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest
from handmade import STEP, N, calibration, staircase, values, windows
from handmade import detector as handmade

from appcadence.config import Alerts, Config, Tunables
from appcadence.errors import SchemaError
from appcadence.features.catalog import FAMILY_OF, NAMES, RELATIVE
from appcadence.features.windows import APP_LEVEL
from appcadence.models.calibration import Calibration
from appcadence.models.detector import (
    EXPLAINED_ROWS,
    aligned,
    behaviour_score,
    comparable,
    forest_input,
    hide,
    ranks,
)
from appcadence.models.eligibility import BEHAVIOURS, STRATA
from appcadence.models.experts import EXPERTS, POINTS, Experts
from appcadence.models.scores import SCORES, finalized
from appcadence.models.trees import join

# The raw score of a window is its connections an hour, those of benign windows are 0 to 99.


def by_hand(levels, *alerts):
    """The scores of windows, each of its own device, whose raw scores are so, under such `Alerts`."""
    devices = [f"d{i}" for i in range(len(levels))]
    frame = windows(len(levels), device=devices, beats_per_hour=levels)
    return made().score(frame, Config(Alerts(*alerts))).to_pandas()


def made(behaviour="structured_cadence", **parts):
    return handmade(behaviour, tuple(k + 0.5 for k in range(100)), **parts)


def test_the_threshold_itself_alerts_and_what_lies_below_does_not():
    # Ten device-days: of a hundred benign units, seven a device-day exceed that of 29.
    scores = by_hand([30, 29, 28, 27, 31], 7.0)
    assert scores["score"].tolist() == [30, 29, 28, 27, 31]
    assert scores["alert"].tolist() == [True, True, False, False, True]
    assert scores["rank"].tolist() == [2, 3, 4, 5, 1]
    assert scores["p_value"].tolist() == [(1 + 100 - raw) / 101 for raw in (30, 29, 28, 27, 31)]


def test_p_values_are_those_of_scores_that_are_lowered_with_their_device():
    # Eighty apps of one phone on one day: all but a few are lowered to below one expected.
    frame = windows(80, app=[f"app{k}" for k in range(80)], beats_per_hour=np.arange(80.0))
    benign = np.arange(-80.0, 20.0)
    lower = Calibration(2.0, 2.0, 10.0, benign, benign + 0.25)
    scores, unit_p = made(calibration=dict.fromkeys(STRATA, lower)).measure(frame)
    score, shift = (scores[name].to_numpy() for name in ("score", "device_shift"))
    assert len(set(shift)) == 1 and shift[0] < -30
    np.testing.assert_allclose(score, (np.arange(80.0) - 2) / 2 + shift)
    for found, of in ((scores["p_value"].to_pylist(), benign), (unit_p, benign + 0.25)):
        np.testing.assert_allclose(found, [(1 + (of >= 2 * s + 2).sum()) / 101 for s in score])


def test_scores_contributions_and_constant_are_on_the_scale_of_their_stratum():
    parts = {"attributed": calibration(origin=3.0, spread=2.0), "unattributed": calibration(n=50, spread=4.0)}
    parts["own_log"] = calibration(n=70, spread=3.0)
    detector = made(calibration=parts)
    frame = windows(2, app=["com.a", None], beats_per_hour=8.0, dest=["a", "b"])
    scores = detector.score(frame).to_pandas()
    assert scores["score"].tolist() == [2.5, 2.0]
    assert scores["p_value"].tolist() == [93 / 101, 43 / 51]
    for stratum, contributions, score in zip(
        STRATA[:2], scores["contributions"], scores["score"], strict=True
    ):
        (first, *others) = contributions
        assert first["feature"] == "beats_per_hour" and len(contributions) == 8
        assert first["contribution"] == score - detector.constant(stratum)
        assert not any(part["contribution"] for part in others)
    assert (detector.constant("attributed"), detector.constant("unattributed")) == (-1.5, 0.0)
    # Behaviours are told on the raw scale.
    assert [part["score"] for part in scores["structured_cadence"]] == [8, 8]


def test_each_stratum_has_its_own_threshold():
    detector = made(
        calibration={
            "attributed": calibration(days=10.0),
            "unattributed": calibration(days=20.0),
            "own_log": calibration(days=30.0),
        }
    )
    frame = windows(4, app=["com.a", "com.a", None, None], beats_per_hour=[69, 70, 39, 40], dest=list("abcd"))
    assert detector.score(frame, Config(Alerts(2.95)))["alert"].to_pylist() == [
        False,
        True,
        False,
        True,
    ]


def test_weights_add_the_members_up():
    thresholds, steps = np.full((len(EXPERTS), POINTS), np.inf), np.zeros(len(EXPERTS))
    pushes = [expert.name for expert in EXPERTS].index("push_coupling")
    thresholds[pushes, :3], steps[pushes] = [1.0, 2.0, 30.0], 0.5
    detector = made(weights=np.tile([0.5, 3.0], (3, 1)), experts=Experts(thresholds, steps))
    frame = windows(2, beats_per_hour=6.0, push_coupling_surprise=[0.0, 20.0])
    contributions, raw = detector.parts(frame)
    # Half of six; three times the two steps of a half that the second window reaches.
    assert raw.tolist() == [3.0, 6.0]
    assert contributions[1, NAMES.index("push_coupling_surprise")] == 3.0
    assert detector.constant("attributed") == 0.0


def test_the_forest_is_no_part_of_the_score():
    frame = windows(2, dest=["a", "b"], beats_per_hour=6.0, upload_ratio=[0.0, 20.0])
    loud = made(forest=staircase(NAMES.index("upload_ratio"), [0.5], N))
    assert loud.score(frame).equals(made().score(frame))


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_behaviour_shows_up_to_its_p_value(behaviour):
    # Of 99 benign windows 95 score less than 95: a p-value of exactly .05.
    frame = windows(3, dest=list("abc"), longest_session_seconds=0.0, push_coupling_excess=0.0)
    frame = frame.assign(**{STEP[behaviour]: [94, 95, 96]})
    detector = made(behaviour)
    plain = detector.score(frame).to_pandas()
    assert [part["score"] for part in plain[behaviour]] == [94, 95, 96]
    assert [part["p_value"] for part in plain[behaviour]] == [0.06, 0.05, 0.04]
    assert [list(names) for names in plain["behaviours"]] == [[], [behaviour], [behaviour]]
    tuned = detector.score(frame, Config(tunables=Tunables(**{behaviour: 0.04}))).to_pandas()
    assert [list(names) for names in tuned["behaviours"]] == [[], [], [behaviour]]
    assert tuned["alert"].tolist() == [False, False, True] and plain["alert"].all()


def test_evidence_and_the_bar_on_few_starts_begin_exactly_there():
    few = {"n_beats": [5, 6, 1, 1, 1, 1], "longest_session_seconds": [0, 0, 1799.9, 1800, 0, 0]}
    met = {"steady_days_ratio": [0, 0, 0, 0, 0, 2 / 14]}
    frame = windows(6, dest=list("abcdef"), **few, **met)
    assert (made().score(frame)["status"].to_numpy() == "scored").tolist() == [False, True] * 3
    beats = windows(2, dest=list("ab"), beats_per_hour=99.0, n_beats=[11, 12])
    assert made().score(beats)["alert"].to_pylist() == [False, True]


def test_events_keep_their_score_and_what_cannot_be_judged_has_none():
    frame = windows(3, dest=list("abc"), beats_per_hour=[98, 97, 96], n_beats=[20, 20, 5])
    scores = made().score(frame, fleet_event=np.array([True, False, True])).to_pandas()
    assert scores["status"].tolist() == ["fleet_event", "scored", "insufficient_evidence"]
    assert scores["score"].tolist()[:2] == [98, 97] and np.isnan(scores["score"][2])
    assert np.isnan(scores["p_value"][2]) and not np.isnan(scores["p_value"][0])
    assert scores["rank"].fillna(0).tolist() == [0, 1, 0] and scores["alert"].tolist() == [True, True, False]
    assert [len(parts) for parts in scores["contributions"]] == [8, 8, 0]
    assert [len(names) for names in scores["behaviours"]] == [1, 1, 0]
    assert [bool(len(texts)) for texts in scores["reasons"]] == [True, True, False]


def test_a_detector_sees_nothing_of_the_families_that_it_was_trained_without():
    frame = windows(1, beats_per_hour=50.0)
    for families, score in ((), 50.0), (("size",), 50.0), (("interval",), 0.0):
        (row,) = made(excluded_families=families).score(frame).to_pylist()
        assert row["score"] == score
        assert {part["value"] for part in row["contributions"]} == ({50.0, None} if score else {None})


def test_a_false_discovery_rate_stands_in_for_the_budget():
    # p-values of 2, 2, 3 and 50 in 101: three alerts of which a tenth may be wrong, not four.
    scores = by_hand([99, 99, 98, 51], 1.0, 0.1)
    assert scores["alert"].tolist() == [True, True, True, False]
    assert not by_hand([99, 51, 51, 51], 1.0, 0.01)["alert"].any()


def test_reasons_are_worded_for_a_thousand_and_for_alerts():
    levels = [60] * (EXPLAINED_ROWS - 1) + [61, 59, 58]
    quiet = by_hand(levels, 1.0)
    assert not quiet["alert"].any()
    assert [len(texts) > 0 for texts in quiet["reasons"]] == [True] * EXPLAINED_ROWS + [False] * 2
    assert quiet["rank"].tolist() == [
        *range(2, EXPLAINED_ROWS + 1),
        1,
        EXPLAINED_ROWS + 1,
        EXPLAINED_ROWS + 2,
    ]
    loud = by_hand(levels, 4.0)
    assert loud["alert"].tolist() == [True] * (EXPLAINED_ROWS + 1) + [False]
    assert [len(texts) > 0 for texts in loud["reasons"]] == [True] * (EXPLAINED_ROWS + 1) + [False]


def test_what_scores_less_than_is_worded_gets_no_reasons():
    frame = windows(3, dest=list("abc"), beats_per_hour=[5, 4, 3])
    rows = made().measure(frame, explained_from=4.0)[0]
    assert [len(texts) > 0 for texts in rows["reasons"].to_pylist()] == [True, True, False]


def test_the_eight_largest_contributions_are_shown_whatever_their_sign():
    features = [n for n in NAMES if RELATIVE[NAMES.index(n)]][:10]
    ensemble = join([staircase(NAMES.index(n), [0.5] * (k + 1), 2 * N) for k, n in enumerate(features)])
    frame = windows(1, **dict.fromkeys(features, 1.0))
    (parts,) = made(classifier=ensemble).score(frame)["contributions"].to_pylist()
    assert [part["feature"] for part in parts] == features[:1:-1]
    assert [part["contribution"] for part in parts] == list(range(10, 2, -1))
    (parts,) = made(classifier=ensemble, weights=-np.ones((3, 2))).score(frame)["contributions"].to_pylist()
    assert [part["contribution"] for part in parts] == [-float(k) for k in range(10, 2, -1)]
    assert parts[0]["value"] == 1.0 and parts[0]["expected"] == 0.0


def test_what_has_no_rank_keeps_reasons_only_where_it_alerts():
    texts = pa.array([["one"], ["two"], ["three"]], SCORES.field("reasons").type)
    columns = {name: pa.nulls(3, SCORES.field(name).type) for name in SCORES.names} | {"reasons": texts}
    table = pa.table(columns, SCORES)
    done = finalized(table, np.array([0, 0, EXPLAINED_ROWS]), np.array([False, True, False]))
    assert done["reasons"].to_pylist() == [[], ["two"], ["three"]]
    assert done["rank"].to_pylist() == [None, None, EXPLAINED_ROWS]


def test_ranks_fall_with_the_score_in_row_order_where_equal():
    table = pa.table({"status": ["scored", "excepted", "scored", "scored"], "score": [1.0, 9.0, 2.0, 1.0]})
    assert ranks(table).tolist() == [2, 0, 1, 3]


def test_channels_of_a_device_without_a_past_are_new_and_an_app_as_a_whole_is_none():
    given = windows(3, dest=["a.example", APP_LEVEL, "b.example"], channel_is_new=[np.nan, np.nan, 0.0])
    new = aligned(given)[:, NAMES.index("channel_is_new")]
    np.testing.assert_array_equal(new, [1.0, np.nan, 0.0])


def test_a_missing_feature_is_named():
    with pytest.raises(SchemaError, match=r"lacks 1 .*beats_per_hour"):
        made().score(windows(1).drop(columns="beats_per_hour"))


def test_inputs_of_the_drift_reference_and_the_forest():
    given, apart = values(upload_ratio=0.1, unexpected_host_share=0.7), values(upload_ratio=-2.0)
    upload, strange = NAMES.index("upload_ratio"), NAMES.index("unexpected_host_share")
    compared = comparable(given, apart)
    assert (compared[0, upload], compared[0, strange]) == (-2.0, 0.7)
    forest = forest_input(np.array([[np.nan, 0.1]]))
    assert forest.tolist() == [[0.0, float(np.float32(0.1))]]
    assert hide(windows(1, upload_ratio=0.1), ("session",))["upload_ratio"].isna().all()
    kept = hide(windows(1, upload_ratio=0.1), ("size", "novelty"))
    assert kept["upload_ratio"].tolist() == [0.1]


@pytest.mark.parametrize(
    ("behaviour", "families"),
    [
        ("structured_cadence", {"interval", "size"}),
        ("session_persistence", {"session"}),
        ("notification_burst", {"notification"}),
    ],
)
def test_a_behaviour_is_the_sum_of_its_families(behaviour, families):
    contributions = np.arange(2.0 * N).reshape(2, N)
    want = [
        sum(row[i] for i, name in enumerate(NAMES) if FAMILY_OF[name] in families) for row in contributions
    ]
    np.testing.assert_allclose(behaviour_score(behaviour, contributions), want, rtol=1e-12)
