"""What speaks for the benign reading, and how a rhythm that was not approved is worded."""

import numpy as np
import pytest
from make import flows, inventory

from appcadence._quantity import quantity
from appcadence.features import History, extract
from appcadence.features.catalog import NAMES
from appcadence.models.reasons import explained_by, unusual

AT = NAMES.index("expected_rhythm_ratio")


def window(gap, **declared):
    """The only channel window of an app that connects every `gap` seconds."""
    told = {"flows": flows(gap * np.arange(10)), "inventory": inventory({"app_id": "com.a"} | declared)}
    frame = extract(told, history=History.empty())
    return frame[frame["dest"] == "a.example"]


@pytest.mark.parametrize(
    ("gap", "declared", "approved"),
    [
        (900.0, {"expected_period_seconds": 900.0}, True),
        (1800.0, {"expected_period_seconds": 900.0}, True),
        (750.0, {"expected_period_seconds": 900.0}, True),
        (740.0, {"expected_period_seconds": 900.0}, False),
        (75.0, {"expected_period_seconds": 900.0}, False),
        (900.0, {}, False),
        (900.0, {"expected_period_seconds": 900.0, "approved": True, "expected_hosts": ["a.example"]}, True),
        (900.0, {"expected_period_seconds": 900.0, "approved": False}, False),
        (900.0, {"expected_period_seconds": 900.0, "expected_hosts": ["b.example"]}, False),
    ],
)
def test_an_approved_rhythm_explains(gap, declared, approved):
    (texts,) = explained_by(window(gap, **declared), np.full((1, len(NAMES)), np.nan)).to_pylist()
    assert ("approved_rhythm" in texts) is approved


@pytest.mark.parametrize(
    ("gap", "period", "said"),
    [(75.0, 900.0, "12 times"), (600.0, 900.0, "1.5 times"), (2.0, 3600.0, "1,800 times")],
)
def test_a_faster_rhythm_is_worded(gap, period, said):
    value = window(gap, expected_period_seconds=period)[[NAMES[AT]]].to_numpy(float)
    ((found,),) = unusual(np.array([[AT]]), value, np.full((1, 1), np.nan), np.ones((1, 1)))
    assert found.text == (f"Connections against the approved rhythm: {said} as often.")


def test_quantities_are_said_as_people_do():
    assert quantity(15_300.4, "s/kB") == "15,300 s/kB" and quantity(0.255, "s/kB") == "0.255 s/kB"
    assert quantity(7200.0, "s") == "2.0 h" and quantity(0.25, "ratio") == "25%"
    assert quantity(float("nan"), "s") == "unknown"
