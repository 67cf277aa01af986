"""Persistence against its slow twin."""

import math
import statistics
from itertools import pairwise

import hostile
import naive
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows

from appcadence.features import extract
from appcadence.features.families import session

NAMES = [f.name for f in session.FEATURES]


def reconnect(window):
    timed = any(not math.isnan(flow.end) for flow in window.flows)
    gaps = [b[0] - a[1] for a, b in pairwise(window.sessions)]
    return statistics.median(gaps) if gaps and timed else math.nan


@given(hostile.telemetry(most=16), st.sampled_from(["24h", "6h", "1h"]))
def test_every_window_equals_its_twin(rows, window):
    got = hostile.extracted(rows, window, NAMES)
    found = naive.windows(rows, hostile.WINDOWS[window])
    assert got.keys() == found.keys()
    for key, one in found.items():
        want = naive.session(one) | {"median_reconnect_seconds": reconnect(one)}
        hostile.same(got[key], [want[n] for n in NAMES], NAMES, key)


@given(hostile.telemetry(hostile.ONE, hostile.short, st.just(1), most=8, repeat=12))
def test_many_sessions_equal_their_twin(rows):
    test_every_window_equals_its_twin.hypothesis.inner_test(rows, "24h")


def test_a_chain_needs_gaps_shorter_than_both_neighbours():
    got = extract({"flows": flows([0, 500, 1000, 1200.0], duration=[400, 400, 50, 10.0])}).iloc[0]
    assert got["longest_chain_seconds"] == 900
    assert got["longest_session_seconds"] == got["longest_flow_seconds"] == 400


@pytest.mark.parametrize(
    ("gap", "chain"),
    [(99.0, 299.0), (100.0, 100.0), (101.0, 100.0)],
)
def test_a_gap_as_long_as_a_neighbour_ends_the_chain(gap, chain):
    got = extract({"flows": flows([0.0, 100.0 + gap], duration=100.0)}).iloc[0]
    assert got["longest_chain_seconds"] == chain
    # The shorter neighbour decides.
    got = extract({"flows": flows([0.0, 500.0 + gap], duration=[500.0, 100.0])}).iloc[0]
    assert got["longest_chain_seconds"] == (600 + gap if gap < 100 else 500)


def test_time_under_several_flows_is_covered_once():
    start, length = [0.0, 50.0, 60.0, 80.0, 140.0], [100.0, 100.0, 10.0, 5.0, 0.0]
    frame = extract(
        {"flows": flows(start, duration=length, out=300, inn=100, outcome=["failed"] + ["established"] * 4)}
    )
    got = frame.iloc[0]
    hours = got["observed_seconds"] / 3600
    assert got["covered_ratio"] * got["observed_seconds"] == pytest.approx(150)
    assert got["parallel_flows"] == pytest.approx(215 / 150)
    assert got["connected_ratio"] * got["observed_seconds"] == pytest.approx(150)
    assert got["longest_flow_seconds"] == 100 and got["median_session_seconds"] == 150
    assert (got["upload_ratio"], got["failed_ratio"]) == (0.75, pytest.approx(0.2))
    assert got["bytes_per_hour"] == pytest.approx(2000 / hours)
    assert got["seconds_per_kilobyte"] == pytest.approx(150 / 3)


def test_sessions_of_an_even_number_have_the_mean_of_the_middle_two():
    start, length = [0.0, 1000.0, 3000.0, 7000.0], [10.0, 40.0, 20.0, 70.0]
    got = extract({"flows": flows(start, duration=length)}).iloc[0]
    assert got["median_session_seconds"] == 30 and got["longest_session_seconds"] == 70
    assert got["median_reconnect_seconds"] == 1960  # of 990, 1960 and 3980
    assert extract({"flows": flows([0.0])}).iloc[0][["median_reconnect_seconds"]].isna().all()
