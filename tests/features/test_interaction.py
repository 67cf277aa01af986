"""Lag to the user equals its twin, whatever the sessions and the use."""

import naive_context as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import activity, flows, inventory, pushes, tasks, together
from strategies import (
    activities,
    activity_table,
    agree,
    flow_table,
    fronts_of,
    mixed_flows,
    push_logs,
    push_table,
    uses_of,
)

from appcadence.features import extract
from appcadence.features.families import interaction


def expectation(spans, events=()):
    return lambda w, observed: naive.interaction(w, uses_of(spans, w, events), fronts_of(spans, w), observed)


@given(mixed_flows, activities, push_logs(), st.sampled_from([("24h", 86400.0), ("6h", 21600.0)]))
def test_interaction_equals_its_twin(rows, spans, events, window):
    tables = {
        "flows": flow_table(rows),
        "activity": activity_table(spans),
        "notifications": push_table(events),
    }
    agree(
        extract(tables, window[0]),
        naive.windows_of(rows, window[1]),
        expectation(spans, events),
        "interaction",
    )


@pytest.mark.parametrize(
    ("late", "silent", "unlocked", "left_out"),
    [
        (0.0, False, 500.0, True),
        (5.0, False, 500.0, True),
        (5.000001, False, 500.0, False),
        (-1.0, False, 500.0, False),
        (0.0, True, 500.0, False),  # a silent push lights nothing
        (0.0, False, 40_008.0, False),  # the person took the phone up
        (0.0, False, None, False),  # such a phone reports no unlocks
    ],
)
def test_a_screen_that_a_push_has_lit_is_no_use(late, silent, unlocked, left_out):
    lit = [activity([(40_000 + late, 40_010 + late)], kind="screen_on")]
    opened = [] if unlocked is None else [activity([(unlocked, unlocked + 60)])]
    tables = {
        "flows": flows([40_005 + late]),
        "activity": together(*lit, *opened, activity([(500, 560)], kind="screen_on")),
        "notifications": pushes([40_000.0], app="com.other", grid=0.0, silent=silent),
    }
    assert extract(tables)["userless_share"].eq(1.0).all() == left_out


NAMES = [f.name for f in interaction.FEATURES]
FRONT = [n for n in NAMES if n in ("background_share",) or n.endswith("foreground")]


def day_two(tables):
    frame = extract(tables)
    return frame[
        (frame["dest"] == "a.example") & (frame["window_start"] == frame["window_start"].max())
    ].iloc[0]


def test_a_session_that_goes_on_over_midnight_has_no_start():
    used = activity([(1000, 2000)])
    assert day_two({"flows": flows([86_000.0], duration=1000.0), "activity": used})[NAMES].isna().all()


def test_a_flow_at_midnight_does_not_open_the_session_that_goes_on():
    """Two flows of one session: one is open over midnight, the other starts as the clock strikes."""
    table = flows([86_000.0, 86_400.0], duration=[1000.0, 0.0])
    got = day_two({"flows": table, "activity": activity([(1000, 2000)])})
    assert np.isnan(got["userless_share"])


def test_use_before_the_window_counts_and_none_is_an_hour():
    table = flows([86_400.0 + 50])
    used = activity([(80_000, 86_400), (170_000, 170_001)])
    before = day_two({"flows": table, "activity": used})
    assert before["median_seconds_since_unlock"] == 50 and before["userless_share"] == 1
    after = day_two({"flows": table, "activity": activity([(90_000, 91_000)])})
    assert after["median_seconds_since_unlock"] == interaction.IDLE_SECONDS
    assert after["idle_hour_share"] == 0


def test_a_log_that_fell_silent_does_not_say_that_nobody_was_there():
    """Unless a day without a word lies behind, in windows that are shorter."""
    table = flows([3 * 86_400.0 + 50])
    for window, until, known in (
        ("24h", 3 * 86_400.0, False),
        ("24h", 3 * 86_400.0 + 1, True),
        ("6h", 2 * 86_400.0 + 6 * 3600, False),
        ("6h", 2 * 86_400.0 + 6 * 3600 + 1, True),
    ):
        used = activity([(until - 600, until)])
        shown = extract({"flows": table, "activity": used}, window).iloc[0]
        assert np.isfinite(shown["median_seconds_since_unlock"]) == known, (window, until)
        lit = activity([(until - 600, until)], kind="app_foreground", app="com.b")
        shown = extract({"flows": table, "activity": together(used.slice(0, 0), lit)}, window).iloc[0]
        assert np.isfinite(shown["median_seconds_since_foreground"]) == known


