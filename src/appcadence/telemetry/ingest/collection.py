"""Collections as people have them: a sysdiagnose, a folder or an archive of logs among many other files.

Members that some reader knows are used; the others are passed over and counted by reason. Members of an
archive are copied into a scratch directory of our own. An archive within an archive is not opened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.ingest.archive import (
    FAULTS,
    MAX_MEMBERS,
    Entry,
    entries,
    is_archive,
)
from appcadence.telemetry.ingest.copies import Copies, TooLarge
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers import Reader, biome, sniffed
from appcadence.telemetry.readers._lines import head
from appcadence.telemetry.readers._not_read import named
from appcadence.telemetry.readers._packed import Stopped, exactly, head_of, unpacking
from appcadence.telemetry.readers._sqlite import MAGIC, WAL
from appcadence.telemetry.times import to_iso, to_micros

_HEAD_BYTES, _BLOCK = 1 << 16, 512
_MAX_EXAMPLES, _MAX_NAME = 3, 100
_NAME = re.compile(
    r"sysdiagnose_(\d{4}\.\d\d\.\d\d_\d\d-\d\d-\d\d[+-]\d{4})"
    r"_([A-Za-z-]{1,30})_([A-Za-z0-9,-]{1,30})_([A-Za-z0-9]{1,20})"
)
_EXPECTED = re.compile(r"(.*\.plsql|knowledgec\.db|app_privacy_report.*\.ndjson)(\.gz)?", re.IGNORECASE)
_LOG_ARCHIVE = re.compile(r"[^/]*\.logarchive(?=/)")
_BINARY_LOG = (
    "a binary unified log; run `log show --archive FOLDER --style ndjson` on a Mac and give the output"
)
_IRREGULAR = "links, or not regular files"
_STREAM = "Biome streams (SEGB) that are not read, or of other devices"
_UNKNOWN = "in no format that is read"
_DAMAGED = "damaged inside the archive"
_DAMAGED = "named like a known log, but empty, damaged or something else"
_NESTED = "archives in an archive or folder; give each one separately"


@dataclass
class PassedOver:
    """Members that were not used, for one reason."""

    reason: str
    members: int = 0
    names: list[str] = field(default_factory=list)
    """The first of them."""

    def summary(self) -> str:
        """`12 files (a.txt, b.txt and 10 more): why`."""
        if not self.names:
            return self.reason
        more = f" and {self.members - len(self.names):,} more" if self.members > len(self.names) else ""
        return f"{', '.join(self.names)}{more}: {self.reason}"


@dataclass(frozen=True)
class Member:
    """A member that a reader knows."""

    path: Path
    """Where it lies, or its copy."""
    name: str
    """Its place in the collection."""
    reader: Reader


@dataclass
class Collection:
    """A folder or an archive, and what was done with its members."""

    name: str
    device_id: str | None = None
    """From the name of a sysdiagnose: the kind of device, which others share."""
    system: str = ""
    """System and build, of a sysdiagnose."""
    taken: str | None = None
    """When a sysdiagnose was taken, ISO 8601 UTC."""
    within: list[Path] = field(default_factory=list)
    """Sysdiagnoses in a folder, where fetching tools leave them; each is a collection of its own."""
    used: int = 0
    passed_over: list[PassedOver] = field(default_factory=list)

    def pass_over(self, name: str, reason: str) -> None:
        known = next((group for group in self.passed_over if group.reason == reason), None)
        if known is None:
            known = PassedOver(reason)
            self.passed_over.append(known)
        known.members += 1
        top, _, below = name.partition("/")
        short = (below if _NAME.match(top) else name)[-_MAX_NAME:]
        if len(known.names) < _MAX_EXAMPLES and short and short not in known.names:
            known.names.append(short)

    def as_dict(self) -> dict[str, Any]:
        """The collection as plain values, ready for JSON."""
        return asdict(self) | {"within": [path.name for path in self.within]}

    @property
    def lacks(self) -> list[str]:
        """What is missing or damaged, in words; members of no use are not."""
        lost = (group for group in self.passed_over if not group.names or group.reason == _DAMAGED)
        return [group.summary() for group in lost]

    def summary(self, most: int = 5) -> str:
        """What was passed over, in words."""
        said = [group.summary() for group in self.passed_over]
        return listed(said, most, "; ") or "it is empty"

    def learn(self, name: str) -> None:
        """Take device, system and time from the first name of a sysdiagnose."""
        if self.device_id is None and (found := _NAME.search(name)):
            try:
                time = datetime.strptime(found[1], "%Y.%m.%d_%H-%M-%S%z")
                self.taken = to_iso(to_micros(time))
            except (ValueError, OverflowError):
                return
            self.system, self.device_id = f"{found[2]} {found[4]}", found[3]


def is_collection(path: Path) -> bool:
    """Whether the path is a folder or an archive; never raises."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return path.is_dir()
        # Read little by little, so that a cut-off archive gives what comes before the cut.
        with path.open("rb") as raw:
            return is_archive(exactly(unpacking(raw), _BLOCK))
    except (OSError, Stopped, *FAULTS):
        return False


