"""The search for hyper-parameters: repeatable, fair to what is held out, and never blind to the defaults."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from handmade import N, detector, nothing
from make import DAY0, fleet

from appcadence.errors import TelemetryError
from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.models import bundle
from appcadence.models.baseline import AppBaseline
from appcadence.models.experts import EXPERTS, POINTS, Experts, statistics
from appcadence.models.trees import leaf
from appcadence.training.fit import FOLDS, WEIGHTS, Sample, fit, fold_of
from appcadence.training.injection import labelled, past_and_future
from appcadence.training.search import SEARCHED, draw, search
from appcadence.training.supervised import Correction, Hyperparameters, Start
from appcadence.training.train import train

CUT = (DAY0 + 2 * 86_400) * 1_000_000


@pytest.fixture(scope="module")
def tables():
    return fleet(devices=6, days=4)


@pytest.fixture(scope="module")
def rows(tables):
    past = past_and_future(tables, CUT)[0]
    found, _ = labelled(tables, CUT, "24h", 1, 4.0)
    return Sample.of(found.frame, found.implant, AppBaseline.fit(table_of(build(past, 86_400))), 0)


def test_draws_do_not_depend_on_how_many_there_are(rows):
    assert draw(3, 0) == Hyperparameters()
    assert len({draw(3, k) for k in range(20)}) == 20 and draw(3, 1) != draw(4, 1)
    settings, table = search(rows, 0, 3, WEIGHTS)
    again, fewer = search(rows, 0, 2, WEIGHTS)
    pd.testing.assert_frame_equal(table.iloc[:2], fewer)
    assert tuple(table.loc[0, list(SEARCHED)]) == dataclasses.astuple(Hyperparameters())
    best = table.sort_values(["criterion", "average_precision"], ascending=False, kind="stable").index[0]
    assert settings == draw(0, best) and again in (draw(0, 0), draw(0, 1))
    halves = table[["recall_at_0.1_per_device_day", "recall_at_1_per_device_day"]].mean(axis=1)
    np.testing.assert_allclose(table["criterion"], halves)


def test_no_choice_is_shown_a_window_it_is_measured_on(rows):
    shown = []

    def choose(part):
        shown.append(part)
        return Hyperparameters(trees=5)

    rows = dataclasses.replace(rows, frame=rows.frame.assign(place=np.arange(len(rows.frame))))
    held = rows.take(np.arange(len(rows.implant)) % 2 == 0)
    learned = rows.take(np.arange(len(rows.implant)) % 2 == 1)
    fit([learned], [held.take(~held.malicious)], [held], 0, choose=choose)
    assert [len(part.frame) for part in shown] == [len(learned.frame)]
    shown.clear()
    fit([rows], [], [], 0, choose=choose)  # out of fold
    whole, *parts = shown
    assert len(whole.frame) == len(rows.frame)
    fold = fold_of(rows)
    folds = np.unique(fold)
    assert len(parts) == len(folds) > 1
    for k, part in zip(folds, parts, strict=True):
        assert part.frame["place"].tolist() == np.flatnonzero(fold != k).tolist()


@pytest.mark.slow
def test_equal_searches_give_equal_bundles(tmp_path):
    small = fleet(devices=4, days=3)
    first, second = (train(small, "24h", 0, search_trials=2) for _ in range(2))
    assert bundle.save(first.detector, tmp_path / "a") == bundle.save(second.detector, tmp_path / "b")
    for part in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / part.name).read_bytes() == part.read_bytes()
    assert len(first.trials) == first.params["search_trials"] == 2
    chosen = Hyperparameters(**{name: first.params[name] for name in SEARCHED})
    assert chosen in (draw(0, 0), draw(0, 1))
    assert f"[num_leaves: {chosen.leaves}]" in first.detector.classifier_text


def test_a_negative_number_is_refused(tables):
    with pytest.raises(TelemetryError, match="-1"):
        train(tables, search_trials=-1)


def test_draws_keep_to_their_ranges_and_fill_them():
    drawn = pd.DataFrame([dataclasses.asdict(draw(1, k)) for k in range(1, 1501)])
    ranges = {
        "trees": (40, 240),
        "leaves": (3, 10),
        "learning_rate": (0.03, 0.25),
        "min_data_in_leaf": (4, 60),
        "feature_fraction": (0.2, 0.9),
        "lambda_l2": (0.1, 30.0),
    }
    for name, (low, high) in ranges.items():
        assert low <= drawn[name].min() <= low + 0.02 * (high - low)
        assert high >= drawn[name].max() >= high - 0.02 * (high - low)
        # By their ratio, so that half of them lie below the geometric mean; but for leaves and fractions.
        by_ratio = name not in ("leaves", "feature_fraction")
        middle = (low * high) ** 0.5 if by_ratio else (low + high) / 2
        assert 0.45 < (drawn[name] <= middle).mean() < 0.56


@pytest.mark.parametrize(
    ("found", "best"),
    [
        # Recall at a tenth and at one false alert a device-day, and average precision, of each trial.
        ([(0.2, 0.8, 0.9), (0.3, 0.8, 0.1), (0.3, 0.7, 0.9)], 1),
        ([(0.25, 0.75, 0.3), (0.5, 0.5, 0.4), (0.75, 0.25, 0.2)], 1),
        ([(0.25, 0.75, 0.3), (0.5, 0.5, 0.3), (0.75, 0.25, 0.3)], 0),
        ([(0.1, 0.1, 0.9), (0.0, 0.3, 0.0), (0.3, 0.0, 0.1)], 2),
    ],
)
def test_the_best_trial_has_the_highest_mean_recall_then_precision_and_came_first(
    monkeypatch, rows, found, best
):
    answers = iter(found)

    def measured(frame, score, truth, unit, days):
        low, high, precision = next(answers)
        return SimpleNamespace(recall={0.1: low, 1.0: high}, average_precision=precision)

    monkeypatch.setattr("appcadence.training.search.quality", measured)
    learns(monkeypatch, lambda n: nothing(2 * N))
    settings, table = search(rows, 5, len(found), WEIGHTS)
    assert settings == draw(5, best)
    assert table["criterion"].tolist() == [pytest.approx((low + high) / 2) for low, high, _ in found]


def learns(monkeypatch, trees):
    """The start knows nothing, and what is learned of n windows are these trees."""
    start = Start(detector().experts, 1.0, nothing(2 * N))
    monkeypatch.setattr("appcadence.training.search.start_of", lambda rows, prior: start)
    monkeypatch.setattr(
        "appcadence.training.search.correct",
        lambda start, rows, *asked: Correction(start.trees, trees(len(rows)), ""),
    )


def test_each_fold_is_judged_by_models_of_the_others_and_the_whole_score(monkeypatch, rows):
    """The classifier says of how many windows it learned, the experts that a window is one; weights are
    theirs."""
    scores = []

    def measured(frame, score, truth, unit, days):
        scores.append((score, days))
        return SimpleNamespace(recall={0.1: 0.0, 1.0: 0.0}, average_precision=0.0)

    monkeypatch.setattr("appcadence.training.search.quality", measured)
    learns(monkeypatch, lambda n: leaf(float(n), 2 * N))
    # The first expert is worth one wherever it speaks, in steps of 1/256.
    experts = Experts(np.full((len(EXPERTS), POINTS), np.inf), np.full(len(EXPERTS), 1 / POINTS))
    experts.thresholds[0] = -np.inf
    start = Start(experts, 4.0, nothing(2 * N))
    monkeypatch.setattr("appcadence.training.search.start_of", lambda rows, prior: start)
    search(rows, 0, 1, WEIGHTS * [100.0, 0.5])
    ((score, days),) = scores
    fold, said = fold_of(rows), ~np.isnan(statistics(rows.values, rows.distances)[:, 0])
    want = 100.0 * (len(fold) - np.bincount(fold, minlength=FOLDS))[fold] + 0.5 * 4.0 * said
    assert said.any()
    np.testing.assert_allclose(score, want)
    assert days == rows.days()


def test_nothing_is_searched_without_trials_or_implants(rows):
    for some, trials in ((rows, 0), (rows.take(~rows.malicious), 3)):
        settings, table = search(some, 0, trials, WEIGHTS)
        assert settings == Hyperparameters() and not len(table) and tuple(table.columns[:6]) == SEARCHED
