"""What is learned begins where the start ends, counts as far as it is trusted, and stays a sum."""

import numpy as np
import pytest
from handmade import N, detector, staircase
from hypothesis import given
from hypothesis import strategies as st

from appcadence.features.catalog import NAMES
from appcadence.models.experts import Experts
from appcadence.models.fusion import fuse
from appcadence.models.trees import scaled
from appcadence.training.supervised import SIMULATED_TRUST, TRUST_DAYS, Hyperparameters, Start, correct, trust

FEW = Hyperparameters(trees=4)
BEATS, SECONDS = (NAMES.index(name) for name in ("beats_per_hour", "longest_session_seconds"))


@pytest.fixture(scope="module")
def rows():
    """(300, 2 n_features) values and distances: every fifth is an implant's, with more beats and longer."""
    rng = np.random.default_rng(0)
    out = rng.normal(size=(300, 2 * N))
    out[rng.random(out.shape) < 0.2] = np.nan
    out[:, NAMES.index("channel_is_new")] = rng.random(300) < 0.4
    out[:, BEATS] = rng.gamma(2.0, 2.0, 300) + 12.0 * (np.arange(300) % 5 == 0)
    return out


@pytest.fixture(scope="module")
def target():
    return (np.arange(300) % 5 == 0).astype(np.int64)


@pytest.fixture(scope="module")
def experts(rows, target):
    usual = rows[target == 0]
    return Experts.fit(usual[:, :N], usual[:, N:])


@pytest.fixture(scope="module")
def prior():
    """A model that adds one for each beat an hour, and believes its experts by three quarters."""
    return detector(weights=np.tile([1.0, 0.75], (3, 1)))


def started(experts, prior, rows, target):
    return Start.of(experts, prior, rows, target, np.ones(len(rows)))


def worth(experts, rows):
    return experts.worth(rows[:, :N], rows[:, N:]).sum(axis=1)


def test_a_start_of_a_prior_is_its_weighted_experts_and_its_trees(rows, target, experts, prior):
    start = started(experts, prior, rows, target)
    trees = SIMULATED_TRUST * np.minimum(np.floor(rows[:, BEATS] + 0.5), 40.0)
    np.testing.assert_allclose(start.raw(rows), 0.75 * worth(experts, rows) + trees, rtol=0, atol=1e-9)


def test_without_a_prior_the_experts_weigh_what_a_logistic_regression_says(rows, target, experts):
    from sklearn.linear_model import LogisticRegression

    start = started(experts, None, rows, target)
    sums = worth(experts, rows)
    slope = LogisticRegression().fit(sums[:, None], target, sample_weight=np.ones(300)).coef_[0, 0]
    assert start.weight == slope > 0.05
    np.testing.assert_allclose(start.raw(rows), slope * sums, rtol=0, atol=1e-12)


def test_experts_that_point_the_wrong_way_still_count_a_little(rows, target, experts):
    assert started(experts, None, rows, 1 - target).weight == 0.05


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_the_constant_fits_the_mean_probability(rows, target, experts, prior, share):
    weight = np.where(target == 1, share / np.mean(target == 1), (1 - share) / np.mean(target == 0))
    for before in (prior, None):
        start = Start.of(experts, before, rows, target, weight)
        learned = correct(start, rows, target, weight, 0, FEW)
        log_odds = start.weight * worth(experts, rows) + learned.classifier(0.0).raw(rows)
        assert np.average(1 / (1 + np.exp(-log_odds)), weights=weight) == pytest.approx(share, abs=1e-6)
        # It is part of the start: the trees leave the mean where it is.
        whole = log_odds + learned.trees.raw(rows)
        assert np.average(1 / (1 + np.exp(-whole)), weights=weight) == pytest.approx(share, rel=0.1)
        # Besides the constant nothing of the start changes.
        moved = learned.base.raw(rows) - start.trees.raw(rows)
        assert np.ptp(moved) < 1e-9


@pytest.mark.parametrize("trusted", [0.0, 0.25, 1.0])
def test_a_correction_counts_as_far_as_it_is_trusted(rows, target, experts, prior, trusted):
    learned = correct(started(experts, prior, rows, target), rows, target, np.ones(300), 0, FEW)
    assert np.ptp(learned.trees.raw(rows)) > 0.1
    want = learned.base.raw(rows) + trusted * learned.trees.raw(rows)
    kept = learned.classifier(trusted)
    np.testing.assert_allclose(kept.raw(rows), want, rtol=0, atol=1e-9)
    # What is not trusted is not kept.
    assert len(kept.roots) == len(learned.base.roots) + (len(learned.trees.roots) if trusted else 0)


@pytest.mark.parametrize("trusted", [0.0, 0.25, 1.0])
def test_contributions_stay_additive_and_exact(rows, target, experts, prior, trusted):
    start = started(experts, prior, rows, target)
    kept = correct(start, rows, target, np.ones(300), 0, FEW).classifier(trusted)
    weights = np.array([1.0, start.weight])
    contributions, raw = fuse(rows[:, :N], rows[:, N:], kept, experts, weights)
    np.testing.assert_allclose(contributions.sum(axis=1) + kept.base, raw, rtol=0, atol=1e-9)
    np.testing.assert_allclose(raw, start.weight * worth(experts, rows) + kept.raw(rows), rtol=0, atol=1e-9)


def test_what_the_start_knows_is_not_learned_again(rows, target):
    """Where the start tells the classes apart by itself, next to nothing is left to add."""
    known = rows.copy()
    known[:, SECONDS] = 100.0 * target
    trees = staircase(SECONDS, [50.0], 2 * N)
    none = detector().experts
    sure = Start(none, 1.0, scaled(trees, 40.0))
    blank = Start(none, 1.0, scaled(trees, 0.0))
    added = [np.ptp(correct(s, known, target, np.ones(300), 0, FEW).trees.raw(known)) for s in (sure, blank)]
    assert added[0] < 0.01 < 0.5 < added[1]


@given(st.floats(0, 1e6))
def test_trust_grows_with_the_device_days_and_is_never_whole(days):
    assert trust(0.0) == 0.0 and trust(TRUST_DAYS) == 0.5
    assert 0.0 <= trust(days) <= trust(days + 1.0) < 1.0
