"""The scale, the p-values and the budget keep their word on exchangeable data."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from appcadence.errors import BundleError
from appcadence.models.calibration import (
    Calibration,
    adjusted_p_values,
    alert_unit,
    device_days,
    discovered,
    strongest,
)


def drawn(seed, days=400, per_day=30):
    rng = np.random.default_rng(seed)
    raw = rng.exponential(2.0, days * per_day) - 7
    return raw, np.arange(len(raw)), float(days)


@pytest.mark.parametrize("budget", [0.1, 1.0, 3.0])
def test_budget_holds_on_later_days(budget):
    calibration = Calibration.fit(*drawn(0))
    raw, _, days = drawn(1)
    realised = (calibration.scale(raw) >= calibration.threshold(budget)).sum() / days
    # 40 alerts at the lowest budget, on both sides: three standard deviations of counts.
    assert realised == pytest.approx(budget, rel=0.7 if budget < 1 else 0.25)


def test_zero_is_one_a_day_and_each_unit_a_factor_e():
    calibration = Calibration.fit(*drawn(0))
    raw, _, days = drawn(2, 3000)
    score = calibration.scale(raw)
    assert (score >= 0).sum() / days == pytest.approx(1.0, rel=0.15)
    assert (score >= 1).sum() / days == pytest.approx(np.exp(-1), rel=0.25)


def test_p_values_are_uniform_on_exchangeable_scores():
    calibration = Calibration.fit(*drawn(0))
    p = calibration.p_values(drawn(3)[0])
    assert np.allclose(np.quantile(p, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    assert p.min() >= 1 / (len(calibration.windows) + 1) and p.max() <= 1


@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.05, 1.0]))))
def test_adjusted_p_values_are_those_of_scipy(p):
    p = np.array(p, np.float64)
    before = p.copy()
    np.testing.assert_array_equal(adjusted_p_values(p), false_discovery_control(p) if len(p) else p)
    np.testing.assert_array_equal(p, before)


def test_false_discoveries_keep_to_their_rate():
    calibration = Calibration.fit(*drawn(0))
    shares = []
    for seed in range(10, 30):
        benign = drawn(seed, 40)[0]
        raw = np.concatenate([benign, np.full(60, 20.0)])
        unit = np.arange(len(raw))
        alert = discovered(calibration.unit_p_values(raw), unit, 0.2)
        assert alert[len(benign) :].all()
        shares.append(alert[: len(benign)].sum() / alert.sum())
    assert 0.05 < np.mean(shares) <= 0.23


def test_false_discoveries_count_units_and_pass_over_what_is_not_scored():
    # One unit of a hundred windows is one discovery; ten thousand ordinary units keep it from being one.
    p = np.array([0.001] * 100 + [np.nan])
    assert discovered(p, np.array([0] * 100 + [1]), 0.05)[:100].all()
    assert not discovered(p, np.array([0] * 100 + [1]), 0.05)[100]
    crowd = np.concatenate([p, np.linspace(0.002, 1, 10_000)])
    assert not discovered(
        crowd, np.concatenate([np.zeros(101), np.arange(1, 10_001)]).astype(int), 0.05
    ).any()
    assert not discovered(np.array([np.nan]), np.array([0]), 0.5).any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        discovered(p, np.zeros(101, int), 1.0)


def test_too_little_to_calibrate_stays_finite():
    calibration = Calibration.fit(np.array([1.0]), np.array([0]), 0.5)
    assert np.isfinite(calibration.scale(np.array([3.0]))).all()
    assert calibration.p_values(np.array([3.0]))[0] == 0.5


def test_round_trip_and_damage():
    calibration = Calibration.fit(*drawn(0, 5))
    again = Calibration.from_frame(calibration.to_frame())
    assert again.origin == calibration.origin and (again.units == calibration.units).all()
    frame = calibration.to_frame()
    with pytest.raises(BundleError):
        Calibration.from_frame(frame[frame["kind"] != "spread"])
    with pytest.raises(BundleError):
        Calibration.from_frame(frame.assign(value=np.where(frame["kind"] == "spread", 0.0, frame["value"])))


def test_device_days_are_observed_and_counted_once():
    day = pd.Timestamp("2026-03-02", tz="UTC")
    starts = [day, day + pd.Timedelta(hours=6), day, day, day + pd.Timedelta(days=1)]
    frame = pd.DataFrame({"device_id": "d", "window_start": starts, "observed_seconds": 21600.0})
    assert device_days(frame) == pytest.approx(0.75)


# The scale and the budget at their boundaries, by hand: ten and more units that score 0, 1, 2, ...


def counted(n, days, repeat=1):
    """A calibration whose n units score 0 to n - 1, each in `repeat` windows, the others of less."""
    raw = np.concatenate([np.arange(n) - 0.25 * k for k in range(repeat)])
    return Calibration.fit(raw, np.tile(np.arange(n), repeat), days)


@pytest.mark.parametrize(
    ("n", "days", "k"),
    [
        (100, 4.0, 12),  # three a device-day
        (100, 8 / 3, 8),  # and at least eight
        (100, 0.5, 8),
        (100, 3.9, 11),  # whole units
        (9, 0.5, 8),  # of nine units, the lowest is the level
        (8, 0.5, 7),  # at most all but one
        (2, 30.0, 1),
    ],
)
def test_the_scale_is_that_of_the_excess_over_the_unit_below_the_tail(n, days, k):
    calibration = counted(n, days, repeat=2)
    level = n - 1 - k
    spread = (sum(range(1, k + 1)) + 10.0) / (k + 10.0)  # shrunk to 1 as by ten units more
    assert calibration.spread == pytest.approx(spread, rel=1e-12)
    assert calibration.origin == pytest.approx(level + spread * math.log(k / days), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(calibration.scale(np.array([7.5])), (7.5 - calibration.origin) / spread)
    assert len(calibration.units) == n and len(calibration.windows) == 2 * n
    assert (np.diff(calibration.units) > 0).all() and (np.diff(calibration.windows) >= 0).all()


@pytest.mark.parametrize(("n", "days"), [(1, 5.0), (0, 5.0), (20, 0.0), (20, -1.0)])
def test_one_unit_or_no_day_has_no_scale(n, days):
    calibration = counted(n, days)
    assert (calibration.origin, calibration.spread) == (0.0, 1.0) and calibration.device_days > 0


@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (0.8, 91),  # exactly eight units lie above that of 91
        (0.89, 91),  # 8.9 is no nine
        (0.9, 90),
        (2.0, 79),
        (9.9, 0),
        (0.79, None),  # fewer than eight tell less than the fitted tail
        (10.0, None),  # as many as there are: no unit is left to be the threshold
        (1000.0, None),
    ],
)
def test_the_threshold_of_k_units_is_the_unit_that_k_exceed(rate, unit):
    calibration = counted(100, 10.0)
    want = -math.log(rate) if unit is None else calibration.scale(np.array([float(unit)]))[0]
    assert calibration.threshold(rate) == pytest.approx(want, rel=1e-12, abs=1e-12)
    if unit is not None:
        assert (calibration.scale(calibration.units) > calibration.threshold(rate)).sum() == int(rate * 10)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(rate):
    with pytest.raises(ValueError, match="must be positive"):
        counted(20, 2.0).threshold(rate)


few = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5)), max_size=12)


@given(few, st.integers(-4, 4))
def test_p_values_equal_their_twin_however_many_are_tied(windows, score):
    raw, unit = (np.array([w[i] for w in windows], dtype) for i, dtype in ((0, float), (1, np.int64)))
    calibration = Calibration.fit(raw, unit, 1.0)
    best = [max(r for r, u in windows if u == one) for one in {u for _, u in windows}]
    asked = np.array([float(score)])
    assert calibration.units.tolist() == sorted(best)
    for values, got in ((raw, calibration.p_values(asked)), (best, calibration.unit_p_values(asked))):
        assert got[0] == pytest.approx((1 + sum(v >= score for v in values)) / (len(values) + 1))


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)), min_size=1, max_size=14))
def test_discoveries_equal_the_step_up_procedure(windows):
    """Benjamini and Hochberg's: of m units, the most whose k-th least p-value is at most rate * k / m."""
    # Of 41 parts none lies on a border.
    p, unit = np.array([w[0] for w in windows]) / 41, np.array([w[1] for w in windows])
    least = sorted(min(x for x, u in zip(p, unit, strict=True) if u == one) for one in set(unit.tolist()))
    sure = [x for k, x in enumerate(least, 1) if x <= 0.25 * k / len(least)]
    np.testing.assert_array_equal(discovered(p, unit, 0.25), p <= max(sure, default=-1.0))


