"""The scores table of a simulated fleet: its sums, and that no reason cites telemetry that is not there."""

import numpy as np
import pyarrow as pa
import pytest
from handmade import STEP, N, calibration, staircase, values, windows
from handmade import detector as handmade

from appcadence.config import Alerts, Config, Tunables
from appcadence.errors import SchemaError
from appcadence.features import extract
from appcadence.features.catalog import FAMILY_OF, INPUTS_OF, NAMES, RELATIVE
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.findings import REASON, of_row
from appcadence.models.detector import (
    EXPLAINED_ROWS,
    behaviour_score,
    comparable,
    forest_input,
    hide,
    ranks,
    strata,
)
from appcadence.models.device_shift import LEVEL
from appcadence.models.eligibility import BEHAVIOURS, CADENCE_ALONE_BEATS
from appcadence.models.experts import EXPERTS, POINTS, Experts
from appcadence.models.trees import join
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import past_and_future
from appcadence.training.train import train

DAY_US = 86_400_000_000
TIMED = {name for name in NAMES if FAMILY_OF[name] == "session"} - {
    "sessions_per_hour",
    "bytes_per_hour",
    "upload_ratio",
    "failed_ratio",
}
"""Features that take durations."""
OF_AN_APP = {name for name in NAMES if {"inventory", "notifications"} & set(INPUTS_OF[name])} | {
    "median_seconds_since_foreground",
    "p90_seconds_since_foreground",
    "background_share",
    "destination_other_apps",
    "app_domain_share",
}
"""Features that take the name of the app."""
TABLES = ("activity", "notifications", "inventory")
ABSENT = {table: {n for n in NAMES if table in INPUTS_OF[n]} for table in TABLES} | {
    "durations": TIMED,
    "app names": OF_AN_APP,
}
SAID = {
    "activity": "Not checked: whether the user was present (no activity telemetry).",
    "notifications": "Not checked: whether pushes started it (no push telemetry for this app).",
    "durations": "Not checked: how long it stayed connected (no durations).",
    "app names": "Blind spot: the telemetry does not say which app this is.",
}


@pytest.fixture(scope="module")
def halves():
    """A fleet's first three days, and three days with implants."""
    tables = load(simulate(28, 6, 5, implants_per_device_day=2.0).tables)
    middle = int(micros(tables["flows"]["start"]).min()) // DAY_US * DAY_US + 3 * DAY_US
    return past_and_future(tables, middle)


@pytest.fixture(scope="module")
def detector(halves):
    return train(halves[0]).detector


@pytest.fixture(scope="module")
def frame(halves, detector):
    return extract(halves[1], history=detector.history)


@pytest.fixture(scope="module")
def complete(frame, detector):
    return detector.score(frame).to_pandas()


def without(tables, absent):
    """The same telemetry as a fleet would deliver that lacks a table or a column."""
    if absent in tables:
        return {name: table for name, table in tables.items() if name != absent}
    flows = tables["flows"]
    blank = {
        "durations": {"duration_seconds": None},
        "app names": {"app_id": None, "app_attribution": "none"},
    }
    for name, value in blank[absent].items():
        field = flows.schema.field(name)
        at = flows.schema.get_field_index(name)
        flows = flows.set_column(at, field, pa.array([value] * len(flows), pa.string()).cast(field.type))
    return tables | {"flows": flows}


def cited(scores):
    """Names of the features that the findings of a scores table are about."""
    said = [finding for _, row in scores.iterrows() for finding in of_row(row)]
    return {finding.parameters["feature"] for finding in said if finding.kind == REASON}


def test_contributions_and_the_shift_of_the_device_sum_to_every_score(detector, frame, complete):
    contributions, raw = detector.parts(frame)
    values = frame[list(NAMES)]
    assert len(frame) >= 10_000 and values.isna().mean().between(0.05, 0.95).sum() > 20
    assert detector.weights.all()
    for stratum, rows in strata(frame).items():
        c = detector.calibration[stratum]
        total = detector.constant(stratum) + contributions[rows].sum(axis=1) / c.spread
        assert rows.sum() > 1000
        np.testing.assert_allclose(total, c.scale(raw[rows]), rtol=0, atol=1e-9)
        score, shift = (complete[name].to_numpy()[rows] for name in ("score", "device_shift"))
        known = ~np.isnan(score)
        assert known.any() and (shift <= 0).all()
        np.testing.assert_allclose((total + shift)[known], score[known], rtol=0, atol=1e-9)
    lowered = complete["device_shift"] < 0
    assert lowered.any() and not lowered.all()


