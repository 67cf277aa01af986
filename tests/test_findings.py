"""Findings: declared once, worded in one catalogue, and never parsed from their wording."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, fleet, flows, together

from appcadence import findings
from appcadence.features.catalog import FEATURES
from appcadence.findings import CATALOGUE, Finding, arrow, codes_of, of_kind
from appcadence.models import weekly
from appcadence.models.experts import EXPERTS
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.training.injection import past_and_future
from appcadence.triage.audit_log import append
from appcadence.triage.audit_report import report, run_facts
from appcadence.triage.output import reapply
from appcadence.triage.report.page import write_report

EXAMPLES = {
    "case": {
        **{"dest": "c2.example", "destinations": 1, "own_log": False, "connections": 784, "failed": 784},
        **{"seconds": 82_800.0, "gap_seconds": 105.0, "gap_share": 0.9, "longest_seconds": 0.0, "cut": False},
        **{"bytes_out": 0, "bytes_in": 0, "unused": 753, "pushes": 12, "answered": 1, "by_chance": 1.5},
        **{
            "other_devices": 0,
            "devices": 40,
            "port": 4444,
            "more_ports": False,
            "dest_connections": None,
            "dest_seconds": None,
            "held_destinations": 0,
            "more_to_dest": False,
            "windows": None,
        },
    },
    "expert": {"expert": "volume_of_new", "feature": "beats_per_hour", "value": 2.0, "one_in": 350},
    "weekly_expert": {"expert": "rise_of_new", "contacts": 9, "rate": 1.5, "usual": 0.1, "one_in": 20},
    "user_started": {"user_contacts": 8, "of": 9},
    "known_owner": {"owner": "Example"},
    "accessed": {"category": "microphone", "times": 14, "unattended": 3},
    "short_reports": {"reports": 1},
    "unusual_feature": {"feature": FEATURES[0].name, "value": 1.0, "expected": None},
    "device_unusual": {"lowered_by": 2.5},
    "exception_period": {"exception": "mail", "period_seconds": 300.0, "min_period_seconds": 900.0},
    "exception_volume": {"exception": "mail", "bytes_per_day": None, "max_bytes_per_day": 1e9},
    "exception_hours": {"exception": "mail", "hour": 6, "from_hour": 22, "to_hour": 6},
    "exception_expired": {"exception": "mail", "expires": "2026-03-01"},
    "cadence_alone": {"min_beats": 12},
    "unattributed_windows": {"windows": 1, "of": 4},
    "devices_without_activity": {"devices": 1, "of": 4},
    "devices_without_pushes": {"devices": 1, "of": 4},
    "threshold_out_of_reach": {
        "threshold": "SessionPersistenceThreshold",
        "behaviour": "session_persistence",
        "p_value": 0.001,
        "min_p_value": 0.01,
    },
    "fleet_event": {
        "kind": "app",
        "name": "a",
        "devices": 5,
        "alerting_devices": 0,
        "first_seen": "2026-03-02T00:00:00+00:00",
    },
    "local_destinations": {"windows": 2, "of": 9},
    "shared_processes": {"windows": 2, "of": 9},
    "push_connections": {"windows": 2, "of": 9},
    "private_relay": {"devices": 2, "of": 9},
    "dns_channel": {"device": "d1", "dest": "203.0.113.9", "lookups": 11793, "other_flows": 1109},
    "lookups_only": {"devices": 2, "of": 9},
    "new_names": {"device": "d1", "names": 100000, "hour": "2025-03-01 09:00 UTC"},
    "identity_changed": {"renamed": 3, "nameless": 0, "of": 9},
}
EXCEPTIONS = """
[[exception]]
id = "chat"
owner = "Chat team"
reason = "Known"
business_justification = "Chat"
created = 2026-01-01
expires = 2027-01-01
app_id = "com.chat"
min_period_seconds = 900

