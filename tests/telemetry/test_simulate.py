"""The simulated fleet: canonical, repeatable, true to its labels and to Apple's limits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from appcadence.cli.simulate import simulate as command
from appcadence.errors import TelemetryError
from appcadence.features.declarations import CONTINUOUS_MODES
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.schema import DIRECTORY_TABLES, LABELS
from appcadence.telemetry.simulate import presence
from appcadence.telemetry.simulate.apps import APPS, MIN_REFRESH_SECONDS
from appcadence.telemetry.simulate.fleet import BLOCK_DEVICES, Simulation, simulate, write
from appcadence.telemetry.simulate.traffic import World, refresh_times

DAYS = 6
MIDDLE = pd.Timestamp("2026-03-05", tz="UTC")


@pytest.fixture(scope="module")
def fleet() -> Simulation:
    return simulate(BLOCK_DEVICES, DAYS, 3, implants_per_device_day=0.3, own_log_share=0.0)


@pytest.fixture(scope="module")
def flows(fleet: Simulation) -> pd.DataFrame:
    frame: pd.DataFrame = fleet.tables["flows"].to_pandas()
    names = ["device_id", "app_id", "dest_host", "dest_ip", "source", "app_attribution", "outcome"]
    frame[names] = frame[names].astype(object)
    frame["dest"] = frame["dest_host"].where(frame["dest_host"].notna(), frame["dest_ip"])
    return frame


def test_tables_conform_and_are_ordered(fleet: Simulation) -> None:
    assert set(fleet.tables) == {
        "flows",
        "activity",
        "notifications",
        "usage",
        "tasks",
        "coverage",
        "inventory",
    }
    for name, table in fleet.tables.items():
        assert table.schema == DIRECTORY_TABLES[name].schema
        for column in DIRECTORY_TABLES[name].columns:
            assert column.nullable or table[column.name].null_count == 0
    assert fleet.labels.schema == LABELS.schema
    for name, when in (("flows", "start"), ("activity", "start"), ("notifications", "time")):
        times = fleet.tables[name][when].cast("int64").to_numpy()
        assert (np.diff(times) >= 0).all()


def test_flows_are_plausible(fleet: Simulation, flows: pd.DataFrame) -> None:
    per_day = len(flows) / BLOCK_DEVICES / DAYS
    assert 600 <= per_day <= 1500
    assert flows["start"].min() >= pd.Timestamp("2026-03-02", tz="UTC")
    assert flows["start"].max() < pd.Timestamp("2026-03-08", tz="UTC")
    assert (flows["duration_seconds"] >= 0).all() and (flows[["bytes_out", "bytes_in"]] >= 0).all(axis=None)
    assert flows["dest"].notna().all()


def test_activity_intervals_have_length(fleet: Simulation) -> None:
    activity = fleet.tables["activity"].to_pandas()
    assert (activity["end"] > activity["start"]).all()
    assert (activity["app_id"].notna() == (activity["kind"] == "app_foreground")).all()


def test_profiles_hide_what_they_should(fleet: Simulation, flows: pd.DataFrame) -> None:
    by = dict(list(flows.groupby("source")))
    assert set(by) == {"content_filter", "gateway", "netflow"}
    assert by["content_filter"]["app_id"].notna().all()
    assert by["gateway"]["app_id"].isna().all() and by["gateway"]["dest_host"].notna().mean() > 0.99
    assert by["netflow"]["app_id"].isna().all() and by["netflow"]["dest_host"].isna().all()
    assert (flows["app_id"].isna() == (flows["app_attribution"] == "none")).all()
    seen = set(by["content_filter"]["device_id"])
    for name in ("activity", "notifications"):
        assert set(fleet.tables[name]["device_id"].unique().to_pylist()) <= seen


def test_labels_lie_within_flows(fleet: Simulation, flows: pd.DataFrame) -> None:
    labels = fleet.labels.to_pandas().astype({"device_id": object, "app_id": object, "dest": object})
    assert len(labels) and (labels["label"] == "malicious").all() and labels["kind"].notna().all()
    assert (labels["start"] >= MIDDLE).all() and (labels["end"] > labels["start"]).all()
    flows = flows.assign(end=flows["start"] + pd.to_timedelta(flows["duration_seconds"].fillna(0), unit="s"))
    channels = dict(list(flows.groupby(["device_id", "dest"])))
    apps = flows.groupby("device_id")["app_id"].agg(set)
    for row in labels.itertuples():
        mine = channels[row.device_id, row.dest]
        assert ((mine["end"] >= row.start) & (mine["start"] <= row.end)).any()
        assert row.start.floor("D") == (row.end - pd.Timedelta(1, "us")).floor("D")
        assert row.app_id in apps[row.device_id] or pd.isna(row.app_id)


def test_first_half_is_free_of_implants(fleet: Simulation, flows: pd.DataFrame) -> None:
    benign = simulate(BLOCK_DEVICES, DAYS, 3, implants_per_device_day=0.0, own_log_share=0.0)
    assert len(benign.labels) == 0 and len(benign.implants) == 0
    starts = benign.tables["flows"]["start"].to_pandas()
    assert (starts < MIDDLE).sum() == (flows["start"] < MIDDLE).sum()
    assert len(flows) - len(starts) == fleet.implants["flows"].sum()


def test_same_seed_gives_same_bytes(tmp_path: Path) -> None:
    devices = BLOCK_DEVICES + 3
    one = write(tmp_path / "one", devices, 1, 5, processes=1)
    write(tmp_path / "two", devices, 1, 5, processes=2)
    write(tmp_path / "other", devices, 1, 6, processes=1)
    for name in one["rows"]:
        first = (tmp_path / "one" / f"{name}.parquet").read_bytes()
        assert first == (tmp_path / "two" / f"{name}.parquet").read_bytes()
    assert (tmp_path / "one.labels.parquet").read_bytes() == (tmp_path / "two.labels.parquet").read_bytes()
    assert (tmp_path / "one/flows.parquet").read_bytes() != (tmp_path / "other/flows.parquet").read_bytes()
    read = TelemetryDirectory(tmp_path / "one")
    assert read.unknown == [] and len(read.read("flows")) == one["rows"]["flows"]
    assert pq.read_schema(tmp_path / "one.labels.parquet").names == [c.name for c in LABELS.columns]


def test_declared_background_work_respects_apples_limits() -> None:
    assert len({a.app_id for a in APPS}) == len(APPS) >= 25
    for app in APPS:
        if app.refresh_seconds is not None:
            assert app.refresh_seconds >= MIN_REFRESH_SECONDS
            assert app.daemon or "fetch" in (app.modes or ())
        if app.push and app.push.silent_per_day and not app.daemon:
            assert app.push.silent_per_day <= 3 * 24
            assert "remote-notification" in (app.modes or ())
        if app.rhythms and not app.daemon:
            assert CONTINUOUS_MODES & set(app.modes or ())
        if app.stream:
            assert CONTINUOUS_MODES & set(app.modes or ())


def test_the_timers_of_some_managed_apps_are_approved(fleet: Simulation) -> None:
    rows = {row["app_id"]: row for row in fleet.tables["inventory"].to_pylist()}
    approved = [a for a in APPS if rows[a.app_id]["expected_period_seconds"] is not None]
    assert 3 <= len(approved) < sum(a.managed for a in APPS)
    for app in approved:
        row = rows[app.app_id]
        assert row["managed"] and row["approved"]
        timers = [rhythm.every_seconds for rhythm in app.rhythms] or [app.refresh_seconds]
        # No timer is a tenth faster than what was approved.
        assert min(timers) * 1.1 >= row["expected_period_seconds"] > 0


def test_refreshes_are_irregular_and_not_too_frequent() -> None:
    rng = np.random.default_rng(0)
    who = presence.people(rng, 20, 4, 0)
    unlocked = presence.unlocks(rng, who)
    segments, app = presence.foreground(rng, who, unlocked)
    low = presence.low_power(rng, who)
    world = World(who, segments, app, low, *presence.wakes(rng, who, unlocked))
    device, time = refresh_times(rng, world, 1000.0)
    gaps = np.diff(time)[np.diff(device) == 0]
    assert gaps.min() >= MIN_REFRESH_SECONDS and gaps.std() / gaps.mean() > 0.25
    assert not low.holds(device, time).any()


def test_silent_pushes_are_few(fleet: Simulation) -> None:
    pushes = fleet.tables["notifications"].to_pandas()
    silent = pushes[pushes["content_available"].fillna(False).astype(bool)]
    gaps = silent.groupby(["device_id", "app_id"], observed=True)["time"].diff().dropna()
    assert gaps.min() >= pd.Timedelta(seconds=1199)
    assert (silent["priority"] == 5).all()


@pytest.mark.parametrize("bad", [{"devices": 0}, {"days": 0}, {"seed": -1}, {"start": "monday"}])
def test_bad_arguments_are_refused(bad: dict[str, object]) -> None:
    arguments: dict[str, object] = {"devices": 1, "days": 1, "seed": 0} | bad
    with pytest.raises(TelemetryError):
        simulate(**arguments)  # type: ignore[arg-type]


def test_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    options = ["--devices", "3", "--days", "2", "--seed", "1"]
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "a"), *options, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["rows"]["flows"] > 0
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "b"), *options])
    assert done.exit_code == 0 and "3 devices, 2 days" in done.stdout
