"""What speaks for the benign reading, and how a rhythm that was not approved is worded."""

import numpy as np
import pytest
from handmade import values, windows
from make import flows, inventory

from appcadence._quantity import quantity
from appcadence.features import History, extract
from appcadence.features.catalog import NAMES
from appcadence.findings import Finding
from appcadence.models.experts import EXPERTS
from appcadence.models.reasons import (
    MIN_WORTH,
    explained_by,
    listed,
    said_by_experts,
    told_once,
    unchecked,
    unusual,
)

AT = NAMES.index("expected_rhythm_ratio")


def window(gap, **declared):
    """The only channel window of an app that connects every `gap` seconds."""
    told = {"flows": flows(gap * np.arange(10)), "inventory": inventory({"app_id": "com.a"} | declared)}
    frame = extract(told, history=History.empty())
    return frame[frame["dest"] == "a.example"]


@pytest.mark.parametrize(
    ("gap", "declared", "approved"),
    [
        (900.0, {"expected_period_seconds": 900.0}, True),
        (1800.0, {"expected_period_seconds": 900.0}, True),
        (750.0, {"expected_period_seconds": 900.0}, True),
        (740.0, {"expected_period_seconds": 900.0}, False),
        (75.0, {"expected_period_seconds": 900.0}, False),
        (900.0, {}, False),
        (900.0, {"expected_period_seconds": 900.0, "approved": True, "expected_hosts": ["a.example"]}, True),
        (900.0, {"expected_period_seconds": 900.0, "approved": False}, False),
        (900.0, {"expected_period_seconds": 900.0, "expected_hosts": ["b.example"]}, False),
    ],
)
def test_an_approved_rhythm_explains(gap, declared, approved):
    (texts,) = explained_by(window(gap, **declared), np.full((1, len(NAMES)), np.nan)).to_pylist()
    assert ("approved_rhythm" in texts) is approved


def test_three_experts_are_said_from_one_in_twenty_on_and_newness_last():
    names = [expert.name for expert in EXPERTS]
    worth = np.zeros((3, len(names)))
    for row, said in enumerate(
        (
            {"newness": 9.0, "push_coupling": MIN_WORTH, "volume_of_new": np.nextafter(MIN_WORTH, 0)},
            {"newness": 9.0, "push_coupling": 4.0, "volume_of_new": 5.0, "rhythm_of_new": 6.0},
            {"newness": np.nextafter(MIN_WORTH, 0)},
        )
    ):
        worth[row, [names.index(name) for name in said]] = list(said.values())
    seen = values(3, beats_per_hour=7.0, push_coupling_surprise=80.0)
    found = said_by_experts(worth, seen, np.full_like(seen, np.nan))
    told = [[finding.parameters["expert"] for finding in findings] for findings in found]
    assert told == [["push_coupling", "newness"], ["rhythm_of_new", "volume_of_new", "push_coupling"], []]
    # Decades of surprise tell nobody anything; connections an hour do.
    unsaid = {"feature": None, "value": None}
    assert found[0][0].parameters == {"expert": "push_coupling", **unsaid, "one_in": 20}
    said = {"feature": "beats_per_hour", "value": 7.0}
    assert found[1][1].parameters == {"expert": "volume_of_new", **said, "one_in": 148}


@pytest.mark.parametrize(
    ("longest", "connected", "shown"),
    [(3.0, 9.0, "connected_ratio"), (3.0, 2.0, "longest_session_seconds"), (np.nan, 9.0, "connected_ratio")],
)
def test_an_expert_shows_what_decided(longest, connected, shown):
    worth = np.where([e.name == "persistence_against_own" for e in EXPERTS], 9.0, 0.0)[None]
    seen = values(1, longest_session_seconds=7.9, connected_ratio=1.0)
    distances = values(1, longest_session_seconds=longest, connected_ratio=connected)
    ((found,),) = said_by_experts(worth, seen, distances)
    assert found.parameters["feature"] == shown and found.parameters["value"] == seen[0, NAMES.index(shown)]


@pytest.mark.parametrize(
    ("feature", "value", "usual", "said"),
    [
        ("longest_session_seconds", 7.0, 6.0, True),
        ("longest_session_seconds", 6.1, 6.0, False),
        ("longest_session_seconds", 5.0, 60.0, False),  # the benign side
        ("longest_session_seconds", 5.0, np.nan, True),
        ("longest_silence_ratio", 0.2, 0.9, True),
        ("longest_silence_ratio", 0.9, 0.2, False),
        ("beat_median_interval_seconds", 5.0, 60.0, True),  # no side is suspicious
        ("beat_median_interval_seconds", 60.0, 60.0, False),
        ("userless_share", 0.0, 0.0, False),
    ],
)
def test_only_what_differs_towards_the_suspicious_is_unusual(feature, value, usual, said):
    place = np.array([[NAMES.index(feature)]])
    (found,) = unusual(place, np.full((1, 1), value), np.full((1, 1), usual), np.ones((1, 1)))
    assert bool(found) is said


