"""Cases of a really trained and scored fleet: one a story, stable, valid in both schemas, safe to open."""

import csv
import hashlib
import io
import json

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ecs_fields import FIELDS, problems, published
from make import DAY0, fleet, flows, together
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from appcadence.features.catalog import NAMES
from appcadence.findings import UNCHECKED, Finding, arrow, of_row
from appcadence.models import bundle
from appcadence.models.scores import SCORES
from appcadence.serving import Scorer
from appcadence.training.injection import past_and_future
from appcadence.triage import ocsf, siem
from appcadence.triage.alert_files import write
from appcadence.triage.case_rows import MAX_DESTINATIONS, MAX_REASONS
from appcadence.triage.case_windows import cases_in
from appcadence.triage.cases import CASES, HIGH_RATE, MAX_QUIET_DAYS, MEDIUM_RATE

FILES = ("alerts.csv", "alerts.ecs.jsonl", "alerts.ocsf.jsonl")
HOSTILE = '=HYPERLINK("http://evil",\u202e\n"\r\x1b\x00)\u2028</script>'
HOSTS = 120
MADE = pd.Timestamp("2026-03-07 02:30:00.5", tz="UTC").to_pydatetime()


def _beacon(device, app, host, period=300.0):
    return flows(4 * 86400 + np.arange(0, 86400, period), device, app, host, 0.5, 310, 180)


def cases_of(scores, events):
    """The cases of a scores table that stands in a file of several row groups."""
    file = io.BytesIO()
    pq.write_table(scores, file, row_group_size=500)
    return cases_in(file, events)


@pytest.fixture(scope="module")
def scored(fleet_model):
    """A later day with a beacon of one host, one over 120 hosts, one without an app, and a roll-out."""
    tables = fleet(devices=6, days=5, seed=9)
    day = past_and_future(tables, (DAY0 + 4 * 86400) * 1_000_000)[1]["flows"]
    rotating = [f"h{i % HOSTS}.rot.example" for i in range(288)]
    at = 4 * 86400 + 9 * 3600 + np.arange(8) * 120.0
    met = [flows(at + 10 * i, f"phone-{i:02d}", "com.chat", "new.example", 0.5, 300, 200) for i in range(5)]
    more = (
        _beacon("phone-03", "com.chat", "c2.example"),
        _beacon("phone-01", "com.social", rotating),
        _beacon("phone-04", None, "203.0.113.9"),
    )
    return Scorer(bundle.load(fleet_model)[0], "f" * 64).run({"flows": together(day, *more, *met)})


@pytest.fixture(scope="module")
def cases(scored):
    return cases_of(scored.scores, scored.events)


def _one(cases, **want):
    (row,) = [r for r in cases.to_pylist() if all(r[name] == value for name, value in want.items())]
    return row


def _changed(scores, **columns):
    for name, values in columns.items():
        field = SCORES.field(name)
        scores = scores.set_column(SCORES.names.index(name), field, pa.array(values, field.type))
    return scores


def _written(cases, path):
    path.mkdir(exist_ok=True)
    write(cases, path, MADE)
    return {name: (path / name).read_bytes() for name in FILES}


def test_one_alert_a_unit_with_the_facts_of_its_windows(scored, cases):
    frame = scored.scores.to_pandas()
    frame["what"] = frame["app_id"].fillna(frame["dest"])
    fired = frame[frame["alert"] & (frame["status"] == "scored")]
    units = fired.groupby(["device_id", "what"])
    mine = [row for row in cases.to_pylist() if not row["kind"].startswith("fleet")]
    assert cases.schema == CASES and len(mine) == len(units) > 3
    assert [row["rank"] for row in mine] == sorted(row["rank"] for row in mine)
    for row in mine:
        windows = units.get_group((row["device_ids"][0], row["app_id"] or row["destinations"][0]["dest"]))
        top = windows.sort_values("rank").iloc[0]
        assert (row["score"], row["rank"], row["n_windows"]) == (top["score"], top["rank"], len(windows))
        seen = [f.text for f in of_row(top) if f.kind != UNCHECKED]
        assert row["reasons"][: len(seen)] == seen and len(row["reasons"]) <= MAX_REASONS
        assert len(set(row["reasons"])) == len(row["reasons"]) and row["unchecked"]
        whole = windows[windows["dest"] == "*"]["n_flows"]
        assert row["n_flows"] == (whole if len(whole) else windows["n_flows"]).sum()
        rate = np.exp(-row["score"])
        assert row["severity"] == ("low" if rate >= 0.1 else "medium" if rate >= 0.01 else "high")
    unknown = _one(cases, kind="destination")
    assert unknown["app_id"] is None and unknown["destinations"][0]["dest"] == "203.0.113.9"


