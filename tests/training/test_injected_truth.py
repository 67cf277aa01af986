"""What counts as an implant's among the windows of an injection."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import DAY0, flows, together

from appcadence.training.injection import labelled, past_and_future

# What counts as an implant's: apps with so many flows of their own, and an implant's among those of d0.


def injected(monkeypatch, benign, implant, devices=2, verdicts=None, **more):
    """The windows of the apps' only destination, with their truth."""
    own = [flows(100.0 * np.arange(benign), f"d{k}") for k in range(devices)]
    specs = [
        ("d0", "com.a", ["a.example", "b.example"], "beacon", implant),
        ("d0", "com.a", ["a.example"], "burst", 0),
    ]
    found = (
        flows(50.0 + 100.0 * np.arange(implant), "d0"),
        pd.DataFrame(specs, columns=["device_id", "app_id", "dests", "kind", "flows"]),
    )
    monkeypatch.setattr("appcadence.training.injection.inject", lambda *asked, **kinds: found)
    tables = {"flows": together(*own)}
    rows, _ = labelled(tables, DAY0 * 1_000_000, "24h", 0, 1.0, verdicts=verdicts, **more)
    return rows.take((rows.frame["dest"] == "a.example").to_numpy())


def truth_of(rows):
    return dict(zip(rows.frame["device_id"], rows.frame["implant_kind"].fillna("benign"), strict=True))


def test_a_window_is_an_implants_from_three_tenths_of_its_flows_on(monkeypatch):
    rows = injected(monkeypatch, 7, 3)
    assert truth_of(rows) == {"d0": "beacon", "d1": "benign"} and rows.malicious.tolist() == [True, False]
    assert truth_of(injected(monkeypatch, 71, 30)) == {"d1": "benign"}  # neither an implant's nor benign
    assert truth_of(injected(monkeypatch, 7, 3, devices=3))["d2"] == "benign"
    # What the fleet meets together is left out, but for the implant.
    assert truth_of(injected(monkeypatch, 7, 3, devices=4)) == {"d0": "beacon"}


def test_of_the_devices_asked_for_alone(monkeypatch):
    own = {"flows": together(*(flows(100.0 * np.arange(7), f"d{k}") for k in range(3)))}
    rows, _ = labelled(own, DAY0 * 1_000_000, "24h", 0, 0.0, devices=["d1", "d2"])
    assert set(rows.frame["device_id"]) == {"d1", "d2"} and not rows.malicious.any()


def test_a_process_that_works_for_apps_is_nothing_to_learn_from():
    logged = [
        flows(100.0 * np.arange(7), "d1", app, None, app_attribution=how)
        for app, how in (("com.a", "exact"), ("com.apple.nsurlsessiond", "process"))
    ]
    rows, _ = labelled({"flows": together(*logged)}, DAY0 * 1_000_000, "24h", 0, 0.0)
    assert rows.frame["app_id"].tolist() == ["com.a"]


def test_a_session_that_goes_on_is_the_implants_though_no_flow_begins(monkeypatch):
    own = together(*(flows(100.0 * np.arange(7), f"d{k}") for k in range(2)))
    spec = ("d0", "com.a", ["a.example"], "beacon", 1, False)
    columns = ["device_id", "app_id", "dests", "kind", "flows", "control"]
    found = flows([50.0], "d0", duration=2.5 * 86_400), pd.DataFrame([spec], columns=columns)
    monkeypatch.setattr("appcadence.training.injection.inject", lambda *asked, **kinds: found)
    rows, _ = labelled({"flows": own}, DAY0 * 1_000_000, "24h", 0, 1.0)
    frame = rows.frame[rows.frame["dest"] == "a.example"]
    # One of the eight flows of the first day makes it neither an implant's nor benign.
    frame = frame.fillna({"implant_kind": "benign"})
    told = [(row.device_id, row.window_start.day, row.implant_kind) for row in frame.itertuples()]
    assert told == [("d0", 3, "beacon"), ("d0", 4, "beacon"), ("d1", 2, "benign")]


@pytest.mark.parametrize(
    ("device", "verdict", "truth"),
    [
        ("d0", "malicious", {"d0": "beacon", "d1": "benign"}),
        ("d1", "malicious", {"d0": "beacon", "d1": "verdict"}),
        ("d1", "benign", {"d0": "beacon", "d1": "benign"}),
        ("d1", "unexplained", {"d0": "beacon"}),
    ],
)
def test_what_an_analyst_calls_malicious_is_an_implant_of_its_own(monkeypatch, device, verdict, truth):
    day = pd.Timestamp(DAY0, unit="s", tz="UTC")
    said = {"device_id": device, "app_id": "com.a", "dest": "a.example", "window_start": day}
    said |= {"window_end": day + pd.Timedelta(1, "D"), "verdict": verdict, "analyst": "ana"}
    said |= {"justification": "looked at", "decided_at": day}
    rows = injected(monkeypatch, 7, 3, verdicts=pa.Table.from_pylist([said]))
    assert truth_of(rows) == truth
    assert len(set(rows.implant[rows.malicious])) == rows.malicious.sum()


def test_the_past_ends_before_the_cut():
    past, future = past_and_future({"flows": flows([1.0, 2.0, 3.0])}, (DAY0 + 2) * 1_000_000)
    assert (len(past["flows"]), len(future["flows"])) == (1, 2)
