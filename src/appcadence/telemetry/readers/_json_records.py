"""JSON objects in an array, each spread over lines of its own, or one a line, as a stream of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import _json, _lines
from appcadence.telemetry.readers._lines import Block, Rows


def parse_records(path: Path, expected: str, wanted: _json.Fields) -> Iterator[tuple[Rows, int]]:
    """The records block by block, each with the bytes of the file read for it.

    A record begins with "{" at the start of a line. The line of a record is its first.

    Raises:
        TelemetryError: the file cannot be read, or a record is longer than any record can be.
    """
    left, line, size = b"", 1, 0
    for block in _lines.blocks(path, expected):
        data, size = left + block.data, size + block.size
        # The last record may go on in the next block.
        cut = data.rfind(b"\n{") + 1
        if not cut and len(data) > _lines.MAX_LINE_BYTES:
            raise TelemetryError(
                f"{path}: a record is longer than {_lines.MAX_LINE_BYTES >> 20} MB; expected {expected}"
            )
        if cut:
            yield _records(data[:cut], line, wanted), size
            size = 0
        line, left = line + data.count(b"\n", 0, cut), data[cut:]
    yield _records(left, line, wanted), size


def _records(data: bytes, line: int, wanted: _json.Fields) -> Rows:
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    data = b"\n" + data.removeprefix(b"\xef\xbb\xbf").rstrip(b" \t\r\n")
    opening = data.find(b"[", 0, 1 << 10)
    if opening >= 0 and not data[:opening].strip():
        data = data[:opening] + data[opening + 1 :]
    if data.endswith(b"]"):
        data = data[:-1].rstrip(b" \t\r\n")
    text = np.frombuffer(data + b"\n", np.uint8).copy()
    ends = np.flatnonzero(text == ord("\n"))[:-1]
    begins = ends[text[ends + 1] == ord("{")]
    before = data[: begins[0]] if len(begins) else data
    stray = [line] if before.strip() else []
    if not len(begins):
        empty = _json.parse(Block(b"", 1, 0, 0), wanted)
        return Rows(empty.table, empty.lines, len(stray), stray, [_json.NO_OBJECT] * len(stray))
    lines = line + np.searchsorted(ends, begins)
    # JSON takes a blank for a line end, and a blank for the comma between two records.
    text[ends] = ord(" ")
    text[begins] = ord("\n")
    commas = begins - 1
    text[commas[text[commas] == ord(",")]] = ord(" ")
    one_a_line = text[begins[0] + 1 : -1].tobytes().rstrip(b" ,")
    rows = _json.parse(Block(one_a_line, 0, one_a_line.count(b"\n"), 0), wanted)
    bad_lines = [*stray, *(int(lines[number]) for number in rows.bad_lines)]
    reasons = [*([_json.NO_OBJECT] * len(stray)), *rows.reasons]
    return Rows(rows.table, lines[rows.lines], rows.read + len(stray), bad_lines, reasons)
