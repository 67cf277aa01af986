"""Starts together with other traffic against their slow twin."""

import hostile
import naive
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
