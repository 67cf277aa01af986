"""Experts against their slow twin, and arrays of theirs that a bundle must not hold."""

from dataclasses import replace

import numpy as np
import pytest
from handmade import calibration, detector

from appcadence.errors import BundleError
from appcadence.features.catalog import NAMES
from appcadence.models import bundle
from appcadence.models.eligibility import STRATA
from appcadence.models.experts import EXPERTS, MAX_OCTAVES, POINTS, PRIOR_WINDOWS, Experts, statistics

N = len(NAMES)
PLACE = {expert.name: place for place, expert in enumerate(EXPERTS)}


def windows(n, **columns):
    """(n, n_features) values that are unknown but for the columns."""
    out = np.full((n, N), np.nan)
    for name, column in columns.items():
        out[:, NAMES.index(name)] = column
    return out


def unknown(n):
    return np.full((n, N), np.nan)


def worth(experts, expert, distances=None, **columns):
    """What one window's statistic is worth."""
    given = unknown(1) if distances is None else windows(1, **distances)
    return experts.worth(windows(1, **columns), given)[0, PLACE[expert]]


def slow(seen, statistic):
    """-log of the share of the sample that is at least as high, half a window being above all of it."""
    reached = sum(x >= statistic for x in seen)
    return -np.log((reached + 0.5) / (len(seen) + 0.5))


def slow_statistics(value, distance):
    """By expert, the statistic of one window's values and distances, by name."""

    def known(name):
        return 0.0 if np.isnan(value[name]) else value[name]

    def rise(*names):
        return max([0.0, *(distance[name] for name in names if not np.isnan(distance[name]))])

    nothing, new = float("nan"), value["channel_is_new"] == 1
    cadences = ("session_cadence_score", "beat_cadence_score", "part_cadence_score")
    rhythm = max(0.0, *map(known, cadences))
    octaves = 8.0 if np.isnan(value["twin_distance_octaves"]) else min(value["twin_distance_octaves"], 8.0)
    if np.isnan(value["twin_distance_octaves"]) and np.isnan(value["destination_is_new_for_device"]):
        octaves = 0.0
    without_user, unexplained = value["userless_excess_ratio"], value["unexplained_sessions_per_hour"]
    return {
        "newness": value["channel_is_new"],
        "rhythm_of_new": rhythm if new else nothing,
        "persistence_of_new": known("longest_session_seconds") if new else nothing,
        "volume_of_new": known("beats_per_hour") if new else nothing,
        "unlike_any_known": octaves if new else nothing,
        "rhythm_against_own": nothing if new else rise(*cadences),
        "persistence_against_own": nothing if new else rise("longest_session_seconds", "connected_ratio"),
        "volume_against_own": nothing if new else rise("beats_per_hour"),
        "push_coupling": value["push_coupling_surprise"],
        "push_coupling_against_own": nothing if new else rise("push_coupling_surprise"),
        "rhythm_without_user": nothing if np.isnan(without_user) else max(without_user, 0.0) * rhythm,
        "unexplained_sessions": nothing if np.isnan(unexplained) else rise("unexplained_sessions_per_hour"),
    }


def test_statistics_are_those_of_their_slow_twin():
    rng = np.random.default_rng(3)
    values, distances = (np.round(rng.normal(size=(2000, N)), 1) for _ in range(2))
    values[:, NAMES.index("channel_is_new")] = rng.integers(0, 2, 2000)
    for matrix in (values, distances):
        matrix[rng.random((2000, N)) < 0.4] = np.nan
    values[:500, NAMES.index("twin_distance_octaves")] *= 20
    slow_rows = [
        slow_statistics(dict(zip(NAMES, value, strict=True)), dict(zip(NAMES, distance, strict=True)))
        for value, distance in zip(values, distances, strict=True)
    ]
    assert [*slow_rows[0]] == [*PLACE]
    np.testing.assert_array_equal(statistics(values, distances), [[*row.values()] for row in slow_rows])


@pytest.mark.parametrize("n", [1, 7, 100, 3000])
def test_each_statistic_is_worth_what_its_slow_twin_says(n):
    rng = np.random.default_rng(n)
    values, distances = (np.round(rng.normal(size=(n, N)), 1) for _ in range(2))
    values[:, NAMES.index("channel_is_new")] = rng.random(n) < 0.5
    values[rng.random((n, N)) < 0.1] = np.nan
    experts = Experts.fit(values, distances)
    got = experts.worth(values[:50], distances[:50])
    for e, seen in enumerate(statistics(values, distances).T):
        known = seen[~np.isnan(seen)]
        want = [0.0 if np.isnan(x) else slow(known, x) for x in seen[:50]]
        # Thresholds stand at 256 steps: a worth is rounded down to one.
        assert (got[:, e] <= np.array(want) + 1e-9).all()
        assert (got[:, e] > np.array(want) - experts.steps[e] - 1e-9).all()
    assert got.max() > 0 or n == 1


def test_what_exceeds_all_benign_windows_is_worth_the_size_of_the_sample():
    few, many = (Experts.fit(windows(n, push_coupling_surprise=np.arange(n)), unknown(n)) for n in (10, 1000))
    assert worth(few, "push_coupling", push_coupling_surprise=1e9) == pytest.approx(np.log(10.5 / 0.5))
    assert worth(many, "push_coupling", push_coupling_surprise=1e9) == pytest.approx(np.log(1000.5 / 0.5))
    assert worth(many, "push_coupling", push_coupling_surprise=-1.0) == 0.0
    assert worth(many, "push_coupling") == 0.0


