"""What is fitted is calibrated on the windows of its stratum, and each round's days and units count apart."""

import numpy as np
import pandas as pd
import pytest
from handmade import DAY, STEP, N, detector, nothing, staircase, windows
from make import DAY0

from appcadence.errors import TelemetryError
from appcadence.features.catalog import NAMES
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration, device_shift
from appcadence.models.eligibility import STRATA
from appcadence.models.experts import Experts
from appcadence.models.trees import join, leaf, scaled
from appcadence.training.fit import FOLDS, MAX_LOSS, MIN_STRATUM, Sample, _as_scored, fit, fold_of, start_of
from appcadence.training.supervised import SIMULATED_TRUST, Correction, Start

BASELINE = AppBaseline.fit(windows(2))


def sample(n=1, implant=-1, number=0, **columns):
    """n windows of one round, of which all or none are an implant's."""
    kind = np.where(np.broadcast_to(implant, n) >= 0, "beacon", None)
    frame = windows(n, **{"implant_kind": kind, "verdict": None} | columns)
    return Sample.of(frame, np.broadcast_to(implant, n).copy(), BASELINE, number)


def test_the_same_day_of_two_rounds_is_two():
    first = sample(3, app=["com.a", "com.a", None], dest=["x", "y", "x"])
    rows = Sample.joined([first, sample(2, number=1, app=["com.a", "com.b"])])
    unit = rows.units()
    assert unit[0] == unit[1] and len(set(unit)) == 4 and unit.max() == 3
    # One device-day each, however many windows it has.
    assert first.days() == 1.0 and rows.days() == 2.0


def test_an_implant_day_is_one_carriers_on_one_day_of_one_round():
    implant = np.array([0, 0, 0, 1, -1])
    first = sample(5, implant, day=[0, 0, 1, 0, 0], dest=list("abcde"))
    truth = Sample.joined([first, sample(1, 0, number=1)]).truth()
    assert truth.window.tolist() == [0, 1, 2, 3, 5]
    assert truth.day[0] == truth.day[1] and len(set(truth.day)) == len(truth.days) == 4
    days = (truth.days["day"] - pd.Timestamp(DAY0, unit="s", tz="UTC").as_unit("us")) // pd.Timedelta(1, "D")
    assert sorted(zip(truth.days["case_id"], days, strict=True)) == [
        ("0/0", 0),
        ("0/0", 1),
        ("0/1", 0),
        ("1/0", 0),
    ]
    assert set(truth.days["kind"]) == {"beacon"}
    # The day is that of UTC.
    late = sample(2, 0, day=[0.99, 1.0], hours=1)
    assert len(late.truth().days) == 2 and late.days() == pytest.approx(2 * 3600 / DAY)


def test_figures_are_of_scores_that_are_lowered_as_scoring_does():
    scale = dict.fromkeys(STRATA, Calibration(1.0, 2.0, 10.0, np.empty(0), np.empty(0)))
    apps = {"app": [f"com.{k}" for k in range(8)]}
    benign, implants = sample(8, **apps), sample(8, np.arange(8), number=1, **apps)
    raw = np.arange(16.0)
    score, lowered = _as_scored(Sample.joined([benign, implants]), raw, scale)
    shift = device_shift(benign.frame, (raw[:8] - 1.0) / 2.0, np.ones(8, bool))
    assert (shift < 0).all()
    np.testing.assert_array_equal(score[:8], (raw[:8] - 1.0) / 2.0 + shift)
    np.testing.assert_array_equal(score[8:], (raw[8:] - 1.0) / 2.0)  # many implants in a round are no change
    np.testing.assert_array_equal(lowered, raw + 2.0 * np.append(shift, np.zeros(8)))


