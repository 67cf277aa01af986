"""The forms of the unified log that people have, each read into entries: JSON, CSV, and text in four styles.

JSON and CSV come from `log show` and from mandiant's unifiedlog_iterator, JSON also from EC-DIGIT-CSIRC's
sysdiagnose analysis framework. Text is the output of `log show` in the styles default, compact and syslog, or
of `pymobiledevice3 syslog live`. A line that does not begin an entry continues the message before it. Text
names a process without its path, so an app may call itself anything: JSON is better evidence.

The style compact and pymobiledevice3 write local time without an offset. Such times are read as UTC, and the
first line of the file goes to `rejected` with that statement.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _json_layout, _lines
from appcadence.telemetry.readers._device_log import iso_micros, micros
from appcadence.telemetry.readers._flows import LAST_SECOND
from appcadence.telemetry.readers._json import NO_OBJECT

EXPECTED = "a unified log (log show --style ndjson)"
BLOCK_BYTES = 1 << 20
"""Size of a block whose entries become Python objects, which need far more room than text."""
MAX_MESSAGE = 1 << 16
"""Characters that are kept of a message with several lines."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Colour codes that pymobiledevice3 and `log show --color always` put into a line."""
NO_TIME = "timestamp is no time with a UTC offset from 1970 to 2100"
NO_OFFSET = (
    "the times of this log carry no UTC offset and were read as UTC: write it with log show --style ndjson, "
    "or run pymobiledevice3 with TZ=UTC"
)
_CSV_FIELDS = ("timestamp", "process", "message")
_FIRST_LINES = 100


class Entry(NamedTuple):
    """One message of the log."""

    line: int
    time: int
    """Microseconds since the epoch."""
    process: str
    """The path of the process; in text, only its name."""
    message: str


@dataclass
class Piece:
    """The content of a part of a file."""

    entries: list[Entry] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Lines that are no entries, and why."""
    unzoned: list[tuple[int, str]] = field(default_factory=list)
    """The first line of a file without offsets, and a statement on that; its entry counts."""
    read: int = 0
    """Entries met, good and bad."""
    size: int = 0
    """Bytes of the file on disk that were read for this."""

    def reject(self, line: int, reason: str) -> None:
        self.read += 1
        self.bad.append((line, reason))

    def take(self, line: int, time: int | None, process: object, message: object) -> None:
        if time is None:
            self.reject(line, NO_TIME)
            return
        self.read += 1
        if isinstance(process, str) and isinstance(message, str):
            self.entries.append(Entry(line, time, process, message))


Form = Callable[[Path], Iterator[Piece]]
"""Reads a file of one form.

Raises:
    UnusableFile: the file is unreadable or damaged, or a line is too long.
