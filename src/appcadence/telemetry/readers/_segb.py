"""SEGB files, in which iOS keeps the records of its Biome streams; versions 1 (to iOS 16) and 2.

Version 1: 56 bytes, of which the first four say where the records end and the last four are "SEGB"; then
each record, its header (length, state, two times, CRC-32) before it, at a multiple of 8. Version 2: 32 bytes
that begin with "SEGB" and the number of records; then each record with its CRC-32 before it, at a multiple
of 4; at the end of the file, 16 bytes a record: where it ends, its state, its time. Times count from 2001.
Layout after the public description of ccl-segb (CCL Solutions Group).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _lines

MAX_BYTES = 64 << 20
"""Far above real sizes: iOS starts a new file every few hundred kilobytes."""
MAX_RECORDS = 1_000_000
_MAGIC = b"SEGB"
_WRITTEN = 1
_HEADER_1, _RECORD_1 = 56, struct.Struct("<iiddIi")
_HEADER_2, _RECORD_2, _TRAILER_2 = 32, struct.Struct("<Ii"), struct.Struct("<iid")


class Record(NamedTuple):
    """One record as it was written."""

    number: int
    """From 1, in the order of the file."""
    time: float
    """When it was written: seconds since 2001."""
    data: bytes


def version(start: bytes) -> int | None:
    """1 or 2; None if a file with this start is no SEGB file."""
    if start[:4] == _MAGIC and len(start) >= _HEADER_2:
        return 2
    return 1 if start[_HEADER_1 - 4 : _HEADER_1] == _MAGIC else None


def records(path: Path, expected: str) -> Iterator[Record | tuple[int, str]]:
    """The records; for a record that cannot be used, its number and the reason. Deleted records are skipped.

    Raises:
        UnusableFile: the file is missing, empty, unreadable, too large, or no SEGB file.
    """
    size, parts = 0, []
    for part, _ in _lines.pieces(path, expected):
        size += len(part)
        parts.append(part)
        if size > MAX_BYTES:
            raise UnusableFile(f"{path} is larger than {MAX_BYTES >> 20} MB; expected {expected}", path)
    data = b"".join(parts)
    found = version(data)
    if not data or found is None:
        raise UnusableFile(f"{path} is {'not ' if data else 'empty; expected '}{expected}", path)
    for number, record in enumerate(_first(data) if found == 1 else _second(data, path), 1):
        if number > MAX_RECORDS:
            raise UnusableFile(f"{path} has more than {MAX_RECORDS:,} records; expected {expected}", path)
        if record is None:
            yield number, "the record extends beyond the end of the records"
            break
        state, time, crc, content = record
        if state == _WRITTEN:
            if zlib.crc32(content) == crc:
                yield Record(number, time, content)
            else:
                yield number, "the record does not match its checksum"


def _first(data: bytes) -> Iterator[tuple[int, float, int, bytes] | None]:
    end = min(int.from_bytes(data[:4], "little"), len(data))
    at = _HEADER_1
    while at < end:
        begin = at + _RECORD_1.size
        if begin > end:
            yield None
            return
        length, state, time, _, crc, _ = _RECORD_1.unpack_from(data, at)
        if not 0 <= length <= end - begin:
            yield None
            return
        yield state, time, crc, data[begin : begin + length]
        at = begin + length + -(begin + length) % 8


def _second(data: bytes, path: Path) -> Iterator[tuple[int, float, int, bytes] | None]:
    count = int.from_bytes(data[4:8], "little")
    end = len(data) - _TRAILER_2.size * count
    if end < _HEADER_2:
        raise UnusableFile(f"{path} is cut off: it is too short for the {count:,} records it claims", path)
    at = _HEADER_2
    for until, state, time in sorted(_TRAILER_2.iter_unpack(data[end:])):
        begin = at + _RECORD_2.size
        if state == 0:
            # Space for a record that was never written.
            continue
        if not begin <= _HEADER_2 + until <= end:
            yield None
            return
        crc, _ = _RECORD_2.unpack_from(data, at)
        yield state, time, crc, data[begin : _HEADER_2 + until]
        at = _HEADER_2 + until + -until % 4
