"""Members of an archive copied out of it, under names of our own and within bounds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from appcadence.telemetry.readers._packed import Stream
from appcadence.telemetry.readers._spill import room
from appcadence.telemetry.readers._sqlite import WAL

MAX_MEMBER_BYTES = 4 << 30
MAX_USED_BYTES = 32 << 30
"""For all members that are copied out of one archive."""

_PIECE = 1 << 20
_MAX_NAME, _MAX_PARTS = 100, 5
_ODD = re.compile(r"[^\w.,+-]", re.ASCII)


class TooLarge(Exception):
    """A member is too large to copy."""


class Copies:
    """Members copied out of an archive; a database and its write-ahead log lie side by side."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._folders: dict[str, Path] = {}
        self._made = 0
        self._left = MAX_USED_BYTES

    def make(self, name: str, start: bytes, stream: Stream) -> Path:
        """Copy a member whose start was already read."""
        owner = name.removesuffix(WAL)
        # For some files, the folders above say what they are.
        parts = [_ODD.sub("_", part)[-_MAX_NAME:] for part in PurePosixPath(owner).parts[-_MAX_PARTS:]]
        *above, base = parts or ["member"]
        base += name[len(owner) :]
        folder = self._folders.get(owner)
        if folder is None or (folder / base).exists():  # an archive may hold a name twice
            folder = self._folders[owner] = Path(self._scratch, str(self._made), *above)
            self._made += 1
        path = folder / base
        with room():
            folder.mkdir(parents=True, exist_ok=True)
            out = path.open("wb")
        try:
            with out:
                self._copy(start, stream, out)
        except BaseException:
            path.unlink()
            raise
        return path

    def _copy(self, start: bytes, stream: Stream, out: IO[bytes]) -> None:
        size, data = 0, start
        while data:
            size += len(data)
            if size > min(MAX_MEMBER_BYTES, self._left):
                raise TooLarge("larger than is read of one member, or of all together")
            with room():
                out.write(data)
            data = stream.read(_PIECE)
        self._left -= size

    def remove(self, path: Path) -> None:
        self._left += path.stat().st_size
        path.unlink()

    def remove_all_but(self, used: Sequence[Path]) -> None:
        kept = set(used) | {path.with_name(path.name + WAL) for path in used}
        for folder in self._folders.values():
            for path in folder.iterdir() if folder.is_dir() else ():
                if path not in kept:
                    path.unlink()
