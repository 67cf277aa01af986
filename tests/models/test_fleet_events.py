"""What the fleet meets together is one event; what one device meets alone never is."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, fleet, flows, together

from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.features.history import History
from appcadence.models.fleet_events import alerting_devices, fleet_events
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


# At the boundaries: contacts and windows of a few chosen seconds.

DAY_S = 86_400
WEEK = 7 * DAY_S
SINCE = DAY0 * 1_000_000


def _contacts(rows):
    """(device, app, dest, second after the baseline's end) -> a history."""
    frame = pd.DataFrame(rows, columns=["device_id", "app_id", "dest", "second"], dtype=object)
    return History(frame.assign(first_seen=SINCE + (frame.pop("second") * 1_000_000).astype("int64")))


def _windows(rows):
    """(device, app, dest, end in seconds after the baseline's end) -> the columns of a feature table."""
    frame = pd.DataFrame(rows, columns=["device_id", "app_id", "dest", "end"], dtype=object)
    end = SINCE + (frame.pop("end") * 1_000_000).astype("int64")
    return frame.assign(window_end=pd.to_datetime(end, unit="us", utc=True))


def _first(contacts, place, name):
    """When each device first met a name, in whole seconds; what came before the baseline's end is -1."""
    out = {}
    for device, *names, second in contacts:
        if names[place] == name:
            second = max(second // 1, -1)
            out[device] = min(out.get(device, second), second)
    return out


def _slow(contacts, window, place):
    """Whether a window belongs to an event of its app (0) or destination (1)."""
    device, *names, end = window
    if names[place] in (None, "*"):
        return False
    fleet = {d: min(c[3] for c in contacts if c[0] == d) for d, *_ in contacts}
    first = _first(contacts, place, names[place])
    before = [d for d, second in first.items() if second < end]
    new = [d for d in before if first[d] >= max(end - WEEK, 0)]
    least = max(4, math.ceil(0.05 * sum(second // 1 <= end for second in fleet.values())))
    return device in new and len(new) >= least and 2 * len(new) >= len(before)


seconds = st.sampled_from([-1, 0, 1, DAY_S - 1, DAY_S, DAY_S, WEEK - 1, WEEK, WEEK + 1, WEEK + DAY_S])
apps = st.sampled_from(["com.a", "com.a", "com.b", None])
hosts = st.sampled_from(["x.example"] * 3 + ["y.example"])
contact_lists = st.lists(st.tuples(apps, hosts, seconds), min_size=5, max_size=16).map(
    lambda rows: [(f"d{k % 9}", *row) for k, row in enumerate(rows)]
)
window_ends = st.sampled_from([-DAY_S, -1, 0, 1, DAY_S, DAY_S + 1, WEEK, WEEK + 1, WEEK + DAY_S, 2 * WEEK])


@given(contact_lists, window_ends, st.sampled_from(["x.example", "x.example", "*"]))
def test_events_equal_their_twin(contacts, end, dest):
    rows = [(d, app, dest, end) for d in sorted({c[0] for c in contacts}) for app in ("com.a", None)]
    found = fleet_events(_contacts(contacts), SINCE, _windows(rows))
    by_kind = {
        kind: [_slow(contacts, row, place) for row in rows]
        for place, kind in enumerate(("app", "destination"))
    }
    assert found.windows.tolist() == [a or b for a, b in zip(*by_kind.values(), strict=True)]
    want = {}
    for kind, place in (("destination", 1), ("app", 0)):
        if any(by_kind[kind]):
            name = ("com.a", dest)[place]
            first = _first(contacts, place, name)
            want[kind, name] = {d: s for d, s in first.items() if max(end - WEEK, 0) <= s < end}
    events = found.events
    assert list(zip(events["kind"], events["name"], strict=True)) == list(want)
    for event, devices in zip(events.itertuples(), want.values(), strict=True):
        assert event.device_ids == sorted(devices) and event.devices == len(devices)
        assert event.first_seen == pd.Timestamp(
            SINCE + 1_000_000 * min(devices.values()), unit="us", tz="UTC"
        )


def _is_event(newcomers, others=0, bystanders=0, at=10, end=DAY_S, last=None):
    """Whether a host is an event that so many devices met at `at` (one of them at `last`), others before."""
    met = [(f"new{k}", "com.a", "x.example", at) for k in range(newcomers)]
    met[-1] = (*met[-1][:3], at if last is None else last)
    met += [(f"old{k}", "com.a", "x.example", -5) for k in range(others)]
    met += [(f"by{k}", "com.b", "y.example", -5) for k in range(bystanders)]
    found = fleet_events(_contacts(met), SINCE, _windows([("new0", None, "x.example", end)]))
    return bool(found.windows[0])


def test_four_devices_are_an_event_and_three_are_none():
    assert _is_event(4) and not _is_event(3)


@pytest.mark.parametrize(("fleet", "least"), [(80, 4), (81, 5), (100, 5), (101, 6)])
def test_a_twentieth_of_the_fleet_is_an_event_and_one_less_is_none(fleet, least):
    assert _is_event(least, bystanders=fleet - least)
    assert not _is_event(least - 1, bystanders=fleet - least + 1)


def test_who_joins_after_the_window_is_not_of_the_fleet_yet():
    rows = [(f"new{k}", "com.a", "x.example", 10) for k in range(4)]
    rows += [(f"by{k}", "com.b", "y.example", DAY_S + 1) for k in range(97)]
    ends = [DAY_S, 2 * DAY_S]
    found = fleet_events(_contacts(rows), SINCE, _windows([("new0", None, "x.example", end) for end in ends]))
    assert found.windows.tolist() == [True, False]


@pytest.mark.parametrize("name", ["printer.local", "192.168.1.9"])
def test_what_lies_on_the_local_network_is_no_event(name):
    rows = [(f"new{k}", "com.a", name, 10) for k in range(4)]
    found = fleet_events(_contacts(rows), SINCE, _windows([("new0", None, name, DAY_S)]))
    assert not found.windows.any()


def test_devices_of_an_event_that_alert_count_once_and_no_others():
    events = pd.DataFrame(
        [("destination", "x.example", ["a", "b", "c"]), ("app", "com.a", ["a"])],
        columns=["kind", "name", "device_ids"],
    )
    rows = [
        ("a", "com.a", "x.example", "fleet_event", True),
        ("a", "com.b", "x.example", "fleet_event", True),
        ("b", "com.a", "x.example", "fleet_event", False),
        ("c", "com.a", "x.example", "scored", True),
        ("d", "com.a", "x.example", "fleet_event", True),  # met it too late for the event
    ]
    names = ["device_id", "app_id", "dest", "status", "alert"]
    assert alerting_devices(events, pa.table(list(map(list, zip(*rows, strict=True))), names)) == [1, 1]


@pytest.mark.parametrize("newcomers", [4, 5])
def test_exactly_half_of_all_are_newcomers_enough(newcomers):
    assert _is_event(newcomers, others=newcomers)
    assert not _is_event(newcomers, others=newcomers + 1)


def test_a_week_together_and_a_second_more_is_not():
    assert _is_event(4, at=0, end=WEEK)
    assert not _is_event(4, at=0, end=WEEK + 1)
    assert not _is_event(4, at=100, end=WEEK + 101)


def test_what_is_met_before_the_baseline_ends_is_no_news():
    assert _is_event(4, at=0) and not _is_event(4, at=-1)
    assert not _is_event(4, last=-1)


def test_a_window_that_ends_before_the_baseline_does_is_of_no_event():
    """Not of that of the name before its own, either."""
    rows = [(f"new{k}", "com.a", host, 10) for k in range(6) for host in ("w.example", "x.example")]
    found = fleet_events(_contacts(rows), SINCE, _windows([("new0", None, "x.example", -DAY_S)]))
    assert not found.windows.any() and not len(found.events)


def test_what_is_met_at_the_end_of_a_window_lies_after_it():
    assert _is_event(4, last=DAY_S - 1) and not _is_event(4, last=DAY_S)


@pytest.mark.parametrize(
    ("last", "end", "met"),
    [
        (0, WEEK + 1, 4),  # more than a week ago
        (1, WEEK + 1, 5),
        (DAY_S - 1, DAY_S, 5),
        (DAY_S, DAY_S, 4),  # after the window
        (-1, DAY_S, 4),
    ],
)
def test_an_event_is_of_those_who_met_it_in_its_week(last, end, met):
    times = [7, 9, 11, 13, last]
    contacts = [(f"d{k}", "com.a", "x.example", t) for k, t in enumerate(times)]
    found = fleet_events(_contacts(contacts), SINCE, _windows([(c[0], None, c[2], end) for c in contacts]))
    (event,) = found.events.itertuples()
    assert found.windows.tolist() == [k < met for k in range(5)]
    assert event.device_ids == [f"d{k}" for k in range(met)]
    assert event.first_seen == pd.Timestamp(SINCE + 1_000_000 * min(times[:met]), unit="us", tz="UTC")