"""

_DATE = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})?)(?P<zone>[-+]\d{4})?"
_MESSAGE = r"(?:\([^)]{0,255}\) )?(?:\[[^\]]{0,255}\] )?(?P<message>.*)"
_STYLES = tuple(
    re.compile(f"{_DATE}{rest}{_MESSAGE}")
    for rest in (
        # default: thread, type, activity, process id, and since macOS 10.13 a time to live
        r" 0x[0-9a-f]+ +[A-Z][A-Za-z ]{0,20} +0x[0-9a-f]+ +\d+ +(?:\d+ +)?(?P<process>[^:]{1,255}): ",
        # compact: type, then process and thread id
        r" [A-Z][a-z]? +(?P<process>[^\[]{1,255})\[\d+:[0-9a-f]+\] ",
        # pymobiledevice3: the image in braces, then process id and level
        r" (?P<process>[^{]{1,255})\{[^}]{0,255}\}\[\d+\] <[A-Z_]+>: ",
        # syslog: host, then process id
        r" +[^ ]{1,255} (?P<process>[^\[]{1,255})\[\d+\]: ",
    )
)


def form_of(start: bytes) -> Form | None:
    """The form of a unified log with this start; None if it is no unified log."""
    if _json_layout.fits(start, _is_record):
        return _json
    lines = _COLOURS.sub("", start.decode("utf-8-sig", "replace")).splitlines()[:_FIRST_LINES]
    if lines and set(_CSV_FIELDS) <= set(_names(lines[0])):
        return _csv
    for line in lines:
        for style in _STYLES:
            if style.match(line):
                return partial(_text, style=style)
    return None


def _is_record(row: dict[str, Any]) -> bool:
    if _is_enclosed(row):
        return True
    apple = "eventMessage" in row and "timestamp" in row
    return apple or (
        {"message", "subsystem", "process"} <= row.keys() and ("timestamp" in row or "time" in row)
    )


def _is_enclosed(row: dict[str, Any]) -> bool:
    """Whether it is a record of the sysdiagnose analysis framework, which encloses that of the iterator."""
    data = row.get("data")
    return isinstance(data, dict) and "process" in data and {"datetime", "message"} <= row.keys()


def _json(path: Path) -> Iterator[Piece]:
    for block in _json_layout.blocks(path, EXPECTED, BLOCK_BYTES):
        piece = Piece(size=block.size)
        for line, row in _json_layout.objects(block):
            if row is None:
                piece.reject(line, NO_OBJECT)
            elif "finished" in row and "timestamp" not in row:
                # The last line of `log show --style ndjson`.
                piece.read += 1
            else:
                if _is_enclosed(row):
                    row = row["data"] | {"timestamp": row["datetime"], "message": row["message"]}
                message = row.get("eventMessage", row.get("message"))
                piece.take(line, _time(row), row.get("processImagePath", row.get("process")), message)
        yield piece


def _time(row: dict[str, Any]) -> int | None:
    if "timestamp" in row:
        return iso_micros(row["timestamp"])
    # Old versions of the iterator give only nanoseconds.
    nanoseconds = row.get("time")
    if not isinstance(nanoseconds, int | float) or nanoseconds >= LAST_SECOND * 1e9:
        return None
    return micros(nanoseconds / 1e9)


def _csv(path: Path) -> Iterator[Piece]:
    size = 0

    def lines() -> Iterator[str]:
        nonlocal size
        for block in _lines.blocks(path, EXPECTED, BLOCK_BYTES):
            size += block.size
            yield from (line.decode("utf-8-sig", "replace") for line in block.data.splitlines(keepends=True))

    rows = csv.reader(lines())
    try:
        names = _names(",".join(next(rows, [])))
    except csv.Error:
        names = []
    if not set(_CSV_FIELDS) <= set(names):  # a quote may have joined the first line with those after it
        raise UnusableFile(f"{path} has no columns {', '.join(_CSV_FIELDS)}; expected {EXPECTED}", path)
    places = [names.index(name) for name in _CSV_FIELDS]
    piece = Piece()
    while True:
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as error:
            row = []
            piece.reject(rows.line_num, f"not readable CSV ({error})")
        if len(row) == len(names):
            time, process, message = (row[place] for place in places)
            piece.take(rows.line_num, iso_micros(time), process, message)
        elif row:
            piece.reject(rows.line_num, f"the row has {len(row)} values, not {len(names)}")
        if size:
            piece.size, size = size, 0
            yield piece
            piece = Piece()
    yield piece


def _names(line: str) -> list[str]:
    return [name.strip().strip('"').lower() for name in line.split(",")]


def _text(path: Path, style: re.Pattern[str]) -> Iterator[Piece]:
    begun: tuple[int, int | None, str, str] | None = None
    warned = False
    for block in _lines.blocks(path, EXPECTED, BLOCK_BYTES):
        piece = Piece(size=block.size)
        for line, data in zip(block.lines.tolist(), block.data.split(b"\n"), strict=False):
            text = _COLOURS.sub("", data.decode("utf-8", "replace").rstrip("\r"))
            found = style.match(text)
            if found is None:
                if begun is not None and len(begun[3]) < MAX_MESSAGE:
                    begun = (*begun[:3], f"{begun[3]}\n{text}"[:MAX_MESSAGE])
                continue
            if begun is not None:
                piece.take(*begun)
            if not found["zone"] and not warned:
                piece.unzoned.append((line, NO_OFFSET))
                warned = True
            time = iso_micros(found["time"] + (found["zone"] or "Z"))
            begun = line, time, found["process"].strip(), found["message"]
        yield piece
    if begun is not None:
        last = Piece()
        last.take(*begun)
        yield last