def test_all_windows_of_a_channel_or_an_app_share_a_fold():
    n = 400
    channels = [sample(n, number=k, day=k, app=[f"app{i}" for i in range(n)], dest="*") for k in (0, 1)]
    folds = [fold_of(part) for part in channels]
    np.testing.assert_array_equal(*folds)
    counts = np.bincount(folds[0], minlength=FOLDS)
    assert len(counts) == FOLDS == 5 and counts.min() > 50
    same = sample(9, dest=[f"h{i}" for i in range(9)])
    assert len(set(fold_of(same))) == 1
    unknown = sample(99, app=None, dest=[f"h{i}" for i in range(99)])
    assert len(set(fold_of(unknown))) == FOLDS


@pytest.mark.parametrize("kinds", [FOLDS - 1, FOLDS, FOLDS + 2])
def test_where_there_are_kinds_enough_all_implants_of_one_share_a_fold(kinds):
    n = 60 * kinds
    app, kind = [f"app{i}" for i in range(n)], np.array([f"kind{i % kinds}" for i in range(n)])
    fold = fold_of(sample(n, np.arange(n), app=app, implant_kind=kind))
    folds_of_kind = [len(set(fold[kind == one])) for one in np.unique(kind)]
    assert folds_of_kind == [1 if kinds >= FOLDS else FOLDS] * kinds and len(set(fold)) == FOLDS
    # Benign windows keep to their channel's.
    np.testing.assert_array_equal(fold_of(sample(n, app=app)), fold_of(sample(n, app=app, dest="other")))


@pytest.fixture
def plain_days(monkeypatch):
    """No device has an unusual day."""
    monkeypatch.setattr("appcadence.models.detector.device_shift", lambda frame, *_: np.zeros(len(frame)))


@pytest.fixture
def by_hand(monkeypatch):
    """A start whose raw score is the connections an hour, of which there is no more to learn."""
    start = Start(detector().experts, 1.0, by_beats())
    monkeypatch.setattr("appcadence.training.fit.start_of", lambda rows, prior: start)
    corrected(monkeypatch, nothing(2 * N))


def by_beats(sign=1.0, steps=200):
    """Trees whose raw value is the connections an hour, times a sign."""
    trees = staircase(NAMES.index(STEP["structured_cadence"]), np.arange(steps) + 0.5, 2 * N)
    return scaled(trees, sign)


def corrected(monkeypatch, trees, learned=None):
    """What is learned: these trees. `learned` collects the targets that they were learned from."""

    def correct(start, rows, target, *asked):
        if learned is not None:
            learned.append(target)
        return Correction(start.trees, trees(len(rows)) if callable(trees) else trees, "text")

    monkeypatch.setattr("appcadence.training.fit.correct", correct)
    monkeypatch.setattr("appcadence.training.fit.fit_forest", lambda rows, seed: nothing(N))


def levels(n, app, day=0, **more):
    """n windows of as many units, which score 0 to n - 1."""
    names = [f"h{i}" for i in range(n)]
    who = {"app": None, "dest": names} if app is None else {"app": [f"{app}{i}" for i in range(n)]}
    return sample(n, day=day, beats_per_hour=np.arange(float(n)), **who, **more)


def implants(n, **more):
    """n windows of an implant and an app each."""
    return sample(n, np.arange(n), app=[f"bad{i}" for i in range(n)], **more)


def fitted(clean, check=None, learn=None):
    learn = [sample(1), sample(1, 0)] if learn is None else learn
    return fit(learn, clean, clean if check is None else check, 0)


@pytest.mark.parametrize(("n", "alone"), [(MIN_STRATUM, True), (MIN_STRATUM - 1, False)])
def test_a_stratum_of_a_hundred_windows_is_calibrated_by_itself(by_hand, plain_days, n, alone):
    assert MIN_STRATUM == 100
    named, unnamed = levels(150, "app"), levels(n, None, day=1)
    found = fitted([named, unnamed])
    of_all = Calibration.fit(np.r_[np.arange(150.0), np.arange(float(n))], np.arange(150 + n), 2.0)
    of_unnamed = Calibration.fit(np.arange(float(n)), np.arange(n), 1.0)
    want = {"attributed": Calibration.fit(np.arange(150.0), np.arange(150), 1.0)}
    want["unattributed"] = of_unnamed if alone else of_all
    want["own_log"] = of_all
    for stratum, calibration in found.calibration.items():
        assert calibration.origin == pytest.approx(want[stratum].origin)
        assert calibration.device_days == want[stratum].device_days
        np.testing.assert_array_equal(calibration.units, want[stratum].units)
    assert (found.calibration_windows, found.calibration_days) == (150 + n, 2.0)


