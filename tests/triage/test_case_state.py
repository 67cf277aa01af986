"""Cases from night to night: alerted once, raised when more severe, quiet when silent, and forgotten."""

import json
import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make import DAY0, activity, fleet, flows, together

from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.findings import Finding, arrow
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.directory import write_directory
from appcadence.triage.case_state import continued, read_cases, under_exceptions
from appcadence.triage.cases import CASES, MAX_QUIET_DAYS, SEVERITIES, case_id, numbered
from appcadence.triage.output import reapply

EXCEPTION = """
[[exception]]
id = "c2"
owner = "Nobody"
reason = "Known"
business_justification = "Test"
created = 2026-01-01
expires = 2027-01-01
app_id = "com.chat"
"""


def case(day, *, app="com.a", device="d1", severity="low", score=1.0, kind="app"):
    """A case as one run alone shows it."""
    at = pd.Timestamp(f"2026-03-{day:02d} 10:00", tz="UTC")
    days = [f"2026-03-{day:02d}"]
    row = dict.fromkeys(CASES.names) | {"case": 1, "status": "new", "kind": kind, "severity": severity}
    row |= {"id": case_id(kind, device, app, days[0]), "alert_days": days, "device_ids": [device]}
    row |= {
        "first_time": at,
        "last_time": at + pd.Timedelta(hours=2),
        "app_id": app,
        "score": score,
        "rank": 1,
    }
    row |= {
        "destinations": [],
        "n_windows": 2,
        "n_flows": 7,
        "n_sessions": 3,
        "summary": "x",
        "behaviours": [],
    }
    return row | {"findings": arrow([Finding("presence_unknown")]).to_pylist()}


def table(*rows):
    return numbered(pa.Table.from_pylist(list(rows), CASES))


def nights(*each, held=()):
    """The cases after some nights, a list of rows each, the last of which is on the given day."""
    known = table()
    for day, rows in each:
        known = continued(table(*rows), known, f"2026-03-{day:02d}", held)
    return known.to_pylist()


def test_a_case_goes_on_under_its_id_with_its_days_and_alerts_once():
    (one,) = nights((2, [case(2)]), (3, [case(3, score=0.5)]))
    assert one["status"] == "continuing" and one["id"] == case(2)["id"]
    assert one["alert_days"] == ["2026-03-02", "2026-03-03"]
    assert (one["first_time"], one["last_time"]) == (case(2)["first_time"], case(3)["last_time"])
    assert (one["score"], one["n_flows"]) == (0.5, 7)  # what this run saw


def test_only_what_is_more_severe_than_ever_is_raised():
    severities = ["medium", "low", "medium", "high", "low", "high"]
    known, seen = table(), []
    for day, severity in enumerate(severities, start=2):
        rows = table(case(day, severity=severity))
        known = continued(rows, known, f"2026-03-{day:02d}", ())
        (row,) = known.to_pylist()
        seen.append((row["status"], row["severity"]))
    assert seen == [
        *(("new", "medium"), ("continuing", "medium"), ("continuing", "medium")),
        *(("raised", "high"), ("continuing", "high"), ("continuing", "high")),
    ]


@pytest.mark.parametrize("silent", range(MAX_QUIET_DAYS + 2))
def test_a_silent_case_is_quiet_then_forgotten_and_new_when_it_comes_back(silent):
    between = [(3 + k, []) for k in range(silent)]
    rows = nights((2, [case(2)]), *between)
    if silent and silent <= MAX_QUIET_DAYS:
        (row,) = rows
        assert row["status"] == "quiet" and row["rank"] is None and row["n_windows"] == row["n_flows"] == 0
        assert row["id"] == case(2)["id"] and row["summary"] == "x"
    elif silent:
        assert rows == []
    back = 3 + silent
    (row,) = nights((2, [case(2)]), *between, (back, [case(back)]))
    again = silent > MAX_QUIET_DAYS
    assert row["status"] == ("new" if again else "continuing")
    assert row["id"] == case(back if again else 2)["id"]


