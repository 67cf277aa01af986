"""Drift of the scores is told from what chance does to few windows."""

import numpy as np
import pytest
from handmade import calibration, windows
from handmade import detector as handmade

from appcadence.models.calibration import Calibration
from appcadence.models.eligibility import STRATA
from appcadence.training.drift import _scores


@pytest.mark.parametrize("windows_now", [12, 25, 60, 200, 1000])
def test_few_windows_that_lie_as_in_calibration_are_no_drift_of_scores(windows_now):
    rng, benign = np.random.default_rng(windows_now), np.random.default_rng(7)
    p = []
    for _ in range(100):
        scale = Calibration(30.0, 1.0, 10.0, np.sort(benign.normal(0, 1, 300)), np.arange(9.0))
        detector = handmade(calibration=dict.fromkeys(STRATA, scale))
        now = rng.normal(0, 1, windows_now)
        frame = windows(windows_now, app=[f"app{k}" for k in range(windows_now)], beats_per_hour=0.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(detector), "parts", lambda self, frame, raw=now: (None, raw))
            p.append(_scores(detector, frame, np.zeros(windows_now, bool))[1])
    # At 5%, some five of a hundred. The index alone exceeds 0.25 in 91 of a hundred of the smallest.
    assert np.mean(np.array(p) <= 0.05) <= 0.12
    moved = handmade(calibration=dict.fromkeys(STRATA, calibration(n=300, origin=400.0)))
    frame = windows(windows_now, app=[f"app{k}" for k in range(windows_now)], beats_per_hour=299.0)
    assert _scores(moved, frame, np.zeros(windows_now, bool))[1] < 1e-6