def test_a_beacon_over_rotating_hosts_is_one_alert_that_lists_them(scored, cases):
    row = _one(cases, app_id="com.social", device_ids=["phone-01"])
    # Before it come the beacons of one host: a destination, and an app's channel and whole.
    assert row["rank"] <= 4 and row["n_destinations"] > HOSTS
    assert len(row["destinations"]) == MAX_DESTINATIONS
    scores = [d["score"] for d in row["destinations"] if d["score"] is not None]
    assert scores == sorted(scores, reverse=True)
    frame = scored.scores.to_pandas()
    alone = frame[frame["dest"].str.endswith("rot.example")]
    assert not alone["alert"].any() and not any(d["alert"] for d in row["destinations"])


def test_a_host_that_alerts_by_itself_comes_first(cases):
    row = _one(cases, app_id="com.chat", device_ids=["phone-03"])
    first, *others = row["destinations"]
    assert first["dest"] == "c2.example" and first["alert"] and not any(d["alert"] for d in others)


def test_a_fleet_event_is_one_alert_with_its_devices(scored, cases):
    row = _one(cases, kind="fleet_destination")
    (event,) = scored.events.itertuples()
    assert row["device_ids"] == list(event.device_ids) == [f"phone-{i:02d}" for i in range(5)]
    assert row["first_time"] == event.first_seen and row["last_time"] == pd.Timestamp("2026-03-07", tz="UTC")
    assert row["n_flows"] == 5 * 8 and row["n_windows"] == 5 and row["rank"] is None
    windows = scored.scores.filter(pc.equal(scored.scores["dest"], "new.example"))
    assert row["score"] == pc.max(windows["score"]).as_py()


def test_excepted_windows_raise_nothing_and_are_named(scored, cases):
    scores = scored.scores
    n = len(scores)
    chat = [
        (d, a) == ("phone-03", "com.chat")
        for d, a in zip(scores["device_id"].to_pylist(), scores["app_id"].to_pylist(), strict=True)
    ]
    host = [c and dest == "c2.example" for c, dest in zip(chat, scores["dest"].to_pylist(), strict=True)]
    status = scores["status"].to_pylist()
    for rows, left in ((chat, False), (host, True)):
        held = _changed(
            scores,
            status=["excepted" if rows[i] else status[i] for i in range(n)],
            exception_id=["EX-1" if rows[i] else None for i in range(n)],
        )
        ids = {r["id"]: r for r in cases_of(held, scored.events).to_pylist()}
        row = ids.get(_one(cases, app_id="com.chat", device_ids=["phone-03"])["id"])
        assert (row is not None) == left
        assert row is None or row["exception_ids"] == ["EX-1"]
        assert row is None or "c2.example" not in [d["dest"] for d in row["destinations"]]
    every = _changed(scores, status=["excepted"] * n)
    assert len(cases_of(every, scored.events)) == 0


def test_a_fleet_event_wholly_under_exceptions_raises_nothing(scored, cases):
    event = [status == "fleet_event" for status in scored.scores["status"].to_pylist()]
    last = max(i for i in range(len(event)) if event[i])
    for kept, left in ((-1, 0), (last, 1)):
        ids = ["EX-1" if event[i] and i != kept else None for i in range(len(event))]
        held = cases_of(_changed(scored.scores, exception_id=ids), scored.events).to_pylist()
        fleet = [row for row in held if row["kind"].startswith("fleet")]
        assert len(fleet) == left and len(held) == len(cases) - 1 + left
        assert all(row["n_windows"] == 1 for row in fleet)


def test_another_model_keeps_the_ids(scored, cases):
    scores = scored.scores
    halved = [None if s is None else s / 2 for s in scores["score"].to_pylist()]
    again = cases_of(_changed(scores, score=halved, model_version=["other"] * len(scores)), scored.events)
    assert sorted(again["id"].to_pylist()) == sorted(cases["id"].to_pylist())
    assert len(set(cases["id"].to_pylist())) == len(cases)
    assert not again["severity"].equals(cases["severity"])
    # Pinned: another way to hash would repeat every alert that a SIEM holds already.
    known = hashlib.sha256(b'["app", "phone-03", "com.chat", "2026-03-06"]').hexdigest()[:32]
    assert _one(cases, app_id="com.chat", device_ids=["phone-03"])["id"] == known


