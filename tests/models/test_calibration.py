"""The scale, the p-values and the budget keep their word on exchangeable data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from appcadence.errors import BundleError
from appcadence.models.calibration import Calibration, adjusted_p_values, alert_unit, device_days, discovered
from appcadence.models.surprise import DIRECTIONS, TailSurprise


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


def test_unit_is_the_app_day_or_the_destination_day():
    day = pd.Timestamp("2026-03-02", tz="UTC")
    frame = pd.DataFrame(
        {
            "device_id": ["d"] * 5,
            "app_id": ["a", "a", None, None, "a"],
            "dest": ["x", "y", "x", "y", "x"],
            "window_start": [day, day + pd.Timedelta(hours=6), day, day, day + pd.Timedelta(days=1)],
            "observed_seconds": [21600.0, 21600.0, 21600.0, 21600.0, 21600.0],
        }
    )
    unit = alert_unit(frame)
    assert unit[0] == unit[1] and len(set(unit)) == 4
    assert device_days(frame) == pytest.approx(0.75)


def test_surprise_is_zero_in_the_mean_and_monotone():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, len(DIRECTIONS)))
    values[rng.random(values.shape) < 0.3] = np.nan
    surprise = TailSurprise.fit(values)
    parts = surprise.contributions(values)
    assert abs(parts.sum(axis=1).mean()) < 0.05
    assert (parts[np.isnan(values)] == 0).all() and (parts[:, DIRECTIONS == 0] == 0).all()
    worse = surprise.contributions(values + 2.0 * DIRECTIONS)
    assert (worse.sum(axis=1) >= parts.sum(axis=1) - 1e-12).all()
