"""Persistence against its slow twin."""

import math
import statistics
from itertools import pairwise

import hostile
import naive
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
