"""Lag to the push equals its twin, and a coarse push log says no more than it knows."""

from dataclasses import replace

import naive_context as naive
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, activity, flows, together
from make import pushes as push_log
from naive_pushes import pushes_over_days
from strategies import (
    activities,
    activity_table,
    agree,
    flow_table,
    mixed_flows,
    push_table,
    pushes,
    pushes_of,
    uses_of,
)

from appcadence.features import History, extract
from appcadence.features.build import build
from appcadence.models.eligibility import judged


@given(mixed_flows, pushes, activities, st.sampled_from([("24h", 86400.0), ("6h", 21600.0)]))
def test_notification_equals_its_twin(rows, events, spans, window):
    tables = {
        "flows": flow_table(rows),
        "notifications": push_table(events),
        "activity": activity_table(spans),
    }

    def expect(w, observed):
        uses = uses_of(spans, w, events)
        return naive.notification(w, *pushes_of(events, w.device, w.app), uses, observed)

    agree(extract(tables, window[0]), naive.windows_of(rows, window[1]), expect, "notification")


@given(mixed_flows, pushes, st.sampled_from([("24h", naive.DAY), ("6h", naive.DAY / 4)]))
def test_pushes_over_days_equal_their_twin(rows, events, window):
    tables = {"flows": flow_table(rows), "notifications": push_table(events)}
    windows = sorted(naive.windows_of(rows, window[1]), key=lambda w: w.begin)

    def expect(w, observed):
        log = pushes_of(events, w.device, w.app)
        earlier = [x for x in windows if x.key[:3] == w.key[:3] and x.is_channel and x.begin < w.begin]
        days = {} if not w.is_channel else pushes_over_days(earlier, w, *log)
        return naive.notification(w, *log, None, observed) | days

    agree(extract(tables, window[0], History.empty()), windows, expect, "notification")


OVER_DAYS = ["push_coupling_days_excess", "push_session_days_share"]