def test_what_is_new_is_compared_with_what_is_new():
    new = np.arange(200) < 20
    benign = windows(200, channel_is_new=new, longest_session_seconds=np.where(new, 10.0, 90_000.0))
    experts = Experts.fit(benign, unknown(200))
    long = {"longest_session_seconds": 3600.0}
    assert worth(experts, "persistence_of_new", channel_is_new=1.0, **long) == pytest.approx(
        np.log(20.5 / 0.5)
    )
    assert worth(experts, "persistence_of_new", channel_is_new=0.0, **long) == 0.0
    assert worth(experts, "newness", channel_is_new=1.0) == pytest.approx(np.log(200.5 / 20.5), abs=0.03)


def test_what_is_known_is_compared_with_its_own():
    experts = Experts.fit(
        windows(99, channel_is_new=0.0), windows(99, connected_ratio=np.linspace(-3, 3, 99))
    )
    rise = {"connected_ratio": 7.0}
    assert worth(experts, "persistence_against_own", rise, channel_is_new=0.0) > 5
    assert worth(experts, "persistence_against_own", rise, channel_is_new=1.0) == 0.0
    # A fall is no rise.
    assert worth(experts, "persistence_against_own", {"connected_ratio": -7.0}, channel_is_new=0.0) < 0.7


def test_a_new_channel_on_a_port_of_its_own_is_unlike_all_others():
    # Twins farther than that are no farther: one benign window is.
    twins = np.append(np.linspace(0.0, MAX_OCTAVES - 1, 99), 2 * MAX_OCTAVES)
    experts = Experts.fit(windows(100, channel_is_new=1.0, twin_distance_octaves=twins), unknown(100))
    new = {"channel_is_new": 1.0, "destination_is_new_for_device": 1.0}
    alone = worth(experts, "unlike_any_known", **new)
    assert alone == worth(experts, "unlike_any_known", twin_distance_octaves=99.0, **new)
    assert alone == pytest.approx(np.log(100.5 / 1.5), abs=0.03)
    assert worth(experts, "unlike_any_known", twin_distance_octaves=1.0, **new) < 1
    # Of a device without a past nothing is unlike.
    assert worth(experts, "unlike_any_known", channel_is_new=1.0) == 0.0


def test_a_rhythm_kept_while_the_user_is_there_is_as_usual_as_none():
    excess = np.where(np.arange(100) < 50, -0.5, 0.0)
    benign = windows(100, userless_excess_ratio=excess, part_cadence_score=1.0)
    experts = Experts.fit(benign, unknown(100))
    for ratio, expected in (-0.9, 0.0), (0.0, 0.0), (0.1, np.log(100.5 / 0.5)):
        got = worth(experts, "rhythm_without_user", userless_excess_ratio=ratio, part_cadence_score=1.0)
        assert got == pytest.approx(expected)


def test_a_reference_counts_as_its_number_of_windows():
    seen = np.arange(1000.0)
    prior = Experts.fit(windows(1000, push_coupling_surprise=seen), unknown(1000))
    nothing = Experts.fit(windows(0), unknown(0), prior)
    at = {"push_coupling_surprise": 900.0}
    assert worth(nothing, "push_coupling", **at) == pytest.approx(np.log(10), abs=0.12)
    # As many local windows, all of them below: half of the tail.
    low = Experts.fit(
        windows(int(PRIOR_WINDOWS), push_coupling_surprise=0.0), unknown(int(PRIOR_WINDOWS)), prior
    )
    assert worth(low, "push_coupling", **at) == pytest.approx(np.log(20), abs=0.15)


def test_contributions_stand_under_the_features_and_add_up():
    rng = np.random.default_rng(1)
    values, distances = rng.normal(size=(400, N)), rng.normal(size=(400, N))
    values[:, NAMES.index("channel_is_new")] = rng.random(400) < 0.3
    experts = Experts.fit(values, distances)
    parts = experts.contributions(values, distances)
    np.testing.assert_allclose(parts.sum(axis=1), experts.worth(values, distances).sum(axis=1))
    assert set(np.flatnonzero(parts.any(axis=0))) <= {NAMES.index(e.feature) for e in EXPERTS}


@pytest.mark.parametrize(
    "broken",
    [
        {"thresholds": np.zeros((len(EXPERTS), 3 * POINTS))},
        {"thresholds": np.zeros((len(EXPERTS) - 1, POINTS))},
        {"thresholds": np.tile(-np.arange(float(POINTS)), (len(EXPERTS), 1))},
        {"thresholds": np.full((len(EXPERTS), POINTS), np.nan)},
        {"steps": np.ones(len(EXPERTS) - 1)},
        {"steps": np.full(len(EXPERTS), -1.0)},
        {"steps": np.full(len(EXPERTS), np.nan)},
    ],
)
def test_a_bundle_whose_experts_have_another_shape_is_refused(broken, tmp_path):
    whole = detector(calibration=dict.fromkeys(STRATA, calibration(40)))
    bundle.save(whole, tmp_path / "model")
    assert bundle.load(tmp_path / "model")
    bundle.save(replace(whole, experts=replace(whole.experts, **broken)), tmp_path / "model")
    with pytest.raises(BundleError, match="experts"):
        bundle.load(tmp_path / "model")