def test_a_share_of_exactly_the_rate_is_discovered():
    assert discovered(np.array([0.25, 0.125, 0.26]), np.array([0, 0, 0]), 0.125).tolist() == [
        False,
        True,
        False,
    ]
    assert discovered(np.array([0.25, 0.25]), np.array([0, 1]), 0.25).all()
    assert not discovered(np.array([0.2500001, 0.25]), np.array([0, 1]), 0.25).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_rates_of_nothing_and_of_all_are_refused(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        discovered(np.array([0.1]), np.array([0]), rate)


def test_an_app_and_a_destination_of_one_name_are_two_units():
    frame = pd.DataFrame(
        {
            "device_id": ["d", "d", "d", "e", "d"],
            "app_id": ["x", None, "x", "x", None],
            "dest": ["y", "x", "*", "y", "app:x"],
            "window_start": pd.Timestamp("2026-03-02 23:00", tz="UTC"),
        }
    )
    unit = alert_unit(frame)
    assert unit[0] == unit[2] and len(set(unit)) == 4
    later = frame.assign(window_start=frame["window_start"] + pd.Timedelta(1, "h"))
    assert len(set(alert_unit(pd.concat([frame, later])))) == 8


def test_a_device_is_observed_once_however_many_channels_it_has():
    day = pd.Timestamp("2026-03-02", tz="UTC")
    rows = [("d", day, 86_400.0)] * 3 + [("d", day + pd.Timedelta(1, "D"), 43_200.0), ("e", day, 21_600.0)]
    frame = pd.DataFrame(rows, columns=["device_id", "window_start", "observed_seconds"])
    assert device_days(frame) == 1.75
    assert device_days(frame.astype({"device_id": "category"}).iloc[:4]) == 1.5
    assert device_days(frame.iloc[:0]) == 0


def test_a_unit_is_as_strong_as_its_strongest_window():
    unit, score = np.array([2, 0, 2, 5, 0]), np.array([1.0, -3.0, 4.0, -np.inf, -2.0])
    assert strongest(unit, score).tolist() == [-2.0, 4.0]
    assert len(strongest(unit[:0], score[:0])) == 0


@pytest.mark.parametrize("kind", ["spread", "device_days"])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_constants_of_a_bundle_are_positive_numbers(kind, value):
    frame = counted(20, 2.0).to_frame()
    with pytest.raises(BundleError, match=r"not finite, or .* not positive"):
        Calibration.from_frame(frame.assign(value=np.where(frame["kind"] == kind, value, frame["value"])))