@pytest.mark.parametrize(("later", "status"), [(9, "continuing"), (16, "new")])
def test_a_case_goes_on_from_week_to_week(later, status):
    known = table(case(2))
    (row,) = continued(table(case(later)), known, f"2026-03-{later:02d}", (), 7).to_pylist()
    assert row["status"] == status
    quiet = continued(table(), known, f"2026-03-{later:02d}", (), 7).to_pylist()
    assert [r["status"] for r in quiet] == (["quiet"] if status == "continuing" else [])


def test_subjects_are_apart_and_what_is_under_exceptions_is_not_quiet():
    first = [case(2), case(2, app="com.b"), case(2, device="d2"), case(2, app="com.c")]
    rows = nights(
        (2, first), (3, [case(3, device="d2"), case(3, app="com.new")]), held={case(2, app="com.c")["id"]}
    )
    assert {(r["device_ids"][0], r["app_id"]): r["status"] for r in rows} == {
        **{("d2", "com.a"): "continuing", ("d1", "com.new"): "new"},
        **{("d1", "com.a"): "quiet", ("d1", "com.b"): "quiet"},
    }
    assert [r["case"] for r in rows] == [1, 2, 3, 4] and [r["status"] for r in rows][-2:] == ["quiet"] * 2


WINDOWS = pa.schema(
    [
        *((name, pa.string()) for name in ("device_id", "app_id", "dest", "exception_id")),
        ("window_start", pa.timestamp("us", tz="UTC")),
    ]
)


@pytest.mark.parametrize(
    ("windows", "held"),
    [
        ([("d1", "com.a", "evil", None), ("d1", "com.a", "good", "e"), ("d1", "com.a", "*", None)], False),
        ([("d1", "com.a", "evil", "e"), ("d1", "com.a", "good", None), ("d1", "com.a", "*", None)], True),
        ([("d1", "com.a", "good", "e"), ("d1", "com.a", "*", "e")], True),
        ([("d2", "com.a", "evil", "e"), ("d2", "com.a", "*", "e")], False),
        ([("d1", "com.b", "evil", "e")], False),
        ([], False),
    ],
)
def test_a_case_is_under_exceptions_where_what_raised_it_is(windows, held):
    places = [{"dest": "evil", "score": 2.0, "n_flows": 9, "alert": True}]
    places += [{"dest": "good", "score": 0.0, "n_flows": 9, "alert": False}]
    rows = [
        dict(zip(WINDOWS.names, (*w, pd.Timestamp("2026-03-03", tz="UTC")), strict=True)) for w in windows
    ]
    known = table(case(2) | {"destinations": places})
    found = under_exceptions(known, pa.Table.from_pylist(rows, WINDOWS))
    assert found == ({case(2)["id"]} if held else set())


@pytest.mark.parametrize(("exceptions", "held"), [(("e", "e"), True), (("e", None), False), ((), False)])
def test_a_fleet_event_is_under_exceptions_where_all_its_windows_are(exceptions, held):
    known = table(case(2, kind="fleet_app"))
    at = pd.Timestamp("2026-03-03", tz="UTC")
    rows = [
        dict(zip(WINDOWS.names, (f"d{k}", "com.a", "x", id, at), strict=True))
        for k, id in enumerate(exceptions)
    ]
    found = under_exceptions(known, pa.Table.from_pylist(rows, WINDOWS))
    assert found == ({case(2, kind="fleet_app")["id"]} if held else set())


def excepted(case_row, *windows):
    """Whether a case is under the exceptions of such windows: device, app, destination and exception."""
    at = pd.Timestamp("2026-03-03", tz="UTC")
    rows = [dict(zip(WINDOWS.names, (*window, at), strict=True)) for window in windows]
    return bool(under_exceptions(table(case_row), pa.Table.from_pylist(rows, WINDOWS)))


