"""Tail surprise against its slow twin, and arrays that its kernel must not read."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from appcadence.errors import BundleError
from appcadence.features.catalog import NAMES
from appcadence.models import bundle
from appcadence.models.surprise import DIRECTIONS, POINTS, TailSurprise


def slow(surprise, row):
    """Contributions of one window, by the definition."""
    out, judged = np.zeros(len(row)), 0
    for f, value in enumerate(DIRECTIONS * row):
        if DIRECTIONS[f] == 0 or np.isnan(value):
            continue
        judged += 1
        if surprise.sizes[f] == 0:
            continue
        beyond, tied = (surprise.tails[f] > value).sum(), (surprise.tails[f] == value).sum()
        share = (beyond + tied / 2) / POINTS
        out[f] = -np.log(max(share, 1 / (min(surprise.sizes[f], 2 * POINTS) + 1))) - 1
    return out / max(judged, 1)


def test_every_window_is_as_surprising_as_its_slow_twin_says():
    rng = np.random.default_rng(0)
    benign = np.round(rng.normal(size=(800, len(NAMES))), 1)
    benign[rng.random(benign.shape) < 0.3] = np.nan
    suspicious = np.flatnonzero(DIRECTIONS)
    benign[:, suspicious[0]] = np.nan  # known of no benign window
    benign[:, suspicious[1]] = 0.0  # nothing but ties
    surprise = TailSurprise.fit(benign)
    rows = np.round(rng.normal(scale=2.0, size=(300, len(NAMES))), 1)
    rows[rng.random(rows.shape) < 0.3] = np.nan
    rows[0] = np.nan
    rows[1], rows[2] = 1e300, -1e300
    rows[3:50, suspicious[1]] = 0.0
    want = np.array([slow(surprise, row) for row in rows])
    np.testing.assert_allclose(surprise.contributions(rows), want, rtol=0, atol=1e-12)
    assert (want > 0).any() and (want < 0).any() and not want[0].any()


@pytest.fixture(scope="module")
def detector(fleet_model):
    return bundle.load(fleet_model)[0]


@pytest.mark.parametrize(
    "arrays",
    [
        {"tails": np.zeros((len(NAMES), 3 * POINTS))},
        {"tails": np.zeros((len(NAMES) - 1, POINTS))},
        {"sizes": np.ones(len(NAMES) - 1)},
        {"sizes": np.full(len(NAMES), -1.0)},
        {"sizes": np.full(len(NAMES), np.nan)},
    ],
)
def test_a_bundle_whose_surprise_has_another_shape_is_refused(arrays, detector, tmp_path):
    surprise = copy(detector.surprise)
    for name, values in arrays.items():
        object.__setattr__(surprise, name, values)
    bundle.save(replace(detector, surprise=surprise), tmp_path / "model")
    with pytest.raises(BundleError, match="tail surprise"):
        bundle.load(tmp_path / "model")