@pytest.mark.parametrize(
    ("gap", "period", "said"),
    [(75.0, 900.0, "12 times"), (600.0, 900.0, "1.5 times"), (2.0, 3600.0, "1,800 times")],
)
def test_a_faster_rhythm_is_worded(gap, period, said):
    value = window(gap, expected_period_seconds=period)[[NAMES[AT]]].to_numpy(float)
    ((found,),) = unusual(np.array([[AT]]), value, np.full((1, 1), np.nan), np.ones((1, 1)))
    assert found.text == (f"Connections against the approved rhythm: {said} as often.")


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (float("nan"), "s", "unknown"),
        (0.0, "s", "0.0 s"),
        (0.0999, "s", "under 0.1 s"),
        (0.1, "s", "0.1 s"),
        # From twice a unit on it is shown in that unit.
        (60.0, "s", "60.0 s"),
        (119.9, "s", "119.9 s"),
        (120.0, "s", "2.0 min"),
        (7199.0, "s", "120.0 min"),
        (7200.0, "s", "2.0 h"),
        (172_799.0, "s", "48.0 h"),
        (172_800.0, "s", "2.0 d"),
        (0.25, "ratio", "25%"),
        (1.0, "ratio", "100%"),
        (999.0, "bytes", "999 bytes"),
        (1000.0, "bytes", "1.0 kB"),
        (999_949.0, "bytes", "999.9 kB"),
        (1e6, "bytes", "1.0 MB"),
        (1e9, "bytes", "1.0 GB"),
        (9.9, "times", "9.9 times as often"),
        (10.0, "times", "10 times as often"),
        (1500.0, "times", "1,500 times as often"),
        (3.14159, "1/h", "3.14 an hour"),
        (7.0, "count", "7"),
        (8.16e-7, "1/h", "under 0.001 an hour"),
        (0.255, "s/kB", "0.255 s/kB"),
        (999.0, "nats", "999 nats"),
        (1000.0, "nats", "1,000 nats"),
        (-1000.0, "nats", "-1,000 nats"),
        (15_300.4, "s/kB", "15,300 s/kB"),
    ],
)
def test_quantities_are_said_as_people_do(value, unit, said):
    assert quantity(value, unit) == said


@pytest.mark.parametrize(
    ("columns", "text", "speaks"),
    [
        ({"userless_share": np.nextafter(0.2, 0)}, "user_present", True),
        ({"userless_share": 0.2}, "user_present", False),
        ({"userless_share": np.nan}, "user_present", False),
        ({"expected_rhythm_ratio": 1.2}, "approved_rhythm", True),
        ({"expected_rhythm_ratio": np.nextafter(1.2, 2)}, "approved_rhythm", False),
        ({"expected_rhythm_ratio": np.nan}, "approved_rhythm", False),
        ({"expected_rhythm_ratio": 1.0, "unexpected_host_share": 0.99}, "approved_rhythm", True),
        ({"expected_rhythm_ratio": 1.0, "unexpected_host_share": 1.0}, "approved_rhythm", False),
        ({"expected_rhythm_ratio": 1.0, "unapproved_app": 0.0}, "approved_rhythm", True),
        ({"expected_rhythm_ratio": 1.0, "unapproved_app": 1.0}, "approved_rhythm", False),
        ({"scheduled_start_share": 0.5}, "scheduled_by_ios", True),
        ({"scheduled_start_share": np.nextafter(0.5, 0)}, "scheduled_by_ios", False),
        ({"scheduled_start_share": np.nan}, "scheduled_by_ios", False),
        ({"destination_prevalence_ratio": 0.2}, "known_to_fleet", True),
        ({"destination_prevalence_ratio": np.nextafter(0.2, 0)}, "known_to_fleet", False),
        ({"destination_prevalence_ratio": np.nan}, "known_to_fleet", False),
    ],
)
def test_what_speaks_for_the_benign_reading_begins_exactly_there(columns, text, speaks):
    (texts,) = explained_by(windows(1, **columns), np.full((1, len(NAMES)), np.nan)).to_pylist()
    assert (text in texts) is speaks
    assert set(texts) <= {text, "usual_for_app"}


