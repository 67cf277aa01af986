"""The scores table of a simulated fleet: its sums, and that no reason cites telemetry that is not there."""

import numpy as np
import pyarrow as pa
import pytest

from appcadence.config import Alerts, Config, Tunables
from appcadence.features import extract
from appcadence.features.catalog import FAMILY_OF, INPUTS_OF, NAMES
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.findings import REASON, of_row
from appcadence.models.eligibility import BEHAVIOURS, CADENCE_ALONE_BEATS, strata
from appcadence.models.experts import EXPERTS
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
    "activity": "Not checked: whether the user was present (no activity telemetry, or no session began in "
    "the window).",
    "notifications": "Not checked: whether pushes started it (no push telemetry for this app).",
    "durations": "Not checked: how long it stayed connected (no durations).",
    "app names": "Blind spot: the telemetry does not say which app this is.",
}


@pytest.fixture(scope="module")
def halves():
    """A fleet's first three days, and three days with implants."""
    tables = load(simulate(40, 6, 5, implants_per_device_day=2.0).tables)
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
    said = [f.parameters for _, row in scores.iterrows() for f in of_row(row) if f.kind == REASON]
    shown = {expert.name: expert.feature for expert in EXPERTS}
    return {p.get("feature") or shown[p["expert"]] for p in said}


def test_contributions_and_the_shift_of_the_device_sum_to_every_score(detector, frame, complete):
    contributions, raw = detector.parts(frame)
    values = frame[list(NAMES)]
    assert len(frame) >= 10_000 and values.isna().mean().between(0.05, 0.95).sum() > 20
    assert detector.weights.all()
    for stratum, rows in strata(frame).items():
        c = detector.calibration[stratum]
        total = detector.constant(stratum) + contributions[rows].sum(axis=1) / c.spread
        assert rows.sum() > 100
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
