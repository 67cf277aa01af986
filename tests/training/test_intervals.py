"""Intervals of recall: equal to a slow twin, and as wide as they say."""

import math

import numpy as np
import pandas as pd
import pytest
from handmade import observed, slow_level
from hypothesis import given, settings
from hypothesis import strategies as st

from appcadence.training.evaluate import BUDGETS, quality, wilson
from appcadence.training.truth import Truth

DAY = pd.Timestamp("2026-03-02", tz="UTC")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=8),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=5),
    st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
@settings(max_examples=20)
def test_intervals_equal_those_of_fleets_drawn_device_by_device(benign, implants, span):
    device = [f"d{d}" for d, _ in benign + implants]
    score = np.array([s for _, s in benign + implants], float)
    n, m = len(benign), len(implants)
    cases = [f"c{d}" for d in device[n:]]
    days = pd.DataFrame({"device_id": device[n:], "case_id": cases, "day": DAY, "kind": "beacon"})
    truth = Truth(days, np.arange(n, n + m), np.arange(m))
    names = sorted(set(device))
    of = {name: span[int(name[1])] for name in names}
    got = quality(observed(device, of), score, truth, np.arange(n + m), float(sum(of.values())))
    if len(names) < 2:
        assert all(math.isnan(x) for pair in got.interval.values() for x in pair)
        return
    rng = np.random.default_rng(0)
    shares = {budget: [] for budget in BUDGETS}
    for _ in range(200):
        fleet = [names[k] for k in rng.integers(0, len(names), len(names))]
        units = [s for name in fleet for d, s in zip(device[:n], score[:n], strict=True) if d == name]
        shown = [s for name in fleet for d, s in zip(device[n:], score[n:], strict=True) if d == name]
        for budget in BUDGETS if shown else ():
            level = slow_level(units, sum(of[name] for name in fleet) * budget + 1e-9)
            shares[budget].append(sum(s > level for s in shown) / len(shown))
    for budget, (low, high) in got.interval.items():
        least, most = wilson(got.recall[budget], len(set(cases)))
        assert low == pytest.approx(min(least, np.quantile(shares[budget], 0.025)))
        assert high == pytest.approx(max(most, np.quantile(shares[budget], 0.975)))


def test_wilsons_interval_holds_the_shares_that_its_own_test_does_not_reject():
    for trials in (1, 2, 9, 40, 1000):
        for found in {0, 1, trials // 3, trials}:
            for bound in wilson(share := found / trials, trials):
                assert abs(share - bound) == pytest.approx(
                    1.959964 * math.sqrt(bound * (1 - bound) / trials), abs=1e-9
                )
    assert wilson(1.0, 9)[0] == pytest.approx(0.7009, abs=1e-4)


@pytest.mark.parametrize(("devices", "budget"), [(6, 3.0), (12, 3.0), (12, 1.0), (30, 1.0)])
def test_nineteen_of_twenty_intervals_hold_the_recall_of_the_population(devices, budget):
    # Few implants, most of them found: fleets resampled from the devices alone hold it in 12 to 50 of sixty.
    rng = np.random.default_rng(1)
    recall = fleet_of(rng, 3000).recall[budget]
    held = [
        low <= recall <= high for low, high in (fleet_of(rng, devices).interval[budget] for _ in range(60))
    ]
    assert np.mean(held) >= 0.93


def fleet_of(rng, devices):
    """Quality on devices of three days: some twenty benign units a day, an implant on every other device."""
    owner = np.repeat(np.arange(devices), 60)
    level = rng.normal(0, 0.5, devices)
    whose = np.flatnonzero(rng.random(devices) < 0.5)
    whose = whose if len(whose) else np.array([0])
    days = np.repeat(np.arange(len(whose)), rng.integers(1, 4, len(whose)))
    shown = rng.normal(3, 1, len(whose))[days] + rng.normal(0, 0.3, len(days))
    score = np.append(rng.normal(0, 1, len(owner)) + level[owner], shown)
    device = [f"d{k}" for k in np.append(owner, whose[days])]
    table = {"device_id": device[len(owner) :], "case_id": days.astype(str), "day": DAY, "kind": "beacon"}
    places = np.arange(len(days))
    truth = Truth(pd.DataFrame(table), len(owner) + places, places)
    of = dict.fromkeys(device, 3.0)
    return quality(observed(device, of), score, truth, np.arange(len(score)), 3.0 * devices)