def test_the_scores_table_shows_the_largest_contributions(detector, frame, complete):
    contributions = detector.parts(frame)[0]
    spread = np.ones(len(frame))
    for stratum, rows in strata(frame).items():
        spread[rows] = detector.calibration[stratum].spread
    contributions /= spread[:, None]
    place = {name: i for i, name in enumerate(NAMES)}
    for i in range(0, len(frame), 97):
        shown = complete["contributions"][i]
        assert bool(len(shown)) == (complete["status"][i] != "insufficient_evidence")
        if not len(shown):
            continue
        column = [place[part["feature"]] for part in shown]
        given = np.array([part["contribution"] for part in shown])
        np.testing.assert_allclose(given, contributions[i, column], rtol=0, atol=1e-12)
        hidden = np.delete(np.abs(contributions[i]), column)
        assert np.abs(given).min() >= hidden.max() - 1e-12


@pytest.fixture(scope="module")
def weighed(frame, detector):
    """Names of the features that move a score."""
    return {NAMES[i] for i in np.flatnonzero(detector.parts(frame)[0].any(axis=0))}


@pytest.mark.parametrize("absent", ABSENT)
def test_no_reason_cites_what_is_absent(absent, halves, detector, weighed):
    frame = extract(without(halves[1], absent), history=detector.history)
    scores = detector.score(frame).to_pandas()
    assert frame[sorted(ABSENT[absent])].isna().all().all()
    assert weighed & ABSENT[absent], "nothing to leave out ever weighed anything: the test shows nothing"
    assert not cited(scores) & ABSENT[absent]
    worded = scores[scores["reasons"].map(len) > 0]
    assert len(worded) >= 1000
    if absent in SAID:
        assert worded["reasons"].map(lambda texts: SAID[absent] in texts).all()
    if absent == "activity":
        assert not scores["explained_by"].map(lambda texts: "user_present" in texts).any()
    for parts in scores["contributions"].iloc[::31]:
        for part in parts:
            assert part["feature"] not in ABSENT[absent] or part["value"] is None


def p_values(scores):
    """(n, 3) p-values of the behaviours, NaN where one cannot be judged."""
    columns = [[part["p_value"] for part in scores[name]] for name in BEHAVIOURS]
    return np.array(columns, float).T


def muted(p, starts, tunables):
    """The slow twin of what bars an alert."""
    bounds = {name: getattr(tunables, name) for name in BEHAVIOURS}
    out = np.zeros(len(p), bool)
    for i, row in enumerate(p):
        shows = [n for n, value in zip(bounds, row, strict=True) if value <= (bounds[n] or 0.05)]
        by = [n for n, value in zip(bounds, row, strict=True) if bounds[n] and not np.isnan(value)]
        out[i] = (not shows and by) or (shows == ["structured_cadence"] and starts[i] < CADENCE_ALONE_BEATS)
    return out


@pytest.mark.parametrize(
    "tunables",
    [
        Tunables(),
        Tunables(structured_cadence=0.01),
        Tunables(session_persistence=0.3),
        Tunables(notification_burst=0.01),
        Tunables(0.05, 0.02, 0.01),
        Tunables(1, 1, 1),
    ],
    ids=str,
)
def test_thresholds_bound_behaviours_and_alerts(tunables, detector, frame, complete):
    budget = 1000.0  # so that nearly all would alert
    scores = detector.score(frame, Config(Alerts(budget), tunables)).to_pandas()
    p, scored = p_values(scores), (scores["status"] == "scored").to_numpy()
    np.testing.assert_array_equal(p, p_values(complete))
    assert scores["score"].equals(complete["score"]) and scores["rank"].equals(complete["rank"])
    for column, name in enumerate(BEHAVIOURS):
        listed = scores["behaviours"].map(lambda names, name=name: name in names).to_numpy()
        bound = getattr(tunables, name) or 0.05
        np.testing.assert_array_equal(listed, scored & (p[:, column] <= bound))
        assert listed.sum() > 0
    mute = muted(p, frame["n_beats"].to_numpy(), tunables)
    high = np.zeros(len(frame), bool)
    for stratum, rows in strata(frame).items():
        high[rows] = scores["score"][rows] >= detector.calibration[stratum].threshold(budget)
    np.testing.assert_array_equal(scores["alert"], scored & high & ~mute)
    assert (scored & high & mute).any() or tunables == Tunables(1, 1, 1)
    by_days = scored & np.isnan(p).all(axis=1)
    assert (by_days & high).any() and scores["alert"][by_days & high].all()
    found = detector.score(frame, Config(Alerts(1.0, 0.9), tunables))["alert"].to_numpy()
    assert found.any() and not (found & mute).any()