def test_a_table_on_disk_gives_the_same(scored, cases, tmp_path):
    order = np.random.default_rng(0).permutation(len(scored.scores))
    with pq.ParquetWriter(tmp_path / "scores.parquet", SCORES) as writer:
        for part in np.array_split(order, 7):  # a unit's windows lie in several row groups
            writer.write_table(scored.scores.take(pa.array(part)))
    assert cases_in(tmp_path / "scores.parquet", scored.events).equals(cases)


def test_equal_alerts_give_equal_bytes(scored, cases, tmp_path):
    shuffled = scored.scores.take(pa.array(np.random.default_rng(1).permutation(len(scored.scores))))
    again = cases_of(shuffled, scored.events.iloc[::-1])
    assert _written(cases, tmp_path / "a") == _written(again, tmp_path / "b")


def test_no_alert_is_no_line(scored, tmp_path):
    written = _written(cases_of(SCORES.empty_table(), scored.events.iloc[:0]), tmp_path)
    assert written["alerts.ecs.jsonl"] == written["alerts.ocsf.jsonl"] == b""
    assert written["alerts.csv"].count(b"\n") == 1


@pytest.fixture(scope="module")
def hostile(cases):
    """The cases again, with every name replaced by one that wants to get out."""
    rows = cases.to_pylist()
    for row in rows:
        names = {"device_ids": [HOSTILE] * len(row["device_ids"]), "app_id": row["app_id"] and HOSTILE}
        row |= names | {"destinations": [d | {"dest": HOSTILE} for d in row["destinations"]]}
    return pa.Table.from_pylist(rows, CASES)


@pytest.fixture(params=["cases", "hostile"])
def documents(request, tmp_path):
    table = request.getfixturevalue(request.param)
    written = _written(table, tmp_path)
    for name in FILES[1:]:
        assert written[name].count(b"\n") == len(written[name].splitlines()) == len(table)
        assert written[name].isascii()
    return {name: [json.loads(line) for line in written[name].splitlines()] for name in FILES[1:]}, table


def test_every_line_is_ecs(documents):
    lines, table = documents
    for line, row in zip(lines["alerts.ecs.jsonl"], table.to_pylist(), strict=True):
        assert problems(line) == []
        assert (line["event"]["id"], line["event"]["risk_score"]) == (row["id"], row["score"])
        assert pd.Timestamp(line["@timestamp"]) == MADE
        assert pd.Timestamp(line["event"]["start"]) == pd.Timestamp(row["first_time"]).floor("ms")
        assert pd.Timestamp(line["event"]["end"]) == pd.Timestamp(row["last_time"]).floor("ms")
        assert line["event"]["reason"] == row["summary"]
        assert ("host" in line) == (len(row["device_ids"]) == 1)
        assert set(row["device_ids"]) <= set(line["related"]["hosts"])
        assert line["threat"]["technique"]["subtechnique"]["id"] == ["T1437.001"]


def test_what_is_not_ecs_is_noticed(cases, tmp_path):
    _written(cases, tmp_path)
    line = json.loads((tmp_path / "alerts.ecs.jsonl").read_text().splitlines()[0])
    for group, part in (
        ("event", {"severty": 1}),
        ("event", {"severity": "high"}),
        ("event", {"kind": "alarm"}),
        ("event", {"category": "network"}),
        ("threat", {"framework": ["MITRE ATT&CK"]}),
        ("destination", {"ip": "c2.example"}),
        ("event", {"start": "yesterday"}),
    ):
        assert len(problems(line | {group: line[group] | part})) == 1, part


@pytest.mark.network
def test_the_ecs_fields_are_the_published_ones(tmp_path):
    theirs = published(tmp_path)
    assert {name: theirs.get(name) for name in FIELDS} == FIELDS


