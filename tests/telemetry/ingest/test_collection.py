"""Sysdiagnoses, folders and archives as people have them."""

import gzip
import io
import json
import os
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

import pytest
from ios_files import PUSHES, START, knowledge, lines, powerlog, push, record
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest import archive, copies
from appcadence.telemetry.ingest.collection import gather, is_collection
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import reader

NAME = "sysdiagnose_2025.10.09_09-00-00+0200_iPhone-OS_iPhone_22A3354"
COLUMNS = "timestamp REAL, BundleID TEXT"


def log(path: Path, *apps: str, at: float = START) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return powerlog(path, {PUSHES: (COLUMNS, [(at + 60 * k, app) for k, app in enumerate(apps)])})


@pytest.fixture
def sysdiagnose(tmp_path: Path) -> Path:
    """An unpacked one: two PowerLogs, a knowledgeC, a unified log, and what is not read."""
    top = tmp_path / "in" / NAME
    logs = top / "logs/powerlogs"
    log(logs / "powerlog_2025-10-09_09-00_AB12CD34.PLSQL", "com.example.a", "com.example.b")
    older = log(logs / "older", "com.example.a", at=START - 86_400)
    packed = logs / "powerlog_2025-10-08_09-00_AB12CD34.PLSQL.gz"
    packed.write_bytes(gzip.compress(older.read_bytes()))
    older.unlink()
    knowledge(top / "knowledgeC.db", [("/app/usage", 7e8, 7e8 + 1, "com.example.a", None)])
    lines(top / "log.ndjson", [record(push("com.example.c"))])
    (logs / "powerlog_damaged.PLSQL").write_bytes(b"SQLite format 3\0" + bytes(1000))
    (top / "system_logs.logarchive/Persist").mkdir(parents=True)
    for k in range(30):
        (top / f"system_logs.logarchive/Persist/{k}.tracev3").write_bytes(b"\0\x10\0\0\x11\0\0" + bytes(100))
    for k in range(1000):
        (top / f"junk{k}.txt").write_text(f"line {k}\n")
    sqlite3.connect(top / "Photos.sqlite").execute("CREATE TABLE photos (a)").connection.close()
    with zipfile.ZipFile(top / "more.zip", "w") as out:
        out.writestr("a", "b")
    return top


def tarred(folder: Path, target: Path) -> Path:
    with tarfile.open(target, "w:gz" if target.suffix == ".gz" else "w") as out:
        out.add(folder, folder.name)
    return target


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(folder.rglob("*")):
            out.write(file, file.relative_to(folder.parent))
    return target


def rows(out: Path, table: str) -> list[tuple]:
    found = TelemetryDirectory(out).read(table).to_pylist()
    when = "time" if table == "notifications" else "start"
    return sorted((row["device_id"], row["app_id"], row[when], row["source"]) for row in found)


@pytest.fixture(params=["folder", "tar.gz", "tar", "zip"])
def given(request, sysdiagnose, tmp_path):
    """The sysdiagnose in each form."""
    if request.param == "folder":
        return sysdiagnose
    target = tmp_path / f"renamed.{request.param}"
    return (zipped if request.param == "zip" else tarred)(sysdiagnose, target)


