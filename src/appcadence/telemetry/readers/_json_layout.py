"""JSON objects, however a file lays them out, as blocks of one object per line.

A file holds one object per line, or an array, or objects one after the other, each on one line or spread over
several. A string never continues over a line end, and a "{" that is indented no further than that of the
first object begins an object, whatever came before, so that a damaged object does not cost those after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence._compiled import compiled
from appcadence._types import Ints
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _envelope, _lines
from appcadence.telemetry.readers._lines import Block

OBJECT_BYTES = 1 << 20
"""Size of a block whose objects become Python objects, which need far more room than text."""
_MAX_FIRST = 100
_BOM = b"\xef\xbb\xbf"
_SAID = re.compile(rb"\s*((Filtering|Skipping) [^\n]*\n\s*)*")
"""Messages of `log` before its records."""
_END, _QUOTE, _BACKSLASH, _OPEN, _CLOSE, _BLANK = (ord(c) for c in '\n"\\{} ')

Fits = Callable[[dict[str, Any]], bool]
"""Whether an object is one of the wanted kind."""


def blocks(path: Path, expected: str, size: int | None = None) -> Iterator[Block]:
    """The objects of a file as blocks of about `size` bytes (default 32 MB), each on a line of its own.

    Lines without an object are included. The number of a line is that on which its object begins.

    Raises:
        UnusableFile: the file is missing, empty, unreadable or damaged, or an object is too long.
    """
    head = _lines.head(path, expected)
    unwrap = _envelope.envelope(islice(_laid_out(head), _MAX_FIRST))
    for block in _as_laid_out(path, expected, head, size):
        yield block if unwrap is None else _envelope.unwrapped(block, unwrap)


def _as_laid_out(path: Path, expected: str, head: bytes, size: int | None) -> Iterator[Block]:
    if _envelope.has_header(head):
        for block in _lines.blocks(path, expected, size):
            yield replace(block, data=_envelope.without_header(block.data))
        return
    if _is_one_a_line(head):
        yield from _lines.blocks(path, expected, size)
        return
    left, layout = b"", _Layout()
    for data, read in _lines.pieces(path, expected, size or _lines.BLOCK_BYTES):
        left, found = layout.blocks(left + data, last=False)
        if len(left) > _lines.MAX_LINE_BYTES:
            raise _lines.too_long(path, "record", expected)
        # The bytes read count even if no object has ended yet.
        for block in found or [Block(b"", layout.line, 0)]:
            yield Block(block.data, block.line, block.ends, read, block.numbers)
            read = 0
    yield from layout.blocks(left, last=True)[1]


def objects(block: Block) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The number and object of each line of a block that is not blank; None if it holds no object."""
    for number, text in zip(block.lines.tolist(), block.data.split(b"\n"), strict=False):
        if text.strip():
            yield number, _envelope.object_of(text)


def first_objects(head: bytes) -> Iterator[dict[str, Any]]:
    """The first objects of a file, unwrapped, from its first bytes, which may be cut off anywhere."""
    unwrap = _envelope.envelope(islice(_laid_out(head), _MAX_FIRST))
    for record in _laid_out(head):
        yield record if unwrap is None else unwrap(record) or record


def line_field(head: bytes) -> str:
    """The field in which the first objects of a file hold a line of another log; empty if there is none."""
    if head[:1] in b"{[ \r\n\t<\x1e" or _envelope.has_header(head) or head.startswith(_BOM):
        return _envelope.line_field(islice(first_objects(head), _MAX_FIRST))
    return ""


def first_lines(head: bytes, field: str) -> bytes:
    """The lines that the first objects hold in that field."""
    text = b"\n".join(json.dumps(record).encode() for record in first_objects(head))
    return _envelope.lines_in(Block(text, 1, 0), field).data


def _laid_out(head: bytes) -> Iterator[dict[str, Any]]:
    head = _envelope.without_header(head) if _envelope.has_header(head) else head
    if _is_one_a_line(head):
        yield from _by_line(head)
    elif _SAID.sub(b"", head.removeprefix(_BOM), count=1).startswith((b"{", b"[")):
        for block in _Layout().blocks(head, last=False)[1]:
            yield from (row for _, row in islice(objects(block), _MAX_FIRST) if row is not None)


