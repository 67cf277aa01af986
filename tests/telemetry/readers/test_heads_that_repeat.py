"""No start of a file keeps a reader busy: patterns are not tried in all ways to divide what repeats."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.readers import FORMATS, detect, reader

_ALLOWED_SECONDS = 60
"""A thousand times what the slowest takes; a pattern that divides blanks in all ways takes years."""
_HEAD_BYTES = 60_000
# fmt: off
FRAGMENTS = (
    "\n", " ", "\t", "\r\n", "#\n\n\n", "# a\n \n", "a b;\n\n", "a b;", "a;", "a ", "a=", "a=1 ", 'a="', '"',
    "{", '{"a":', "[", "[{", "0", "0.", "0:", "a.", "-", "|", ",", "0,", "<1>", "<1>1 ", "Jan 1 ", "CEF:0|",
    "2024-01-01T00:00:00 ", "LEEF:1.0|", "Filtering \n", "#separator\n", "lease 0 {\n", "://", "::", "\0",
)
# fmt: on


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise AssertionError("a reader does not come to an end")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_ALLOWED_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def heads(path: Path) -> Iterator[bytes]:
    """The file with one head after the other."""
    for fragment in FRAGMENTS:
        for before in ("", "a", '{"a": 1,', "#separator \\x09\n"):
            text = before + fragment * (_HEAD_BYTES // len(fragment))
            path.write_bytes(text.encode() + b"\1!")
            yield path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_reader_looks_at_any_head_in_no_time(tmp_path: Path, name: str) -> None:
    for head in heads(tmp_path / "log"):
        assert reader(name).sniff(tmp_path / "log", head) in (True, False)


def test_so_do_all_of_them_in_turn(tmp_path: Path) -> None:
    for _ in heads(tmp_path / "log"):
        try:
            assert isinstance(detect(tmp_path / "log").NAME, str)
        except (UnusableFile, TelemetryError) as error:
            assert "\n" not in str(error)
