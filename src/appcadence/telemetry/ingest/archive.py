"""The members of an untrusted archive one after the other: tar (plain or packed) and zip.

Nothing is extracted here and no name is used as a path. Headers are bounded before they are held in memory.
Links, devices and sparse members are passed over. A member that claims too much, or unpacks to far more than
its size, ends the archive at that point; the members before it are good.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from appcadence._inputs import open_input
from appcadence.telemetry.readers import _packed
from appcadence.telemetry.readers._packed import (
    MAX_UNPACKED_BYTES,
    Counted,
    InPieces,
    Stopped,
    Stream,
    exactly,
    unpacking,
)

MAX_MEMBERS = 500_000
"""About as many as a phone's full file system has."""
_WHAT = "the archive"
_BLOCK = 512
_MAX_HEADER_BYTES = 1 << 20
_MAX_DIRECTORY_BYTES = 48 << 20
_PIECE = 1 << 20
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE)
_LONG = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
FAULTS = (*_packed.FAULTS, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading from a member may raise, besides Stopped."""

_KINDS = {
    tarfile.SYMTYPE: "a link",
    tarfile.LNKTYPE: "a link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
}


@dataclass(frozen=True)
class Entry:
    """One member; its data must be read before the next one is asked for."""

    name: str
    stream: Stream | None
    """None if it is passed over."""
    reason: str = ""
    """Why it is passed over."""


def is_archive(start: bytes) -> bool:
    """Whether a file with this start, unpacked, is an archive."""
    return start.startswith(b"PK\x03\x04") or start[257:262] == b"ustar"


def entries(path: Path) -> Iterator[Entry]:
    """The members except directories, in the order of the archive.

    Raises:
        Stopped: it is damaged, unpacks to too much or has too many members.
    """
    try:
        with open_input(path) as raw:
            if raw.peek(4)[:4] == b"PK\x03\x04":
                yield from _zip(raw)
            else:
                yield from _tar(Counted(unpacking(raw), raw.tell, _WHAT))
    except EOFError:
        raise Stopped("the archive is cut off") from None
    except zipfile.BadZipFile:
        raise Stopped(
            "the archive is cut off or damaged: its directory, at the end, cannot be read; get it again or "
            "repair it (zip -FF)"
        ) from None
    except FAULTS as error:
        raise Stopped(f"the archive is damaged ({type(error).__name__})") from None


class _Data:
    """The data of one member of a tar archive."""

    def __init__(self, archive: Counted, size: int) -> None:
        self._archive = archive
        self._padding = -size % _BLOCK
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = self._archive.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise EOFError
        self._left -= len(data)
        return data

    def skip(self) -> None:
        while self.read(_PIECE):
            pass
        exactly(self._archive, self._padding)


def _tar(archive: Counted) -> Iterator[Entry]:
    more: dict[str, str] = {}
    for _ in range(MAX_MEMBERS):
        block = exactly(archive, _BLOCK)
        if len(block) < _BLOCK or not any(block):
            if block and len(block) < _BLOCK:
                raise EOFError
            return
        try:
            head = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError:
            raise Stopped("the archive is damaged (a header of tar)") from None
        if head.type in (*_EXTENDED, *_LONG):
            if not 0 <= head.size <= _MAX_HEADER_BYTES:
                raise Stopped(f"the archive has a header of {head.size:,} bytes")
            data = exactly(archive, head.size + -head.size % _BLOCK)[: head.size]
            if head.type == tarfile.GNUTYPE_LONGNAME:
                more["path"] = data.rstrip(b"\0").decode("utf-8", "replace")
            elif head.type in _EXTENDED and head.type != tarfile.XGLTYPE:
                more |= _extended(data)
            continue
        name, size = more.get("path", head.name), _size(more.get("size"), head)
        sparse = head.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse") for key in more)
        more = {}
        if head.type == tarfile.GNUTYPE_SPARSE:
            extended = block[482]
            while extended:
                extended = exactly(archive, _BLOCK).ljust(_BLOCK, b"\0")[504]
        kind = _KINDS.get(head.type)
        held = _Data(archive, 0 if kind or head.isdir() else size)
        if not head.isdir():
            yield _entry(name, held, kind or ("a sparse file" if sparse else ""))
        held.skip()
    raise Stopped(f"the archive has more than {MAX_MEMBERS:,} members")


def _size(given: str | None, head: tarfile.TarInfo) -> int:
    size = int(given) if given is not None else head.size
    if not 0 <= size <= MAX_UNPACKED_BYTES:
        raise Stopped(f"a member of the archive claims {size:,} bytes")
    return size


def _extended(data: bytes) -> dict[str, str]:
    """The records "LENGTH KEY=VALUE\\n" of a pax header.

    Raises:
        ValueError: they are damaged.
    """
    found = {}
    while data:
        length = int(data[: data.index(b" ")][:8])
        if not 0 < length <= len(data):
            raise ValueError
        key, _, value = data[data.index(b" ") + 1 : length - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[length:]
    return found


def _entry(name: str, stream: Stream, reason: str) -> Entry:
    leads_out = name.startswith(("/", "\\")) or ":" in name[:2] or ".." in PurePosixPath(name).parts
    if leads_out and not reason:
        reason = "a path that leads out of the archive"
    return Entry(name, None if reason else stream, reason)


def _zip(raw: BinaryIO) -> Iterator[Entry]:
    size = os.fstat(raw.fileno()).st_size
    unpacked = 0
    with zipfile.ZipFile(InPieces(raw, _MAX_DIRECTORY_BYTES)) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise Stopped(f"the archive has more than {MAX_MEMBERS:,} members")
        for info in members:
            if info.is_dir():
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                yield _entry(info.filename, raw, "a link" if kind == stat.S_IFLNK else "a device")
            elif info.flag_bits & 1:
                yield _entry(info.filename, raw, "encrypted: unpack it first with its password")
            elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                yield _entry(info.filename, raw, "compressed in a way that is not read")
            else:
                try:
                    stream = archive.open(info)
                except FAULTS:
                    yield _entry(info.filename, raw, "damaged")
                    continue
                with stream:
                    counted = Counted(stream, lambda: size, _WHAT, unpacked)
                    yield _entry(info.filename, counted, "")
                    unpacked = counted.unpacked
