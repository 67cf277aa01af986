"""Damaged and hostile files instead of iOS logs: one sentence, or rejected rows, never anything else."""

import gzip
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
from flow_samples import sniffs
from ios_files import (
    APPS,
    BACKLIGHT,
    LOCK,
    OFFSETS,
    PUSHES,
    SCREEN,
    START,
    TRANSFERS,
    contact,
    database,
    in_focus,
    knowledge,
    lines,
    powerlog,
    push,
    read,
    record,
    segb,
)

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.readers import _lines, _log_forms, _sqlite

FORMATS = ("powerlog", "knowledgec", "biome", "unified_log", "app_privacy_report")
ENDLESS = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
    " SELECT x AS timestamp, x AS system FROM c"
)
PUSH_COLUMNS = "timestamp, BundleID, Topic, Priority, Size"


def good(folder: Path) -> dict[str, Path]:
    pushes = (PUSH_COLUMNS, [(START, "com.example.a", None, 10, 5)])
    return {
        "powerlog": powerlog(folder / "x.PLSQL", {PUSHES: pushes}),
        "knowledgec": knowledge(folder / "x.db", [("/app/usage", 7e8, 7e8 + 1, "com.example.a", None)]),
        "biome": segb(folder / "7", [in_focus(7e8, "com.example.a", 1)]),
        "unified_log": lines(folder / "log.ndjson", [record(push("com.example.a"))]),
        "app_privacy_report": lines(folder / "report.ndjson", [contact()]),
    }


def sentence(name: str, path: Path) -> str:
    assert not sniffs(name, path)
    with pytest.raises(TelemetryError) as caught:
        read(name, path)
    text = str(caught.value)
    assert "\n" not in text and path.name in text
    return text


