"""Whom to ask: by the inventory's newest word, and an exception's owner before anybody else."""

import json

import numpy as np
import pandas as pd
import pytest
from make import flows, inventory, together
from pushed_fleet import scored
from two_rhythms import DAY, telemetry
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import TelemetryError
from appcadence.features.build import build
from appcadence.findings import Finding
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.triage.next_steps import contact, contain, explained, identity
from appcadence.triage.output import reapply
from appcadence.triage.report.page import write_report
from appcadence.triage.report_data import Output, Window, as_rows, no_alert
from appcadence.triage.window_facts import INVENTORY_COLUMNS, context

EXCEPTION = """
[[exception]]
id = "sync"
owner = "Device <management>"
reason = "Known"
business_justification = "Sync"
created = 2026-01-01
expires = 2026-03-02
app_id = "com.apple.cloudd"
"""


@pytest.fixture(scope="module")
def pushed(simulated_model, tmp_path_factory):
    return scored(simulated_model, tmp_path_factory.mktemp("pushed") / "out")


def asked(rows, app_id="com.a", dest="a.example", **more):
    """The window of one device, app and destination, and what is known of the app."""
    windows = build({"flows": flows(np.arange(0, 86_400, 600.0), "d1", app_id, dest)}, 86_400)
    wanted = pd.DataFrame({"device_id": ["d1"], "app_id": [app_id], "dest": [dest]})
    wanted["window_start"] = pd.to_datetime(windows.start_us[:1], unit="us", utc=True)
    (known,) = as_rows(context(windows, inventory(*rows).select(INVENTORY_COLUMNS), wanted))
    row = {"device_id": "d1", "app_id": app_id, "dest": dest, "behaviours": [], "alert": True}
    return Window(row | more, [], [], {}, known, None, None, [])


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ({"managed": True, "approved": False}, "the owner of the managed app A in device management"),
        ({"managed": False, "approved": True}, "the user of d1 what they use A (not managed) for"),
        ({"approved": True}, "the user of d1 what they use A for"),
        ({"managed": False}, "the user of d1 what they use A (not managed) for"),
        ({"managed": False, "approved": False}, "the user of d1 what they use A (not approved) for"),
        ({}, "the user of d1 what they use A for"),
    ],
)
def test_who_answers_for_an_app(profile, sentence):
    window = asked([{"app_id": "com.a", "app_name": "A"} | profile])
    assert contact(window).startswith(f"Ask {sentence}") and contact(window).endswith(".")


def test_unknown_apps_and_apps_outside_of_the_inventory():
    others = [{"app_id": "com.b", "expected_hosts": ["*.Example", "b.test"]}]
    unknown = asked(others, None)
    said = "Ask the user of d1 about com.b, which alone declares a.example; the telemetry names no app."
    assert contact(unknown) == said
    assert contact(asked([], None)).startswith(
        "Ask the user of d1 whether they know a.example, and which apps"
    )
    of_ios = [{"app_id": "com.apple.cloudd", "expected_hosts": ["a.example"]}]
    assert contact(asked(of_ios, None)).startswith("See whether it is iOS itself: com.apple.cloudd, a part")
    assert identity(unknown.context) == ""
    missing = asked(others)
    assert contact(missing).startswith(
        "Ask the user of d1 what they use com.a (not in the inventory) for, and"
    )
    both = [*others, {"app_id": "com.c", "expected_hosts": ["a.example"]}]
    assert "declares" not in contact(asked(both)) and "declares" not in contact(asked(others, dest="c.test"))
    own = asked([{"app_id": "com.a", "expected_hosts": ["a.example"]}])
    assert own.context["declared_by"] == "com.a" and "declares" not in contact(own)
    assert "contact its destinations." in contact(asked([{"app_id": "com.a", "managed": True}], dest="*"))
    old = Window(own.row, [], [], {}, {}, None, None, [])
    assert contact(old) == "Ask the user of d1 what they use com.a for, and whether they know a.example."


