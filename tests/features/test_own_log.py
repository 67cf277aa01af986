"""Windows of apps without destinations: a phone's own log, its coverage, bytes and scheduled work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, activity, coverage, flows, pushes, tasks, together, usage

from appcadence.features import History, extract

HOUR = 3600.0


def logged(start, app="com.a", **more):
    """Uses of the network as a phone's own log has them."""
    return flows(start, app=app, host=None, duration=8.0, out=None, inn=None, outcome="unknown", **more)


def test_uses_without_a_destination_are_one_window_of_their_app():
    frame = extract({"flows": together(logged(np.arange(0, 6000, 60.0)), logged([5.0], app="com.b"))})
    assert frame[["app_id", "dest"]].astype(str).to_numpy().tolist() == [["com.a", "*"], ["com.b", "*"]]
    assert not frame["destination_known"].any()
    row = frame.iloc[0]
    assert (row["n_flows"], row["n_beats"], row["beat_median_interval_seconds"]) == (100, 100, 60.0)
    assert np.isnan(row["bytes_per_hour"])


def test_flows_with_a_destination_show_the_same_traffic_and_stand_for_it():
    named = extract({"flows": flows([0.0, 60.0])})
    both = extract({"flows": together(flows([0.0, 60.0]), logged([0.0, 60.0]), logged([9.0], app="com.b"))})
    mine = both[both["app_id"] == "com.a"]
    assert mine["n_flows"].tolist() == named["n_flows"].tolist() == [2, 2]
    assert mine["dest"].astype(str).tolist() == ["a.example", "*"] and mine["destination_known"].all()
    assert both.loc[both["app_id"] == "com.b", "dest"].astype(str).tolist() == ["*"]


def test_a_beat_under_two_slots_is_one_long_session():
    fast, slow = (extract({"flows": logged(np.arange(0, 3600, gap))}).iloc[0] for gap in (8.0, 64.0))
    assert fast["longest_session_seconds"] == 3600.0 and fast["n_sessions"] == 1
    assert slow["n_sessions"] > 50 and slow["session_cadence_score"] > 1.5


def test_the_past_knows_the_app_and_no_destination():
    days = together(logged([10.0]), logged([86410.0]), logged([86420.0], app="com.new"))
    frame = extract({"flows": days}, history=History.empty())
    second = frame[frame["window_start"].astype("int64") // 10**6 == DAY0 + 86400].set_index("app_id")
    assert second["channel_is_new"].to_dict() == {"com.a": 0.0, "com.new": 1.0}
    others = ["destination_is_new_for_device", "destination_is_new_for_fleet", "destination_prevalence_ratio"]
    assert second[others].isna().all(axis=None)


def test_coverage_says_how_much_was_observed_where_silences_do_not():
    """Two uses three hours apart: the log was kept for an hour around each, and not between."""
    uses = logged([0.0, 3 * HOUR])
    alone = extract({"flows": uses})
    assert alone["observed_seconds"].tolist() == [3 * HOUR + 8.0]
    kept = coverage([(0.0, HOUR), (3 * HOUR, 4 * HOUR)])
    assert extract({"flows": uses, "coverage": kept})["observed_seconds"].tolist() == [2 * HOUR]
    # A gateway saw the phone once in between: its silence before that is one, the log's is none.
    seen = together(uses, flows([1.5 * HOUR], app=None))
    both = extract({"flows": seen, "coverage": kept})
    assert set(both["observed_seconds"]) == {2.5 * HOUR + 1.0}
    # At the end of a short window, too.
    hour = extract({"flows": logged([10.0]), "coverage": coverage([(0.0, 600.0)])}, "1h")
    assert hour["observed_seconds"].tolist() == [600.0]
    # What another device says of itself does not matter.
    other = extract({"flows": uses, "coverage": coverage([(0.0, 86400.0)], "d2")})
    assert other["observed_seconds"].tolist() == [3 * HOUR + 8.0]


@given(st.lists(st.tuples(st.integers(0, 200_000), st.integers(1, 30_000)), min_size=1, max_size=8))
def test_coverage_of_every_day_is_the_union_of_its_spans(spans):
    spans = [(float(a), float(a + b)) for a, b in spans]
    uses = logged([float(a) for a, _ in spans])
    frame = extract({"flows": uses, "coverage": coverage(spans)})
    seconds = np.zeros(300_000, bool)
    for a, b in [*spans, *((a, a + 8) for a, _ in spans)]:
        seconds[int(a) : int(b)] = True
    starts = frame["window_start"].astype("int64") // 10**6 - DAY0
    for start, seen in zip(starts, frame["observed_seconds"], strict=True):
        assert seen == max(seconds[start : start + 86400].sum(), 60)


@pytest.mark.parametrize(("later", "seen"), [(4 * HOUR, 4 * HOUR), (4 * HOUR + 1, 60.0)])
def test_a_silence_of_four_hours_was_observed_and_a_longer_one_was_not(later, seen):
    frame = extract({"flows": flows([0.0, later], duration=0.0)})
    assert set(frame["observed_seconds"]) == {seen}


def test_bytes_of_intervals_by_the_share_inside_and_without_the_user():
    counted = usage([(0, 300, 30, 70), (600, 900, 100, 0), (86400 - 100, 86400 + 100, 0, 200)])
    tables = {"flows": logged([10.0, 86390.0]), "usage": counted, "activity": activity([(250, 260)])}
    row = extract(tables).iloc[0]
    total = 100 + 100 + 100
    assert row["usage_bytes_per_hour"] == pytest.approx(total * 3600 / row["observed_seconds"])
    assert row["usage_upload_ratio"] == pytest.approx(130 / total)
    assert row["usage_userless_ratio"] == pytest.approx(200 / total)
    named = extract(tables | {"flows": flows([10.0])})
    assert named.set_index(named["dest"].astype(str))["usage_upload_ratio"].notna().to_dict() == {
        "a.example": False,
        "*": True,
    }


def test_bytes_of_an_interval_over_midnight_are_shared_between_the_days():
    counted = usage([(86400 - 100, 86400 + 300, 40, 360)])
    rows = extract({"flows": logged([10.0, 86400.0 + 50, 2 * 86400.0 + 50]), "usage": counted})
    rows = rows.sort_values("window_start")
    bytes_seen = rows["usage_bytes_per_hour"] * rows["observed_seconds"] / 3600
    assert bytes_seen.iloc[:2].tolist() == pytest.approx([100.0, 300.0]) and np.isnan(bytes_seen.iloc[2])


def test_what_the_scheduler_a_push_or_the_user_explains():
    """Five sessions: in use, at scheduled work, after a push, and two that nothing explains."""
    tables = {
        "flows": logged([1000.0, 5000.0, 9000.0, 13000.0, 17000.0]),
        "activity": activity([(990, 1010)]),
        "tasks": tasks([(4995, 5003), (13020, 13030)]),
        "notifications": pushes([8950.0], grid=60.0),
    }
    row = extract(tables).iloc[0]
    assert row["scheduled_start_share"] == pytest.approx(1 / 5)
    assert row["unexplained_sessions_per_hour"] == pytest.approx(2 * HOUR / row["observed_seconds"])
    for absent in ("activity", "tasks", "notifications"):
        less = extract({name: table for name, table in tables.items() if name != absent}).iloc[0]
        assert np.isnan(less["unexplained_sessions_per_hour"]), absent
