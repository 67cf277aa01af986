"""The paths given to convert, as files: also members of folders and archives, and standard input."""

from __future__ import annotations

import hashlib
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from appcadence._inputs import sha256, why_unreadable
from appcadence.errors import UnusableFile
from appcadence.telemetry.file_report import FileReport
from appcadence.telemetry.ingest.collection import Collection, gather, is_collection
from appcadence.telemetry.ingest.conversion_report import Tally
from appcadence.telemetry.readers import Reader, ReadOptions, detect
from appcadence.telemetry.readers._lines import pieces
from appcadence.telemetry.readers._packed import MAX_UNPACKED_BYTES
from appcadence.telemetry.readers._spill import room
from appcadence.telemetry.readers._sqlite import WAL, write_ahead_log

_PATTERN = re.compile(r"[*?\[]")
MAX_WAIT_SECONDS = 60.0
"""The longest wait for the next byte."""
_PIECE, _HEAD_BYTES = 1 << 20, 1 << 17


def inputs(
    paths: Sequence[Path], copies: Path, chosen: Reader | None, options: ReadOptions
) -> tuple[list[Tally], tuple[Collection, ...]]:
    """The files, each with its checksum, and the folders and archives that some of them were found in.

    Members of archives are copied into the directory `copies`.
    """
    tallies: list[Tally] = []
    collections: list[Collection] = []
    queue = [path for given in paths for path in _resolved(given, copies, tallies)]
    for number, path in enumerate(queue):  # it grows
        beside = path.with_name(path.name.removesuffix(WAL).removesuffix("-shm"))
        if beside != path and beside in paths:
            continue  # part of a database that is given as well
        if not is_collection(path):
            tallies.append(_hashed(Tally(path, FileReport(path.name))))
            continue
        folder = copies / str(number)
        folder.mkdir()
        found, members = gather(path, folder, chosen)
        collections.append(found)
        queue += found.within
        device = found.device_id if options.device_id is None else None
        for member in members:
            report = FileReport(PurePosixPath(member.name).name, collection=found.name)
            tallies.append(_hashed(Tally(member.path, report, member.reader, device)))
        if not members and not found.within:
            tally = Tally(path, FileReport(path.name))
            tally.pass_over(UnusableFile(f"{path} holds no file that can be read: {found.summary()}", path))
            tallies.append(tally)
    return tallies, tuple(collections)


def _resolved(path: Path, copies: Path, tallies: list[Tally]) -> Iterator[Path]:
    """The files that a path means: matches of a pattern that no shell expanded, or a copy of standard input.

    A path without any file adds a tally that is passed over.
    """
    text = str(path)
    try:
        if text == "-":
            yield standard_input(copies / "standard input")
            return
        if path.exists() or path.is_symlink() or not _PATTERN.search(text):
            yield path
            return
        found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        if not found:
            raise UnusableFile(f"no file matches {text}; expected a log file", path)
        yield from found
    except UnusableFile as error:
        tally = Tally(path, FileReport(path.name))
        tally.pass_over(error)
        tallies.append(tally)


def _hashed(tally: Tally) -> Tally:
    path, log = tally.path, write_ahead_log(tally.path)
    try:
        tally.report.sha256 = sha256(path)
        if log is not None:
            whole = f"{tally.report.sha256} {sha256(log)}"
            tally.report.sha256 = hashlib.sha256(whole.encode()).hexdigest()
    except OSError as error:
        tally.pass_over(UnusableFile(f"{path} {why_unreadable(error, 'a log file')}", path))
    return tally


def again(tally: Tally, error: UnusableFile) -> Tally:
    """The file for another attempt; unusable if this error says so, or if its packed data is damaged."""
    report = FileReport(tally.report.name, tally.report.sha256, collection=tally.report.collection)
    fresh = Tally(tally.path, report, tally.reader, tally.device_id)
    try:
        if tally.unusable or tally.path in error.paths:
            raise tally.unusable or error
        if not tally.report.skipped:
            for _ in pieces(tally.path, "a log"):
                pass
    except UnusableFile as found:
        fresh.pass_over(found)
    return fresh


def standard_input(target: Path, handle: int | None = None) -> Path:
    """Copy standard input, or another handle, into a file, because a log is read more than once.

    Raises:
        UnusableFile: nothing arrives for MAX_WAIT_SECONDS or at all, the first bytes are in no known format,
            or there is too much data.
        TelemetryError: there is no room for it.
    """
    handle = sys.stdin.fileno() if handle is None else handle
    size = known = 0
    with room(), target.open("wb") as out:
        while True:
            if not select.select([handle], [], [], MAX_WAIT_SECONDS)[0]:
                raise UnusableFile(f"standard input gave nothing for {MAX_WAIT_SECONDS:.0f} s", target)
            data = os.read(handle, _PIECE)
            if not data:
                break
            size += len(data)
            if size > MAX_UNPACKED_BYTES:
                raise UnusableFile(f"standard input is larger than {MAX_UNPACKED_BYTES >> 30} GB", target)
            out.write(data)
            if not known and size > _HEAD_BYTES:
                # Do not wait for the end of an unknown format: it may never come.
                out.flush()
                detect(target)
                known = size
    if not size:
        raise UnusableFile("standard input is empty; expected a log", target)
    return target
