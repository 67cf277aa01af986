"""Which windows are judged, on what, and which raise no alert: each bound met exactly, and missed by one."""

import numpy as np
import pytest
from handmade import windows

from appcadence.config import Tunables
from appcadence.models.eligibility import BEHAVIOURS, barred, eligible, judged

CADENCE, PERSISTENCE, BURST = BEHAVIOURS
BELOW = np.nextafter(1800.0, 0)


def of(**columns):
    return windows(1, **{"n_flows": 1} | columns)


@pytest.mark.parametrize(
    ("columns", "behaviours"),
    [
        ({}, []),
        ({"n_flows": 5}, []),
        ({"n_flows": 6}, [CADENCE]),
        ({"n_flows": 5, "longest_session_seconds": BELOW}, []),
        ({"n_flows": 6, "longest_session_seconds": 0.0}, [CADENCE, PERSISTENCE]),
        ({"longest_session_seconds": 1800.0}, [PERSISTENCE]),
        ({"push_coupling_excess": -1.0}, [BURST]),
        ({"n_flows": 6, "longest_session_seconds": 1800.0, "push_coupling_excess": 0.0}, list(BEHAVIOURS)),
    ],
)
def test_a_window_is_judged_on_what_it_has_evidence_for(columns, behaviours):
    frame = of(**columns)
    assert [name for name, able in judged(frame).items() if able[0]] == behaviours
    assert eligible(frame).tolist() == [bool(behaviours)]


@pytest.mark.parametrize(("steady", "enough"), [(0.0, False), (2 / 14, True), (1.0, True), (np.nan, False)])
def test_a_channel_met_on_two_days_before_is_judged_however_few_its_flows(steady, enough):
    frame = of(steady_days_ratio=steady)
    assert eligible(frame).tolist() == [enough]
    assert not any(able[0] for able in judged(frame).values())


ONLY = {"n_flows": 11}


@pytest.mark.parametrize(
    ("shows", "counts", "mute"),
    [
        ([CADENCE], ONLY, True),
        ([CADENCE], {"n_flows": 12}, False),
        ([CADENCE, PERSISTENCE], ONLY, False),
        ([CADENCE, BURST], ONLY, False),
        ([PERSISTENCE], ONLY, False),
        ([], ONLY, False),
    ],
)
def test_cadence_alone_raises_no_alert_below_twelve_starts(shows, counts, mute):
    frame = of(**counts)
    able = {name: np.array([True]) for name in BEHAVIOURS}
    shown = {name: np.array([name in shows]) for name in BEHAVIOURS}
    assert barred(frame, able, shown, Tunables()).tolist() == [mute]


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_threshold_bars_what_can_be_judged_on_it_and_shows_none_of_the_three(name):
    frame, tunables = of(n_flows=40), Tunables(**{name: 0.5})
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
