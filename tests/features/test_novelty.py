"""Novelty equals its twin: each window judged by nothing but the contacts before it."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import flows, together
from naive_context import DAY
from naive_novelty import Fleet
from strategies import agree, channels_of, fleets, flow_table

from appcadence.features import History, extract


@given(fleets, st.sampled_from([("24h", DAY), ("6h", DAY / 4)]))
def test_novelty_equals_its_twin(rows, window):
    fleet = Fleet(rows, window[1])
    expect = {w.key: fleet.novelty(w) for w in fleet.windows}
    frame = extract({"flows": flow_table(rows)}, window[0], History.empty())
    apps = ~channels_of(frame, fleet.windows)
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


FIRST = flows([10.0], device="d1", host="old.example"), flows([20.0], device="d2", host="old.example")
"""Two devices with a past."""
TICK = 1e-6


def met_on_day_two(*others):
    """What d1's channel to x.example shows on the second day, after these flows of others."""
    frame = extract(
        {"flows": together(*FIRST, flows([DAY + 2000.0], device="d1", host="x.example"), *others)},
        history=History.empty(),
    )
    mine = (frame["device_id"] == "d1") & (frame["dest"] == "x.example")
    return frame[mine & (frame["window_start"] == frame["window_start"].min() + pd.Timedelta(1, "D"))].iloc[0]


@pytest.mark.parametrize(
    ("at", "new", "known", "apps"),
    [
        (DAY - TICK, 0, 1, 1),
        (DAY, 1, 1, 1),  # as the window begins: not before it
        (2 * DAY - TICK, 1, 1, 1),
        (2 * DAY, 1, 0, 0),  # as it ends: not before that
    ],
)
def test_what_the_fleet_knows_ends_with_the_windows_borders(at, new, known, apps):
    got = met_on_day_two(flows([at], device="d2", app="com.b", host="x.example"))
    assert got["destination_is_new_for_fleet"] == new
    assert (got["destination_prevalence_ratio"], got["destination_other_apps"]) == (known, apps)
    assert got["channel_is_new"] == got["destination_is_new_for_device"] == 1


def test_prevalence_counts_other_devices_alone():
    alone = met_on_day_two(flows([DAY + 5.0], device="d1", app="com.b", host="x.example"))
    assert (alone["destination_prevalence_ratio"], alone["destination_other_apps"]) == (0, 1)
    third = flows([30.0], device="d3", host="old.example")
    got = met_on_day_two(third, flows([40.0], device="d2", host="x.example"))
    assert got["destination_prevalence_ratio"] == 0.5 and got["destination_other_apps"] == 0
    # Of the app's four other channels in the fleet one lies in the domain, that of d2.
    assert got["app_domain_share"] == 0.25


@pytest.mark.parametrize(
    ("days", "steady"),
    [
        ([0, 1], 0.0),  # one day is nothing steady
        ([0, 2], 0.0),
        ([0, 1, 2], 1.0),
        ([0, 1, 2, 15], 2 / 14),
        ([0, 1, 2, 16], 0.0),  # fourteen days before, and no more
        ([0, *range(2, 17)], 1.0),
    ],
)
def test_steady_days_are_counted_over_fourteen(days, steady):
    table = flows([DAY * day + 1000.0 for day in days])
    frame = extract({"flows": table}, history=History.empty())
    last = frame[frame["dest"] == "a.example"].sort_values("window_start").iloc[-1]
    assert last["steady_days_ratio"] == pytest.approx(steady)
    assert last["channel_age_days"] == days[-1] and last["channel_is_new"] == 0
