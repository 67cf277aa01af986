"""What logs of a device repeat of each other counts once, in one call or in several."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ios_files import PUSHES, START, knowledge, lines, powerlog, push, read, record

from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.overlaps import Overlaps, recorded_elsewhere
from appcadence.telemetry.readers import tagged
from appcadence.telemetry.schema import ACTIVITY, NOTIFICATIONS

SECOND = 1_000_000


def pushes(*seconds: int, app: str = "com.example.a") -> dict[str, list]:
    same = {
        "device_id": "phone",
        "kind": "push_received",
        "source": "powerlog",
        "time_resolution_seconds": 60.0,
    }
    columns: dict[str, list] = {name: [value] * len(seconds) for name, value in same.items()}
    return columns | {"app_id": [app] * len(seconds), "time": [second * SECOND for second in seconds]}


def spans(*ends: tuple[int, int], app: str = "com.example.a") -> dict[str, list]:
    same = {"device_id": "phone", "kind": "app_foreground", "source": "x", "time_resolution_seconds": 1.0}
    columns: dict[str, list] = {name: [value] * len(ends) for name, value in same.items()}
    start, end = ([pair[place] * SECOND for pair in ends] for place in (0, 1))
    return columns | {"app_id": [app] * len(ends), "start": start, "end": end}


def released(table, logs: list[dict[str, list]], before: TelemetryDirectory | None = None) -> list[tuple]:
    overlaps = Overlaps(before)
    for number, columns in enumerate(logs):
        assert overlaps.add(table.name, tagged(table.of(columns), Path(str(number))))
    found = []
    for name, batch, repeated in overlaps.release():
        assert name == table.name and repeated >= 0
        when = [name for name in ("time", "start", "end") if name in batch.column_names]
        for row in batch.to_pylist():
            found.append((int(batch.schema.metadata[b"file"]), *(round(row[n].timestamp()) for n in when)))
    return found


def test_a_row_counts_as_often_as_in_the_log_that_has_it_most_often():
    assert released(NOTIFICATIONS, [pushes(0, 0, 60), pushes(0, 0, 0, 60, 120)]) == [
        (0, 0),
        (0, 0),
        (0, 60),
        (1, 0),
        (1, 120),
    ]


@pytest.mark.parametrize(("second", "same"), [(-1, False), (0, True), (60, True), (61, False)])
def test_a_push_stands_for_the_time_of_its_resolution(second, same):
    fine = pushes(second) | {"source": ["unified_log"], "time_resolution_seconds": [0.0]}
    met = recorded_elsewhere(NOTIFICATIONS.of(fine), NOTIFICATIONS.of(pushes(0)))
    assert met.tolist() == [same]


times = st.lists(st.integers(0, 6), max_size=12)


@given(st.lists(times, min_size=1, max_size=4), times)
def test_events_against_the_obvious_twin(tmp_path_factory, logs, held):
    folder = tmp_path_factory.mktemp("x") / "tel"
    write_directory(folder, {"notifications": NOTIFICATIONS.of(pushes(*held))})
    found = released(NOTIFICATIONS, [pushes(*log) for log in logs], TelemetryDirectory(folder))
    most = Counter()
    for log in [held, *logs]:
        most |= Counter(log)
    assert Counter(second for _, second in found) + Counter(held) == most


intervals = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)), max_size=5)


@given(st.lists(intervals, min_size=1, max_size=3), intervals)
def test_intervals_against_the_obvious_twin(tmp_path_factory, logs, held):
    def ends(log):
        """Spans of one log do not overlap."""
        result, free = [], 0
        for start, length in sorted(log):
            if start > free:
                result.append((start, start + length))
                free = start + length
        return result

    folder = tmp_path_factory.mktemp("x") / "tel"
    write_directory(folder, {"activity": ACTIVITY.of(spans(*ends(held)))})
    found = released(ACTIVITY, [spans(*ends(log)) for log in logs], TelemetryDirectory(folder))
    whole = [second for log in [held, *logs] for start, end in ends(log) for second in range(start, end)]
    new = [second for _, start, end in found for second in range(start, end)]
    covered = [second for start, end in ends(held) for second in range(start, end)]
    assert all(start < end for _, start, end in found)
    # Each second of each state once, and none of those that the directory has.
    assert sorted(new + covered) == sorted(set(whole))


def test_a_span_cut_at_the_end_of_a_log_is_one(tmp_path):
    assert released(ACTIVITY, [spans((0, 10)), spans((0, 25), (30, 31))]) == [(0, 0, 25), (1, 30, 31)]
    assert released(ACTIVITY, [spans((0, 10)), spans((10, 25))]) == [(0, 0, 25)]
    # Those of one log stay as they are, and so do those of other apps.
    assert released(ACTIVITY, [spans((0, 10), (10, 20), (5, 6))]) == [(0, 0, 10), (0, 10, 20), (0, 5, 6)]
    other = spans((3, 12), app="com.example.b")
    assert released(ACTIVITY, [spans((0, 10)), other]) == [(0, 0, 10), (1, 3, 12)]
    write_directory(tmp_path / "tel", {"activity": ACTIVITY.of(spans((0, 10), (12, 14)))})
    before = TelemetryDirectory(tmp_path / "tel")
    assert released(ACTIVITY, [spans((0, 10)), spans((5, 20))], before) == [(0, 10, 12), (0, 14, 20)]
    assert released(ACTIVITY, [spans((12, 14), (13, 14))], before) == []


def rows(out: Path, table: str) -> list[dict]:
    return TelemetryDirectory(out).read(table).to_pylist()


@pytest.mark.parametrize("at_once", [True, False])
def test_successive_exports_of_a_unified_log(tmp_path, at_once):
    day = [record(push("com.example.a"), 60.0 * k) for k in range(40)]
    lock = record("Screen did unlock (Was locked for 5.0 seconds)", 600, "SpringBoard")
    end = record("Screen did lock (Was unlocked for 900.0 seconds)", 1500, "SpringBoard")
    first = lines(tmp_path / "mon.ndjson", [*day[:10], lock, *day[11:20]])
    second = lines(tmp_path / "tue.ndjson", [*day[5:10], lock, *day[11:25], end, *day[26:]])
    out = tmp_path / "out"
    for call in [[first, second]] if at_once else [[first], [second]]:
        report = convert(call, out, device_id="phone")
    assert len(rows(out, "notifications")) == 38
    assert report.files[-1].repeated >= 14
    assert any("count once" in note for note in report.notes)
    held = sorted((row["start"], row["end"]) for row in rows(out, "activity"))
    assert held[0][0] == datetime(2024, 6, 16, 20, 10, tzinfo=UTC)
    assert held[-1][1] == datetime(2024, 6, 16, 20, 25, tzinfo=UTC)
    assert all(end == start for (_, end), (start, _) in zip(held, held[1:], strict=False))
    assert len(held) == (1 if at_once else 2)


def test_other_devices_and_other_days_do_not_matter(tmp_path):
    columns = "timestamp REAL, BundleID TEXT"
    log = powerlog(tmp_path / "a", {PUSHES: (columns, [(START, "com.example.a")] * 3)})
    same = powerlog(tmp_path / "b", {PUSHES: (columns, [(START, "com.example.a")] * 2)})
    out = tmp_path / "out"
    convert([log], out, device_id="one")
    convert([same], out, device_id="two")
    report = convert(
        [powerlog(tmp_path / "c", {PUSHES: (columns, [(START + 60, "x.y")])})], out, device_id="one"
    )
    assert [(row["device_id"], row["app_id"]) for row in rows(out, "notifications")].count(
        ("two", "com.example.a")
    ) == 2
    assert len(rows(out, "notifications")) == 6 and not report.files[0].repeated


def test_pseudonyms_are_compared_with_pseudonyms(tmp_path):
    key = tmp_path / "key"
    key.write_text("a key that is long enough")
    key.chmod(0o600)
    usage = ("/app/usage", 7e8, 7e8 + 1, "com.example.a", None)
    first = knowledge(tmp_path / "a.db", [usage])
    second = knowledge(tmp_path / "b.db", [usage, ("/app/usage", 7e8 + 9, 7e8 + 10, "com.example.a", None)])
    assert len(read("knowledgec", second)["activity"]) == 2
    for path in (first, second):
        convert([path], tmp_path / "out", device_id="phone", keyfile=key)
    assert len(rows(tmp_path / "out", "activity")) == 2


def test_a_push_in_two_kinds_of_log_counts_once(tmp_path):
    """The minute of the PowerLog begins 30 s before its stamp; the unified log knows the second."""
    a, b = "com.example.a", "com.example.b"
    table = (
        "timestamp REAL, BundleID TEXT",
        [(START + 60 * k, app) for k, app in enumerate([a, a, b, None])],
    )
    # The stamps are those of the device's clock, which is 100.5 s behind.
    coarse = powerlog(tmp_path / "log.PLSQL", {PUSHES: table})
    zero = datetime.fromtimestamp(START - 100.5, UTC)

    def fine(name: str, *pushed: tuple[str, int]) -> Path:
        records = []
        for app, second in pushed:
            time = (zero + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S.%f+0000")
            records.append(record(push(app)) | {"timestamp": time})
        return lines(tmp_path / name, records)

    # Of the first minute one push is new, and b's was two minutes away.
    log = fine("a.ndjson", (a, 12), (a, 50), (a, 55), (b, 5))
    expected = {(a, "unified_log"): 3, (b, "unified_log"): 1}
    left = {(b, "powerlog"): 1, (None, "powerlog"): 1}
    convert([coarse, log], tmp_path / "once", device_id="phone")
    found = Counter((row["app_id"], row["source"]) for row in rows(tmp_path / "once", "notifications"))
    assert found == expected | left
    # Added later, the coarse ones add nothing either, and the fine ones only what the coarse lack.
    convert([log], tmp_path / "fine", device_id="phone")
    convert([coarse], tmp_path / "fine", device_id="phone")
    found = Counter((row["app_id"], row["source"]) for row in rows(tmp_path / "fine", "notifications"))
    assert found == expected | left
    convert([coarse], tmp_path / "coarse", device_id="phone")
    report = convert([log], tmp_path / "coarse", device_id="phone")
    assert report.files[0].repeated == 2 and len(rows(tmp_path / "coarse", "notifications")) == 6