def gather(path: Path, scratch: Path, chosen: Reader | None = None) -> tuple[Collection, list[Member]]:
    """The members that can be read, only of the `chosen` format if any; those of an archive are copied.

    Raises:
        TelemetryError: there is no room for the copies.
    """
    found = Collection(path.name or str(path.resolve().name))
    found.learn(str(path.resolve()) if path.is_dir() else path.name)
    if path.is_dir():
        members = list(_in_folder(found, path, chosen))
    else:
        members = _in_archive(found, path, scratch, chosen)
    found.used = len(members)
    found.passed_over.sort(key=lambda group: group.reason == _UNKNOWN)
    return found, members


def _in_folder(found: Collection, folder: Path, chosen: Reader | None) -> Iterator[Member]:
    for count, (name, path) in enumerate(_files(folder, found.within)):
        if count == MAX_MEMBERS:
            found.pass_over("", f"the folder has more than {MAX_MEMBERS:,} files")
            return
        if inside := _LOG_ARCHIVE.search(name):
            found.pass_over(inside[0], _BINARY_LOG)
            continue
        if name.endswith(WAL) and path.with_name(path.name.removesuffix(WAL)).is_file():
            continue
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                found.pass_over(name, _IRREGULAR)
                continue
            start = head(path, "a log", _HEAD_BYTES)
            reader = _known(path, start, chosen)
        except (OSError, UnusableFile):
            start, reader = b"", None
        if is_archive(start) and _NAME.match(path.name):
            found.within.append(path)
        elif reader is None:
            found.pass_over(name, _why_not(name, start, path))
        else:
            yield Member(path, name, reader)


def _files(folder: Path, apart: list[Path]) -> Iterator[tuple[str, Path]]:
    """All files below a folder, sorted by name within each folder; sysdiagnoses are added to `apart` instead.

    Links are not followed.
    """
    for where, folders, files in os.walk(folder):
        inner = [name for name in folders if _NAME.match(name)]
        apart += [Path(where, name) for name in sorted(inner)]
        folders[:] = sorted(set(folders) - set(inner))
        for file in sorted(files):
            path = Path(where, file)
            yield path.relative_to(folder).as_posix(), path


def _in_archive(found: Collection, archive: Path, scratch: Path, chosen: Reader | None) -> list[Member]:
    copies = Copies(scratch)
    members: list[Member] = []
    try:
        for entry in entries(archive):
            found.learn(entry.name)
            if inside := _LOG_ARCHIVE.search(entry.name):
                found.pass_over(inside[0], _BINARY_LOG)
            elif isinstance(taken := _taken(entry, copies, chosen), Member):
                members.append(taken)
            elif taken:
                found.pass_over(entry.name, taken)
    except Stopped as stopped:
        found.pass_over("", f"{stopped}; the rest is not read")
    copies.remove_all_but([member.path for member in members])
    return members


def _taken(entry: Entry, copies: Copies, chosen: Reader | None) -> Member | str:
    """A copy of the member if it is known, otherwise the reason; empty for a database's write-ahead log."""
    name, stream = entry.name, entry.stream
    if stream is None:
        return entry.reason
    try:
        data = exactly(stream, _HEAD_BYTES)
        start = head_of(data, _HEAD_BYTES)
        if name.endswith(WAL):
            copies.make(name, data, stream)
            return ""
        if start.startswith(MAGIC) or _known(Path(PurePosixPath(name).name), start, chosen):
            path = copies.make(name, data, stream)
            if reader := _known(path, start, chosen):
                return Member(path, name, reader)
            why = _why_not(name, start, path)
            copies.remove(path)
            return why
    except TooLarge as error:
        return str(error)
    except TelemetryError:
        raise
    except FAULTS:
        return _DAMAGED
    return _why_not(name, start, Path(name))


def _known(path: Path, start: bytes, chosen: Reader | None) -> Reader | None:
    if chosen is not None and chosen.NAME == "table":
        # Only its mapping says what such a table looks like.
        text = start.startswith(b"PAR1") or b"\0" not in start
        return chosen if start and text and not is_archive(start) else None
    found = sniffed(path, start) if start else None
    if found is not None and found.NAME == biome.NAME and path.exists() and not biome.is_read(path):
        return None
    return found if chosen is None or found is chosen else None


def _why_not(name: str, start: bytes, path: Path) -> str:
    base = PurePosixPath(name).name
    if is_archive(start):
        return _NESTED
    if _EXPECTED.fullmatch(base) and not base.startswith("._"):
        return _DAMAGED
    return named(start, path) or (_STREAM if biome.sniff(path, start) else _UNKNOWN)
