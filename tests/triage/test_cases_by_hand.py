"""Cases of windows of chosen scores, by hand."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import DAY0

from appcadence.features.catalog import NAMES
from appcadence.findings import Finding, arrow, of_row
from appcadence.models.scores import SCORES
from appcadence.triage import siem
from appcadence.triage.case_rows import MAX_DESTINATIONS, MAX_REASONS, cases_in, raising
from appcadence.triage.cases import HIGH_RATE, MAX_QUIET_DAYS, MEDIUM_RATE
from appcadence.triage.window_facts import FACTS

MIDNIGHT = pd.Timestamp("2026-03-02", tz="UTC")
NO_EVENTS = pd.DataFrame(columns=["kind", "name", "devices", "first_seen", "device_ids", "alerting_devices"])


def windows_by_hand(rows):
    """A scores table of windows that score and alert unless they say otherwise."""
    usual = {"device_id": "d1", "app_id": "com.a", "dest": "a.example", "hour": 0, "score": 3.0}
    usual |= {"status": "scored", "alert": True, "n_flows": 10, "n_sessions": 5, "n_beats": 5}
    usual |= {"findings": [], "behaviours": []}
    table = []
    for k, row in enumerate(rows):
        full = {"rank": k + 1} | usual | row
        full["window_start"] = MIDNIGHT + pd.Timedelta(hours=full.pop("hour"))
        full["window_end"] = full["window_start"] + pd.Timedelta(hours=full.pop("hours", 1))
        table.append(full)
    return pa.Table.from_pylist(table, SCORES)


def by_hand(rows):
    """The cases of such windows."""
    file = io.BytesIO()
    pq.write_table(windows_by_hand(rows), file)
    return cases_in(file, NO_EVENTS).to_pylist()


def at_rate(rate):
    """The largest score that as many benign cases a device-day reach."""
    score = -np.log(rate)
    near = sorted(score + k * np.spacing(score) for k in range(-8, 9))
    return max(s for s in near if np.exp(-s) >= rate)


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0.0, "low"),
        (at_rate(MEDIUM_RATE), "low"),
        (np.nextafter(at_rate(MEDIUM_RATE), 9), "medium"),
        (at_rate(HIGH_RATE), "medium"),
        (np.nextafter(at_rate(HIGH_RATE), 9), "high"),
    ],
)
def test_severity_changes_beyond_one_in_ten_and_in_a_hundred_days(score, severity):
    assert (MEDIUM_RATE, HIGH_RATE) == (0.1, 0.01)
    (alert,) = by_hand([{"score": float(score)}])
    assert alert["severity"] == severity


def test_days_that_follow_each_other_are_one_case():
    (case,) = by_hand([{"hour": 23}, {"hour": 0, "dest": "b.example"}, {"hour": 24, "score": 2.0}])
    assert case["alert_days"] == ["2026-03-02", "2026-03-03"] and case["status"] == "new"
    assert case["first_time"] == MIDNIGHT and case["last_time"] == MIDNIGHT + pd.Timedelta(hours=25)
    assert case["score"] == 3.0
    assert (case["n_windows"], case["n_flows"], case["n_sessions"]) == (3, 30, 15)
    later = 24 * (1 + MAX_QUIET_DAYS)
    assert len(by_hand([{"hour": 3}, {"hour": later + 3}])) == 1
    one, other = by_hand([{"hour": 3}, {"hour": later + 27, "score": 2.0}])
    assert one["alert_days"] == ["2026-03-02"] and other["alert_days"] == ["2026-03-07"]
    assert one["id"] != other["id"] and (one["case"], other["case"]) == (1, 2)
    # What does not alert by itself adds nothing to an alert of others.
    (case,) = by_hand([{"hour": 5}, {"hour": 9, "dest": "b.example", "alert": False, "score": 9.0}])
    assert (case["score"], case["n_windows"], case["n_flows"], case["rank"]) == (3.0, 1, 10, 1)
    assert case["first_time"] == MIDNIGHT + pd.Timedelta(hours=5)


def test_times_and_counts_are_those_of_all_windows_that_alert():
    """The strongest window holds one connection of an hour; another host alerted the night before."""
    rows = [{"hour": 47, "dest": "few.example", "n_flows": 1}, {"hour": 1, "score": 2.0, "n_flows": 42}]
    (case,) = by_hand([*rows, {"hour": 2, "alert": False, "n_flows": 500}])
    assert case["alert_days"] == ["2026-03-02", "2026-03-03"]
    assert case["first_time"] == MIDNIGHT + pd.Timedelta(hours=1)
    assert case["last_time"] == MIDNIGHT + pd.Timedelta(hours=48)
    assert case["summary"].startswith("43 connections in 2 alerting windows; one of them went to few.example")
    # The window over all destinations holds the flows of its channels already.
    (whole,) = by_hand([{"n_flows": 7}, {"dest": "*", "score": 2.0, "n_flows": 50}])
    assert whole["summary"].startswith("50 connections; 7 of them went to a.example")
    (alone,) = by_hand([{"n_flows": 7}, {"n_flows": 5, "hour": 24}])
    assert alone["summary"].startswith("12 connections in 2 alerting windows, to a.example")


def test_an_app_wide_rhythm_is_told_with_all_it_contacted():
    """One destination is named, also where an exception covers it; local ones are no part of the rhythm."""
    whole, quiet = {"dest": "*", "n_flows": 50}, {"alert": False, "score": 1.0}
    local = {"dest": "printer.local", "status": "local_destination"} | quiet
    (one,) = by_hand([whole, {"dest": "a.example"} | quiet, local])
    assert one["summary"] == "50 connections, to a.example."
    (two,) = by_hand(
        [whole, {"dest": "a.example"} | quiet, {"dest": "b.example", "status": "excepted"} | quiet]
    )
    assert two["summary"] == "50 connections, to 1 destination and 1 under exceptions."
    assert [part["dest"] for part in two["destinations"]] == ["a.example"]
    (held,) = by_hand([whole, {"dest": "b.example", "status": "excepted"} | quiet])
    assert held["summary"] == "50 connections, to b.example."


def test_a_case_tells_of_gaps_between_its_windows_and_of_connections_that_it_cannot_count():
    """The app's rhythm alerts on two days, three days apart; its destination by itself only on the first."""
    day, other = {"n_flows": 20, "dest": "*", "hours": 24}, {"n_flows": 9, "hours": 24}
    rows = [day, other, day | {"hour": 72}, other | {"hour": 72, "alert": False, "score": 1.0}]
    (gap,) = by_hand(rows)
    assert gap["summary"] == "40 connections in 3 alerting windows; some of them went to a.example."
    (silent,) = by_hand(rows[:3])
    assert silent["summary"] == "40 connections in 3 alerting windows; 9 of them went to a.example."
    (whole,) = by_hand([day, other, day | {"hour": 24}, other | {"hour": 24}])
    assert whole["summary"] == "40 connections; 18 of them went to a.example."
    (one,) = by_hand([day, other])
    assert one["summary"] == "20 connections; 9 of them went to a.example."