def test_a_sysdiagnose_as_it_is(tmp_path, given, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    out = tmp_path / "out"
    report = convert([given], out)
    assert not list((tmp_path / "temporary").iterdir())
    (found,) = report.collections
    assert (found.device_id, found.system, found.taken, found.used) == (
        "iPhone",
        "iPhone-OS 22A3354",
        "2025-10-09T07:00:00+00:00",
        4,
    )
    assert sorted(file.name for file in report.files) == [
        "knowledgeC.db",
        "log.ndjson",
        "powerlog_2025-10-08_09-00_AB12CD34.PLSQL.gz",
        "powerlog_2025-10-09_09-00_AB12CD34.PLSQL",
    ]
    passed = {group.reason.split(";")[0]: (group.members, group.names) for group in found.passed_over}
    assert passed["a binary unified log"] == (30, ["system_logs.logarchive"])
    assert passed["archives in an archive or folder"][0] == 1
    assert passed["named like a known log, but empty, damaged or something else"][0] == 1
    assert passed["in no format that is read"][0] == 1001 and len(passed) == 4
    events = rows(out, "notifications")
    assert [(device, app, source) for device, app, _, source in events] == [
        ("iPhone", "com.example.a", "powerlog"),
        ("iPhone", "com.example.a", "powerlog"),
        ("iPhone", "com.example.b", "powerlog"),
        ("iPhone", "com.example.c", "unified_log"),
    ]
    assert any("The device id iPhone comes from the name" in note for note in report.notes)
    assert all("/" not in name for name in passed["in no format that is read"][1])
    again = convert([given], out)
    assert not again.changed and not again.notes
    json.dumps(report.as_dict())


def test_sysdiagnoses_in_a_folder_are_collections_of_their_own(tmp_path, sysdiagnose):
    other = tmp_path / "in" / NAME.replace("iPhone_", "iPad_")
    log(other / "logs/powerlogs/powerlog.PLSQL", "com.example.z")
    packed = tarred(other, other.parent / f"{other.name}.tar.gz")
    log(tmp_path / "in" / "x.PLSQL", "com.example.y")
    report = convert([tmp_path / "in"], tmp_path / "out")
    assert [found.name for found in report.collections] == [
        "in",
        other.name,
        sysdiagnose.name,
        packed.name,
    ]
    assert {(device, app) for device, app, *_ in rows(tmp_path / "out", "notifications")} == {
        ("iPad", "com.example.z"),
        *(("iPhone", f"com.example.{app}") for app in "abc"),
    }
    assert [file.name for file in report.files if file.unusable] == ["x.PLSQL"]  # nobody says whose it is
    assert [file.skipped for file in report.files][-1]
    json.dumps(report.as_dict())


def test_every_form_gives_the_same_and_counts_once(tmp_path, sysdiagnose):
    out = tmp_path / "out"
    forms = [sysdiagnose, tarred(sysdiagnose, tmp_path / "a.tar"), zipped(sysdiagnose, tmp_path / "a.zip")]
    convert(forms[:1], out, device_id="phone")
    before = rows(out, "notifications") + rows(out, "activity")
    assert {row[0] for row in before} == {"phone"}
    for paths in (forms[1:], forms):
        assert not convert(paths, out, device_id="phone").changed
    report = convert(forms, tmp_path / "again", device_id="phone")
    assert rows(tmp_path / "again", "notifications") + rows(tmp_path / "again", "activity") == before
    assert not any("comes from the name" in note for note in report.notes)


def test_the_table_of_members_is_short(tmp_path, sysdiagnose):
    result = CliRunner().invoke(app, ["convert", str(sysdiagnose), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert f"{NAME} (iPhone-OS 22A3354 of 2025-10-09 07:00 UTC): 4 files used." in said
    assert "system_logs.logarchive and 29 more: a binary unified log; run `log show" in said
    assert "and 998 more: in no format that is read" in said
    assert len(result.output.splitlines()) < 40


def test_a_database_and_its_log_meet_again(tmp_path):
    folder = tmp_path / "in"
    path = log(folder / "CurrentPowerlog.PLSQL", "com.example.a")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"INSERT INTO {PUSHES} (timestamp, BundleID) VALUES ({START + 60}, 'com.example.b')")
    connection.commit()
    archives = [tarred(folder, tmp_path / "a.tar.gz"), zipped(folder, tmp_path / "a.zip"), folder]
    with tarfile.open(tmp_path / "b.tar", "w") as out:  # the log stands before its database
        for name in ("CurrentPowerlog.PLSQL-wal", "CurrentPowerlog.PLSQL-shm", "CurrentPowerlog.PLSQL"):
            out.add(folder / name, f"x/{name}")
    for number, given in enumerate([*archives, tmp_path / "b.tar"]):
        report = convert([given], tmp_path / f"out{number}", device_id="phone")
        assert [file.name for file in report.files] == ["CurrentPowerlog.PLSQL"]
        assert [row[1] for row in rows(tmp_path / f"out{number}", "notifications")] == [
            "com.example.a",
            "com.example.b",
        ]
    # The same file with a longer log is another file, of which the new rows count.
    connection.execute(f"INSERT INTO {PUSHES} (timestamp, BundleID) VALUES ({START + 120}, 'com.example.c')")
    connection.commit()
    files = sorted(folder.iterdir())
    assert convert(files, tmp_path / "out0", device_id="phone").tables["notifications"] == 1
    assert not convert(files, tmp_path / "out0", device_id="phone").changed
    connection.close()


def test_one_damaged_member_or_end_stops_no_other(tmp_path, sysdiagnose):
    path = tarred(sysdiagnose, tmp_path / "a.tar.gz")
    whole = tarred(sysdiagnose, tmp_path / "a.tar").read_bytes()
    path.write_bytes(gzip.compress(whole[: whole.index(b"system_logs.logarchive") + 600])[:-20])
    report = convert([path], tmp_path / "out")
    assert any("cut off; the rest is not read" in g.reason for g in report.collections[0].passed_over)
    assert report.files


def test_a_member_found_to_be_damaged_is_named_as_the_user_knows_it(tmp_path):
    folder = tmp_path / "logs"
    log(folder / "good.PLSQL", "com.example.a")
    bad = log(folder / "bad.PLSQL", "com.example.b")
    connection = sqlite3.connect(bad)
    connection.execute("DELETE FROM PLStorageOperator_EventForward_TimeOffset")
    connection.commit()
    connection.close()
    report = convert([zipped(folder, tmp_path / "logs.zip")], tmp_path / "out", device_id="phone")
    reasons = [file.unusable for file in report.files if file.unusable]
    assert len(reasons) == 1 and reasons[0].startswith("logs.zip: bad.PLSQL has no usable record")
    assert [row[1] for row in rows(tmp_path / "out", "notifications")] == ["com.example.a"]


def test_collections_without_anything_to_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("hello")
    with pytest.raises(
        TelemetryError, match=r"in holds no file that can be read: a\.txt: in no format that is read"
    ):
        convert([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(TelemetryError, match="it is empty"):
        convert([tarred(tmp_path / "nothing", tmp_path / "b.tar")], tmp_path / "out")
    # Without a name of its own, a device must be named.
    log(tmp_path / "logs" / "x.PLSQL", "com.example.a")
    with pytest.raises(TelemetryError, match=r"logs: x\.PLSQL does not say which device") as caught:
        convert([tmp_path / "logs"], tmp_path / "out")
    assert caught.value.argument == "device_id"


def test_links_and_pipes_in_a_folder(tmp_path):
    folder = tmp_path / "in"
    log(folder / "x.PLSQL", "com.example.a")
    outside = log(tmp_path / "outside" / "y.PLSQL", "com.example.b")
    (folder / "link.PLSQL").symlink_to(outside)
    (folder / "more").symlink_to(outside.parent)
    os.mkfifo(folder / "pipe")
    found, members = gather(folder, tmp_path)
    assert [member.name for member in members] == ["x.PLSQL"]
    assert {group.reason: group.members for group in found.passed_over} == {"links, or not regular files": 2}
    os.mkfifo(tmp_path / "pipe")
    assert not is_collection(tmp_path / "pipe") and not is_collection(tmp_path / "none")


def test_names_from_an_archive_are_no_paths(tmp_path):
    whole = log(tmp_path / "x.PLSQL", "com.example.a").read_bytes()
    target = tmp_path / "a.tar"
    with tarfile.open(target, "w") as out:
        for name in (
            "../../evil.PLSQL",
            "/tmp/evil.PLSQL",
            "a/\x1b[31mred.PLSQL",
            "b/" + "n" * 240 + ".PLSQL",
        ):
            info = tarfile.TarInfo(name)
            info.size = len(whole)
            out.addfile(info, io.BytesIO(whole))
    (tmp_path / "copies").mkdir()
    found, members = gather(target, tmp_path / "copies")
    assert {group.reason: group.members for group in found.passed_over} == {
        "a path that leads out of the archive": 2
    }
    assert [member.path.name for member in members] == ["__31mred.PLSQL", "n" * 94 + ".PLSQL"]
    assert all((tmp_path / "copies") in member.path.parents for member in members)
    report = convert([target], tmp_path / "out", device_id="phone")
    assert [file.skipped for file in report.files] == [False, True]


def test_a_name_that_an_archive_holds_twice(tmp_path):
    logs = [log(tmp_path / f"{app}.PLSQL", f"com.example.{app}") for app in "ab"]
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for content in (*(path.read_bytes() for path in logs), b"SQLite format 3\0nothing"):
            info = tarfile.TarInfo("\u00fc" * 90 + ".PLSQL")
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    report = convert([tmp_path / "a.tar"], tmp_path / "out", device_id="phone")
    assert [row[1] for row in rows(tmp_path / "out", "notifications")] == ["com.example.a", "com.example.b"]
    assert report.collections[0].used == 2


def test_limits_of_what_is_copied(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    for name in ("1.PLSQL", "2.PLSQL"):
        log(folder / name, "com.example.a")
    size = (folder / "1.PLSQL").stat().st_size
    target = tarred(folder, tmp_path / "a.tar")
    for limit, most, used in ((size - 1, size * 9, 0), (size, size, 1), (size, size * 2, 2)):
        monkeypatch.setattr(copies, "MAX_MEMBER_BYTES", limit)
        monkeypatch.setattr(copies, "MAX_USED_BYTES", most)
        place = tmp_path / f"copies{used}"
        place.mkdir()
        found, members = gather(target, place)
        assert len(members) == used == len([file for file in place.rglob("*") if file.is_file()])
        assert sum(group.members for group in found.passed_over) == 2 - used
    monkeypatch.setattr("appcadence.telemetry.ingest.collection.MAX_MEMBERS", 1)
    assert len(gather(folder, tmp_path)[1]) == 1
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    found, members = gather(target, tmp_path / "copies2")
    assert "more than 2 members" in found.summary()


def test_a_format_that_is_given_is_the_only_one(tmp_path, sysdiagnose):
    _, members = gather(sysdiagnose, tmp_path, reader("knowledgec"))
    assert [member.name for member in members] == ["knowledgeC.db"]


def test_names_that_are_almost_those_of_a_sysdiagnose(tmp_path):
    for name in ("sysdiagnose_2025.99.09_09-00-00+0200_iPhone-OS_iPhone_22A", "sysdiagnose", "x" * 200):
        (tmp_path / name).mkdir()
        found, _ = gather(tmp_path / name, tmp_path)
        assert (found.device_id, found.taken) == (None, None)


def test_biome_streams_are_told_by_their_folders(tmp_path):
    """A full file system holds hundreds of streams; those that are read are, the others are one line."""
    whole = _stream()
    top = tmp_path / "Biome/streams/restricted"
    for name in (
        "App.InFocus/local/1",
        "App.InFocus/remote/D1/2",
        *(f"Device.Some{k}/local/3" for k in range(40)),
    ):
        path = top / name
        path.parent.mkdir(parents=True)
        path.write_bytes(whole)
    for given in (tmp_path / "Biome", tarred(tmp_path / "Biome", tmp_path / "a.tar")):
        report = convert([given], tmp_path / f"out-{given.suffix}", device_id="phone")
        (found,) = report.collections
        assert found.used == 1 and [group.members for group in found.passed_over] == [41]
        assert "Biome streams" in found.passed_over[0].reason
        assert [file.unusable for file in report.files] == [""]


def _stream() -> bytes:
    """A SEGB file, version 2, of one app that came to the front."""
    data = b"\x18\x01\x21" + struct.pack("<d", 7.8e8) + b"\x32\x0dcom.example.a"
    body = struct.pack("<Ii", zlib.crc32(data), 0) + data
    trailer = struct.pack("<2id", len(body), 1, 7.8e8)
    body += bytes(-len(body) % 4)
    return struct.pack("<4sid16s", b"SEGB", 1, 7.8e8, bytes(16)) + body + trailer