def test_tightening_takes_alerts_and_loosening_gives(detector, frame):
    def alerts(**thresholds):
        return detector.score(frame, Config(tunables=Tunables(**thresholds)))["alert"].to_numpy()

    plain = alerts()
    for name in BEHAVIOURS:
        tight, loose = (alerts(**dict.fromkeys(BEHAVIOURS, 0.05) | {name: p}) for p in (0.001, 0.5))
        starts = frame["n_beats"].to_numpy()
        enough = (starts >= CADENCE_ALONE_BEATS) | (name != "structured_cadence")
        assert not (tight & ~loose & enough).any() and tight.sum() < loose.sum()
        # What shows more is less often cadence alone, which takes twelve beats.
        assert not (loose & ~plain & (starts >= CADENCE_ALONE_BEATS)).any()


# By hand: the raw score of a window is its connections an hour, those of benign windows are 0 to 99.


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


def test_scores_contributions_and_constant_are_on_the_scale_of_their_stratum():
    parts = {"attributed": calibration(origin=3.0, spread=2.0), "unattributed": calibration(n=50, spread=4.0)}
    detector = made(calibration=parts)
    frame = windows(2, app=["com.a", None], beats_per_hour=8.0, dest=["a", "b"])
    scores = detector.score(frame).to_pandas()
    assert scores["score"].tolist() == [2.5, 2.0]
    assert scores["p_value"].tolist() == [93 / 101, 43 / 51]
    for stratum, contributions, score in zip(parts, scores["contributions"], scores["score"], strict=True):
        (first, *others) = contributions
        assert first["feature"] == "beats_per_hour" and len(contributions) == 8
        assert first["contribution"] == score - detector.constant(stratum)
        assert not any(part["contribution"] for part in others)
    assert (detector.constant("attributed"), detector.constant("unattributed")) == (-1.5, 0.0)
    # Behaviours are told on the raw scale.
    assert [part["score"] for part in scores["structured_cadence"]] == [8, 8]


def test_each_stratum_has_its_own_threshold():
    detector = made(
        calibration={"attributed": calibration(days=10.0), "unattributed": calibration(days=20.0)}
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
    detector = made(weights=np.array([0.5, 3.0]), experts=Experts(thresholds, steps))
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


def test_a_device_of_which_too_much_is_unusual_is_lowered_as_one():
    # Calibrated days have four units above -1 in three of four cases; here there are twelve.
    levels = np.arange(60.0, 48.0, -1)
    one = {"app": [f"app{i}" for i in range(12)], "beats_per_hour": levels}
    apart = made().score(windows(12, device=[f"d{i}" for i in range(12)], **one)).to_pandas()
    together = made().score(windows(12, **one)).to_pandas()
    assert not apart["device_shift"].any() and (together["device_shift"] == LEVEL - 56.0).all()
    assert ((together["score"] > LEVEL).sum(), apart["score"].tolist()) == (4, levels.tolist())
    assert together["score"].tolist() == (levels + together["device_shift"]).tolist()
    assert together["rank"].equals(apart["rank"]) and together["contributions"].equals(apart["contributions"])
    assert together["p_value"].tolist() == [min(101.0, 101.0 - np.ceil(x)) / 101 for x in together["score"]]
    said = [{f.code: f.parameters for f in of_row(row)} for _, row in together.iterrows()]
    assert all(by_code["device_unusual"] == {"lowered_by": 56.0 - LEVEL} for by_code in said)
    assert not any("device_unusual" in [f.code for f in of_row(row)] for _, row in apart.iterrows())


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
    rows = made().measure(frame, explained_from=4.0).table
    assert [len(texts) > 0 for texts in rows["reasons"].to_pylist()] == [True, True, False]


def test_the_eight_largest_contributions_are_shown_whatever_their_sign():
    features = [n for n in NAMES if RELATIVE[NAMES.index(n)]][:10]
    ensemble = join([staircase(NAMES.index(n), [0.5] * (k + 1), 2 * N) for k, n in enumerate(features)])
    frame = windows(1, **dict.fromkeys(features, 1.0))
    (parts,) = made(classifier=ensemble).score(frame)["contributions"].to_pylist()
    assert [part["feature"] for part in parts] == features[:1:-1]
    assert [part["contribution"] for part in parts] == list(range(10, 2, -1))
    (parts,) = made(classifier=ensemble, weights=-np.ones(2)).score(frame)["contributions"].to_pylist()
    assert [part["contribution"] for part in parts] == [-float(k) for k in range(10, 2, -1)]
    assert parts[0]["value"] == 1.0 and parts[0]["expected"] == 0.0


def test_ranks_fall_with_the_score_in_row_order_where_equal():
    table = pa.table({"status": ["scored", "excepted", "scored", "scored"], "score": [1.0, 9.0, 2.0, 1.0]})
    assert ranks(table).tolist() == [2, 0, 1, 3]


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