def test_each_destination_that_raised_a_case_has_to_be_excepted():
    places = [{"dest": name, "score": 2.0, "n_flows": 9, "alert": True} for name in ("evil", "worse")]
    row, evil = case(2) | {"destinations": places}, ("d1", "com.a", "evil", "e")
    assert not excepted(row, evil) and not excepted(row, evil, ("d1", "com.a", "worse", None))
    assert excepted(row, evil, ("d1", "com.a", "worse", "other"))


def test_a_fleet_event_without_a_window_is_under_no_exception():
    row, other = case(2, kind="fleet_app"), ("d1", "com.b", "x", "e")
    assert not excepted(row, other) and excepted(row, other, ("d2", "com.a", "x", "e"))


def whole(**more):
    """A case without a null, as it is read back from a file."""
    lists = {name: [] for name in ("addresses", "ports", "record_ids", "reasons", "unchecked")}
    full = case(2) | lists | {"alerting_devices": 1, "n_destinations": 0, "exception_ids": []}
    return pa.Table.from_pylist([full | more], CASES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alert_days": []},
        {"alert_days": ["yesterday"]},
        {"alert_days": None},
        {"kind": "host"},
        {"severity": "extreme"},
        {"status": None},
        {"device_ids": [None]},
        {"id": None},
        {"first_time": None},
        {"app_id": None},
        {"kind": "destination"},
        {"findings": []},
        {"findings": [{"code": "nosuch", "parameters": "{}"}]},
        {"findings": [{"code": "case", "parameters": "{"}]},
    ],
    ids=str,
)
def test_cases_that_no_run_writes_are_refused(tmp_path, wrong):
    file = tmp_path / "cases.parquet"
    pq.write_table(whole(), file)
    assert read_cases(file).equals(whole())
    pq.write_table(whole(**wrong), file)
    with pytest.raises(TelemetryError, match=r"cases\.parquet is unreadable"):
        read_cases(file)


def test_a_run_over_many_days_goes_on_with_its_first_case_alone():
    far = 4 + 1 + MAX_QUIET_DAYS + 1
    rows = nights((2, [case(2)]), (far, [case(4), case(far, score=0.1)]))
    assert [(r["status"], r["alert_days"]) for r in rows] == [
        ("new", [f"2026-03-{far:02d}"]),
        ("continuing", ["2026-03-02", "2026-03-04"]),
    ]


def test_of_two_cases_of_a_subject_the_latest_goes_on():
    far = 4 + 1 + MAX_QUIET_DAYS + 1
    known = table(case(4, severity="high"), case(far))
    assert known["severity"].to_pylist() == ["high", "low"]
    (row,) = continued(table(case(far + 1)), known, f"2026-03-{far + 1:02d}", ()).to_pylist()
    assert row["id"] == case(far)["id"] and row["status"] != "new"
    assert row["alert_days"] == [f"2026-03-{day:02d}" for day in (far, far + 1)]


def test_the_most_urgent_come_first():
    rows = [case(2, app=f"com.{s}{k}", severity=s, score=k) for s in SEVERITIES for k in (1.0, 2.0)]
    order = [(r["severity"], r["score"]) for r in table(*rows).to_pylist()]
    assert order == [(s, k) for s in SEVERITIES[::-1] for k in (2.0, 1.0)]


@pytest.fixture(scope="module")
def telemetry(tmp_path_factory):
    """Three days with a beacon on all of them."""
    path = tmp_path_factory.mktemp("nights") / "telemetry"
    tables = fleet(devices=6, days=7, seed=9)
    start = tables["flows"]["start"].cast("int64").to_numpy()
    late = tables["flows"].filter(pa.array(start >= (DAY0 + 4 * 86400) * 1_000_000))
    beats = 4 * 86400 + np.arange(0, 3 * 86400, 300.0)
    beacon = flows(beats, "phone-03", "com.chat", "c2.example", 0.5, 310, 180)
    whole = together(late, beacon)
    uids = pa.array([f"C{k}" for k in range(len(whole))])
    whole = whole.set_column(whole.schema.get_field_index("source_uid"), "source_uid", uids)
    spans = [(4 * 86400 + h * 3600, 4 * 86400 + h * 3600 + 1800) for h in range(8, 20)]
    write_directory(path, {"flows": whole, "activity": activity(spans, "phone-03", "device_unlocked")})
    return path


