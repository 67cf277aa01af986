"""Drift on a simulated fleet: nothing, an app update, and telemetry that goes missing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from make import DAY0, inventory, together
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import BundleError, TelemetryError
from appcadence.features.columns import micros
from appcadence.models import bundle
from appcadence.models.reference import Reference
from appcadence.telemetry.directory import write_directory
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.drift import drift, psi
from appcadence.training.injection import past_and_future
from appcadence.training.train import train

APP = "com.skylark.weather"
DAY_US = 86_400_000_000
CUT_US = DAY0 * 1_000_000 + 4 * DAY_US
UPDATE_US = CUT_US + DAY_US


@pytest.fixture(scope="module")
def halves():
    return past_and_future(simulate(24, 8, 1, implants_per_device_day=0).tables, CUT_US)


@pytest.fixture(scope="module")
def later(halves):
    return halves[1]


@pytest.fixture(scope="module")
def saved(halves, tmp_path_factory):
    path = tmp_path_factory.mktemp("drift") / "model"
    bundle.save(train(halves[0], "24h", 0).detector, path)
    return path


@pytest.fixture(scope="module")
def detector(saved):
    return bundle.load(saved)[0]


def put(flows, name, values):
    return flows.set_column(flows.schema.get_field_index(name), flows.schema.field(name), values)


def updated(tables, change):
    """The tables with the flows of one app changed from a day on."""
    flows = tables["flows"]
    mine = pa.array(
        (flows["app_id"].cast("string").to_pandas() == APP).to_numpy() & (micros(flows["start"]) >= UPDATE_US)
    )
    return tables | {"flows": together(flows.filter(pc.invert(mine)), change(flows.filter(mine)))}


def larger_elsewhere(flows):
    for name in ("bytes_out", "bytes_in"):
        flows = put(flows, name, pc.multiply(flows[name], 8))
    host = pa.array(["new.skylark.example"] * len(flows), pa.string())
    return put(flows, "dest_host", host.cast(flows.schema.field("dest_host").type))


def twice_as_often(flows):
    start = micros(flows["start"]) + np.random.default_rng(0).integers(20_000_000, 600_000_000, len(flows))
    again = put(flows, "start", pa.array(start).cast(flows.schema.field("start").type))
    return together(flows, again)


def test_the_next_days_as_they_are_are_no_drift(detector, later):
    answer = drift(detector, later)
    assert answer.verdict in ("fine", "watch") and not answer.apps and not answer.losses
    assert answer.devices == 24 and answer.budget.low < 1.5
    assert (answer.verdict == "fine") == (not answer.reasons)
    assert not (answer.features["psi"] > 0.25)[answer.features["p_adjusted"] <= 0.05].any()


@pytest.mark.parametrize(
    ("change", "phrase"),
    [(larger_elsewhere, "bytes sent per connection higher"), (twice_as_often, "connections an hour higher")],
)
def test_an_app_update_is_named_with_its_day_and_devices(detector, later, change, phrase):
    answer = drift(detector, updated(later, change))
    (shift,) = answer.apps
    assert shift.app == APP and shift.since == str(pd.Timestamp(UPDATE_US, unit="us").date())
    assert 4 <= shift.devices <= shift.of and shift.devices >= 0.9 * shift.of
    assert phrase in shift.moved
    assert answer.verdict == "retrain" and answer.reasons[0].startswith(f"App update: {APP} moved since")


def test_the_version_of_an_update_comes_from_dated_snapshots(detector, later):
    dated = [
        {"app_id": APP, "version": "4.1", "snapshot_time": 0.0},
        {"app_id": APP, "version": "4.2", "snapshot_time": 5 * 86400.0},
        {"app_id": "com.quiet", "version": "1", "snapshot_time": 0.0},
        {"app_id": "com.quiet", "version": "2", "snapshot_time": 6 * 86400.0},
        {"app_id": "com.same", "version": "1", "snapshot_time": 6 * 86400.0},
    ]
    tables = updated(later, twice_as_often) | {"inventory": inventory(*dated)}
    answer = drift(detector, tables)
    assert answer.versions == {APP: "from 4.1 to 4.2", "com.quiet": "from 1 to 2"}
    assert any(f"{APP} (from 4.1 to 4.2) moved since" in reason for reason in answer.reasons)
    assert any("did not change: com.quiet" in reason for reason in answer.reasons)


def test_lost_activity_is_named(detector, later):
    answer = drift(detector, {name: table for name, table in later.items() if name != "activity"})
    (loss,) = answer.losses
    assert loss.what == "activity" and loss.devices == loss.of > 10
    assert answer.verdict == "retrain" and "Telemetry lost: activity" in answer.reasons[0]
    assert not answer.apps


def test_durations_lost_on_half_of_the_devices_are_named(detector, later):
    flows = later["flows"]
    half = pa.array([f"phone-{i:05d}" for i in range(12)])
    gone = pc.is_in(flows["device_id"].cast("string"), half)
    flows = put(flows, "duration_seconds", pc.if_else(gone, None, flows["duration_seconds"]))
    answer = drift(detector, later | {"flows": flows})
    assert [(loss.what, loss.devices, loss.of) for loss in answer.losses] == [("flow durations", 12, 24)]
    assert answer.verdict == "retrain" and not answer.apps


def test_new_apps_are_counted_by_device(detector, later):
    flows = later["flows"]
    mine = pc.equal(flows["app_id"].cast("string"), APP)
    names = pc.if_else(mine, "com.brand.new", flows["app_id"].cast("string"))
    answer = drift(detector, later | {"flows": put(flows, "app_id", names.cast(flows["app_id"].type))})
    assert list(answer.new_apps) == ["com.brand.new"] and answer.new_apps["com.brand.new"] > 4
    assert answer.verdict != "fine"


def test_a_few_devices_say_what_they_cannot_tell(detector, later):
    flows = later["flows"]
    few = flows.filter(pc.is_in(flows["device_id"].cast("string"), pa.array(["phone-00000", "phone-00001"])))
    answer = drift(detector, later | {"flows": few})
    assert answer.features["p_adjusted"].isna().all()
    assert any("cannot be told from chance" in note for note in answer.notes)
    json.dumps(answer.as_dict(), allow_nan=False)


def test_the_training_period_itself_is_refused(detector, halves):
    with pytest.raises(TelemetryError, match=r"begins after the training period, which ended 2026-03-05"):
        drift(detector, halves[0])


def test_the_command_prints_80_columns_and_json(saved, later, tmp_path):
    write_directory(tmp_path / "t", updated(later, twice_as_often))
    command = [Path(sys.executable).with_name("appcadence"), "drift", tmp_path / "t", "--model", saved]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("retrain:"), done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80 and f"App update: {APP}" in done.stdout
    answer = json.loads(CliRunner().invoke(app, [*map(str, command[1:]), "--json"]).stdout)
    assert answer["verdict"] == "retrain" and answer["apps"][0]["app"] == APP


def test_psi_is_nothing_for_equal_shares_and_large_for_moved_ones():
    before = np.array([100, 200, 300.0])
    assert psi(before, before * 3) == pytest.approx(0, abs=1e-3)
    assert psi(before, before[::-1]) > 0.25


def test_an_unlike_reference_is_refused(detector):
    table = detector.reference.to_arrow()
    with pytest.raises(BundleError, match="drift reference"):
        Reference.from_arrow(table, detector.reference.deciles[1:], 0)