@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_something_else(tmp_path, name):
    whole = good(tmp_path)[name].read_bytes()
    packed = gzip.compress(random.Random(0).randbytes(50_000) + whole)
    contents = {
        "empty": b"",
        "binary": bytes(range(256)) * 40,
        "nested": b'[{"a":' * 100_000,
        "nested.object": b'{"a":' * 100_000,
        "torn.gz": packed[:30_000],
        "bad.gz": b"\x1f\x8b" + bytes(50),
        "magic": _sqlite.MAGIC,
        "zeros": _sqlite.MAGIC + bytes(4096),
        "list": b"[1, 2, 3]",
    }
    for file, content in contents.items():
        path = tmp_path / file
        path.write_bytes(content)
        assert "expected" in sentence(name, path) or "is not" in sentence(name, path)
    assert "does not exist" in sentence(name, tmp_path / "none")
    assert "is a directory" in sentence(name, tmp_path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_torn_gzip_of_the_right_kind(tmp_path, name):
    path = tmp_path / "torn.gz"
    noise = random.Random(0).randbytes(200_000).hex().encode()
    whole = good(tmp_path)[name].read_bytes()
    packed = gzip.compress(whole + noise)
    path.write_bytes(packed[:-1000])
    with pytest.raises(TelemetryError, match="cut off inside its gzip data"):
        read(name, path)


def test_a_gzip_bomb_is_refused_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_sqlite, "MAX_UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(good(tmp_path)["powerlog"].read_bytes() + bytes(5 << 20)))
    with pytest.raises(TelemetryError, match="unpacks to more than 1,048,576 bytes"):
        read("powerlog", path)
    assert not list((tmp_path / "temporary").iterdir())


def test_truncated_and_altered_databases(tmp_path):
    files = good(tmp_path)
    for name in ("powerlog", "knowledgec"):
        whole = files[name].read_bytes()
        path = tmp_path / "damaged"
        draw = random.Random(1)
        for cut in range(120, len(whole), len(whole) // 10):
            path.write_bytes(whole[:cut])
            with pytest.raises(TelemetryError, match="is cut off inside its SQLite data"):
                read(name, path)
        for _ in range(150):
            altered = bytearray(whole)
            for _ in range(3):
                altered[draw.randrange(len(altered))] = draw.randrange(256)
            path.write_bytes(altered)
            sniffs(name, path)
            try:
                read(name, path)
            except TelemetryError as error:
                assert "\n" not in str(error)


def test_missing_tables_and_columns(tmp_path):
    other = database(tmp_path / "other", {"notes": ("text", [("x",)])})
    assert f"no usable record of {OFFSETS}" in sentence("powerlog", other)
    assert "no plain table ZOBJECT" in sentence("knowledgec", other)
    bare = database(tmp_path / "bare", {"ZOBJECT": ("ZSTREAMNAME, ZENDDATE", [])})
    with pytest.raises(TelemetryError, match="no plain table ZOBJECT with ZSTARTDATE"):
        read("knowledgec", bare)
    assert read("powerlog", powerlog(tmp_path / "clock", {}))["notifications"] == []
    few = powerlog(tmp_path / "few", {PUSHES: ("timestamp", [(START,)]), LOCK: ("Locked", [(1,)])})
    rows = read("powerlog", few)
    assert [row["app_id"] for row in rows["notifications"]] == [None]
    assert [row["reason"] for row in rows["rejected"]] == [
        f"{LOCK}: no plain table with the column timestamp"
    ]


def test_views_virtual_tables_and_generated_columns_are_not_run(tmp_path):
    path = powerlog(tmp_path / "x", {})
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE VIEW {PUSHES} AS {ENDLESS}")
    connection.execute(f"CREATE VIRTUAL TABLE {LOCK} USING fts5(timestamp, Locked)")
    slow = "GENERATED ALWAYS AS (hex(zeroblob(10000000))) VIRTUAL"
    connection.execute(f"CREATE TABLE {SCREEN} (timestamp REAL, Display INTEGER, bundleID TEXT {slow})")
    connection.executemany(f"INSERT INTO {SCREEN} VALUES (?, 0)", [(START + i,) for i in range(50)])
    connection.commit()
    connection.close()
    began = time.process_time()
    rows = read("powerlog", path)
    reasons = {row["reason"] for row in rows["rejected"]}
    assert reasons == {
        f"{PUSHES}: no plain table with the column timestamp",
        f"{LOCK}: no plain table with the column timestamp",
    }
    for name, table in (("powerlog", OFFSETS), ("knowledgec", "ZOBJECT")):
        path = tmp_path / table
        connection = sqlite3.connect(path)
        connection.execute(f"CREATE VIEW {table} AS {ENDLESS}")
        connection.close()
        with pytest.raises(TelemetryError, match=f"no (usable record of|plain table) {table}"):
            read(name, path)
    assert time.process_time() - began < 5


def test_time_and_row_limits(tmp_path, monkeypatch):
    rows = [("/app/usage", 7e8, 7e8 + 1, "com.example.a", None)] * 20_000
    path = knowledge(tmp_path / "x", rows)
    monkeypatch.setattr(_sqlite, "MAX_ROWS", 19_999)
    with pytest.raises(TelemetryError, match="has more than 19,999 rows"):
        read("knowledgec", path)
    monkeypatch.setattr(_sqlite, "TIME_LIMIT_SECONDS", -1.0)
    with pytest.raises(TelemetryError, match="takes longer than -1 s"):
        read("knowledgec", path)


def with_log(path: Path) -> sqlite3.Connection:
    """A knowledgeC of one row, and another one in its write-ahead log, for as long as it is open."""
    knowledge(path, [("/app/usage", 7e8, 7e8 + 1, "com.example.a", None)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    row = ("/app/usage", 7e8 + 10, 7e8 + 11, "com.example.b")
    connection.execute(
        "INSERT INTO ZOBJECT (ZSTREAMNAME, ZSTARTDATE, ZENDDATE, ZVALUESTRING) VALUES (?, ?, ?, ?)", row
    )
    connection.commit()
    return connection


def test_a_write_ahead_log_is_read_and_nothing_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    path = tmp_path / "x.db"
    connection = with_log(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert "x.db-wal" in before
    assert {row["app_id"] for row in read("knowledgec", path)["activity"]} == {
        "com.example.a",
        "com.example.b",
    }
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(_sqlite, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(TelemetryError, match="is larger than 1,000 bytes"):
        read("knowledgec", path)
    connection.close()


def test_altered_write_ahead_logs(tmp_path):
    connection = with_log(tmp_path / "x.db")
    whole, log = (tmp_path / "x.db").read_bytes(), (tmp_path / "x.db-wal").read_bytes()
    connection.close()
    path = tmp_path / "altered.db"
    beside = tmp_path / "altered.db-wal"
    draw = random.Random(2)
    contents = [b"\0", b"x" * 100_000, log[:40], log[:-500], log * 3]
    for _ in range(40):
        altered = bytearray(log)
        for _ in range(draw.randint(1, 4)):
            altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
        contents.append(bytes(altered))
    for content in contents:
        path.write_bytes(whole)
        beside.write_bytes(content)
        # What the checksums of the log do not vouch for is left out.
        apps = [row["app_id"] for row in read("knowledgec", path)["activity"]]
        assert apps in (["com.example.a"], ["com.example.a", "com.example.b"])
        assert beside.read_bytes() == content
    beside.unlink()
    beside.mkdir()
    assert len(read("knowledgec", path)["activity"]) == 1


def test_bad_rows_of_a_powerlog(tmp_path):
    pushes = [
        (START, "com.example.a", None, 10, 5),
        (None, "com.example.a", None, 10, 5),
        (float("nan"), "com.example.a", None, 10, 5),
        (float("inf"), "com.example.a", None, 10, 5),
        (-1e300, "com.example.a", None, 10, 5),
        ("soon", "com.example.a", None, 10, 5),
        (b"\x00", "com.example.a", None, 10, 5),
        (START, "Hello, world", None, 10, 5),
        (START, "x" * 3_000_000, None, 10, 5),
        (START, "com.example.a", None, 1 << 40, 5),
        (START, "com.example.a", None, 1.5, 5),
        (START, "com.example.a", None, 10, -1),
        (START, b"\xff\xfe", b"\xff", None, None),
        (9_999_999_999.0, "com.example.a", None, 10, 5),
    ]
    tables = {
        PUSHES: (PUSH_COLUMNS, pushes),
        LOCK: ("timestamp, Locked", [(START, 0), (START, 2), (START, "no"), (START + 1, 1)]),
        BACKLIGHT: ("timestamp, Block, Active", [(START, "Backlight", None), (START, "Keyboard", 9)]),
        TRANSFERS: ("timestamp, bundleID, bytesSent", [(START, "a b", 1), (START, "com.example.a", -1)]),
        SCREEN: ("timestamp, bundleID", [(START, None), (START, 7)]),
        APPS: ("timestamp, AppBundleId", [(START, 5)]),
    }
    rows = read("powerlog", powerlog(tmp_path / "x", tables))
    events = [(row["kind"], row["app_id"]) for row in rows["notifications"]]
    assert events == [("push_received", "com.example.a"), ("push_received", None)]
    assert {row["kind"] for row in rows["activity"]} == {"device_unlocked"}
    found = [(row["line"], row["reason"].replace(PUSHES, "push")) for row in rows["rejected"]]
    time_fault = "push: timestamp is no time from 1970 to 2100"
    assert [pair for pair in found if pair[1].startswith("push")] == [
        *((line, time_fault) for line in range(2, 8)),
        *((line, "push: BundleID is no bundle id") for line in (8, 9)),
        *((line, "push: Priority is no whole number from 0 to 100") for line in (10, 11)),
        (12, "push: Size is no number of bytes"),
        (14, time_fault),
    ]
    assert len(found) == 12 + 2 + 1 + 1 + 1 + 1
    lost = powerlog(tmp_path / "lost", {}, system=float("inf"))
    with pytest.raises(TelemetryError, match="no usable record"):
        read("powerlog", lost)


def test_bad_rows_of_a_knowledgec(tmp_path):
    rows = [
        ("/app/usage", "x", 7e8, "com.example.a", None),
        ("/app/usage", 7e8, None, "com.example.a", None),
        ("/app/usage", 7e8, 6e8, "com.example.a", None),
        ("/app/usage", 7e8, 7e8, "My Diary", None),
        ("/device/isLocked", 7e8, 7e8, None, "x"),
        ("/app/usage", -1e12, 7e8, "com.example.a", None),
    ]
    found = read("knowledgec", knowledge(tmp_path / "x", rows))
    assert found["activity"] == [] if "activity" in found else True
    assert [(row["line"], row["reason"]) for row in found["rejected"]] == [
        (1, "ZOBJECT: ZSTARTDATE is no time from 1970 to 2100"),
        (2, "ZOBJECT: ZENDDATE is no time from 1970 to 2100"),
        (3, "ZOBJECT: ZENDDATE is before ZSTARTDATE"),
        (4, "ZOBJECT: ZVALUESTRING is no bundle id"),
        (5, "ZOBJECT: ZVALUEINTEGER is neither 0 nor 1"),
        (6, "ZOBJECT: ZSTARTDATE is no time from 1970 to 2100"),
    ]


def test_bad_rows_of_a_report(tmp_path):
    faults = {
        "bundleID": (None, 5, "My App", "\ud800"),
        "domain": (None, "", "a b", "https://example.com/x?y", "\ud800", ["x"]),
        "firstTimeStamp": (
            None,
            5,
            "2024-10-12T20:28:33",
            "9999-12-31T23:59:59-23:00",
            "2025-01-01T00:00:00Z",
        ),
        "timeStamp": ("NaN", "1969-12-31T23:59:59Z"),
        "hits": (0, True, 1.5, "six", None, 1 << 63, float("nan")),
        "initiatedType": ("Both", None, {}),
    }
    rows = [contact(**{key: value}) for key, values in faults.items() for value in values]
    torn = json.dumps(contact())[:-9]
    found = read("app_privacy_report", lines(tmp_path / "x", [contact(), *rows, "[1]", "{" * 100_000, torn]))
    assert len(found["contact_summaries"]) == 1
    bad = found["rejected"]
    assert [row["line"] for row in bad] == list(range(2, len(rows) + 5))
    assert [row["reason"] for row in bad[-3:]] == ["not a JSON object"] * 3


@pytest.mark.parametrize("array", [True, False])
def test_bad_rows_of_a_unified_log(tmp_path, array, monkeypatch):
    monkeypatch.setattr(_log_forms, "BLOCK_BYTES", 1000)
    fine = record(push("com.example.a"))
    parts = [
        json.dumps(fine),
        json.dumps(fine | {"timestamp": "2024-06-17 05:34:59"}),
        json.dumps(fine | {"timestamp": None}),
        '{"eventMessage": "x", "timestamp": }',
        json.dumps(fine),
        '{"a":' * 3000 + "1" + "}" * 3000,
        json.dumps(fine | {"eventMessage": 5}),
        json.dumps(fine | {"processImagePath": {"x": 1}}),
        json.dumps(fine),
        json.dumps(fine)[:-30],
    ]
    path = tmp_path / "x"
    path.write_text("[" + ",\n".join(parts) if array else "\n".join(parts))
    found = read("unified_log", path)
    assert len(found["notifications"]) == 3
    assert [(row["line"], row["reason"][:12]) for row in found["rejected"]] == [
        (2, "timestamp is"),
        (3, "timestamp is"),
        (4, "not a JSON o"),
        (6, "not a JSON o"),
        (10, "not a JSON o"),
    ]


@pytest.mark.parametrize("beginning", ['"x": "', '"x": [', '"x": "}", '])
def test_an_object_without_end_does_not_fill_the_memory(tmp_path, monkeypatch, beginning):
    monkeypatch.setattr(_log_forms, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 4000)
    path = tmp_path / "x"
    fine = json.dumps(record(push("com.example.a")))
    path.write_text(f"[{fine}, {{{beginning}" + "} " * 100)
    found = read("unified_log", path)
    assert len(found["notifications"]) == 1 and len(found["rejected"]) >= 1
    path.write_text(f"[{fine}, {{{beginning}" + "[ " * 100_000)
    with pytest.raises(UnusableFile, match="a record is longer than"):
        read("unified_log", path)
