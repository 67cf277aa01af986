"""Tail surprise against its slow twin, and arrays that its kernel must not read."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from appcadence.models.surprise import DIRECTIONS, POINTS, TailSurprise
from handmade import detector

from appcadence.errors import BundleError
from appcadence.features.catalog import NAMES
from appcadence.models import bundle


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
def test_a_bundle_whose_surprise_has_another_shape_is_refused(arrays, tmp_path):
    whole = detector()
    bundle.save(whole, tmp_path / "model")
    assert bundle.load(tmp_path / "model")
    surprise = copy(whole.surprise)
    for name, values in arrays.items():
        object.__setattr__(surprise, name, values)
    bundle.save(replace(whole, surprise=surprise), tmp_path / "model")
    with pytest.raises(BundleError, match="tail surprise"):
        bundle.load(tmp_path / "model")


def fitted(n, name="upload_ratio"):
    """The surprise of benign windows whose feature was 0, 1, ... n - 1, and the feature's place."""
    f = NAMES.index(name)
    benign = np.full((n, len(NAMES)), np.nan)
    benign[:, f] = np.arange(n)
    return TailSurprise.fit(benign), f


def of(surprise, f, value, **others):
    row = np.full((1, len(NAMES)), np.nan)
    row[0, f] = value
    for name, number in others.items():
        row[0, NAMES.index(name)] = number
    return surprise.contributions(row)[0, f]


@pytest.mark.parametrize(
    ("n", "most"),
    [(1, 2), (10, 11), (1023, 1024), (1024, 1025), (1025, 1025), (5000, 1025)],
)
def test_beyond_all_benign_windows_it_follows_their_number(n, most):
    surprise, f = fitted(n)
    assert surprise.sizes[f] == n and surprise.sizes.sum() == n
    assert of(surprise, f, 1e6) == pytest.approx(np.log(most) - 1)
    assert of(surprise, f, -1.0) == pytest.approx(-1)


def test_quantiles_stand_for_the_benign_windows():
    surprise, f = fitted(POINTS)  # each window its own quantile
    np.testing.assert_allclose(surprise.tails[f], np.arange(POINTS), rtol=1e-12)
    surprise.tails[f] = np.arange(POINTS)
    # Of 512 windows 128 lie above 383.5; the half of a tie does.
    assert of(surprise, f, POINTS - 128.5) == pytest.approx(np.log(4) - 1)
    assert of(surprise, f, POINTS - 128.0) == pytest.approx(np.log(POINTS / 127.5) - 1)
    # The mean over the features that are judged.
    assert of(surprise, f, 1e6, failed_ratio=0.5) == pytest.approx((np.log(513) - 1) / 2)
    assert of(surprise, f, 1e6, sessions_per_hour=0.5) == pytest.approx(np.log(513) - 1)
    # A low share of companions is the suspicious one.
    assert of(*fitted(POINTS, "companion_share"), -1.0) == pytest.approx(np.log(513) - 1)
    assert of(*fitted(POINTS, "companion_share"), 1e6) == pytest.approx(-1)
