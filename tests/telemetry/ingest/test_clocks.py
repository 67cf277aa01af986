"""Clocks that contradict each other, on simulated telemetry, and grids finer than what is there."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from make import DAY0, activity, flows, pushes, together

from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.clocks import clock_notes
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers._flows import AS_UTC
from appcadence.telemetry.simulate.fleet import simulate


@dataclass
class Fleet:
    tables: dict
    path: object

    def notes(self, name, devices=None, **tables):
        write_directory(self.path / name, self.tables | tables)
        return clock_notes(TelemetryDirectory(self.path / name), devices)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    return Fleet(simulate(24, 3, seed=5, own_log_share=0.0).tables, tmp_path_factory.mktemp("clocks"))


def moved(table, column, seconds, devices=None):
    times = table[column].cast(pa.int64()).to_numpy()
    late = np.ones(len(times), bool)
    if devices is not None:
        late = np.asarray(pc.is_in(table["device_id"].cast(pa.string()), pa.array(devices)))
    new = pa.array(times + np.where(late, int(seconds * 1e6), 0)).cast(table[column].type)
    return table.set_column(table.column_names.index(column), column, new)


def pushed(fleet):
    return sorted(set(fleet.tables["notifications"]["device_id"].to_pylist()))


def test_a_consistent_fleet_is_silent(fleet):
    assert fleet.notes("same") == ()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3600, "1 h ahead of the flows"),
        (-18_000, "5 h behind the flows"),
        (420, "7 min ahead of the flows"),
        (-425, "7 min behind the flows"),
        (20_700, "5 h 45 min ahead of the flows"),
    ],
)
def test_shifted_pushes_are_reported(fleet, seconds, words):
    notes = fleet.notes(str(seconds), notifications=moved(fleet.tables["notifications"], "time", seconds))
    assert len(notes) == 1 and words in notes[0] and "agent" in notes[0] and "content_filter" in notes[0]
    assert ("check the time zone" if seconds % 900 == 0 else "check the clock") in notes[0]
    # Most devices with pushes are named or counted.
    more = int(notes[0].split(" more:")[0].split(" and ")[-1])
    assert 3 + more >= 0.7 * len(pushed(fleet))


def test_only_the_devices_that_are_off_are_named(fleet):
    two = pushed(fleet)[:2]
    table = moved(fleet.tables["flows"], "start", 3600, two)
    notes = fleet.notes("two", flows=table)
    assert (
        len(notes) == 1
        and f"1 h behind the flows of content_filter (median) for {', '.join(two)}: " in notes[0]
    )
    assert clock_notes(TelemetryDirectory(fleet.path / "two"), pushed(fleet)[2:]) == ()
    assert clock_notes(TelemetryDirectory(fleet.path / "two"), two) == notes


def test_too_few_pushes_say_nothing(fleet):
    table = moved(fleet.tables["notifications"], "time", 3600)
    rows = dict.fromkeys(pushed(fleet), 0)
    keep = []
    for name, kind in zip(table["device_id"].to_pylist(), table["kind"].to_pylist(), strict=True):
        rows[name] += kind == "push_received"
        keep.append(rows[name] < 20)
    assert fleet.notes("few", notifications=table.filter(pa.array(keep))) == ()


def test_schedules_are_no_clocks(tmp_path):
    """Pushes on the hour and a poll seven minutes past it have nothing to do with each other."""
    hours = np.arange(0, 5 * 86_400, 3600)
    rng = np.random.default_rng(0)
    tables = {
        "flows": flows(hours + 425 + rng.uniform(0, 5, len(hours))),
        "notifications": pushes(hours + rng.uniform(0, 5, len(hours))),
    }
    write_directory(tmp_path / "hourly", tables)
    daily = np.sort(rng.uniform(0, 86_400, 8))[:, None] + 86_400 * np.arange(6)
    tables = {"flows": flows(daily.ravel() + 425), "notifications": pushes(daily.ravel())}
    write_directory(tmp_path / "daily", tables)
    # The same at times of no order is a clock.
    times = np.sort(rng.uniform(0, 5 * 86_400, 60))
    write_directory(tmp_path / "any", {"flows": flows(times + 425.3), "notifications": pushes(times)})
    assert clock_notes(TelemetryDirectory(tmp_path / "hourly")) == ()
    assert clock_notes(TelemetryDirectory(tmp_path / "daily")) == ()
    assert "7 min behind" in clock_notes(TelemetryDirectory(tmp_path / "any"))[0]


def test_pushes_by_the_minute_and_flows_without_apps(tmp_path):
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 5 * 86_400, 80))
    table = {"flows": flows(times + rng.uniform(0, 20, 80), app=None)}
    for name, shift in (("right", 0), ("wrong", 7200)):
        log = pushes(times // 60 * 60 + shift, grid=60.0)
        write_directory(tmp_path / name, table | {"notifications": log})
    assert clock_notes(TelemetryDirectory(tmp_path / "right")) == ()
    assert "2 h ahead" in clock_notes(TelemetryDirectory(tmp_path / "wrong"))[0]


def test_unrelated_pushes_say_nothing(tmp_path):
    rng = np.random.default_rng(2)
    for name in range(5):
        tables = {
            "flows": flows(rng.uniform(0, 5 * 86_400, 3000)),
            "notifications": pushes(np.sort(rng.uniform(0, 5 * 86_400, 300))),
        }
        write_directory(tmp_path / str(name), tables)
        assert clock_notes(TelemetryDirectory(tmp_path / str(name))) == ()


def test_grids_finer_than_the_times(tmp_path):
    rng = np.random.default_rng(3)
    minutes = 60.0 * rng.integers(0, 5000, 200)
    fine = {"time_resolution_seconds": 0.001}
    tables = {
        "flows": together(
            flows(minutes, source="coarse", **fine),
            flows(np.floor(minutes / 7), source="whole", **fine),
            flows(minutes + rng.uniform(0, 60, 200), source="fine", **fine),
            flows(minutes[:49], source="few", **fine),
            flows(np.repeat(minutes[:10], 20), source="bursts", **fine),
        ),
        "activity": activity([(a, a + 30) for a in minutes]),
    }
    write_directory(tmp_path / "t", tables)
    notes = clock_notes(TelemetryDirectory(tmp_path / "t"))
    assert [note.split(" claims")[0] for note in notes] == ["Source test", "Source coarse", "Source whole"]
    assert "claims times to 1 s in activity, but all 200 are whole minutes (60 s)" in notes[0]
    assert "claims times to 0.001 s in flows, but all 200 are whole minutes (60 s)" in notes[1]
    assert "whole seconds (1 s)" in notes[2]


def test_a_conversion_says_it(tmp_path):
    """A mapping that claims milliseconds for a table of whole seconds."""
    table, mapping = tmp_path / "flows.csv", tmp_path / "map.toml"
    rows = [f"{DAY0 + 97 * i},10.0.0.1,a.example" for i in range(60)]
    table.write_text("\n".join(["when,who,where", *rows]) + "\n")
    mapping.write_text(
        '[time]\nformat = "epoch"\nresolution_seconds = 0.001\n\n'
        '[columns]\nstart = "when"\ndevice_id = "who"\ndest_host = "where"\n'
    )
    notes = convert([table], tmp_path / "out", format="table", mapping=mapping).notes
    assert len(notes) == 1 and "claims times to 0.001 s in flows, but all 60 are whole seconds" in notes[0]


def test_real_logs_are_told_nothing_but_that_they_lack_an_offset(tmp_path, shared_data):
    labelled, ios = shared_data / "labelled", shared_data / "ios"
    logs = [next(ios.glob("powerlog*")), next(ios.glob("knowledgec*"))]
    convert(logs, tmp_path / "out", device_id="phone")
    flows = sorted((labelled / "normal_b").iterdir())
    report = convert([*flows, *(shared_data / "mobile").iterdir()], tmp_path / "out", device_id="phone")
    assert report.tables["flows"] > 5000
    assert report.notes == (f"android_24h.binetflow: {AS_UTC}.",)