def test_what_exceptions_hold_back_is_neither_counted_nor_listed():
    quiet = {"alert": False, "score": 1.0}
    rows = [{"dest": "*", "n_flows": 50}, *({"dest": f"{name}.example"} | quiet for name in "abc")]
    rows.append({"dest": "held.example", "status": "excepted", "exception_id": "EX-1"} | quiet)
    table = windows_by_hand(rows)
    known = table.select(["device_id", "app_id", "dest", "window_start"]).to_pylist()
    known[0] |= {"addresses": ["192.0.2.1", "192.0.2.9", "192.0.2.2"], "record_ids": ["R1", "R9"]}
    known[1] |= {"addresses": ["192.0.2.2"]}
    known[4] |= {"addresses": ["192.0.2.9", "192.0.2.2"], "record_ids": ["R9"]}
    file = io.BytesIO()
    pq.write_table(table, file)
    (case,) = cases_in(file, NO_EVENTS, pa.Table.from_pylist(known, FACTS)).to_pylist()
    assert case["n_destinations"] == 3 and case["exception_ids"] == ["EX-1"]
    assert ", to 3 destinations and 1 under exceptions" in case["summary"]
    # The address that a channel without exception uses, too, stays.
    assert (case["addresses"], case["record_ids"]) == (["192.0.2.1", "192.0.2.2"], ["R1"])