def night(telemetry, model, out, number, **more):
    days = [pd.Timestamp(DAY0 + d * 86400, unit="s", tz="UTC") for d in (4 + number, 5 + number)]
    return score_directory(telemetry, Scorer.load(model), out, since=days[0], until=days[1], **more)


def ids(out, status=None):
    rows = read_cases(out / "cases.parquet").to_pylist()
    return {row["id"]: row["status"] for row in rows if status is None or row["status"] in status}


def lines(out, name="ecs"):
    return [json.loads(line) for line in (out / f"alerts.{name}.jsonl").read_text().splitlines()]


def test_a_beacon_alerts_on_its_first_night_and_goes_on_without(telemetry, fleet_model, tmp_path):
    outs = [tmp_path / f"night-{k}" for k in range(3)]
    runs = [
        night(telemetry, fleet_model, out, k, history=outs[k - 1] if k else None)
        for k, out in enumerate(outs)
    ]
    mine = [
        [row for row in read_cases(out / "cases.parquet").to_pylist() if row["app_id"] == "com.chat"]
        for out in outs
    ]
    (one,), (two,), (three,) = ([r for r in rows if r["device_ids"] == ["phone-03"]] for rows in mine)
    assert one["id"] == two["id"] == three["id"] and one["status"] == "new"
    assert two["status"] in ("continuing", "raised") and len(three["alert_days"]) == 3
    for k, out in enumerate(outs):
        told = ids(out, ("new", "raised"))
        assert [d["event"]["id"] for d in lines(out)] == list(told)
        assert [d["finding_info"]["uid"] for d in lines(out, "ocsf")] == list(told)
        assert sum(runs[k].cases.values()) == len(ids(out)) == len(pd.read_csv(out / "alerts.csv"))
        for document, row in zip(lines(out), lines(out, "ocsf"), strict=True):
            again = document["appcadence"]["status"] == "raised"
            assert (row["activity_id"], row["type_uid"]) == ((2, 200402) if again else (1, 200401))
    assert not set(ids(outs[1], ("continuing",))) & {d["event"]["id"] for d in lines(outs[1])}
    # The file of the history alone says as much; without it all is new.
    night(telemetry, fleet_model, tmp_path / "file", 1, history=outs[0] / "history.parquet")
    assert ids(tmp_path / "file") == ids(outs[1])
    night(telemetry, fleet_model, tmp_path / "alone", 1)
    assert set(ids(tmp_path / "alone").values()) == {"new"}