[[exception]]
id = "mail"
owner = "Mail team"
reason = "Known"
business_justification = "Mail"
created = 2026-01-01
expires = 2027-01-01
app_id = "com.mail"
"""


@pytest.mark.parametrize("expert", weekly.EXPERTS)
def test_every_weekly_expert_is_worded(expert):
    assert "20" in Finding("weekly_expert", EXAMPLES["weekly_expert"] | {"expert": expert}).text


def example(code):
    return Finding(code, EXAMPLES.get(code, {}))


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_statement_is_worded_and_survives_storage(code):
    finding = example(code)
    assert finding.text and finding.sentence[0] == finding.sentence[0].upper()
    assert CATALOGUE[code].label in finding.text
    assert Finding.from_dict(finding.as_dict()) == finding
    (stored,) = arrow([finding]).to_pylist()
    assert Finding.from_dict(stored) == finding
    assert Finding.from_dict(json.loads(json.dumps(finding.as_dict()))) == finding
    assert code in codes_of(finding.kind).to_pylist() and of_kind([finding], finding.kind) == [finding]


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"code": "unheard_of", "parameters": {}},
        {"code": "exception_expired", "parameters": {}},
        {"code": "exception_expired", "parameters": "[1]"},
        {"code": "cadence_alone", "parameters": "{"},
        {"code": "exception_period", "parameters": EXAMPLES["exception_period"] | {"period_seconds": "x"}},
        {"code": "unusual_feature", "parameters": EXAMPLES["unusual_feature"] | {"feature": "none"}},
        {"code": ["list"], "parameters": {}},
        "a sentence of an older version",
        None,
    ],
)
def test_what_is_no_finding_is_refused(damaged):
    with pytest.raises(ValueError, match="no finding"):
        Finding.from_dict(damaged)


def test_the_page_names_every_code_and_no_other():
    page = (Path(__file__).resolve().parents[1] / "docs" / "findings.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    named = {code: row for row in rows for code in re.findall("`([a-z_0-9]+)`", row[1])}
    assert set(named) == set(CATALOGUE)
    for code, row in named.items():
        assert set(EXAMPLES.get(code, {})) == set(re.findall("`([a-z_]+)`", row[3])), code


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_findings_that_differ_in_numbers_share_their_subject(one, other):
    facts = EXAMPLES["exception_period"]
    first, second = (Finding("exception_period", facts | {"period_seconds": p}) for p in (one, other))
    assert first.subject == second.subject == ("exception_period", "mail")
    assert Finding("exception_period", facts | {"exception": "chat"}).subject != first.subject


@pytest.fixture(scope="module")
def place(fleet_model, tmp_path_factory):
    """Two days with beacons, some of them under exceptions, and a model."""
    path = tmp_path_factory.mktemp("findings")
    tables = fleet(devices=6, days=6)
    after = past_and_future(tables, (DAY0 + 4 * 86400) * 1_000_000)[1]
    start = [4 * 86400 + 300.0 * i for i in range(500)]
    met = [flows(start[::5], f"phone-0{i}", "com.social", "new.example", 0.5) for i in range(5)]
    beacons = [
        flows(start, "phone-05", app, f"{app}.example", 0.5, 310, 180)
        for app in ("com.chat", "com.mail", None)
        if app
    ]
    later = after | {"flows": together(after["flows"], *beacons, *met)}
    (path / "exceptions.toml").write_text(EXCEPTIONS)
    return path, Scorer.load(fleet_model), later


def outcome(place, name):
    """All that a run decides, without its words."""
    path, scorer, tables = place
    out = path / name
    score_directory(tables, scorer, out, exceptions=path / "exceptions.toml", alerts_per_device_day=3.0)
    first = structure(out)
    reapply(out, None)
    facts = run_facts(out, model="m", exceptions=["chat", "mail"])
    append(path / f"{name}.jsonl", "run", facts, tables["flows"]["start"][0].as_py())
    reapply(out, path / "exceptions.toml")
    days = [tables["flows"]["start"][0].as_py().date()] * 2
    weeks = report(path / f"{name}.jsonl", *days).as_dict()["weeks"]
    spots = [[(s["code"], s["parameters"], s["runs"]) for s in week.pop("blind_spots")] for week in weeks]
    return first, structure(out), weeks, spots


def structure(out):
    scores = pq.read_table(out / "scores.parquet")
    words = ("reasons", "unchecked")
    alerts = [json.loads(line) for line in (out / "alerts.ecs.jsonl").read_text().splitlines()]
    for alert in alerts:
        alert["event"].pop("reason", None)
        alert["appcadence"] = {k: v for k, v in alert["appcadence"].items() if k not in words} | {
            name: len(alert["appcadence"].get(name, ())) for name in words
        }
    write_report(out, out.with_suffix(".html"))
    page = _Tags()
    page.feed(out.with_suffix(".html").read_text())
    return scores.drop_columns(["reasons"]), alerts, page.tags


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, sorted(value for name, value in attrs if name in ("class", "id") and value)))


def test_nothing_hangs_on_the_wording(place, monkeypatch):
    """With nonsense for every sentence, alerts, exceptions, audit and report come out the same."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1772900000")
    told = outcome(place, "told")
    with monkeypatch.context() as patched:
        nonsense = {
            code: replace(statement, word=lambda p: "Exception Blind spot: Fleet event 17", label="Zw")
            for code, statement in CATALOGUE.items()
        }
        patched.setattr(findings, "CATALOGUE", nonsense)
        mute = outcome(place, "mute")
        sentences = pq.read_table(place[0] / "mute" / "scores.parquet", columns=["reasons"])
        assert {text for texts in sentences["reasons"].to_pylist() for text in texts} == {
            "Zw: Exception Blind spot: Fleet event 17"
        }
    for one, other in zip(told[:2], mute[:2], strict=True):
        assert one[0].equals(other[0])
        assert one[1] == other[1] and one[1]
        assert one[2] == other[2]
    assert told[2:] == mute[2:]
    codes = {f["code"] for row in told[0][0]["findings"].to_pylist() for f in row}
    assert {"unusual_feature", "exception_period", "presence_unknown"} <= codes
    assert any(told[3]) and set(told[0][0]["status"].to_pylist()) >= {"scored", "excepted", "fleet_event"}


