"""Which windows are judged, on what, and which raise no alert: each bound met exactly, and missed by one."""

import numpy as np
import pandas as pd
import pytest
from handmade import windows
from hypothesis import given
from hypothesis import strategies as st
from make import flows

from appcadence.config import Tunables
from appcadence.features.extraction import extract
from appcadence.models.eligibility import BEHAVIOURS, barred, by_name, eligible, judged

CADENCE, PERSISTENCE, BURST = BEHAVIOURS
BELOW = np.nextafter(1800.0, 0)


def of(**columns):
    return windows(1, **{"n_beats": 1} | columns)


@pytest.mark.parametrize(
    ("columns", "behaviours"),
    [
        ({}, []),
        ({"n_beats": 5}, []),
        ({"n_beats": 6}, [CADENCE]),
        ({"n_beats": 5, "longest_session_seconds": BELOW}, []),
        ({"n_beats": 6, "longest_session_seconds": 0.0}, [CADENCE, PERSISTENCE]),
        ({"longest_session_seconds": 1800.0}, [PERSISTENCE]),
        ({"push_coupling_excess": -1.0}, [BURST]),
        ({"n_beats": 6, "longest_session_seconds": 1800.0, "push_coupling_excess": 0.0}, list(BEHAVIOURS)),
    ],
)
def test_a_window_is_judged_on_what_it_has_evidence_for(columns, behaviours):
    frame = of(**columns)
    assert [name for name, able in judged(frame).items() if able[0]] == behaviours
    assert eligible(frame).tolist() == [bool(behaviours)]


@pytest.mark.parametrize(("steady", "enough"), [(0.0, False), (2 / 14, True), (1.0, True), (np.nan, False)])
def test_a_channel_met_on_two_days_before_is_judged_however_few_its_beats(steady, enough):
    frame = of(steady_days_ratio=steady, n_beats=1)
    assert eligible(frame).tolist() == [enough]
    assert not eligible(of(steady_days_ratio=steady, n_beats=0)).any()
    assert not any(able[0] for able in judged(frame).values())


ONLY = {"n_beats": 11}


@pytest.mark.parametrize(
    ("shows", "counts", "mute"),
    [
        ([CADENCE], ONLY, True),
        ([CADENCE], {"n_beats": 12}, False),
        ([CADENCE, PERSISTENCE], ONLY, False),
        ([CADENCE, BURST], ONLY, False),
        ([PERSISTENCE], ONLY, False),
        ([], ONLY, False),
    ],
)
def test_cadence_alone_raises_no_alert_below_twelve_beats(shows, counts, mute):
    frame = of(**counts)
    able = {name: np.array([True]) for name in BEHAVIOURS}
    shown = {name: np.array([name in shows]) for name in BEHAVIOURS}
    assert barred(frame, able, shown, Tunables()).tolist() == [mute]


def gates(starts):
    """What a channel of flows with such starts is judged on, and whether its cadence alone may alert."""
    frame = extract({"flows": flows(starts, duration=0.1)})
    shown = {name: np.full(len(frame), name == CADENCE) for name in BEHAVIOURS}
    able = judged(frame)
    mute = barred(frame, able, shown, Tunables())
    return [*(able[name].tolist() for name in BEHAVIOURS), eligible(frame).tolist(), mute.tolist()]


def test_fourteen_sockets_opened_within_a_second_are_one_beat():
    burst = extract({"flows": flows(9 * 3600 + 0.05 * np.arange(14), duration=0.1)})
    assert burst["n_flows"].tolist() == [14, 14] and burst["n_beats"].tolist() == [1, 1]
    assert not eligible(burst).any()


@given(beats=st.integers(1, 14), sockets=st.integers(1, 6))
def test_how_many_sockets_a_beat_opens_changes_no_gate(beats, sockets):
    at = 3600 + 600.0 * np.arange(beats)
    assert gates((at[:, None] + 0.3 * np.arange(sockets)).ravel()) == gates(at)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_threshold_bars_what_can_be_judged_on_it_and_shows_none_of_the_three(name):
    frame, tunables = of(n_beats=40), Tunables(**{name: 0.5})
    no, yes = np.array([False]), np.array([True])

    def mute(able, shown):
        return barred(
            frame,
            {b: yes if b in able else no for b in BEHAVIOURS},
            {b: yes if b in shown else no for b in BEHAVIOURS},
            tunables,
        )[0]

    others = [b for b in BEHAVIOURS if b != name]
    assert mute(BEHAVIOURS, []) and mute([name], [])
    assert not mute(others, [])  # no threshold speaks for what cannot be judged
    for shown in BEHAVIOURS:
        assert not mute(BEHAVIOURS, [shown])


def test_each_name_is_asked_once_and_none_is_passed_over():
    asked = []
    frame = pd.DataFrame({"dest": ["b", "a", None, "b", "c", "a"]})
    found = by_name(frame, "dest", lambda name: asked.append(name) or name in "ac")
    assert found.tolist() == [False, True, False, False, True, True]
    assert sorted(asked) == ["a", "b", "c"]