def test_nobody_is_asked_whether_they_know_an_address():
    bare, used = asked([], None, "203.0.113.9"), "which apps they used then; the telemetry names no app."
    looked_up = "Look up who runs 203.0.113.9 (WHOIS, passive DNS), then ask the user of d1"
    assert contact(bare) == f"{looked_up} {used}"
    assert contact(asked([{"app_id": "com.b"}], dest="203.0.113.9")) == (
        f"{looked_up} what they use com.a (not in the inventory) for."
    )


def test_what_is_asked_is_what_the_window_shows_most():
    managed = [{"app_id": "com.a", "managed": True}]
    p = {"structured_cadence": 0.04, "session_persistence": 0.001, "notification_burst": 0.01}
    parts = {name: {"score": 1.0, "p_value": value} for name, value in p.items()}
    for shown, does in (
        (["structured_cadence"], "contact a.example on a steady beat."),
        (["structured_cadence", "notification_burst"], "answer pushes with traffic to a.example."),
        ([*p], "stay connected to a.example for so long."),
        ([], "contact a.example."),
    ):
        assert contact(asked(managed, behaviours=shown, **parts)).endswith(f"meant to {does}")


def a_case(dests=(("c2.example", 0),), app_id="com.a", kind="app", devices=40, **facts):
    """A case whose destinations alert, each met by so many other devices."""
    told = {
        "dest": dests[0][0],
        "destinations": len(dests),
        "connections": 3,
        "seconds": 60.0,
        "devices": devices,
    }
    told |= {
        "gap_seconds": None,
        "gap_share": None,
        "longest_seconds": 1.0,
        "answered": None,
        "by_chance": None,
    }
    places = [{"dest": dest, "alert": True, "other_devices": n} for dest, n in dests]
    case = {"kind": kind, "app_id": app_id, "device_ids": ["d1"], "destinations": places, "behaviours": []}
    return case | {"record_ids": [], "findings": [Finding("case", told | facts)]}


def test_evidence_is_kept_before_anything_is_done():
    for case in (a_case(), a_case(app_id=None, kind="destination"), a_case(kind="fleet_destination")):
        assert contain(case, {})[0].startswith("First keep the evidence, before anything is changed: ")


def test_only_what_few_devices_contact_is_blocked_and_nothing_of_apple():
    def blocked(*dests, **more):
        return [text for text in contain(a_case(dests, **more), {}) if text.startswith("Block")]

    assert not blocked(("cdn.example", 33)) and not blocked(("x.example", None)) and not blocked(("*", 0))
    for host in ("gateway.icloud.com", "gs-loc.apple.com", "updates.cdn-apple.com", "17.57.144.9"):
        assert not blocked((host, 0))
    (said,) = blocked(("c2.example", 2), ("cdn.example", 3), ("notapple.com", 0))
    assert said.startswith("Block c2.example, notapple.com for d1 at the DNS filter or VPN. ")
    assert "not on cellular" in said
    assert blocked(("c2.example", 5), devices=100) and not blocked(("c2.example", 6), devices=100)
    assert blocked(("old.example", None), other_devices=1)
    host, address = blocked(("c2.example", 0), ("203.0.113.9", 0))
    assert "203.0.113.9" not in host and "DNS" not in address
    assert address.startswith("Block 203.0.113.9 for d1 at the firewall or VPN.")


def test_a_part_of_ios_is_neither_removed_nor_somebodys_choice():
    case = a_case((("gateway.icloud.com", 0),), "com.apple.cloudd")
    _, said = contain(case, {})
    assert said.startswith("com.apple.cloudd is part of iOS and cannot be removed: ")
    assert contact(asked([], "com.apple.cloudd")).startswith("com.apple.cloudd is part of iOS, which nobody")


