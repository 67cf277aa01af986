"""What is said of a file whose rows count all the same, and of one of which none does."""

import gzip
import resource
import sqlite3

import pytest
from ios_files import PUSHES, START, knowledge, powerlog, push

from appcadence.errors import SchemaError, TelemetryError
from appcadence.telemetry.ingest.convert import convert

PUSHED = "timestamp REAL, BundleID TEXT, Priority INTEGER"
LOST = "its write-ahead log (-wal)"


def with_log(path, rows=5):
    """A PowerLog with three pushes, and as many in its write-ahead log, each of one page; its bytes."""
    powerlog(path, {PUSHES: (PUSHED, [(START + 60 * n, "com.example.chat", 10) for n in range(3)])})
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    for n in range(rows):
        connection.execute(
            f"INSERT INTO {PUSHES} (timestamp, BundleID) VALUES (?, 'b.c')", (START + 600 + 60 * n,)
        )
        connection.commit()
    whole, log = path.read_bytes(), (path.parent / f"{path.name}-wal").read_bytes()
    connection.close()
    path.write_bytes(whole)
    return log


def flipped(log, place):
    return log[:place] + bytes([log[place] ^ 255]) + log[place + 1 :]


DAMAGE = {
    "whole": (lambda log: log, 8, ""),
    "header alone": (lambda log: log[:32], 3, ""),
    "first page": (lambda log: flipped(log, 200), 3, "5 of its 5 pages were not read"),
    "last page": (lambda log: flipped(log, len(log) - 10), 7, "1 of its 5 pages were not read"),
    "cut off": (lambda log: log[:-1000], 7, "1 of its 5 pages were not read"),
    "salts": (lambda log: flipped(log, 17), 3, "5 of its 5 pages were not read"),
    "zeros": (lambda log: bytes(len(log)), 3, "damaged from its beginning"),
    "another file": (lambda log: b"x" * len(log), 3, "damaged from its beginning"),
    # What an earlier round left behind its end bears other salts, and is no loss.
    "older pages": (lambda log: log + flipped(log[-4120:], 9), 8, ""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_write_ahead_log_is_said(tmp_path, damage):
    alter, pushes, said = DAMAGE[damage]
    path = tmp_path / "CurrentPowerlog.PLSQL"
    (tmp_path / "CurrentPowerlog.PLSQL-wal").write_bytes(alter(with_log(path)))
    report = convert([path], tmp_path / "out", device_id="p")
    assert report.tables["notifications"] == pushes
    notes = [note for note in report.notes if LOST in note]
    assert bool(notes) == bool(said) and all(said in note and path.name in note for note in notes)


def test_a_damaged_write_ahead_log_of_a_knowledge_base_is_said(tmp_path):
    path = knowledge(tmp_path / "knowledgeC.db", [("/app/inFocus", 7e8, 7e8 + 60, "com.example.chat", None)])
    (tmp_path / "knowledgeC.db-wal").write_bytes(bytes(5000))
    assert LOST in " ".join(convert([path], tmp_path / "out", device_id="p").notes)


def test_an_entry_whose_time_has_no_offset_counts_and_is_said(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(
        f"2024-06-17 05:34:59.000 Df apsd[102:4a3] [com.apple.apsd:courier] {push('com.example.chat')}\n"
    )
    report = convert([path], tmp_path / "out", device_id="p")
    (file,) = report.files
    assert (file.read, file.kept, file.rejected) == (1, 1, 0)
    assert report.tables == {"notifications": 1, "rejected": 1}
    assert any("log.txt: the times of this log carry no UTC offset" in note for note in report.notes)


def test_records_of_which_none_tells_anything_are_given_with_the_commonest_fault(tmp_path):
    path = powerlog(tmp_path / "p.PLSQL", {PUSHES: (PUSHED, [(START, "com.example.chat", 1000)])})
    with pytest.raises(
        TelemetryError, match=r"about apps.*; 1 are faulty, most often \(1\) because .*Priority"
    ):
        convert([path], tmp_path / "out", device_id="p")


def test_a_device_name_that_could_not_be_read_again_is_refused(tmp_path):
    path = powerlog(tmp_path / "p.PLSQL", {PUSHES: (PUSHED, [(START, "com.example.chat", 10)])})
    with pytest.raises(SchemaError, match="'device_id': a name has 900 characters; at most 255"):
        convert([path], tmp_path / "out", device_id="d" * 900)
    assert not (tmp_path / "out").exists()


def test_without_room_to_unpack_a_database_the_file_is_not_called_unknown(tmp_path):
    path = powerlog(tmp_path / "p.PLSQL", {PUSHES: (PUSHED, [(START, "com.example.chat", 10)])})
    packed = tmp_path / "p.PLSQL.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(TelemetryError, match=r"cannot write temporary files in .* set TMPDIR"):
            convert([packed], tmp_path / "out", device_id="p")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