@pytest.mark.parametrize("what", ["text", "pipe", "directory", "dangling"])
def test_damaged_cases_of_the_night_before_are_named_before_the_work(telemetry, fleet_model, tmp_path, what):
    night(telemetry, fleet_model, tmp_path / "a", 0)
    file = tmp_path / "a" / "cases.parquet"
    file.unlink()
    make = {"text": lambda: file.write_text("x"), "pipe": lambda: os.mkfifo(file), "directory": file.mkdir}
    make.get(what, lambda: file.symlink_to("nowhere"))()
    with pytest.raises(TelemetryError, match=r"/a/cases\.parquet is unreadable"):
        night(telemetry, fleet_model, tmp_path / "b", 1, history=tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("text", ["tomorrow", "-5", "1e9", "²", "9" * 12])
def test_a_time_of_making_that_is_none_is_refused_before_the_work(
    telemetry, fleet_model, tmp_path, monkeypatch, text
):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(AppcadenceError, match=r"SOURCE_DATE_EPOCH is .*seconds since 1970"):
        night(telemetry, fleet_model, tmp_path / "a", 0)
    assert not (tmp_path / "a").exists()


def test_exceptions_put_on_later_keep_the_state(telemetry, fleet_model, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1772900000")
    night(telemetry, fleet_model, tmp_path / "a", 0)
    night(telemetry, fleet_model, tmp_path / "b", 1, history=tmp_path / "a")
    before = ids(tmp_path / "b"), lines(tmp_path / "b")
    (tmp_path / "e.toml").write_text(EXCEPTION)
    run, _ = reapply(tmp_path / "b", tmp_path / "e.toml")
    rows = read_cases(tmp_path / "b" / "cases.parquet").to_pylist()
    assert not [r for r in rows if r["app_id"] == "com.chat"]  # neither alerting nor called quiet
    assert sum(run.cases.values()) == len(rows) < len(before[0])
    reapply(tmp_path / "b", None)
    assert (ids(tmp_path / "b"), lines(tmp_path / "b")) == before


def test_facts_are_those_of_the_flows(telemetry, fleet_model, tmp_path):
    """The obvious twin: every number of a summary counted again from the raw rows."""
    night(telemetry, fleet_model, tmp_path / "out", 0)
    raw = pq.read_table(telemetry / "flows.parquet").to_pandas()
    raw = raw[(raw["start"] < pd.Timestamp(DAY0 + 5 * 86400, unit="s", tz="UTC")) & (raw["service"] != "dns")]
    use = pq.read_table(telemetry / "activity.parquet").to_pandas()
    facts = pq.read_table(tmp_path / "out" / "window_facts.parquet").to_pandas()
    assert len(facts) > 3 and "c2.example" in set(facts["dest"])
    for fact in facts.itertuples():
        app = raw["app_id"].isna() if pd.isna(fact.app_id) else raw["app_id"] == fact.app_id
        rows = raw[(raw["device_id"] == fact.device_id) & app]
        rows = rows if fact.dest == "*" else rows[rows["dest_host"].fillna(rows["dest_ip"]) == fact.dest]
        rows = rows.sort_values("start")
        end = rows["start"] + pd.to_timedelta(rows["duration_seconds"].fillna(0.0), unit="s")
        last = min(end.max(), fact.window_start + pd.Timedelta(1, "D"))
        assert fact.n_started == len(rows)
        assert fact.n_failed == (rows["outcome"] == "failed").sum()
        for mine, theirs in ((fact.first_time, rows["start"].min()), (fact.last_time, last)):
            assert abs(mine - theirs) <= pd.Timedelta(1, "us")
        assert fact.bytes_out == rows["bytes_out"].sum() and fact.bytes_in == rows["bytes_in"].sum()
        uids = rows["source_uid"].tolist()
        kept = {int(np.argmax(rows["duration_seconds"].fillna(0.0))), len(uids) - 1}
        kept |= {*[n for n in range(len(uids)) if n not in kept][: 5 - len(kept)]}
        assert list(fact.record_ids) == [uids[n] for n in sorted(kept)]
        if fact.device_id == "phone-03":
            inside = [((use["start"] <= t) & (t < use["end"])).any() for t in rows["start"]]
            assert fact.n_unused == len(rows) - sum(inside)
        else:
            assert pd.isna(fact.n_unused)
        if fact.dest == "c2.example":
            assert fact.gap_seconds == 300.0 and fact.gap_share == 1.0 and fact.other_devices == 0
            assert list(fact.ports) == [443] and 0 < fact.n_unused < 288
            (row,) = [r for r in read_cases(tmp_path / "out" / "cases.parquet").to_pylist() if r["case"] == 1]
            # The app's window over all destinations alerts, too, and holds those connections.
            same = facts[["device_id", "app_id", "window_start"]].eq(
                [fact.device_id, fact.app_id, fact.window_start]
            )
            (whole,) = facts[(facts["dest"] == "*") & same.all(axis=1)].itertuples()
            assert whole.n_started > 288
            many, share = whole.n_started, round(100 * whole.n_unused / whole.n_started)
            hours = (whole.last_time - whole.first_time) / pd.Timedelta(1, "h")
            said = f"{many} connections in {hours:.1f} h; 288 of them, mostly every 5.0 min, went to c2."
            assert row["summary"].startswith(said)
            assert row["summary"].endswith(f"; the phone was locked when {share}% of the connections began.")
