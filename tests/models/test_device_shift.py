"""Devices of which too much is unusual at once."""

import numpy as np
import pandas as pd
import pytest
from handmade import detector, windows
from hypothesis import given
from hypothesis import strategies as st

from appcadence.findings import of_row
from appcadence.models.calibration import LEVEL, MIN_LEFT, QUANTILE, device_shift

DAY = 86_400.0


def of(scores, **columns):
    """The shift of unattributed windows of one device on one day, a destination each."""
    n = len(scores)
    frame = windows(n, dest=[f"h{i}" for i in range(n)], app_id=None, observed_seconds=DAY)
    return device_shift(frame.assign(**columns), np.array(scores, float), ~np.isnan(np.array(scores, float)))


def quantile(mean):
    """The smallest count that so many draws of a Poisson variable do not exceed, term by term."""
    count, term = 0, np.exp(-mean)
    total = term
    while total < QUANTILE:
        count += 1
        term *= mean / count
        total += term
    return count


def test_a_quiet_day_is_left_as_it_is():
    assert not of([3.0, 0.5, -0.5, -2.0, np.nan]).any()
    assert not of([np.nan] * 5).any()
    assert device_shift(windows(0), np.zeros(0), np.zeros(0, bool)).shape == (0,)


@pytest.mark.parametrize("observed", [600.0, DAY / 3, DAY, 7 * DAY])
def test_a_loud_day_is_lowered_until_as_many_units_pass_the_level_as_on_the_mean_day(observed):
    scores = np.linspace(9.0, 1.0, 60)
    mean = np.exp(-LEVEL) * observed / DAY
    allowed, left = max(quantile(mean), MIN_LEFT), max(int(mean), MIN_LEFT)
    shift = of(scores, observed_seconds=observed)
    assert len(set(shift)) == 1 and shift[0] == LEVEL - scores[left]
    assert ((scores + shift) > LEVEL).sum() == left
    # As many as three of four calibrated days have are left as they are; one more is not.
    assert not of(scores[:allowed], observed_seconds=observed).any()
    assert of(scores[: allowed + 1], observed_seconds=observed).all()


def test_windows_of_one_unit_count_once_and_each_device_by_itself():
    scores = np.array([5.0] * 40 + [5.0] * 2)
    frame = windows(42, dest=[f"h{i}" for i in range(42)], app_id="one.app", observed_seconds=DAY)
    assert not device_shift(frame, scores, np.ones(42, bool)).any()
    many = frame.assign(app_id=None, device_id=["loud"] * 40 + ["quiet"] * 2)
    shift = device_shift(many, scores, np.ones(42, bool))
    assert (shift[:40] == LEVEL - 5.0).all() and not shift[40:].any()


def test_what_is_not_ranked_does_not_count_and_is_lowered_with_its_device():
    scores = np.full(30, 4.0)
    ranked = np.arange(30) < 10
    frame = windows(30, dest=[f"h{i}" for i in range(30)], app_id=None, observed_seconds=DAY)
    assert len(set(device_shift(frame, scores, ranked))) == 1
    assert not device_shift(frame, scores, np.arange(30) < 2).any()


@given(st.lists(st.floats(-5, 12), min_size=1, max_size=40), st.randoms())
def test_the_order_of_rows_changes_nothing(scores, random):
    n = len(scores)
    frame = windows(n, dest=[f"h{i}" for i in range(n)], app_id=None, observed_seconds=DAY)
    place = list(range(n))
    random.shuffle(place)
    one = device_shift(frame, np.array(scores), np.ones(n, bool))
    other = device_shift(
        pd.DataFrame(frame.iloc[place]).reset_index(drop=True), np.array(scores)[place], np.ones(n, bool)
    )
    assert (one[place] == other).all() and (one <= 0).all()


def test_a_device_of_which_too_much_is_unusual_is_lowered_as_one():
    # Calibrated days have at most four units above -1 in three of four cases, three are left of twelve.
    levels = np.arange(60.0, 48.0, -1)
    one = {"app": [f"app{i}" for i in range(12)], "beats_per_hour": levels}
    by_hand = detector(steps=tuple(k + 0.5 for k in range(100)))
    apart = by_hand.score(windows(12, device=[f"d{i}" for i in range(12)], **one)).to_pandas()
    together = by_hand.score(windows(12, **one)).to_pandas()
    assert not apart["device_shift"].any() and (together["device_shift"] == LEVEL - 57.0).all()
    assert ((together["score"] > LEVEL).sum(), apart["score"].tolist()) == (3, levels.tolist())
    assert together["score"].tolist() == (levels + together["device_shift"]).tolist()
    assert together["rank"].equals(apart["rank"]) and together["contributions"].equals(apart["contributions"])
    assert together["p_value"].tolist() == [min(101.0, 101.0 - np.ceil(x)) / 101 for x in together["score"]]
    said = [{f.code: f.parameters for f in of_row(row)} for _, row in together.iterrows()]
    assert all(by_code["device_unusual"] == {"lowered_by": 57.0 - LEVEL} for by_code in said)
    assert not any("device_unusual" in [f.code for f in of_row(row)] for _, row in apart.iterrows())


def test_units_at_the_level_itself_are_not_above_it():
    # Four above it are as many as three of four days have; a fifth is one too many.
    frame = windows(9, app=[f"app{k}" for k in range(9)])
    for fifth, shift in ((-1.0, 0.0), (np.nextafter(-1.0, 0), -1.0)):
        score = np.array([0.0] * 4 + [fifth] + [-2.0] * 4)
        assert set(device_shift(frame, score, np.ones(9, bool))) == {shift}
