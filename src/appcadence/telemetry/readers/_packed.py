"""Packed files, unpacked as they are read (gzip, bzip2, xz and zstd), and UTF-16 text, read as UTF-8.

Unpacking is bounded here: a file that unpacks to far more than its size is not a log but an attack.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

MAX_UNPACKED_BYTES = 64 << 30
"""Of a file, or of all members of an archive together."""
MAX_RATIO = 200
"""Data past MIN_RATIO_BYTES that unpacks to more is refused: real logs unpack to about ten times."""
MIN_RATIO_BYTES = 256 << 20
MAX_MEMORY_BYTES = 128 << 20
"""An xz or zstd file that needs more to unpack is refused."""
FAULTS = (EOFError, zlib.error, lzma.LZMAError, ValueError)
"""What reading damaged data may raise, besides an OSError without a number."""

_PIECE = 1 << 20
_PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
START_BYTES = 6
"""This many bytes show how a file is packed."""


class Stopped(Exception):
    """Reading stops here; the message says why."""


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Counted(io.RawIOBase):
    """Unpacked data, bounded by what real files hold.

    Raises:
        Stopped: there is far more.
    """

    def __init__(self, stream: Stream, packed: Callable[[], int], what: str, unpacked: int = 0) -> None:
        self._stream, self._packed, self._what = stream, packed, what
        self.unpacked = unpacked

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(_PIECE if size < 0 else min(size, _PIECE))
        self.unpacked += len(data)
        inflated = self.unpacked > max(MIN_RATIO_BYTES, MAX_RATIO * self._packed())
        if inflated or self.unpacked > MAX_UNPACKED_BYTES:
            raise Stopped(f"{self._what} unpacks to more than {self.unpacked >> 20:,} MB")
        return data

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class InPieces:
    """A file for a reader of zip archives, which may ask for at most `most` bytes (a directory) at once.

    Raises:
        Stopped: it asks for more.
    """

    def __init__(self, raw: BinaryIO, most: int) -> None:
        self._raw, self._most, self._size = raw, most, os.fstat(raw.fileno()).st_size
        self.seek, self.tell, self.seekable, self.close = raw.seek, raw.tell, raw.seekable, raw.close

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._raw.tell(), 0)
        size = left if size is None or size < 0 else min(size, left)
        if size > self._most:
            raise Stopped(f"the archive has a directory of {size:,} bytes")
        return self._raw.read(size)


class _Units:
    """Data of bzip2 or xz; a file may hold several streams one after the other."""

    def __init__(
        self, raw: BinaryIO, make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
    ) -> None:
        self._raw, self._make, self._unit = raw, make, make()

    def read(self, size: int, /) -> bytes:
        while True:
            data = b""
            if self._unit.eof:
                data = self._unit.unused_data.lstrip(b"\0") or self._raw.read(1 << 16).lstrip(b"\0")
                if not data:
                    return b""
                self._unit = self._make()
            elif self._unit.needs_input:
                data = self._raw.read(1 << 16)
                if not data:
                    raise EOFError
            if found := self._unit.decompress(data, size):
                return found


class _Recoded:
    """UTF-16 as UTF-8."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder("utf-16")("replace")
        self._held = b""

    def read(self, size: int, /) -> bytes:
        while not self._held:
            data = self._stream.read(_PIECE)
            self._held = self._decoder.decode(data, final=not data).encode()
            if not data:
                break
        found, self._held = self._held[:size], self._held[size:]
        return found


def exactly(stream: Stream, size: int) -> bytes:
    """Exactly this many bytes; fewer only at the end."""
    found = bytearray()
    while len(found) < size and (data := stream.read(size - len(found))):
        found += data
    return bytes(found)


def packing(start: bytes) -> str | None:
    """How a file with this start is packed; None = it is not packed."""
    return next((name for mark, name in _PACKINGS.items() if start.startswith(mark)), None)


@contextmanager
def unpacked(raw: io.BufferedReader, what: str) -> Iterator[io.BufferedReader]:
    """The content of a file, unpacked and in UTF-8; `what` names it in errors.

    Raises:
        Stopped: it unpacks to too much.
        OSError, FAULTS: it is damaged.
    """
    stream = raw
    if packing(raw.peek(START_BYTES)) is not None:
        stream = io.BufferedReader(Counted(unpacking(raw), raw.tell, what), _PIECE)
    if stream.peek(2)[:2] in _UTF16:
        stream = io.BufferedReader(Counted(_Recoded(stream), lambda: MAX_UNPACKED_BYTES, what), _PIECE)
    yield stream


def unpacking(raw: io.BufferedReader) -> Stream:
    """The content of a file, unpacked without a bound, up to the first damage."""
    kind = packing(raw.peek(START_BYTES))
    if kind is None:
        return raw
    if kind == "gzip":
        return gzip.GzipFile(fileobj=raw)
    if kind == "bzip2":
        return _Units(raw, bz2.BZ2Decompressor)
    if kind == "xz":
        return _Units(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, MAX_MEMORY_BYTES))
    zstd: Stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return zstd


def head_of(data: bytes, size: int) -> bytes:
    """The first unpacked bytes of a file, given its first packed bytes; empty if they are damaged."""
    found = bytearray()
    try:
        with unpacked(io.BufferedReader(io.BytesIO(data)), "it") as stream:
            while len(found) < size and (piece := stream.read1(4096)):
                found += piece
    except (Stopped, OSError, *FAULTS):
        pass
    return bytes(found[:size])