def test_a_reason_of_another_destination_names_it():
    def unusual(feature):
        said = Finding("unusual_feature", {"feature": feature, "value": 2.0, "expected": 1.0})
        return arrow([said]).to_pylist()

    rows = [
        {"findings": unusual("beats_per_hour")},
        {"dest": "b.example", "score": 2.0, "findings": unusual("longest_session_seconds")},
        {"dest": "*", "score": 1.0, "findings": unusual("median_seconds_since_foreground")},
        {"hour": 1, "score": 0.5, "findings": unusual("out_size_mode_share")},
    ]
    (case,) = by_hand(rows)
    endings = [text.rpartition(" (")[2] if text.endswith(").") else "" for text in case["reasons"]]
    assert endings == ["", "b.example).", "all destinations together).", ""]
    assert [f.text for f in of_row(case)[1:]] == case["reasons"]


@pytest.mark.parametrize(
    ("ports", "web"), [([], True), ([443], True), ([8443, 4444], True), ([4444], False), ([5223], False)]
)
def test_web_protocols_are_named_only_where_a_port_may_be_of_the_web(ports, web):
    (case,) = by_hand([{}])
    alert = case | {"ports": ports, "findings": of_row(case)}
    technique = siem.ecs(alert, MIDNIGHT)["threat"]["technique"]
    assert technique["id"] == ["T1437"]
    assert technique.get("subtechnique", {}).get("id") == (["T1437.001"] if web else None)
    (attack,) = siem.ocsf(alert, MIDNIGHT)["finding_info"]["attacks"]
    assert attack["technique"]["uid"] == "T1437" and ("sub_technique" in attack) == web
    name, page = siem.technique_page(alert)
    assert name == ("T1437.001" if web else "T1437") and page.endswith("T1437/001" if web else "T1437")


def test_no_rhythm_is_said_where_none_is_shown():
    (case,) = by_hand([{"n_beats": 1}])
    said = siem.ecs(case | {"findings": of_row(case)}, MIDNIGHT)
    assert said["message"] == "com.a on d1 shows unusual traffic towards a.example."
    assert "rhythm" not in json.dumps(said)


def test_a_headline_names_no_destination_where_none_is_known():
    """A phone's own log says when apps used the network, not whom they contacted."""
    shown = {"behaviours": ["structured_cadence", "session_persistence", "notification_burst"]}
    (own,) = by_hand([{"dest": "*"} | shown])
    assert own["destinations"] == [] and siem.headline(own) == (
        "com.a on d1 shows structured cadence, session persistence and notification burst."
    )
    (two,) = by_hand([{"dest": "*"}, {"alert": False}, {"dest": "b.example", "alert": False}])
    assert siem.headline(two) == "com.a on d1 shows unusual traffic towards 2 destinations together."


def test_a_session_over_midnight_lasts_as_long_as_its_part_or_longer():
    rows = [{"hours": 24, "score": 2.0}, {"hour": 24, "hours": 24}]
    table = windows_by_hand(rows)
    known = table.select(["device_id", "app_id", "dest", "window_start"]).to_pylist()
    day = pd.Timedelta(hours=24)
    known[0] |= {"first_time": MIDNIGHT + 0.8 * day, "last_time": MIDNIGHT + day, "longest_seconds": 17_280.0}
    known[1] |= {"first_time": MIDNIGHT + day, "last_time": MIDNIGHT + 1.06 * day, "longest_seconds": 5184.0}
    for row, ports in zip(known, ([5223], [443]), strict=True):
        row |= {"n_started": 1, "n_failed": 0, "ports": ports}
    file = io.BytesIO()
    pq.write_table(table, file)
    (case,) = cases_in(file, NO_EVENTS, pa.Table.from_pylist(known, FACTS)).to_pylist()
    assert "in contact for 4.8 h or longer at a time, to a.example." in case["summary"]
    # The port that the strongest window uses most goes without saying if it is one of the web's.
    rows = [{"hours": 24}, {"hour": 24, "hours": 24, "score": 2.0}]
    file = io.BytesIO()
    pq.write_table(windows_by_hand(rows), file)
    (case,) = cases_in(file, NO_EVENTS, pa.Table.from_pylist(known, FACTS)).to_pylist()
    assert "to a.example (port 5223 and others)." in case["summary"] and case["ports"] == [5223, 443]


