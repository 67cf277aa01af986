"""What may be given to convert beside plain files, and what becomes of what cannot be used."""

import os
import subprocess
import sys
import threading

import pytest
import typer
from test_each_once import HEAD, row
from typer.testing import CliRunner

from appcadence.cli.convert import convert as command
from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest import inputs as module
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.inputs import standard_input

LOG = HEAD + "".join(row(f"C{i}", i * 9.0, 5000 + i) for i in range(5))


@pytest.fixture
def piped():
    """A pipe into which a thread writes pieces; gives the end to read from."""
    handles = []

    def write(*pieces, close=True):
        reading, writing = os.pipe()
        handles.append(reading)

        def run():
            try:
                for piece in pieces:
                    os.write(writing, piece)
            except BrokenPipeError:
                pass
            if close:
                os.close(writing)

        threading.Thread(target=run, daemon=True).start()
        return reading

    yield write
    for handle in handles:
        os.close(handle)


def test_standard_input_is_a_log_like_any_other(tmp_path):
    script = "from appcadence.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "convert", "-", "--out", str(tmp_path / "out")],
        input=LOG.encode(),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and b"standard input" in done.stdout, done
    assert len(TelemetryDirectory(tmp_path / "out").read("flows")) == 5


def test_standard_input_is_bounded(tmp_path, monkeypatch, piped):
    target = tmp_path / "copy"
    assert standard_input(target, piped(LOG[:50].encode(), LOG[50:].encode())).read_text() == LOG
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", 0.2)
    with pytest.raises(UnusableFile, match="standard input gave nothing for 0 s"):
        standard_input(target, piped(LOG.encode(), close=False))
    with pytest.raises(UnusableFile, match="standard input is empty"):
        standard_input(target, piped())
    with pytest.raises(UnusableFile, match="in no known format"):
        standard_input(target, piped(*[b"y\n" * 20_000] * 1_000))
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 1 << 18)
    with pytest.raises(UnusableFile, match="standard input is larger than"):
        standard_input(target, piped(*[(LOG + "\n" * 60_000).encode()] * 1_000))


def test_a_pattern_that_no_shell_expanded(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "conn.1.log").write_text(HEAD + row("A"))
    (folder / "conn.2.log").write_text(HEAD + row("B", 200.0))
    odd = folder / "conn[3].log"  # a name that is no pattern
    odd.write_text(HEAD + row("C", 300.0))
    report = convert([folder / "conn.?.log", odd], tmp_path / "out")
    assert [file.name for file in report.files] == ["conn.1.log", "conn.2.log", "conn[3].log"]
    assert convert([tmp_path / "**" / "*.log"], tmp_path / "out").changed is False
    report = convert([odd, folder / "*.gz"], tmp_path / "other")
    assert [file.unusable for file in report.files if file.unusable] == [
        f"no file matches {folder / '*.gz'}; expected a log file"
    ]


@pytest.mark.parametrize("kind", ["absent", "empty", "unknown", "torn", "pattern"])
def test_strict_stops_at_the_first_file_that_cannot_be_used(tmp_path, kind):
    good, bad = tmp_path / "conn.log", tmp_path / "bad.log"
    good.write_text(LOG)
    if kind == "pattern":
        bad = tmp_path / "bad*.log"
    elif kind != "absent":
        import gzip

        content = {"empty": b"", "unknown": b"hello\n", "torn": gzip.compress(LOG.encode())[:-20]}
        bad.write_bytes(content[kind])
    with pytest.raises(TelemetryError, match="bad"):
        convert([good, bad], tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()
    report = convert([good, bad], tmp_path / "out")
    assert report.tables == {"flows": 5}
    assert [bool(file.unusable) for file in report.files].count(True) == 1
    app = typer.Typer()
    app.command()(command)
    ended = CliRunner().invoke(app, [str(good), str(bad), "--out", str(tmp_path / "s"), "--strict"])
    assert isinstance(ended.exception, TelemetryError)
