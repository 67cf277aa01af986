"""The search for hyper-parameters: repeatable, fair to what is held out, and never blind to the defaults."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from make import DAY0, fleet

from appcadence.errors import TelemetryError
from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.models import bundle
from appcadence.models.baseline import AppBaseline
from appcadence.training.fit import Sample, fit, fold_of
from appcadence.training.injection import labelled, past_and_future
from appcadence.training.search import SEARCHED, draw, search
from appcadence.training.supervised import Hyperparameters
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
    settings, table = search(rows, 0, 3, np.ones(3))
    again, fewer = search(rows, 0, 2, np.ones(3))
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

    held = rows.take(np.arange(len(rows.implant)) % 2 == 0)
    learned = rows.take(np.arange(len(rows.implant)) % 2 == 1)
    fit([learned], [held.take(~held.malicious)], [held], 0, choose=choose)
    assert [len(part.frame) for part in shown] == [len(learned.frame)]
    shown.clear()
    fit([rows], [], [], 0, choose=choose)  # out of fold
    whole, *parts = shown
    assert len(whole.frame) == len(rows.frame)
    folds = np.unique(fold_of(rows))
    assert len(parts) == len(folds) > 1
    for fold, part in zip(folds, parts, strict=True):
        assert fold not in fold_of(part)


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