def test_weeks_that_follow_each_other_are_one_case():
    week = 7 * 24
    (one,) = by_hand([{"hours": week}, {"hour": week, "hours": week}])
    assert one["alert_days"] == ["2026-03-02", "2026-03-09"]
    assert len(by_hand([{"hours": week}, {"hour": 3 * week, "hours": week}])) == 2


def test_an_app_wide_window_holds_the_flows_of_its_channels():
    rows = [
        {"dest": "*", "n_flows": 30},
        {"n_flows": 10},
        {"dest": "b.example", "alert": False, "score": 1.0},
    ]
    (alert,) = by_hand([*rows, {"hour": 1, "dest": "c.example", "n_flows": 7}])
    assert (alert["n_windows"], alert["n_flows"]) == (3, 37)
    # Those that alert by themselves first; then what the app-wide rhythm may be made of.
    known = [(d["dest"], d["alert"], d["n_flows"]) for d in alert["destinations"]]
    assert known == [("a.example", True, 10), ("c.example", True, 7), ("b.example", False, 10)]
    assert alert["n_destinations"] == 3


def test_fifty_destinations_and_ten_reasons_are_told():
    said = [Finding("unusual_feature", {"feature": n, "value": 1, "expected": 2}) for n in NAMES]
    said = arrow(said).to_pylist()
    rows = [{"dest": f"h{k:02d}.example", "score": 60.0 - k} for k in range(51)]
    (alert,) = by_hand([row | {"findings": [said[k], said[0]]} for k, row in enumerate(rows)])
    assert alert["n_destinations"] == 51 and MAX_DESTINATIONS == 50
    assert [d["dest"] for d in alert["destinations"]] == [f"h{k:02d}.example" for k in range(50)]
    assert len(alert["reasons"]) <= MAX_REASONS == 10 and alert["findings"][0]["code"] == "case"
    assert alert["findings"][1]["parameters"] == said[0]["parameters"]
    (few,) = by_hand(rows[:50])
    assert few["n_destinations"] == len(few["destinations"]) == 50


def test_only_what_scored_raises_and_devices_and_apps_are_apart():
    held = [{"status": status} for status in ("excepted", "fleet_event", "insufficient_evidence")]
    assert by_hand([*held, {"alert": False}]) == []
    rows = [{"device_id": "d1"}, {"device_id": "d2"}, {"app_id": None}, {"app_id": None, "dest": "com.a"}]
    found = by_hand([*rows, {"app_id": "a.example"}])
    assert [a["device_ids"] for a in found] == [["d1"], ["d2"], ["d1"], ["d1"], ["d1"]]
    assert [a["kind"] for a in found] == ["app", "app", "destination", "destination", "app"]
    assert len({a["id"] for a in found}) == 5


def test_times_are_told_to_the_millisecond():
    time = pd.Timestamp("2026-03-02 01:02:03.999999", tz="UTC").to_pydatetime()
    assert siem.iso_time(time) == "2026-03-02T01:02:03.999Z"
    assert siem.milliseconds(time) == (DAY0 + 3723) * 1000 + 999


def test_the_windows_of_two_cases_of_one_app_are_told_apart():
    later = 24 * (2 + MAX_QUIET_DAYS)
    rows = [{"hour": 3}, {"hour": 4, "dest": "b.example"}, {"hour": later + 3, "score": 2.0}]
    rows += [{"hour": later + 5, "alert": False}, {"hour": 3, "device_id": "d2", "status": "excepted"}]
    table = windows_by_hand(rows)
    file = io.BytesIO()
    pq.write_table(table, file)
    one, other = cases_in(file, NO_EVENTS).to_pylist()
    assert raising(table, [one, other]) == {one["id"]: [0, 1], other["id"]: [2]}
    assert raising(table, [other]) == {other["id"]: [2]}
