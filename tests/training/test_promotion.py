"""The gate: what it refuses, and that it refuses no more than that."""

from dataclasses import replace

import pytest

from appcadence.training.evaluate import Quality
from appcadence.training.registry import MAX_LEARNED, judge

CHAMPION = Quality(
    implant_days=100,
    benign_units=900,
    device_days=60.0,
    recall={0.1: 0.50, 1.0: 0.80, 3.0: 0.90},
    interval={},
    average_precision=0.7,
    realised={0.1: 0.1, 1.0: 1.0, 3.0: 3.0},
    first_found_days=0.0,
)


def but(quality=CHAMPION, recall=(), realised=()):
    return replace(quality, recall=quality.recall | dict(recall), realised=quality.realised | dict(realised))


def test_an_equal_and_a_better_challenger_pass():
    assert judge(CHAMPION, CHAMPION) == ()
    assert judge(CHAMPION, but(recall={0.1: 0.6, 1.0: 0.9}, realised={1.0: 0.5})) == ()


@pytest.mark.parametrize("budget", [0.1, 1.0])
def test_recall_may_fall_by_the_tolerance_and_no_further(budget):
    old = CHAMPION.recall[budget]
    assert judge(CHAMPION, but(recall={budget: old - 0.02})) == ()
    assert judge(CHAMPION, but(recall={budget: old - 0.02 - 1e-10})) == ()  # but for rounding
    assert len(judge(CHAMPION, but(recall={budget: old - 0.02 - 1e-8}))) == 1
    (reason,) = judge(CHAMPION, but(recall={budget: old - 0.03}))
    assert f"at {budget:g} " in reason and f"{old:.3f}" in reason and f"{old - 0.03:.3f}" in reason
    assert "0.02" in reason and "100 implant-days" in reason


def test_a_challenger_that_learned_from_the_evaluation_set_is_refused():
    assert judge(CHAMPION, CHAMPION, learned=MAX_LEARNED) == judge(None, CHAMPION, learned=MAX_LEARNED) == ()
    (reason,) = judge(CHAMPION, CHAMPION, learned=0.25)
    assert reason.startswith("25% of the evaluation telemetry's flows") and "after its training" in reason


def test_a_gain_at_one_budget_does_not_pay_for_a_loss_at_the_other():
    assert len(judge(CHAMPION, but(recall={0.1: 0.9, 1.0: 0.7}))) == 1
    assert len(judge(CHAMPION, but(recall={0.1: 0.3, 1.0: 0.7}, realised={1.0: 9.0}))) == 3


def test_the_budget_is_kept_or_at_least_not_broken_worse_than_before():
    assert judge(CHAMPION, but(realised={1.0: 1.25})) == ()
    assert len(judge(CHAMPION, but(realised={1.0: 1.2500001}))) == 1
    (reason,) = judge(CHAMPION, but(realised={1.0: 1.26}))
    assert "1.26" in reason and "the champion 1.00" in reason and "1.25" in reason
    loud = but(realised={1.0: 1.9})
    assert judge(loud, but(realised={1.0: 1.8})) == judge(loud, loud) == ()
    assert len(judge(loud, but(realised={1.0: 1.9000001}))) == 1
    assert len(judge(loud, but(realised={1.0: 2.0}))) == 1


def test_the_first_champion_needs_only_keep_the_budget():
    assert judge(None, but(recall={0.1: 0.0, 1.0: 0.0})) == judge(None, but(realised={1.0: 1.25})) == ()
    (reason,) = judge(None, but(realised={1.0: 1.3}))
    assert "1.30" in reason and "champion" not in reason


@pytest.mark.parametrize("worse", [{"recall": {1.0: float("nan")}}, {"realised": {1.0: float("nan")}}])
def test_what_could_not_be_measured_does_not_pass(worse):
    assert len(judge(CHAMPION, but(**worse))) == 1
    assert judge(None, but(realised={1.0: float("nan")}))


def test_a_champion_without_a_false_alarm_rate_excuses_nothing():
    assert judge(but(realised={1.0: float("nan")}), but(realised={1.0: 1.3}))


def test_no_other_budget_is_judged():
    assert judge(CHAMPION, but(recall={3.0: 0.0}, realised={0.1: 9.0, 3.0: 99.0})) == ()
    assert judge(CHAMPION, but(recall={3.0: 1.0, 1.0: 0.5}, realised={0.1: 0.0}))
