"""Novelty equals its twin: each window judged by nothing but the contacts before it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows, together
from naive_context import DAY
from naive_novelty import Fleet
from strategies import agree, fleets, flow_table

from appcadence.features import History, extract


@given(fleets, st.sampled_from([("24h", DAY), ("6h", DAY / 4)]))
def test_novelty_equals_its_twin(rows, window):
    fleet = Fleet(rows, window[1])
    expect = {w.key: fleet.novelty(w) for w in fleet.windows}
    frame = extract({"flows": flow_table(rows)}, window[0], History.empty())
    apps = frame["dest"] == "*"
    agree(frame[~apps].reset_index(drop=True), fleet.windows, lambda w, _: expect[w.key], "novelty")
    assert frame.loc[apps, "channel_is_new":].isna().all().all()


def test_daily_contact_is_steady_in_windows_of_a_week():
    daily = flows([DAY * day + 1000.0 for day in range(21)])
    frame = extract({"flows": daily}, "7d", History.empty())
    steady = frame[frame["dest"] == "a.example"]["steady_days_ratio"]
    assert steady.max() == 1


@pytest.mark.parametrize("first_flow", [100.0, 50_000.0])
def test_what_others_contact_in_the_same_window_does_not_make_it_known(first_flow):
    """`1 if no device contacted it before the window`: the hour of the device's first flow is no matter."""
    table = together(
        flows([10.0, DAY + 1000.0], device="d1", host="old.example"),
        flows([20.0], device="d2", host="old.example"),
        flows([DAY + 2000.0], device="d1", host="x.example"),
        flows([DAY + first_flow, DAY + 60_000.0], device="d2", host="x.example"),
    )
    frame = extract({"flows": table}, history=History.empty())
    got = frame[(frame["dest"] == "x.example") & (frame["device_id"] == "d2")].iloc[0]
    assert got["destination_is_new_for_fleet"] == 1