@pytest.mark.parametrize(
    ("modes", "stays", "calls"),
    [
        (["voip", "fetch"], "but not its calls, which", "call pushes (PushKit) still wake it."),
        (["remote-notification"], "but not calls, audio, location, Bluetooth, VPN", ""),
        (["location", "audio"], "but not its audio, location updates, which", ""),
        (None, "but not calls, audio, location, Bluetooth, VPN", "still wake it, if it takes any."),
    ],
)
def test_what_the_switches_of_the_phone_stop_depends_on_declared_modes(modes, stays, calls):
    case = a_case(answered=9, by_chance=0.0)
    known = asked([{"app_id": "com.a", "background_modes": modes}]).context
    said = contain(case, known)
    (refresh,) = [text for text in said if "Background App Refresh" in text]
    (pushes,) = [text for text in said if "notifications" in text]
    assert stays in refresh and pushes.endswith(calls) and ("PushKit" in pushes) == bool(calls)
    assert not [text for text in said if "no push" in text]
    assert any("permission for location" in text for text in said) == ("location" in (modes or ()))
    assert not [text for text in contain(a_case(), known) if "notifications" in text]


def test_device_management_removes_what_it_manages_alone():
    last = {managed: contain(a_case(), {"managed": managed})[-1] for managed in (True, False, None)}
    assert last[True] == "If it is not wanted, remove com.a in device management, which installed it."
    assert last[False].startswith("If it is not wanted, let the user delete com.a: ")
    assert (
        "supervised" in last[False] and "supervised" in last[None] and contain(a_case(), {})[-1] == last[None]
    )


def test_the_app_privacy_report_tells_nothing_from_before_it_was_on():
    (said,) = [
        text for text in contain(a_case(app_id=None, kind="destination"), {}) if "Privacy Report" in text
    ]
    assert "only if it was already on" in said and "last 7 days" in said and "sysdiagnose" in said


def test_what_is_asked_is_what_the_case_says_happened():
    """Nine answered pushes and sessions of seconds are not a long connection, whatever p-value says so."""
    shown = {"session_persistence": {"score": 1.0, "p_value": 0.001}}
    window = asked([{"app_id": "com.a", "managed": True}], behaviours=["session_persistence"], **shown)
    pushes = {"answered": 9, "by_chance": 0.0}
    assert contact(window, a_case(**pushes)).endswith("answer pushes with traffic to a.example.")
    assert contact(window, a_case(longest_seconds=9000.0)).endswith("connected to a.example for so long.")
    assert contact(window, a_case(longest_seconds=9000.0, **pushes)).endswith("for so long.")
    assert contact(window, a_case()).endswith("meant to contact a.example.")


def test_nothing_is_usual_for_an_unknown_app():
    row = {"explained_by": ["usual_for_app", "known_to_fleet"]}
    assert explained(row | {"app_id": "com.a"}) == ["usual for this app", "known to the fleet"]
    assert explained(row | {"app_id": None}) == ["known to the fleet"]
    assert explained({"app_id": None, "explained_by": None}) == []


def test_the_newest_profile_of_the_device_goes_before_that_of_the_fleet():
    fleet = {"app_id": "com.a", "managed": False, "declared_purpose": "fleet"}
    late = {"snapshot_time": 9.0, "declared_purpose": "late"}
    own = {"app_id": "com.a", "device_id": "d1", "managed": True, "declared_purpose": "own"}
    other = {"app_id": "com.a", "device_id": "d2", "snapshot_time": 99.0, "declared_purpose": "other"}
    assert asked([fleet | late, fleet, other]).context["declared_purpose"] == "late"
    assert asked([fleet | late, own]).context["declared_purpose"] == "own"
    assert asked([own | late, own]).context["declared_purpose"] == "late"
    told = identity(asked([own | {"app_name": "A", "approved": False}]).context)
    assert told == "App in the inventory: A, managed, not approved. Declared purpose: own."
    assert identity(asked([{"app_id": "com.a"}]).context) == "No declared purpose."


