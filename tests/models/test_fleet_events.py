"""What the fleet meets together is one event; what one device meets alone never is."""

import numpy as np
import pandas as pd
import pytest
from make import DAY0, fleet, flows, together

from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.features.history import History
from appcadence.models.fleet_events import fleet_events
from appcadence.training.injection import past_and_future

CUT = (DAY0 + 2 * 86400) * 1_000_000


@pytest.fixture(scope="module")
def tables():
    return fleet(devices=10, days=4)


def _events(tables, more=()):
    before, after = past_and_future(tables, CUT)
    past = build(before, 86400, History.empty()).history
    windows = build({"flows": together(after["flows"], *more)}, 86400, past)
    frame = table_of(windows)
    return frame, fleet_events(windows.history, CUT, frame)


def _met(devices, app="com.chat", dest="new.example", day=2, hour=9.0):
    at = day * 86400 + hour * 3600 + np.arange(8) * 120.0
    return [flows(at + 10 * i, f"phone-{i:02d}", app, dest, 0.5, 300, 200) for i in devices]


def _row(frame, device, app, dest):
    return (frame["device_id"] == device) & (frame["app_id"] == app) & (frame["dest"] == dest)


def test_a_host_that_half_of_the_fleet_meets_is_one_event(tables):
    frame, found = _events(tables, _met(range(5)))
    (event,) = [e for e in found.events.itertuples() if e.name == "new.example"]
    assert (event.kind, event.devices) == ("destination", 5)
    assert event.device_ids == [f"phone-{i:02d}" for i in range(5)]
    assert event.first_seen == pd.Timestamp(DAY0 + 2 * 86400 + 9 * 3600, unit="s", tz="UTC")
    marked = frame[found.windows]
    assert set(marked.loc[marked["dest"] == "new.example", "device_id"]) == set(event.device_ids)


def test_fewer_than_four_devices_are_no_event(tables):
    frame, found = _events(tables, _met(range(3)))
    assert "new.example" not in set(found.events["name"])
    assert not found.windows[frame["dest"] == "new.example"].any()


def test_a_host_that_others_knew_long_ago_is_no_event(tables):
    known = _met(range(5, 10), day=0)
    before = tables | {"flows": together(tables["flows"], *known)}
    frame, found = _events(before, _met(range(4)))
    assert "new.example" not in set(found.events["name"])
    assert not found.windows[frame["dest"] == "new.example"].any()


def test_an_app_rolled_out_takes_its_own_windows_along_and_no_others(tables):
    frame, found = _events(tables, _met(range(6), app="com.rollout", dest="www.rollout.example"))
    assert {"com.rollout", "www.rollout.example"} <= set(found.events["name"])
    assert found.windows[_row(frame, "phone-00", "com.rollout", "*")].all()
    assert not found.windows[frame["app_id"] == "com.chat"].any()


def test_a_window_is_judged_by_what_was_met_before_its_own_end(tables):
    # Three devices on the third day, four more on the fourth: an event from the fourth day on.
    more = [*_met(range(3)), *_met(range(3), day=3), *_met(range(3, 7), day=3)]
    frame, found = _events(tables, more)
    mine = frame["dest"] == "new.example"
    days = frame.loc[mine & found.windows, "window_start"].dt.day.unique()
    assert len(days) == 1 and (mine & ~found.windows).sum() == 3


def test_nothing_is_an_event_before_the_baseline_ends(tables):
    windows = build(tables, 86400, History.empty())
    frame = table_of(windows)
    end = (DAY0 + 10 * 86400) * 1_000_000
    found = fleet_events(windows.history, end, frame)
    assert not found.windows.any() and not len(found.events)