def test_what_scoring_lowers_is_lowered_before_it_is_counted(by_hand):
    """An unusual day of a device fills no budget with units that scoring would not let through."""
    day = levels(150, "app")
    found = fitted([day]).calibration["attributed"]
    raw = np.arange(150.0)
    first = Calibration.fit(raw, np.arange(150), 1.0)
    shift = device_shift(day.frame, first.scale(raw), np.ones(150, bool))
    assert shift.max() < 0  # all units are of one day, and far too many
    want = Calibration.fit(raw + shift * first.spread, np.arange(150), 1.0)
    np.testing.assert_allclose(found.units, want.units)
    assert found.origin == pytest.approx(want.origin) and found.origin < first.origin


def test_what_is_measured_is_on_the_scale_and_behaviours_on_what_can_be_judged(by_hand):
    clean = [levels(120, "app", n_beats=np.where(np.arange(120) < 20, 5, 6))]
    bad = sample(1, 0, app="bad", beats_per_hour=119.0)
    found = fitted(clean, [levels(120, "app"), bad])
    np.testing.assert_array_equal(found.behaviours["structured_cadence"], np.arange(20.0, 120.0))
    assert not len(found.behaviours["session_persistence"])
    scale = found.calibration["attributed"].scale
    lowered = found.tested["score"] - scale(np.r_[np.arange(120.0), 119.0])
    assert np.ptp(lowered) < 1e-9 and lowered[0] < 0  # so many units at once are an unusual day
    assert found.tested["kind"].notna().sum() == 1 and found.tested["implant"].tolist()[-1] == 0


def test_without_held_out_devices_each_fold_is_judged_by_the_others(monkeypatch, plain_days):
    # Trees that say of how many windows they learned, and the channel's own rate so that they are trusted.
    monkeypatch.setattr(
        "appcadence.training.fit.start_of", lambda rows, prior: Start(detector().experts, 1.0, nothing(2 * N))
    )
    corrected(monkeypatch, lambda n: join([leaf(1000.0 * n, 2 * N), by_beats()]))
    rate = np.arange(120.0)
    learn = [levels(120, "app"), implants(9, beats_per_hour=np.arange(150.0, 159.0))]
    found, fold = fitted([], [], learn), fold_of(Sample.joined(learn))
    assert found.trusted == 1.0 and len(set(fold)) == FOLDS
    raw = 1000.0 * (129 - np.bincount(fold)[fold]) + np.r_[rate, np.arange(150.0, 159.0)]
    np.testing.assert_allclose(found.calibration["attributed"].windows, np.sort(raw[:120]))
    np.testing.assert_allclose(found.tested["score"], found.calibration["attributed"].scale(raw))


@pytest.mark.parametrize(
    "learn",
    [
        [sample(5), sample(1, 0)],
        [sample(5), sample(9, np.arange(9), implant_kind=[f"kind{k}" for k in range(9)])],
        [sample(99, app=[f"app{k}" for k in range(99)]), sample(5, 0)],
    ],
    ids=["one channel", "one benign channel and many kinds", "one channel of implants"],
)
def test_one_channel_cannot_be_held_out_from_itself(learn):
    with pytest.raises(TelemetryError, match="too few channels"):
        fitted([], [], learn)


def rates(bad, benign=9):
    """Held-out windows: benign ones of 0 to 8 connections an hour, and one of an implant."""
    return [levels(benign, "held"), sample(1, 0, app="bad", beats_per_hour=bad)]