@pytest.mark.parametrize("version", [ocsf.VERSION, "1.8.0"])
def test_every_line_is_an_ocsf_detection_finding(documents, version):
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version)).get_class_schema(
        "detection_finding", []
    )
    check = jsonschema.Draft202012Validator(schema)
    lines, table = documents
    for line, row in zip(lines["alerts.ocsf.jsonl"], table.to_pylist(), strict=True):
        assert [error.message for error in check.iter_errors(line)] == []
        assert line["type_uid"] == line["class_uid"] * 100 + line["activity_id"] == 200401
        assert line["finding_info"]["uid"] == row["id"]
        assert pd.Timestamp(line["time"], unit="ms", tz="UTC") == MADE
        start = pd.Timestamp(line["start_time"], unit="ms", tz="UTC")
        assert start == pd.Timestamp(row["first_time"]).floor("ms")
        assert line["severity"].lower() == row["severity"]
        assert len(line["evidences"]) == len(
            [d for d in row["destinations"] if d["alert"]] or row["destinations"]
        )
    broken = line | {"severity_id": 7}
    assert not check.is_valid(broken) and not check.is_valid(
        {k: line[k] for k in line if k != "finding_info"}
    )


def test_a_spreadsheet_runs_nothing(hostile, tmp_path):
    text = _written(hostile, tmp_path)["alerts.csv"].decode()
    header, *rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len(rows) == len(hostile)
    numbers = {"score", "p_value", "rank"} | {
        name for name in header if name.endswith(("_score", "_p_value"))
    }
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        assert cells["destinations"].startswith("'=HYPERLINK") and cells["device_ids"].startswith(
            "'=HYPERLINK"
        )
        assert not any(
            cell[:1] in tuple("=+-@\t\r") for name, cell in cells.items() if name not in numbers and cell
        )
        assert all(np.isfinite(float(cells[name])) for name in numbers if cells[name])


# By hand: windows of chosen scores.

MIDNIGHT = pd.Timestamp("2026-03-02", tz="UTC")
NO_EVENTS = pd.DataFrame(columns=["kind", "name", "devices", "first_seen", "device_ids", "alerting_devices"])


def by_hand(rows):
    """The cases of windows that score and alert unless they say otherwise."""
    usual = {"device_id": "d1", "app_id": "com.a", "dest": "a.example", "hour": 0, "score": 3.0}
    usual |= {"status": "scored", "alert": True, "n_flows": 10, "n_sessions": 5, "n_beats": 5}
    usual |= {"findings": [], "behaviours": []}
    table = []
    for k, row in enumerate(rows):
        full = {"rank": k + 1} | usual | row
        full["window_start"] = MIDNIGHT + pd.Timedelta(hours=full.pop("hour"))
        full["window_end"] = full["window_start"] + pd.Timedelta(hours=1)
        table.append(full)
    return cases_of(pa.Table.from_pylist(table, SCORES), NO_EVENTS).to_pylist()


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
def test_by_hand_severity_changes_beyond_one_in_ten_and_in_a_hundred_days(score, severity):
    assert (MEDIUM_RATE, HIGH_RATE) == (0.1, 0.01)
    (alert,) = by_hand([{"score": float(score)}])
    assert alert["severity"] == severity


def test_by_hand_days_that_follow_each_other_are_one_case():
    (case,) = by_hand([{"hour": 23}, {"hour": 0, "dest": "b.example"}, {"hour": 24, "score": 2.0}])
    assert case["alert_days"] == ["2026-03-02", "2026-03-03"] and case["status"] == "new"
    assert case["first_time"] == MIDNIGHT + pd.Timedelta(hours=23) and case["score"] == 3.0
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


def test_by_hand_an_app_wide_window_holds_the_flows_of_its_channels():
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


def test_by_hand_fifty_destinations_and_ten_reasons_are_told():
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


def test_by_hand_only_what_scored_raises_and_devices_and_apps_are_apart():
    held = [{"status": status} for status in ("excepted", "fleet_event", "insufficient_evidence")]
    assert by_hand([*held, {"alert": False}]) == []
    rows = [{"device_id": "d1"}, {"device_id": "d2"}, {"app_id": None}, {"app_id": None, "dest": "com.a"}]
    found = by_hand([*rows, {"app_id": "a.example"}])
    assert [a["device_ids"] for a in found] == [["d1"], ["d2"], ["d1"], ["d1"], ["d1"]]
    assert [a["kind"] for a in found] == ["app", "app", "destination", "destination", "app"]
    assert len({a["id"] for a in found}) == 5


def test_by_hand_times_are_told_to_the_millisecond():
    time = pd.Timestamp("2026-03-02 01:02:03.999999", tz="UTC").to_pydatetime()
    assert siem.iso_time(time) == "2026-03-02T01:02:03.999Z"
    assert siem.milliseconds(time) == (DAY0 + 3723) * 1000 + 999
