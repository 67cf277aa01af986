"""Late records: what a conversion changes in days that the directory already held."""

import json
import tracemalloc
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from make import DAY0, activity, flows, together
from typer.testing import CliRunner

from appcadence.cli.convert import convert as command
from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.late_records import ChangedDay, Touched

HEAD = "#separator \\x09\n#path\tconn\n#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\t"
HEAD += "service\tduration\torig_bytes\tresp_bytes\tconn_state\n"
HOUR, DAY = 3600, 86_400


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A directory with flows of four devices, the latest of each on another day."""
    out = tmp_path_factory.mktemp("held") / "out"
    latest = {"d0": 2, "d1": 9, "d2": 5, "elsewhere": 30}
    write_directory(out, {"flows": flows(np.array(list(latest.values())) * DAY, list(latest))})
    return TelemetryDirectory(out), latest


@pytest.fixture
def conn(tmp_path):
    """Writes a Zeek log of (seconds after 2026-03-02, duration, device)."""

    def write(name, *rows):
        lines = [
            f"{DAY0 + at}\t{name}{i}\t{device}\t1\t192.0.2.1\t443\ttcp\tssl\t{lasted}\t10\t20\tSF\n"
            for i, (at, lasted, device) in enumerate(rows)
        ]
        (tmp_path / name).write_text(HEAD + "".join(lines))
        return tmp_path / name

    return write


def test_a_fresh_directory_has_nothing_late(tmp_path, conn):
    log = conn("all", (0, 9 * DAY, "10.0.0.1"), (3 * DAY, 1, "10.0.0.1"))
    assert convert([log], tmp_path / "out").changed_days == ()


def test_connections_open_at_midnight(tmp_path, conn):
    out = tmp_path / "out"
    convert([conn("mon", (9 * HOUR, 5, "10.0.0.1"), (9 * HOUR, 5, "10.0.0.2"))], out)
    late = [(22 * HOUR, 5 * HOUR, "10.0.0.1"), (23 * HOUR, 2 * HOUR, "10.0.0.1")]
    report = convert([conn("tue", *late, (DAY + HOUR, 5, "10.0.0.1"), (DAY, 5, "10.0.0.2"))], out)
    # Tuesday is new for both; of the second device nothing is late.
    assert report.changed_days == (ChangedDay("10.0.0.1", "2026-03-02", 2),)
    assert json.loads(json.dumps(report.as_dict()))["changed_days"] == [
        {"device_id": "10.0.0.1", "day": "2026-03-02", "rows": 2}
    ]
    assert convert([conn("wed", (2 * DAY, 5, "10.0.0.1"))], out).changed_days == ()
    # A day without flows of its own was passed all the same, and a long connection changes all its days.
    report = convert([conn("old", (DAY + HOUR, 2 * DAY, "10.0.0.2"), (-DAY, 1, "10.0.0.1"))], out)
    assert report.changed_days == (
        ChangedDay("10.0.0.1", "2026-03-01", 1),
        ChangedDay("10.0.0.2", "2026-03-03", 1),
    )
    assert convert([conn("new", (DAY, 5, "10.0.0.3"))], out).changed_days == ()


def test_activity_and_pushes_are_late_too(tmp_path, shared_data, conn):
    out, ios = tmp_path / "out", shared_data / "ios"
    log = conn("conn", (0, 5, "10.0.0.1"))
    convert([log], out, device_id="phone")
    report = convert([next(ios.glob("powerlog*"))], out, device_id="phone")
    logged = TelemetryDirectory(out)
    days = {
        time.date().isoformat()
        for table, column in (("activity", "start"), ("activity", "end"), ("notifications", "time"))
        for time in logged.read(table)[column].to_pylist()
        if time
    }
    changed = {day.day for day in report.changed_days}
    assert len(days) == 3 and days <= changed and max(changed) < "2026-03-02"
    rows = len(logged.read("activity")) + len(logged.read("notifications"))
    assert sum(day.rows for day in report.changed_days) >= rows


def test_use_over_midnight_touches_both_days(held):
    touched = Touched()
    touched.add("activity", activity([(2 * DAY - 1, 2 * DAY + 1), (5 * DAY, 5 * DAY + 1)], "d2"))
    day = ("2026-03-03", "2026-03-04", "2026-03-07")
    assert touched.changed(held[0]) == tuple(ChangedDay("d2", one, 1) for one in day)


def test_a_wrong_duration_does_not_fill_memory(tmp_path, conn):
    out = tmp_path / "out"
    convert([conn("now", (400 * DAY, 5, "10.0.0.1"))], out)
    touched = Touched()
    touched.add("flows", flows(np.zeros(1), ["10.0.0.1"], duration=1e9).slice(0, 1))
    report = convert([conn("odd", (0, 1e9, "10.0.0.1"), (500 * DAY, 6, "10.0.0.2"))], out)
    assert (report.changed_days, report.rejected) == ((), 1)


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 11), st.integers(0, 3)), max_size=30)))
def test_batches_count_like_one_by_one(held, batches):
    before, latest = held
    touched, days = Touched(), Counter()
    for rows in batches:
        for device, first, more in rows:
            days.update((f"d{device}", day) for day in range(first, first + more + 1))
        if rows:
            device, first, more = np.array(rows).T
            names = [f"d{code}" for code in device]
            touched.add("flows", flows(first * DAY + HOUR, names, duration=more * float(DAY)))
    assert touched.devices == {device for device, _ in days}
    found = [
        ChangedDay(device, datetime.fromtimestamp(DAY0 + day * DAY, UTC).date().isoformat(), rows)
        for (device, day), rows in days.items()
        if day <= latest.get(device, -1)
    ]
    assert touched.changed(before) == tuple(sorted(found))
    assert touched.devices == {device for device, _ in days}


def test_many_device_days_take_little_memory(held):
    devices = [f"d{i}" for i in range(1, 501)]
    batches = [
        together(*(flows(np.full(500, day * DAY), devices) for day in range(first, first + 8)))
        for first in range(0, 400, 8)
    ]
    touched = Touched()
    tracemalloc.start()
    for batch in batches:
        touched.add("flows", batch)
    found = touched.changed(held[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert Counter(day.device_id for day in found) == {"d1": 10, "d2": 6}
    assert len(touched.devices) == 500
    assert peak < 40 * 500 * 400


def test_row_groups_before_the_new_days_are_not_read(tmp_path, conn):
    out = tmp_path / "out"
    convert([conn("old", (0, 5, "10.0.0.1"))], out)
    convert([conn("mon", (5 * DAY, 5, "10.0.0.1"))], out)
    old = min((out / "flows").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    # Statistics stand in the footer: without its rows, whoever reads them fails.
    data = old.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    old.write_bytes(data[:4] + b"\xff" * (footer - 4) + data[footer:])
    touched = Touched()
    with pytest.raises(TelemetryError):
        TelemetryDirectory(out).read("flows")
    piece = convert([conn("tue", (4 * DAY, 5, "10.0.0.1"))], tmp_path / "other")
    for batch in TelemetryDirectory(piece.out).scan("flows"):
        touched.add("flows", batch)
    assert touched.changed(TelemetryDirectory(out)) == (ChangedDay("10.0.0.1", "2026-03-06", 1),)


def test_the_command_lists_the_first_ten(tmp_path, conn):
    app = typer.Typer()
    app.command()(command)
    out = ["--out", str(tmp_path / "out"), "--format", "zeek"]
    CliRunner().invoke(app, [str(conn("a", *((2 * DAY, 5, f"10.0.0.{i}") for i in range(12)))), *out])
    late = conn("b", *((HOUR, 5, f"10.0.0.{i}") for i in range(12)))
    printed = CliRunner().invoke(app, [str(late), *out]).output
    assert "score these days again" in printed and "and 2 more" in printed
    assert printed.count("2026-03-02") == 10 + 2 and "1 row" in printed
    assert max(map(len, printed.splitlines())) <= 80
