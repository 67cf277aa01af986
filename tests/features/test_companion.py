"""Starts together with other traffic against their slow twin."""

import hostile
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows, together

from appcadence.features import extract
from appcadence.features.families import companion

NAMES = [f.name for f in companion.FEATURES]


def check(rows, window):
    got = hostile.extracted(rows, window, NAMES)
    found = naive.windows(rows, hostile.WINDOWS[window])
    assert got.keys() == found.keys()
    for key in found:
        want = naive.companion(key, found)
        hostile.same(got[key], [want[n] for n in NAMES], NAMES, key)


@given(hostile.telemetry(most=16), st.sampled_from(["24h", "6h", "1h"]))
def test_every_window_equals_its_twin(rows, window):
    check(rows, window)


@given(hostile.telemetry(duration=hostile.short, size=st.just(1), most=20, repeat=4))
def test_many_starts_equal_their_twin(rows):
    check(rows, "1h")


def test_an_app_is_no_companion_of_itself():
    when = [1000.0 * i for i in range(1, 9)]
    tables = together(flows(when), flows([t + 10 for t in when], host="b.example"))
    got = extract({"flows": tables}).set_index("dest")
    assert got.loc["a.example", "companion_share"] == got.loc["b.example", "companion_share"] == 1
    assert got.loc["*", "companion_share"] == 0 and got.loc["*", "alone_share"] == 1


@pytest.mark.parametrize(
    ("apart", "together_share", "alone"),
    [(10.0, 1, 0), (10.000001, 0, 0), (-10.0, 1, 0), (60.0, 0, 0), (60.000001, 0, 1), (-60.0, 0, 0)],
)
def test_company_within_ten_seconds_and_within_a_minute(apart, together_share, alone):
    when = np.array([1000.0, 4000.0, 9000.0])
    both = together(flows(when), flows(when + apart, host="b.example", app="com.b"))
    got = extract({"flows": both}).set_index("dest").loc["a.example"]
    assert (got["companion_share"], got["alone_share"]) == (together_share, alone)
    few = together(flows(when[:2]), flows(when + apart, host="b.example", app="com.b"))
    got = extract({"flows": few}).set_index("dest").loc[["a.example", "b.example"], "companion_share"]
    assert got.isna().tolist() == [True, False]


def test_chance_is_counted_over_six_turns_of_the_window():
    """Of three starts two are in company 4 and 7 minutes later, one of them over midnight."""
    when = np.array([1000.0, 40_000.0, 86_300.0])
    others = np.array([1000.0 + 240, 40_000 + 420, 86_300 + 240 - 86_400, 70_000])
    both = together(flows(when), flows(others, host="b.example", app="com.b"))
    got = extract({"flows": both}).set_index("dest").loc["a.example"]
    assert got["companion_share"] == 0 and got["companion_excess"] == pytest.approx(-3 / 18)
