"""A C2 host is found on as many devices as it is on, and is one item where it is on many."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from make import DAY0, fleet, flows, together

from appcadence.cli.score import print_run
from appcadence.models.fleet_events import MIN_DEVICES
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.serving.run import Run
from appcadence.telemetry.listing import listed
from appcadence.telemetry.verdicts import Draft
from appcadence.training.injection import past_and_future
from appcadence.triage.case_state import CASES_FILE, read_cases
from appcadence.triage.explain import case_lines, case_of
from appcadence.triage.output import reapply
from appcadence.triage.report.page import write_report
from appcadence.triage.verdicts import placed

EXCEPTION = """
[[exception]]
id = "c2"
owner = "Nobody"
reason = "Known"
business_justification = "Test"
created = 2026-01-01
expires = 2027-01-01
destination = "c2.example"
behaviours = ["structured_cadence", "session_persistence", "notification_burst"]
"""


@pytest.fixture(scope="module")
def scorer(fleet_model):
    return Scorer.load(fleet_model)


def scored(scorer, out, devices):
    """The output of a later day on which so many of ten devices beacon to the same new host."""
    tables = fleet(devices=10, days=5, seed=9)
    day = past_and_future(tables, (DAY0 + 4 * 86400) * 1_000_000)[1]["flows"]
    beats = 4 * 86400 + np.arange(0, 86400, 300.0)
    c2 = [flows(beats + 9 * k, f"phone-{k:02d}", None, "c2.example", 0.5, 310, 180) for k in range(devices)]
    score_directory({"flows": together(day, *c2)}, scorer, out)
    scores = pq.read_table(out / "scores.parquet").to_pandas()
    return scores[scores["dest"] == "c2.example"]


def lines(out):
    """The alerts on the host, as the SIEM gets them."""
    alerts = map(json.loads, (out / "alerts.ecs.jsonl").read_text().splitlines())
    return [a for a in alerts if "c2.example" in a["related"]["hosts"]]


@pytest.mark.parametrize("devices", [3, 4, 10])
def test_the_same_host_alerts_on_every_device(scorer, tmp_path, devices):
    out = tmp_path / "out"
    windows = scored(scorer, out, devices)
    assert len(windows) == devices and windows["alert"].all()
    event = devices >= MIN_DEVICES
    assert set(windows["status"]) == {"fleet_event" if event else "scored"}
    assert windows["rank"].isna().all() == event
    found = lines(out)
    assert len(found) == (1 if event else devices)
    if event:
        (row,) = pd.read_parquet(out / "fleet_events.parquet").query("name == 'c2.example'").itertuples()
        assert (row.devices, row.alerting_devices) == (devices, devices)
        assert found[0]["appcadence"]["alerting_devices"] == devices
        assert f"{devices} alert by themselves" in found[0]["message"]
        assert found[0]["event"]["reason"] and found[0]["appcadence"]["behaviours"]


def test_an_event_that_alerts_is_one_alert_unit_and_exceptions_quieten_it(scorer, tmp_path, capsys):
    out = tmp_path / "out"
    scored(scorer, out, 5)
    write_report(out, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "; 5 of the devices alert by themselves" in page
    others = pd.read_parquet(out / "scores.parquet").query("alert and status == 'scored'")
    units = len(others.groupby([others["device_id"].astype(str), others["app_id"].fillna(others["dest"])]))
    assert f">{units + 1}<" in page
    alerts = f"{units + 1} alerts ({len(others) + 5} windows)"
    assert f"{alerts}; the budget of 1 a device-day allows" in page
    print_run(Run.read(out), out)
    assert f"{alerts} at a budget of 1 a device-day." in " ".join(capsys.readouterr().out.split())
    (tmp_path / "exceptions.toml").write_text(EXCEPTION)
    run, _ = reapply(out, tmp_path / "exceptions.toml")
    assert run == Run.read(out) and not lines(out)
    assert [
        f.parameters["alerting_devices"] for f in run.fleet_events if f.parameters["name"] == "c2.example"
    ] == [0]
    run, _ = reapply(out, None)
    assert len(lines(out)) == 1 and run.alerts == len(others) + 5


def test_an_exception_also_covers_the_devices_of_an_event_that_show_too_little(scorer, tmp_path):
    tables = fleet(devices=10, days=5, seed=9)
    day = past_and_future(tables, (DAY0 + 4 * 86400) * 1_000_000)[1]["flows"]
    beats = 4 * 86400 + np.arange(0, 86400, 300.0) + 0.25
    rare = [flows(beats[:1], f"phone-{k:02d}", None, "c2.example", 0.5, 310, 180) for k in (7, 8)]
    c2 = [flows(beats + 9 * k, f"phone-{k:02d}", None, "c2.example", 0.5, 310, 180) for k in range(4)]
    out = tmp_path / "out"
    score_directory({"flows": together(day, *c2, *rare)}, scorer, out)
    scores = pd.read_parquet(out / "scores.parquet").query("dest == 'c2.example'")
    assert sorted(scores["status"]) == ["fleet_event"] * 4 + ["insufficient_evidence"] * 2
    (case,) = lines(out)
    # Its times are those of its traffic, and a verdict on it is one on all of its windows.
    assert case["event"]["start"] == "2026-03-06T00:00:00.250Z"
    assert case["event"]["end"] == "2026-03-06T23:55:27.750Z"
    (number,) = (
        c["case"] for c in read_cases(out / CASES_FILE).to_pylist() if c["id"] == case["event"]["id"]
    )
    drafts = placed(out, [Draft({"case": str(number), "verdict": "benign"})])
    assert sorted(d.values["device_id"] for d in drafts) == sorted(scores["device_id"])
    row, _ = case_of(out, number)
    alerting = [f"phone-{k:02d}" for k in range(4)]
    assert row["loud_device_ids"] == alerting
    assert f"Alerting by themselves: {listed(alerting, 10)}." in " ".join(case_lines(row, None))
    write_report(out, tmp_path / "report.html")
    card = (tmp_path / "report.html").read_text(encoding="utf-8").partition(f'id="c{number}"')[2]
    card = card.partition("</article>")[0]
    listing = card.partition("Its 4 alerting windows")[2].partition("</details>")[0]
    assert all(f"<bdi>phone-{k:02d}</bdi>, c2.example" in listing for k in range(4))
    assert f"--case {number} --verdict" in card
    (tmp_path / "e.toml").write_text(EXCEPTION)
    _, (use,) = reapply(out, tmp_path / "e.toml")
    assert lines(out) == [] and (use.matched, use.covered) == (6, 4)
    one = "".join(f'\n{EXCEPTION}device_id = "phone-{k:02d}"\n'.replace('"c2"', f'"c{k}"') for k in range(4))
    (tmp_path / "e.toml").write_text(one)
    reapply(out, tmp_path / "e.toml")
    assert len(lines(out)) == 1  # two devices are under none