def test_a_device_without_activity_telemetry_is_unknown():
    tables = {"flows": flows([100.0]), "activity": activity([(0, 50)], device="d2")}
    assert extract(tables)[NAMES].isna().all().all()
    in_front = activity([(0, 50)], app="com.a", kind="app_foreground")
    got = extract(tables | {"activity": in_front}).iloc[0][NAMES]
    assert got[FRONT].notna().all() and got.drop(FRONT).isna().all()


@pytest.mark.parametrize(
    ("lag", "alone", "idle"),
    [(0.0, 0, 0), (30.0, 0, 0), (30.000001, 1, 0), (3600.0, 1, 0), (3600.000001, 1, 1), (-5.0, 0, 0)],
)
def test_use_ends_thirty_seconds_after_it_and_an_hour_later_the_device_is_idle(lag, alone, idle):
    end = 20_000.0
    used, front = activity([(100, end)]), activity([(100, end)], app="com.a", kind="app_foreground")
    # Names are looked up all day, so that all of it is observed.
    seen = flows(np.arange(0, 86_400, 14_400.0), service="dns")
    tables = {"flows": together(flows([end + lag]), seen), "activity": together(used, front)}
    got = extract(tables).iloc[0]
    assert (got["userless_share"], got["background_share"], got["idle_hour_share"]) == (alone, alone, idle)
    assert got["userless_bytes_share"] == alone
    waited = pytest.approx(max(lag, 0.0), rel=1e-6)
    assert got["median_seconds_since_unlock"] == got["median_seconds_since_foreground"] == waited
    assert got["userless_excess_ratio"] == pytest.approx(alone - 1 + (end - 100) / 86_400)


@pytest.mark.parametrize(
    ("at", "scheduled"), [(989.999999, 0), (990.0, 1), (1050.0, 1), (1110.0, 1), (1110.000001, 0)]
)
def test_work_explains_a_session_from_ten_seconds_before_it_to_ten_after(at, scheduled):
    tables = {"flows": flows([at]), "activity": activity([(50_000, 50_001)])}
    tables |= {"tasks": tasks([(1000, 1100)]), "notifications": pushes([70_000.0])}
    got = extract(tables).iloc[0]
    unexplained = (1 - scheduled) * 3600 / got["observed_seconds"]
    assert got["scheduled_start_share"] == scheduled
    assert got["unexplained_sessions_per_hour"] == pytest.approx(unexplained)
    # An app that may run at any time has to explain nothing.
    declared = {"inventory": inventory({"app_id": "com.a", "background_modes": ["audio"]})}
    assert extract(tables | declared).iloc[0]["unexplained_sessions_per_hour"] == 0
    assert np.isnan(extract(tables | {"notifications": pushes([], device="d2")}).iloc[0][NAMES[-1]])


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (9, 9), (10, 9), (11, 10), (20, 18), (41, 37)])
def test_the_ninetieth_percentile_is_the_value_of_that_rank(n, rank):
    start = 1000.0 + 100 * np.arange(1, n + 1)
    got = extract({"flows": flows(start), "activity": activity([(0, 1000)])}).iloc[0]
    assert got["p90_seconds_since_unlock"] == 100 * rank


@pytest.mark.parametrize(
    ("gaps", "share"),
    [
        ([100.0, 130.0] * 2 + [100.0], 4 / 6),  # a factor of 1.3; shrunk as by two pairs that are not alike
        ([100.0, 130.001] * 2 + [100.0], 0.0),
        ([100.0, 130.0] * 2, np.nan),  # three pairs are too few
    ],
)
def test_the_rhythm_without_the_user(gaps, share):
    start = np.cumsum([2000.0, *gaps])
    got = extract({"flows": flows(start), "activity": activity([(0, 1000)])}).iloc[0]
    assert got["userless_ratio_share_1_3"] == pytest.approx(share, nan_ok=True)