@pytest.mark.parametrize(
    ("bad", "sign", "trusted"),
    [
        (20.0, 1.0, 0.25),  # the start knows nothing, and the correction ranks the implant first
        (20.0, -1.0, 0.0),  # or last
        (0.0, 0.0, 0.0),  # or learned nothing: no gain is no proof
    ],
)
def test_a_correction_has_to_find_more_than_the_start_alone(monkeypatch, plain_days, bad, sign, trusted):
    start = Start(detector().experts, 1.0, leaf(7.0, 2 * N))
    monkeypatch.setattr("appcadence.training.fit.start_of", lambda rows, prior: start)
    corrected(monkeypatch, by_beats(sign))
    clean, check = [levels(120, "app")], rates(bad)
    found = fit([sample(1), sample(1, 0)], clean, check, 0, trusted=0.25)
    assert found.trusted == trusted
    tested = Sample.joined(check)
    want = 7.0 + trusted * sign * np.append(np.arange(9.0), bad)
    rows = np.hstack([tested.values, tested.distances])
    np.testing.assert_allclose(found.classifier.raw(rows), want)
    # What was measured and what was calibrated are both what is kept.
    np.testing.assert_allclose(found.tested["score"], found.calibration["attributed"].scale(want))
    np.testing.assert_allclose(
        found.calibration["attributed"].windows, 7.0 + trusted * np.sort(sign * np.arange(120.0))
    )


@pytest.mark.parametrize(("loss", "trusted"), [(False, 1.0), (True, 0.0)])
def test_no_fold_may_lose_what_the_others_gain(monkeypatch, loss, trusted):
    """Five kinds, a fold each: in four the correction finds all; in the last the start did already."""
    assert MAX_LOSS == 0.05
    n = 200
    benign = levels(n, "app", longest_session_seconds=np.zeros(n))
    own = sample(5, np.arange(5), app=[f"bad{k}" for k in range(5)], implant_kind=[f"k{k}" for k in range(5)])
    columns = {"beats_per_hour": np.full(5, 250.0), "longest_session_seconds": np.zeros(5)}
    columns["longest_session_seconds"][4] = 1.0
    if loss:
        columns["beats_per_hour"][4] = 0.0
    own = Sample.of(own.frame.assign(**columns), own.implant, BASELINE, 0)
    known = scaled(staircase(NAMES.index("longest_session_seconds"), [0.5], 2 * N), 100.0)
    monkeypatch.setattr(
        "appcadence.training.fit.start_of", lambda rows, prior: Start(detector().experts, 1.0, known)
    )
    corrected(monkeypatch, by_beats(steps=300))
    assert fitted([], [], [benign, own]).trusted == trusted


def test_learning_starts_from_the_experts_and_trees_of_the_reference():
    rng = np.random.default_rng(0)
    rows = Sample.joined(
        [
            levels(40, "app", channel_is_new=(rng.random(40) < 0.3) * 1.0),
            sample(1, 0, app="bad", beats_per_hour=99.0, channel_is_new=1.0),
        ]
    )
    prior = detector(weights=np.tile([1.0, 0.75], (3, 1)))
    start = start_of(rows, prior)
    np.testing.assert_array_equal(start.trees.expected, SIMULATED_TRUST * prior.classifier.expected)
    assert start.weight == 0.75
    # Of real benign windows alone: implants, however new, do not make the new usual.
    usual = rows.take(~rows.malicious)
    want = Experts.fit(usual.values, usual.distances, prior.experts)
    np.testing.assert_array_equal(start.experts.thresholds, want.thresholds)
    np.testing.assert_array_equal(start.experts.steps, want.steps)
    alone = start_of(rows, None)
    np.testing.assert_array_equal(
        alone.experts.thresholds, Experts.fit(usual.values, usual.distances).thresholds
    )
    assert not len(alone.trees.roots[1:]) and alone.trees.base == 0.0