def fits(head: bytes, wanted: Fits) -> bool:
    """Whether one of the first objects is of the wanted kind."""
    return any(map(wanted, first_objects(head)))


def check(path: Path, expected: str, wanted: Fits) -> None:
    """Raise UnusableFile unless one of the file's first objects is of the wanted kind."""
    if not fits(_lines.head(path, expected), wanted):
        raise UnusableFile(f"{path} is not {expected}: none of its first objects fits", path)


def _is_one_a_line(head: bytes) -> bool:
    # Even in an array, the last object or an empty one may be alone on its line.
    array = _SAID.sub(b"", head.removeprefix(_BOM), count=1).startswith(b"[")
    lines = sum(bool(text.strip()) for text in head.splitlines()[:_MAX_FIRST])
    return not array and lines > 0 and 2 * sum(1 for _ in _by_line(head)) >= lines


def _by_line(head: bytes) -> Iterator[dict[str, Any]]:
    for text in head.splitlines()[:_MAX_FIRST]:
        row = _envelope.object_of(text)
        if row is not None:
            yield row


class _Layout:
    """Takes whole objects from the front of a growing text."""

    def __init__(self) -> None:
        self.line = 1
        self._column = -1
        """Column of the "{" of the first object; -1 = none yet, or it does not begin its line."""

    def blocks(self, data: bytes, last: bool) -> tuple[bytes, list[Block]]:
        """The rest of the text after its last whole object, and the objects before it."""
        if self.line == 1:
            data = data.removeprefix(_BOM)
        # Text that is no object may come before each object and at the end of each line.
        room = 2 * data.count(b"{") + data.count(b"\n") + 1
        starts, ends, lines = (np.empty(room, np.int64) for _ in range(3))
        text = np.frombuffer(data, np.uint8).copy()
        count, at, self.line, self._column = _scan(text, last, self.line, self._column, starts, ends, lines)
        whole = text.tobytes()
        found = []
        for first in range(0, count, _lines.MAX_LINES):
            some = slice(first, min(first + _lines.MAX_LINES, count))
            spans = zip(starts[some].tolist(), ends[some].tolist(), strict=True)
            joined = b"\n".join([whole[start:end] for start, end in spans])
            numbers = lines[some].copy()
            found.append(Block(joined, int(numbers[0]), len(numbers) - 1, numbers=numbers))
        return data[at:], found


@compiled
def _scan(
    text: npt.NDArray[np.uint8], last: bool, line: int, column: int, starts: Ints, ends: Ints, lines: Ints
) -> tuple[int, int, int, int]:
    """Find where objects begin and end, and on which line; their line ends become blanks.

    Other text counts as an object from its first character to the end of its line or to the next object.
    `starts`, `ends` and `lines` need room for both.

    Returns:
        How many there are; where the first unfinished one begins, unless this is the `last` text; the line
        there; and the column of the first object.
    """
    count, depth, begun, first = 0, 0, False, 0
    string, escaped, bare = False, False, True
    for at in range(len(text)):
        byte = text[at]
        if byte == _END:
            line += 1
            first, bare, string, escaped = at + 1, True, False, False
            if begun and depth == 0:
                ends[count], count, begun = at, count + 1, False
            elif begun:
                text[at] = _BLANK
        elif string:
            string = escaped or byte != _QUOTE
            escaped = byte == _BACKSLASH and not escaped
        elif byte == _OPEN:
            if begun and (depth == 0 or (bare and at - first <= column)):
                ends[count], count, begun, depth = at, count + 1, False, 0
            if not begun:
                if bare and column < 0:
                    column = at - first
                starts[count], lines[count], begun = at, line, True
            depth += 1
            bare = False
        elif byte not in (32, 9, 13, 91):  # blanks, "["
            bare = False
            if begun and depth > 0:
                string = byte == _QUOTE
                if byte == _CLOSE:
                    depth -= 1
                    if depth == 0:
                        ends[count], count, begun = at + 1, count + 1, False
            elif not begun and byte not in (44, 93):  # ",", "]"
                starts[count], lines[count], begun, depth = at, line, True, 0
    if begun and last:
        ends[count], count, begun = len(text), count + 1, False
    return count, starts[count] if begun else len(text), lines[count] if begun else line, column