def one_a_day(answers, days=8):
    """The windows of a channel whose app gets a push a day at some hour, and opens a session at `answers`."""
    rng = np.random.default_rng(3)
    at = naive.DAY * np.arange(days) + rng.uniform(10_000, 76_000, days).round()
    tables = {"flows": flows(answers(at)), "notifications": push_log(at)}
    frame, past = extract(tables, history=History.empty()), History.empty()
    start = tables["flows"]["start"].cast("int64").to_numpy() // 1_000_000 - DAY0
    nights = []
    for day in range(days):
        night = tables | {"flows": tables["flows"].filter(pa.array(start // naive.DAY == day))}
        nights.append(extract(night, history=past))
        past = replace(past, contacts=build(night, 86_400, past).history.contacts)
    assert past.contacts.equals(build(night, 86_400, past).history.contacts)  # counted once
    channel = frame[frame["dest"] != "*"].reset_index(drop=True)
    apart = pd.concat(nights, ignore_index=True)
    apart = apart[apart["dest"] != "*"].reset_index(drop=True)
    assert channel[OVER_DAYS].to_numpy().tobytes() == apart[OVER_DAYS].to_numpy().tobytes()
    assert channel["push_coupling_excess"].isna().all()  # no day has three pushes
    return channel


def test_one_push_a_day_shows_over_a_week_and_not_in_a_day():
    got = one_a_day(lambda at: at + 8)
    assert got[OVER_DAYS].iloc[:2].isna().all().all()
    rising = got[OVER_DAYS].iloc[2:]
    assert rising.diff().iloc[1:].gt(0).all().all() and rising.iloc[0].gt(0.4).all()
    assert rising.iloc[-1].gt(0.65).all()
    assert judged(got)["notification_burst"].tolist() == [False, False, *[True] * 6]


def test_sessions_that_know_nothing_of_the_pushes_show_nothing_over_a_week():
    rng = np.random.default_rng(8)
    got = one_a_day(lambda at: np.sort(np.append(rng.uniform(0, 8 * naive.DAY, 200), at[:1] + 3600)))
    assert got[OVER_DAYS].iloc[-1].abs().lt(0.1).all()


COUPLING = ["push_coupling_excess", "push_coupling_surprise"]


def both_logs(happened, table):
    """The app's window by an exact log of the pushes, and by one that keeps their minutes."""
    minutes = np.floor(happened / 60) * 60
    logs = push_log(happened, grid=0.001), push_log(minutes, grid=60.0)
    return (extract({"flows": table, "notifications": log}).iloc[0] for log in logs)


def test_a_strong_coupling_is_the_same_verdict_on_any_grid():
    rng = np.random.default_rng(4)
    happened = np.sort(rng.uniform(1000, 85_000, 30).round(3))
    exact, coarse = both_logs(happened, flows(happened + rng.uniform(1, 20, 30)))
    for got in exact, coarse:
        assert got["push_answered_share"] > 0.9
        assert got["push_coupling_excess"] > 0.8
        assert got["push_coupling_surprise"] > 15
        assert got["push_session_share"] == 1
    assert exact["push_grid_seconds"] < 1 and coarse["push_grid_seconds"] == 60
    assert 5 < exact["median_push_lag_seconds"] < 15
    assert np.isnan(coarse["median_push_lag_seconds"])


def test_a_grid_that_cannot_tell_says_nothing():
    """Traffic every two minutes: chance answers a push within 90 s more often than not."""
    rng = np.random.default_rng(5)
    happened = np.sort(rng.uniform(1000, 85_000, 40).round(3))
    often = np.arange(0, 86_000, 120.0) + rng.uniform(0, 60, 717)
    exact, coarse = both_logs(happened, together(flows(happened + 3), flows(often)))
    assert exact["push_coupling_excess"] > 0.3 and exact["push_coupling_surprise"] > 5
    assert coarse[COUPLING].isna().all()
    assert coarse["push_answered_share"] > 0.5 and np.isnan(coarse["median_push_lag_seconds"])


def test_many_unanswered_pushes_are_no_surprise():
    """Far fewer answers than chance would give: the probability of as many is 1, however many pushes."""
    rng = np.random.default_rng(6)
    starts = np.cumsum(rng.uniform(35, 110, 8300))
    starts = starts[starts < 7 * 86_400 - 100]
    happened = np.sort(rng.uniform(0, starts[-1], 12_000).round(3))
    following = starts[np.minimum(np.searchsorted(starts, happened), len(starts) - 1)]
    unanswered = happened[following - happened > 31]
    happened = np.sort(np.concatenate([unanswered, starts[::2000] - 1]))
    thursday = 3 * 86_400  # weeks are counted from the epoch, a Thursday
    table, log = flows(starts + thursday), push_log(happened + thursday, grid=0.001)
    got = extract({"flows": table, "notifications": log}, "7d").iloc[0]
    assert 0 < got["push_answered_share"] < 0.01 and got["push_coupling_excess"] < -0.3
    assert got["push_coupling_surprise"] == 0


def test_bytes_that_nobody_counted_are_not_zero():
    table = together(flows([1000.0, 2000.0, 3000.0], out=None), flows([50_000.0], out=700))
    got = extract({"flows": table, "notifications": push_log([999, 1999, 2999.0])}).iloc[0]
    assert got["flows_per_push"] == 1 and np.isnan(got["bytes_out_per_push"])


def test_the_border_of_a_window():
    table = together(flows([100.0]), flows([86_400 + 100.0]))
    log = push_log([0, 1, 86_399.5, 86_400, 86_401, 86_402, 172_799.0])
    frame = extract({"flows": table, "notifications": log})
    frame = frame[frame["dest"] == "*"]
    # The pushes' own span is longer than what a single flow a day shows.
    hours = np.array([86_399.5, 86_399.0]) / 3600
    np.testing.assert_allclose(frame["pushes_per_hour"] * hours, [3, 4], rtol=1e-5)


@pytest.mark.parametrize(("n", "known"), [(2, False), (3, True)])
def test_three_pushes_are_enough(n, known):
    times = 5000.0 + 9000 * np.arange(n)
    got = extract({"flows": flows([100.0]), "notifications": push_log(times)}).iloc[0]
    assert np.isnan(got["push_answered_share"]) != known and got["silent_pushes_per_hour"] > 0


@pytest.mark.parametrize(
    ("wait", "grid", "answered"),
    [
        (0.0, 0.0, 1),
        (30.0, 0.0, 1),
        (30.000001, 0.0, 0),
        (90.0, 60.0, 1),
        (90.000001, 60.0, 0),
        (-1e-6, 0.0, 0),
    ],
)
def test_an_answer_comes_within_the_wake_time_and_the_grid(wait, grid, answered):
    times = np.array([5000.0, 14_000.0, 40_000.0])
    table, log = flows(times + wait, out=700), push_log(times, grid=grid)
    got = extract({"flows": table, "notifications": log}).iloc[0]
    assert got["push_answered_share"] == got["push_session_share"] == got["flows_per_push"] == answered
    assert got["bytes_out_per_push"] == 700 * answered and got["push_coupling_excess"] == answered


def test_lags_are_told_on_a_grid_of_thirty_seconds_and_no_wider():
    times = np.array([5000.0, 14_000.0, 40_000.0])
    for grid, lag in ((30.0, 4), (30.5, np.nan)):
        tables = {"flows": flows(times + [2, 4, 9]), "notifications": push_log(times, grid=grid)}
        np.testing.assert_array_equal(extract(tables).iloc[0]["median_push_lag_seconds"], lag)


def test_chance_up_to_a_half_tells():
    """Of eighteen shifted pushes nine are answered, and of the three themselves all."""
    times = np.array([5000.0, 14_000.0, 40_000.0])
    starts = np.concatenate([times + shift for shift in (0, 420, 900, 1500)])
    tables = {"flows": flows(starts), "notifications": push_log(times, grid=0.0)}
    got = extract(tables).iloc[0]
    assert got["push_coupling_excess"] == 0.5
    # Half an answer is added to the shifted ones': P(3 of 3) at 9.5 / 19.
    assert got["push_coupling_surprise"] == pytest.approx(3 * np.log10(2))
    more = together(tables["flows"], flows([times[0] - 900]))
    got = extract(tables | {"flows": more}).iloc[0]
    assert got[COUPLING].isna().all() and got["push_answered_share"] == 1


def test_none_answered_by_chance_is_no_proof_of_a_rate_of_zero():
    times = np.array([5000.0, 14_000.0, 40_000.0])
    got = extract({"flows": flows(times + 5), "notifications": push_log(times)}).iloc[0]
    assert got["push_coupling_excess"] == 1
    # Half an answer among the 18 shifted pushes and one more: P(3 of 3) at 0.5 / 19.
    assert got["push_coupling_surprise"] == pytest.approx(3 * np.log10(38))


@pytest.mark.parametrize(("since", "share"), [(30.0, np.nan), (30.000001, 1.0)])
def test_a_device_counts_as_locked_after_thirty_seconds(since, share):
    times = np.array([5000.0, 14_000.0, 40_000.0])
    use = activity([(t - since - 60, t - since) for t in times])
    tables = {"flows": flows(times + 5, out=201, inn=200), "notifications": push_log(times), "activity": use}
    np.testing.assert_array_equal(extract(tables).iloc[0]["locked_push_upload_share"], share)
    # As much as it receives is no upload.
    even = extract(tables | {"flows": flows(times + 5, out=200, inn=200)}).iloc[0]
    np.testing.assert_array_equal(even["locked_push_upload_share"], 0 * share)