@pytest.mark.parametrize(
    ("distances", "usual"),
    [
        ({}, True),  # nothing is known to be unusual
        ({"upload_ratio": 0.99}, True),
        ({"upload_ratio": -0.99}, True),
        ({"upload_ratio": 1.0}, False),
        ({"upload_ratio": -1.0}, False),
        # A mean over the features with a suspicious direction ...
        ({"upload_ratio": 1.5, "failed_ratio": 0.25}, True),
        ({"upload_ratio": 1.5, "failed_ratio": -0.5}, False),
        # ... and no others.
        ({"upload_ratio": 0.5, "sessions_per_hour": 8.0}, True),
        ({"upload_ratio": 1.0, "sessions_per_hour": 0.0}, False),
    ],
)
def test_as_usual_is_less_than_one_spread_in_the_mean(distances, usual):
    (texts,) = explained_by(windows(1), values(**distances)).to_pylist()
    assert ("usual_for_app" in texts) is usual


def said(contributions, **known):
    """The sentences of one window whose features contribute so."""
    places = np.array([[NAMES.index(name) for name in known]])
    numbers = np.array([list(known.values())], float)
    (found,) = unusual(places, numbers, np.full(places.shape, 0.5), np.array([contributions], float))
    return [finding.text for finding in found]


def test_only_what_is_known_and_raises_the_score_is_worded_and_novelty_last():
    known = {"channel_is_new": 1.0, "upload_ratio": 0.9, "failed_ratio": np.nan, "connected_ratio": 1.0}
    assert said([3.0, 2.0, 1.0, 1e-9], **known) == [
        "Share of bytes sent: 90%; usual here 50%.",
        "Share of the time connected: 100%; usual here 50%.",
        "The destination is new for this app on this device since the baseline.",
    ]
    assert said([0.0, -1.0, 1.0, 0.0], **known) == []
    assert said([1.0], channel_is_new=0.0) == []
    assert said([1.0], unexpected_host_share=1.0) == ["Traffic outside the app's expected hosts: 100%."]


def test_what_the_telemetry_could_not_show_is_said_of_each_window():
    columns = {"median_seconds_since_unlock": 1.0, "pushes_per_hour": 0.0, "longest_session_seconds": 5.0}
    whole, *blind = [
        windows(1, **columns | {name: np.nan}) if name else windows(1, **columns) for name in ("", *columns)
    ]
    assert unchecked(whole) == [[]]
    found = [unchecked(frame)[0] for frame in (windows(1, app=None, **columns), *blind)]
    want = ["app_unknown", "presence_unknown", "pushes_unknown", "durations_unknown"]
    assert [[finding.code for finding in some] for some in found] == [[code] for code in want]
    assert [finding.code for finding in unchecked(windows(1, app=None))[0]] == want


def test_names_are_put_to_their_rows():
    flags = {"a": np.array([True, False, True]), "b": np.array([False, False, True])}
    assert listed(flags).to_pylist() == [["a"], [], ["a", "b"]]


def reason(feature, value=1.0):
    return Finding("unusual_feature", {"feature": feature, "value": value, "expected": 0.5})


def expert(name):
    return Finding("expert", {"expert": name, "value": 2.0, "one_in": 50})


def test_what_follows_from_a_reason_is_no_reason_of_its_own():
    rhythm = [expert("rhythm_of_new"), reason("beat_mode_share"), reason("session_interval_entropy_ratio")]
    assert told_once(rhythm) == rhythm[:1]
    both = [reason("beat_mode_share"), reason("longest_session_seconds"), reason("connected_ratio")]
    assert told_once(both) == both[:2]
    # Volume is a matter of its own, though its features stand in families.
    assert told_once([expert("volume_of_new"), reason("jitter_ratio"), reason("bytes_per_hour")])[1:] == [
        reason("jitter_ratio")
    ]
    sizes = [reason("out_size_mode_share"), reason("in_size_median_bytes")]
    assert told_once([reason("failed_ratio", 1.0), *sizes]) == [reason("failed_ratio", 1.0)]
    assert told_once([reason("failed_ratio", 0.5), *sizes]) == [reason("failed_ratio", 0.5), sizes[0]]
    other = [Finding("exception_expired", {"exception": name, "expires": "2026-01-01"}) for name in "ab"]
    assert told_once([*other, *other]) == other and told_once([]) == []


def test_what_ios_keeps_in_touch_with_is_said_of_ios_alone():
    apps = [None, "com.apple.cloudd", "cloudd", "com.a", None, None]
    dests = ["gateway.icloud.com"] * 4 + ["gateway.icloud.com.example", "*"]
    frame = windows(6, app=apps, dest=dests)
    found = explained_by(frame, np.zeros((6, len(NAMES)))).to_pylist()
    assert ["system_service" in codes for codes in found] == [True, True, True, False, False, False]