def test_the_owner_of_an_exception_that_does_not_hold_is_asked_first(pushed, tmp_path):
    file = tmp_path / "exceptions.toml"
    file.write_text(EXCEPTION)
    before = (pushed.out / "context.parquet").read_bytes()
    run, (use,) = reapply(pushed.out, file)
    try:
        # The second of the two days is not covered any more; the first is.
        assert use.covered and run.excepted == use.covered
        assert (pushed.out / "context.parquet").read_bytes() == before
        late = [w for w in pushed.windows() if w.failed]
        assert late and {w.failed for w in late} == {("sync", "Device <management>")}
        assert {w.row["app_id"] for w in late} == {"com.apple.cloudd"} and all(w.row["alert"] for w in late)
        said = "Exception sync does not hold: expired on 2026-03-02."
        assert all(w.row["reasons"][-1] == said for w in late)
        ask = "Ask Device <management>, the owner of exception sync, which does not hold here."
        assert {contact(w) for w in late} == {ask}
        command = ["explain", str(pushed.out), "--rank", str(late[0].row["rank"])]
        assert ask in " ".join(CliRunner().invoke(app, command).output.split())
        facts = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
        assert facts["ask"] == ask and facts["app"]["declared_purpose"] == "iCloud"
        write_report(pushed.out, tmp_path / "report.html", top=200)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert ask.replace("<", "&lt;").replace(">", "&gt;") in page and "Device <management>" not in page
        assert "sync (Device &lt;management&gt;)" in page
        (pushed.out / "exceptions.parquet").unlink()
        assert "Ask the owner of exception sync, which" in contact(
            next(w for w in pushed.windows() if w.failed)
        )
    finally:
        reapply(pushed.out, None)
    assert not [w for w in pushed.windows() if w.failed] and not Output(pushed.out).owners()
    assert not [w for w in pushed.windows() if any(r.startswith("Exception ") for r in w.row["reasons"])]


@pytest.mark.parametrize("name", ["context.parquet", "exceptions.parquet"])
def test_an_output_without_them_is_shown_and_a_damaged_one_is_one_sentence(pushed, tmp_path, name):
    whole = (pushed.out / name).read_bytes()
    (pushed.out / name).unlink()
    try:
        write_report(pushed.out, tmp_path / "report.html")
        (pushed.out / name).write_bytes(b"\xff\x00not this")
        with pytest.raises(TelemetryError, match="appcadence score"):
            write_report(pushed.out, tmp_path / "other.html")
        (pushed.out / name).write_bytes((pushed.out / "activity.parquet").read_bytes())
        with pytest.raises(TelemetryError, match="appcadence score"):
            write_report(pushed.out, tmp_path / "other.html")
    finally:
        (pushed.out / name).write_bytes(whole)


def test_cadence_alone_with_few_beats_says_why_it_raises_no_alert(fleet_model, tmp_path):
    beats = flows(5 * DAY + 1200.0 * np.arange(9), "phone-03", "com.weather", "few.example", np.nan)
    tables = {"flows": together(telemetry()["flows"], beats)}
    score_directory(tables, Scorer.load(fleet_model), tmp_path / "out")
    rows = as_rows(Output(tmp_path / "out").scores([("dest", "=", "few.example")]))
    (row,) = rows
    assert row["behaviours"] == ["structured_cadence"] and row["score"] > 0 and not row["alert"]
    said = "No alert: cadence alone, with under 12 beats, never raises one, whatever its score."
    command = ["explain", str(tmp_path / "out"), "--rank", str(row["rank"])]
    shown = " ".join(CliRunner().invoke(app, command).output.split())
    assert said in shown and "Ask " not in shown
    write_report(tmp_path / "out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said.partition(": ")[2][1:] in page[page.index('id="silent"') :]
    steady = {"n_beats": 12, "score": 0.5}
    for other in (row | steady, row | steady | {"behaviours": []}, row | {"score": 9.0, "behaviours": []}):
        assert no_alert(other, {}).code == "below_threshold"
    limits = {"HTTPSCadenceAnomalyThreshold": 0.01}
    assert no_alert(row | {"behaviours": [], "score": -3.0}, limits).code == "no_behaviour_stands_out"
    assert (
        no_alert(row | {"behaviours": []}, {"NotificationWakeFrequencyThreshold": 0.01}).code
        == "below_threshold"
    )
    assert no_alert(row | steady | {"behaviours": ["session_persistence"]}, limits).code == "below_threshold"
    assert no_alert(row | {"alert": True}, {}) is no_alert(row | {"status": "excepted"}, {}) is None
