"""Cadence against its slow twin."""

import math

import hostile
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows

from appcadence.features import extract
from appcadence.features.families import interval

NAMES = [f.name for f in interval.FAMILY.features]
DECISIVE = {"part_cadence_score", "dominant_period_seconds", "jitter_ratio", "missed_beat_share"}
"""Of the level with the larger cadence score: of either, where both are equal but for rounding."""


def check(rows, window):
    got = hostile.extracted(rows, window, NAMES)
    found = naive.windows(rows, hostile.WINDOWS[window])
    assert got.keys() == found.keys()
    for key, one in found.items():
        want, unclear = naive.interval(one)
        names = [n for n in NAMES if not (unclear and n in DECISIVE)]
        hostile.same([got[key][NAMES.index(n)] for n in names], [want[n] for n in names], names, key)


@given(hostile.telemetry(), st.sampled_from(["24h", "6h", "1h"]))
def test_every_window_equals_its_twin(rows, window):
    check(rows, window)


@given(hostile.telemetry(hostile.ONE, hostile.short, st.just(1), most=8, repeat=8))
def test_long_rhythms_equal_their_twin(rows):
    check(rows, "24h")


@pytest.mark.parametrize("n", [41, 42, 129, 257, 300])
def test_many_gaps_equal_their_twin(n):
    # Where the sorting changes its method, and where the resultant looks at a part of the gaps.
    times = [40.0 * i + 7 * math.sin(i * i) for i in range(n + 1)]
    check([hostile.Row(hostile.DAY0 * 1_000_000 + round(t * 1e6) + 10**7, 0.5) for t in times], "24h")


def test_clockwork_scores_two_point_six_and_chance_near_zero():
    clock = extract({"flows": flows([60.0 * i for i in range(1440)])}).iloc[0]
    assert clock["beat_cadence_score"] == pytest.approx(2.6, abs=0.05)
    chance = np.random.default_rng(1).exponential(200, 400).cumsum()
    assert extract({"flows": flows(chance)}).iloc[0]["beat_cadence_score"] < 0.1
    assert clock["beat_interval_entropy_ratio"] == 0 and clock["jitter_ratio"] == 0


def test_a_beacon_that_begins_at_noon_shows_in_a_part():
    morning = [17.0 * i * i for i in range(50)]
    noon = [43200 + 60.0 * i for i in range(51)]
    got = extract({"flows": flows(morning + noon)}).iloc[0]
    assert got["part_cadence_score"] > 1.3 * got["beat_cadence_score"]


def test_missed_beats_are_beats_due():
    times, due = [], 0
    for step in [1] * 12 + [2] * 3 + [3] * 2:
        due += step
        times.append(600.0 * due)
    got = extract({"flows": flows([0.0, *times])}).iloc[0]
    assert got["dominant_period_seconds"] == 600
    assert got["missed_beat_share"] == pytest.approx((3 + 4) / due)


def spaced(gaps):
    """Flows with these gaps, in seconds."""
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    return [hostile.Row(hostile.DAY0 * 1_000_000 + round(t * 1e6), 0.5) for t in times]


@pytest.mark.parametrize(
    "gaps",
    [
        [100.0, 105.0] * 4,  # successive gaps within a factor of 1.05 ...
        [100.0, 105.001] * 4,
        [100.0, 130.0] * 4,  # ... and of 1.3
        [100.0, 130.001] * 4,
        [60.0] * 4 + [100.0] * 3 + [400.0],  # a band from .75 to 1.25 of its middle
        [60.0] * 4 + [100.001] * 3 + [400.0],
        [100.0] * 6 + [175.0, 225.0, 275.0, 325.0],  # twice and three times the period
        [100.0] * 6 + [174.999, 225.001, 274.999, 325.001],
        [100.0] * 2 + [200.0] * 2 + [300.0] * 2,  # as many missed as met
        [100.0] * 2 + [200.0] * 3 + [300.0] * 2,
        [100.0] * 1 + [1000.0 * k for k in range(2, 11)],  # a tenth of the gaps makes a rhythm
        [100.0] * 1 + [1000.0 * k for k in range(2, 12)],
        [32.0 * 2.0**k for k in range(-3, 4) for _ in range(2)],  # at the edges of the bins
        [40.0, 50.0] * 2 + [0.5, 2.0, 2.001],
    ],
)
def test_gaps_at_the_bounds_equal_their_twin(gaps):
    check(spaced(gaps), "24h")


@pytest.mark.parametrize(
    ("starts", "level", "part"), [(5, False, False), (6, True, False), (11, True, False), (12, True, True)]
)
def test_six_starts_are_a_rhythm_and_twelve_have_parts(starts, level, part):
    got = extract({"flows": flows(300.0 * np.arange(starts))}).iloc[0]
    for name in NAMES:
        if name.startswith(("session_", "beat_")) or name in DECISIVE:
            assert np.isnan(got[name]) != (part if name == "part_cadence_score" else level), name
    assert got["beats_per_hour"] > 0


def test_shares_of_alike_gaps_are_shrunk_for_few():
    got = extract({"flows": flows(np.cumsum([0.0] + [100.0, 105.0] * 3))}).iloc[0]
    # Five successive pairs of six gaps, and two more that are not alike.
    assert got["beat_ratio_share_1_05"] == got["beat_ratio_share_1_3"] == pytest.approx(5 / 7)
    wide = extract({"flows": flows(np.cumsum([0.0] + [100.0, 106.0] * 3))}).iloc[0]
    assert wide["beat_ratio_share_1_05"] == 0 and wide["beat_ratio_share_1_3"] == pytest.approx(5 / 7)
