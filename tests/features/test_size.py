"""Regularity of sizes against its slow twin."""

import hostile
import naive
import numpy as np
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


@pytest.mark.parametrize(("n", "known"), [(3, False), (4, True)])
def test_four_sizes_are_enough(n, known):
    got = extract({"flows": flows(600.0 * np.arange(n))}).iloc[0]
    assert all(np.isnan(got[name]) != known for name in NAMES)
    # Each direction by itself; an exchange takes both.
    out = [1.0] * n + [None] * 4
    got = extract({"flows": flows(600.0 * np.arange(n + 4), out=out)}).iloc[0]
    assert np.isnan(got["out_size_median_bytes"]) != known and got["in_size_median_bytes"] == 200
    assert np.isnan(got["exchange_symmetry"]) != known


def test_the_first_256_flows_say_how_sizes_follow_each_other():
    sizes = [100] * 256 + [1, 10_000] * 20
    late, early = (extract({"flows": flows(60.0 * np.arange(296), out=out)}) for out in (sizes, sizes[::-1]))
    assert late.iloc[0]["out_size_autocorrelation"] == 1
    assert early.iloc[0]["out_size_autocorrelation"] < 0


def test_sizes_by_hand():
    got = extract(
        {"flows": flows(600.0 * np.arange(6), out=[100, 105, 106, 200, 0, 0], inn=[50, 210, 212, 100, 9, 0])}
    )
    got = got.iloc[0]
    # 0 0 100 105 106 200: a band of 5% from 100 holds two, as does 0; the median is 102.5.
    assert got["out_size_median_bytes"] == 102.5 and got["out_size_mode_share"] == pytest.approx(2 / 8)
    assert got["out_size_mad_ratio"] == pytest.approx(50.5 / 102.5)
    assert got["exchange_symmetry"] == pytest.approx((0.5 * 4 + 0) / 5)


def test_the_spread_of_sizes_is_told_against_their_median_of_a_byte_at_least():
    got = extract({"flows": flows(600.0 * np.arange(4), out=[0, 0, 100, 100], inn=[0, 0, 1, 1])}).iloc[0]
    assert got["out_size_mad_ratio"] == 1 and got["in_size_mad_ratio"] == 0.5
