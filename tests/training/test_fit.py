"""What is fitted is calibrated on the windows of its stratum, and each round's days and units count apart."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from handmade import DAY, STEP, N, nothing, staircase, windows
from make import DAY0

from appcadence.features.catalog import NAMES
from appcadence.models.baseline import AppBaseline
from appcadence.models.calibration import Calibration
from appcadence.training.fit import FOLDS, MIN_STRATUM, Sample, fit, fold_of

BASELINE = AppBaseline.fit(windows(2))


def sample(n=1, implant=-1, number=0, **columns):
    """n windows of one round, of which all or none are an implant's."""
    kind = "beacon" if np.max(implant) >= 0 else None
    frame = windows(n, **{"implant_kind": kind, "control_of": None, "verdict": None} | columns)
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


@pytest.fixture
def by_hand(monkeypatch):
    """Models whose raw score is the connections an hour."""
    steps = np.arange(200) + 0.5
    classifier = staircase(NAMES.index(STEP["structured_cadence"]), steps, 2 * N)
    monkeypatch.setattr("appcadence.training.fit.fit_classifier", lambda *asked: (classifier, "text"))
    monkeypatch.setattr("appcadence.training.fit.fit_forest", lambda rows, seed: nothing(N))


def levels(n, app, day=0, **more):
    """n windows of as many units, which score 0 to n - 1."""
    names = [f"h{i}" for i in range(n)]
    who = {"app": None, "dest": names} if app is None else {"app": [f"{app}{i}" for i in range(n)]}
    return sample(n, day=day, beats_per_hour=np.arange(float(n)), **who, **more)


def fitted(clean, check=None, learn=None):
    learn = [sample(1), sample(1, 0)] if learn is None else learn
    return fit(learn, clean, clean if check is None else check, 0)


@pytest.mark.parametrize(("n", "alone"), [(MIN_STRATUM, True), (MIN_STRATUM - 1, False)])
def test_a_stratum_of_a_hundred_windows_is_calibrated_by_itself(by_hand, n, alone):
    assert MIN_STRATUM == 100
    named, unnamed = levels(150, "app"), levels(n, None, day=1)
    found = fitted([named, unnamed])
    of_all = Calibration.fit(np.r_[np.arange(150.0), np.arange(float(n))], np.arange(150 + n), 2.0)
    of_unnamed = Calibration.fit(np.arange(float(n)), np.arange(n), 1.0)
    want = {"attributed": Calibration.fit(np.arange(150.0), np.arange(150), 1.0)}
    want["unattributed"] = of_unnamed if alone else of_all
    for stratum, calibration in found.calibration.items():
        assert calibration.origin == pytest.approx(want[stratum].origin)
        assert calibration.device_days == want[stratum].device_days
        np.testing.assert_array_equal(calibration.units, want[stratum].units)
    assert (found.calibration_windows, found.calibration_days) == (150 + n, 2.0)


def test_quality_is_measured_on_the_scale_and_behaviours_on_what_can_be_judged(by_hand):
    clean = [levels(120, "app", n_beats=np.where(np.arange(120) < 20, 5, 6))]
    bad = sample(1, 0, app="bad", beats_per_hour=119.0)
    found = fitted(clean, [levels(120, "app"), bad])
    np.testing.assert_array_equal(found.behaviours["structured_cadence"], np.arange(20.0, 120.0))
    assert not len(found.behaviours["session_persistence"])
    scale = found.calibration["attributed"].scale
    np.testing.assert_allclose(found.tested["score"], scale(np.r_[np.arange(120.0), 119.0]))
    # As high as the highest benign unit: found where one may lie above.
    assert found.quality.recall == {0.1: 0.0, 1.0: 1.0, 3.0: 1.0} and found.quality.device_days == 1.0
    assert found.tested["kind"].notna().sum() == 1 and found.tested["implant"].tolist()[-1] == 0


def test_without_held_out_devices_each_fold_is_judged_by_the_others(by_hand, monkeypatch):
    # A classifier that says of how many windows it learned.
    monkeypatch.setattr(
        "appcadence.training.fit.fit_classifier",
        lambda rows, *asked: (replace(nothing(2 * N), expected=np.array([float(len(rows))])), "text"),
    )
    learn = [levels(120, "app"), sample(1, 0, app="bad")]
    found, fold = fitted([], [], learn), fold_of(Sample.joined(learn))
    others = 121 - np.bincount(fold)[fold]
    np.testing.assert_array_equal(found.calibration["attributed"].windows, np.sort(others[:120]))
    np.testing.assert_allclose(found.tested["score"], found.calibration["attributed"].scale(others))


@pytest.mark.parametrize("held_out", [True, False])
def test_controls_are_learned_from_and_calibrate_nothing(by_hand, monkeypatch, held_out):
    learned = []
    classifier = nothing(2 * N)
    monkeypatch.setattr(
        "appcadence.training.fit.fit_classifier",
        lambda rows, target, *more: learned.append(target) or (classifier, "text"),
    )
    clean = [levels(120, "held")] if held_out else []
    control = levels(30, "twin", control_of="beacon")
    with_controls = fitted(clean, learn=[levels(120, "app"), sample(1, 0, app="bad"), control])
    assert (learned[0] == 0).sum() == 150
    without = fitted(clean, learn=[levels(120, "app"), sample(1, 0, app="bad")])
    assert with_controls.calibration_windows == without.calibration_windows == 120
    assert with_controls.calibration_days == without.calibration_days
    assert len(with_controls.tested) == len(without.tested)
    np.testing.assert_array_equal(with_controls.surprise.tails, without.surprise.tails)
