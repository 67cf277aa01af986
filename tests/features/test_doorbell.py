"""A real doorbell camera whose uploads follow its motion events; the events' log has a grid of a minute."""

import csv
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from make import DAY0, table

from appcadence.features import extract
from appcadence.telemetry.schema import FLOWS, NOTIFICATIONS

EASTERN = ZoneInfo("America/New_York")
WHO = {"device_id": "doorbell", "app_id": "com.doorbell"}


@pytest.fixture(scope="module")
def doorbell(shared_data):
    """(TCP flows, times of the events), times in seconds after DAY0."""
    where = shared_data / "labelled" / "doorbell_events"
    with (where / "flows.argus.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["Proto"] == "tcp"]
    flows = [
        WHO
        | {
            "start": float(row["StartTime"]) - DAY0,
            "duration_seconds": float(row["Dur"]),
            "app_attribution": "exact",
            "dest_host": "doorbell.example",
            "dest_ip": row["DstAddr"],
            "dest_port": int(row["Dport"]),
            "outcome": "established",
            "bytes_out": int(row["SrcBytes"]),
            "bytes_in": int(row["TotBytes"]) - int(row["SrcBytes"]),
        }
        for row in rows
    ]
    with (where / "events.csv").open() as lines:
        local = [datetime.strptime(text, "%B %d, %Y at %I:%M%p") for text, *_ in csv.reader(lines)]
    return flows, [t.replace(tzinfo=EASTERN).astimezone(UTC).timestamp() - DAY0 for t in local]


def windows(doorbell, window, shift=0.0):
    """The app's windows."""
    flows, events = doorbell
    pushes = [
        WHO | {"kind": "push_received", "time": t + shift, "time_resolution_seconds": 60.0} for t in events
    ]
    frame = extract({"flows": table(FLOWS, flows), "notifications": table(NOTIFICATIONS, pushes)}, window)
    return frame[frame["dest"] == "*"]


def test_the_data_are_as_described(doorbell):
    flows, events = doorbell
    assert (len(flows), len(events)) == (38, 39)
    starts = np.array([f["start"] for f in flows])
    assert sum(((starts >= t) & (starts <= t + 90)).any() for t in events) == 37


@pytest.mark.parametrize(("window", "surprise"), [("24h", 4.5), ("7d", 12.0)])
def test_the_uploads_follow_the_events(doorbell, window, surprise):
    """A day with three events says it at 1 in 30,000; each of the two weeks at less than 1 in 10^12."""
    frame = windows(doorbell, window)
    told = frame[frame["push_answered_share"].notna()]
    assert len(told) == {"24h": 5, "7d": 2}[window]
    assert told["push_answered_share"].min() >= 0.66
    assert told["push_coupling_excess"].min() >= 0.66
    assert told["push_coupling_surprise"].min() > surprise
    assert (told["push_session_share"] == 1).all()
    assert told["flows_per_push"].between(0.9, 1.1).all()
    assert told["bytes_out_per_push"].between(5e5, 6e5).all()
    assert (frame["push_grid_seconds"] == 60).all()
    assert frame["median_push_lag_seconds"].isna().all()


def test_a_day_with_one_event_says_nothing(doorbell):
    last = windows(doorbell, "24h").iloc[-1]
    assert last["pushes_per_hour"] > 0
    assert np.isnan(last["push_answered_share"]) and np.isnan(last["push_coupling_surprise"])


@pytest.mark.parametrize("shift", [-1800.0, 1800.0])
@pytest.mark.parametrize("window", ["24h", "7d"])
def test_they_do_not_follow_shifted_events(doorbell, window, shift):
    told = windows(doorbell, window, shift).dropna(subset="push_answered_share")
    assert len(told) == {"24h": 5, "7d": 2}[window]
    assert (told["push_answered_share"] == 0).all()
    assert (told["push_coupling_excess"] <= 0).all()
    assert (told["push_coupling_surprise"] == 0).all()
    assert (told["flows_per_push"] == 0).all()