def test_every_expert_has_words():
    for expert in EXPERTS:
        for name in (*expert.shown, None):
            facts = {"feature": name, "value": None if name is None else 3.0}
            said = Finding("expert", {"expert": expert.name, **facts, "one_in": 1234}).text
            assert said.endswith(": one benign window in 1,234 shows as much.") and "nan" not in said
            assert ("3" in said.rpartition(":")[0]) is (name is not None)


def test_a_session_is_said_to_be_measured_in_one_window():
    feature = {"feature": "longest_session_seconds", "value": 5532.0, "expected": 60.0}
    said = Finding("unusual_feature", feature).text
    assert said == "Longest session within one window: 92.2 min; usual here 60.0 s."
    said = Finding("expert", feature | {"expert": "persistence_of_new", "one_in": 9}).text
    assert "(longest session within one window: 92.2 min)" in said


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"connections": 0, "seconds": 25920.0, "cut": True},
            "A connection that had begun before, for 7.2 h or",
        ),
        ({"connections": 1, "seconds": 21600.0}, "1 connection, for 6.0 h, to"),
        ({"connections": 1, "seconds": 21600.0, "cut": True}, "1 connection, for 6.0 h or longer, to"),
        (
            {"connections": 1, "seconds": 30000.0},
            "1 connection in 8.3 h, in contact for up to 6.0 h at a time, to",
        ),
        (
            {"connections": 9, "seconds": 30000.0},
            "9 connections in 8.3 h, in contact for up to 6.0 h at a time, to",
        ),
        (
            {"connections": 9, "seconds": 30000.0, "cut": True},
            "9 connections in 8.3 h, in contact for 6.0 h or longer at a time",
        ),
        (
            {"dest_connections": 3, "dest_seconds": 60.0, "longest_seconds": 9.0},
            "; 3 of them went to c2.example (port",
        ),
        (
            {"dest_connections": 3, "dest_seconds": 3e4},
            "; 3 of them, in contact for up to 6.0 h at a time, went to c2.example",
        ),
        (
            {"dest_connections": 0, "dest_seconds": 9.0},
            "; one that had begun before went to c2.example (port 4444)",
        ),
        (
            {"dest_connections": 3, "dest_seconds": 9.0, "unused": 784},
            "locked when all of the connections began.",
        ),
        ({"dest_connections": 784, "dest_seconds": 82_800.0, "unused": 784}, "at a time, to c2.example"),
        (
            {"dest_connections": 784, "dest_seconds": 82_800.0, "unused": 784},
            "locked when all of them began.",
        ),
        ({"connections": 9, "port": None}, " to c2.example, which no other device"),
        ({"more_ports": True}, " to c2.example (port 4444 and others), which no other device"),
        ({"dest_connections": 1, "dest_seconds": 21600.0}, "; one of them, for 6.0 h, went to c2.example"),
        ({"answered": 9}, "; a session promptly followed 9 of 12 pushes (1.5 by chance)."),
        (
            {"connections": 24, "dest_connections": 1, "dest_seconds": 1800.0, "windows": 3}
            | {"seconds": 336_960.0, "more_to_dest": True, "longest_seconds": 1800.0},
            "24 connections in 3 alerting windows over 3.9 d; some of them, in contact for 30.0 min or "
            "longer at a time, went to c2.example (port 4444)",
        ),
        (
            {"connections": 90, "dest_connections": 36, "dest_seconds": 9e4, "more_to_dest": True}
            | {"gap_seconds": 600.0, "gap_share": 0.9, "longest_seconds": 9.0},
            "90 connections in 23.0 h; some of them, mostly every 10.0 min, went to c2.example",
        ),
        (
            {"dest_connections": 0, "dest_seconds": 9.0, "more_to_dest": True},
            "; one that had begun before went to c2.example (port 4444)",
        ),
        (
            {"connections": 9, "windows": 2, "seconds": None, "gap_share": None},
            "9 connections in 2 alerting windows, in contact",
        ),
        ({"dest": None, "destinations": 1, "held_destinations": 2}, ", to 1 destination and 2 under except"),
        ({"dest": None, "destinations": 3, "held_destinations": 1}, ", to 3 destinations and 1 under except"),
        ({"dest": None, "destinations": 1}, ", to 1 destination."),
        ({"dest": None, "destinations": 3}, ", to 3 destinations together."),
        ({"answered": 9, "by_chance": 0.0}, " 9 of 12 pushes (0 by chance)."),
        ({"devices": 2, "other_devices": 1}, "(port 4444), which the only other device contacted."),
        ({"devices": 2, "other_devices": 0}, "(port 4444), which no other device contacted."),
        ({"connections": 999, "unused": 998}, "locked when 99% of them began."),
        ({"connections": 999, "unused": 999}, "locked when all of them began."),
    ],
)
def test_a_case_claims_no_more_than_was_seen(facts, said):
    usual = {"failed": 0, "unused": None, "gap_seconds": None, "longest_seconds": 21600.0}
    assert said in Finding("case", EXAMPLES["case"] | usual | facts).sentence
