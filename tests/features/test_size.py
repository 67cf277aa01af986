"""Regularity of sizes against its slow twin."""

import hostile
import naive
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows

from appcadence.features import extract
from appcadence.features.families import size

NAMES = [f.name for f in size.FEATURES]


def check(rows, window):
    got = hostile.extracted(rows, window, NAMES)
    found = naive.windows(rows, hostile.WINDOWS[window])
    assert got.keys() == found.keys()
    for key, one in found.items():
        want = naive.size(one)
        hostile.same(got[key], [want[n] for n in NAMES], NAMES, key)


@given(hostile.telemetry(), st.sampled_from(["24h", "6h", "1h"]))
def test_every_window_equals_its_twin(rows, window):
    check(rows, window)


@given(hostile.telemetry(hostile.ONE, hostile.short, most=20, repeat=5))
def test_many_flows_equal_their_twin(rows):
    check(rows, "24h")


def test_uniform_exchanges():
    got = extract({"flows": flows([600.0 * i for i in range(98)], out=512, inn=512)}).iloc[0]
    assert got["out_size_median_bytes"] == 512 and got["in_size_mad_ratio"] == 0
    assert got["out_size_mode_share"] == pytest.approx(0.98)
    assert got["exchange_symmetry"] == got["out_size_autocorrelation"] == 1


def test_the_largest_counts_are_finite():
    got = extract({"flows": flows([600.0 * i for i in range(8)], out=2**63 - 1, inn=2**63 - 1)}).iloc[0]
    assert got["out_size_median_bytes"] == pytest.approx(2.0**63) and got["exchange_symmetry"] == 1
