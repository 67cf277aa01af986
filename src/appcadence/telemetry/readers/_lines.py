"""Log files as blocks of whole lines, plain or packed, with one-sentence errors."""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import pyarrow as pa

from appcadence._inputs import why_unreadable
from appcadence._types import Ints
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _packed

BLOCK_BYTES = 16 << 20
MAX_LINES = 1 << 18
"""In one block: the record of a bad line takes far more memory than a line of two bytes."""
MAX_LINE_BYTES = 64 << 20
"""A longer line means that the file is no line-based log; reading on would only fill the memory."""

_BLANK_LINES = re.compile(rb"(?!\n\r\r\n)(?:\r?\n)+(?!\Z)")
"""Blank lines before the first line; one kind of packet capture begins with line ends."""
_AT_ONCE = 1 << 18
"""Bytes to search for line ends at a time."""

Fault = tuple[int, str]
"""A line that could not be used (or row or record, counted from 1), and what is wrong with it."""


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file (the last line of the file may lack its line end)."""

    data: bytes
    line: int
    """1-based number of the first line."""
    ends: int
    """Line ends in the data."""
    size: int = 0
    """Bytes of the file on disk that were read for this block."""
    numbers: Ints | None = None
    """The number of each line, if they do not follow each other in the file."""
    first: bool = False
    """Whether this is the beginning of the file, apart from blank lines."""

    @property
    def count(self) -> int:
        """Lines in the data."""
        return self.ends + (not self.data.endswith(b"\n")) if self.data else 0

    @property
    def lines(self) -> Ints:
        """(count,) the number of each line."""
        return np.arange(self.line, self.line + self.count) if self.numbers is None else self.numbers


@dataclass(frozen=True)
class Rows:
    """Rows parsed from one block of a log, in the wanted columns, and the lines that failed to parse."""

    table: pa.Table
    lines: Ints
    """1-based line of each row."""
    read: int
    """Data rows met, good and bad."""
    bad: Sequence[Fault] = ()
    size: int = 0
    """Bytes of the file on disk that were read for these."""


def head(path: Path, expected: str, size: int = 1 << 16) -> bytes:
    """The first bytes of a file, uncompressed.

    Raises:
        UnusableFile: the file is missing, empty or unreadable; `expected` says what should be there.
    """
    with _opened(path, expected) as (stream, _):
        data: bytes = stream.read(size)
        data = data[_begin(data) :]
    if not data:
        raise UnusableFile(f"{path} is empty; expected {expected}", path)
    return data


def blocks(path: Path, expected: str, size: int | None = None) -> Iterator[Block]:
    """The file as blocks of about `size` bytes (default 16 MB) and MAX_LINES lines, cut at line ends.

    Raises:
        UnusableFile: the file is missing, unreadable, cut off inside its packed data, or has no lines.
    """
    size = size or BLOCK_BYTES
    line, seen, first = 1, 0, True
    with _opened(path, expected) as (stream, raw):
        while data := stream.read(size):
            if not data.endswith(b"\n"):
                data += stream.readline(MAX_LINE_BYTES)
                if len(data) >= size + MAX_LINE_BYTES:
                    raise too_long(path, "line", expected)
            at = raw.tell()
            if first and (begin := _begin(data)):
                line, data = line + data.count(b"\n", 0, begin), data[begin:]
            for part, ends in _parts(data):
                yield Block(part, line, ends, at - seen, first=first)
                seen, first = at, False
                line += ends


def too_long(path: Path, what: str, expected: str) -> UnusableFile:
    return UnusableFile(
        f"{path}: a {what} is longer than {MAX_LINE_BYTES >> 20} MB; expected {expected}", path
    )


def _begin(data: bytes) -> int:
    blank = _BLANK_LINES.match(data)
    return blank.end() if blank else 0


def _parts(data: bytes) -> Iterator[tuple[bytes, int]]:
    """The data, halved at line ends until no part has more than MAX_LINES, and the line ends in each part."""
    ends = _count_of_ends(data)
    if ends <= MAX_LINES:
        yield data, ends
        return
    middle = len(data) // 2
    cut = data.find(b"\n", middle) + 1
    if cut in (0, len(data)):
        cut = data.rfind(b"\n", 0, middle) + 1
    yield from _parts(data[:cut])
    yield from _parts(data[cut:])


def line_ends(data: bytes) -> Ints:
    """The places of all line ends."""
    text = np.frombuffer(data, np.uint8)
    # Parts that fit a cache are twice as fast.
    parts = (np.flatnonzero(text[at : at + _AT_ONCE] == 10) + at for at in range(0, len(text), _AT_ONCE))
    return np.concatenate([np.empty(0, np.int64), *parts])


def _count_of_ends(data: bytes) -> int:
    text = np.frombuffer(data, np.uint8)
    return sum(int(np.count_nonzero(text[at : at + _AT_ONCE] == 10)) for at in range(0, len(text), _AT_ONCE))


def pieces(path: Path, expected: str, size: int = 1 << 20) -> Iterator[tuple[bytes, int]]:
    """The file in pieces of at most `size` bytes, each with the bytes of the file on disk read for it.

    Raises:
        UnusableFile: the file is missing, unreadable, or cut off inside its packed data.
    """
    seen = 0
    with _opened(path, expected) as (stream, raw):
        while data := stream.read(size):
            at = raw.tell()
            yield data, at - seen
            seen = at


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[tuple[BufferedReader, BufferedReader]]:
    kind = None
    try:
        with path.open("rb") as raw:
            # The content decides, not the name: rotated logs are called anything.
            kind = _packed.packing(raw.peek(_packed.START_BYTES))
            with _packed.unpacked(raw, "it") as stream:
                yield stream, raw
    except EOFError:
        raise UnusableFile(f"{path} is cut off inside its {kind} data; expected {expected}", path) from None
    except _packed.Stopped as stopped:
        raise UnusableFile(f"{path}: {stopped}; expected {expected}", path) from None
    except OSError as error:
        if kind is not None and error.errno is None:
            raise UnusableFile(f"{path} is damaged {kind} ({error}); expected {expected}", path) from None
        raise UnusableFile(f"{path} {why_unreadable(error, expected)}", path) from None
    except (zlib.error, lzma.LZMAError) as error:
        raise UnusableFile(f"{path} is damaged {kind} ({error}); expected {expected}", path) from None
