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
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.triage.next_steps import contact, identity
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
        ({"managed": False, "approved": True}, "the owner of the approved app A in device management"),
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
    told = "a.example (which com.b alone declares)"
    assert contact(unknown) == f"Ask whoever runs the telemetry which app of d1 contacts {told}."
    assert identity(unknown.context) == ""
    missing = asked(others)
    assert contact(missing).startswith(
        "Ask the user of d1 what they use com.a (not in the inventory) for, and"
    )
    both = [*others, {"app_id": "com.c", "expected_hosts": ["a.example"]}]
    assert "declares" not in contact(asked(both)) and "declares" not in contact(asked(others, dest="c.test"))
    own = asked([{"app_id": "com.a", "expected_hosts": ["a.example"]}])
    assert own.context["declared_by"] == "com.a" and "declares" not in contact(own)
    assert contact(asked(others, None, "*")).endswith("contacts its destinations.")
    old = Window(own.row, [], [], {}, {}, None, None, [])
    assert contact(old) == "Ask the user of d1 what they use com.a for, and whether they know a.example."


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
    said = "No alert: cadence alone with under 12 beats raises none, whatever its score."
    command = ["explain", str(tmp_path / "out"), "--rank", str(row["rank"])]
    shown = " ".join(CliRunner().invoke(app, command).output.split())
    assert said in shown and "Ask " not in shown
    write_report(tmp_path / "out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert said.partition(": ")[2][1:] in page[page.index('id="silent"') :]
    others = [row | {"n_beats": 12}, row | {"alert": True}, row | {"status": "excepted"}]
    others += [row | {"behaviours": ["structured_cadence", "session_persistence"]}]
    assert [getattr(no_alert(other, 1.0), "code", None) for other in others] == [
        *("no_behaviour_stands_out", None, None, "no_behaviour_stands_out")
    ]
    assert no_alert(row | {"n_beats": 12, "score": -0.5}, 1.0).code == "below_threshold"
