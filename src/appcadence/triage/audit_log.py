"""The evidence file: one line of JSON for each run and decision, bound to the line before it by a hash.

A line is `{"at", "facts", "hash", "kind", "prev", "seq"}` in canonical JSON: keys sorted, no spaces, all that
is not ASCII escaped. `hash` is the SHA-256 of the line without its "hash", `prev` the hash of the line before
(64 zeros on the first), `seq` the number of the line from 1, `at` a time in UTC. So an edit, a cut in the
middle, a repeated or a moved line shows, and where.

What a chain cannot show by itself: that lines were cut off its end, or that the whole file was rewritten.
Keep the head (the last line's hash) elsewhere, in a ticket or a SIEM, and verify against it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple

from appcadence._files import check_output, lock, sync, unlock
from appcadence._inputs import open_input, read_bytes
from appcadence._types import Progress, silent
from appcadence.errors import EvidenceError

KINDS = ("run", "decision")
MAX_LINE_BYTES = 64 << 20
"""Bytes of the longest line that is written or read."""

_HASH = b',"hash":"'
_END = re.compile(
    rb',"hash":"([0-9a-f]{64})"(,"kind":"[a-z]+","prev":"([0-9a-f]{64})","seq":([1-9][0-9]{0,17})\})\n'
)
_ANCHOR = re.compile(rb'[0-9T:+-]+ ([0-9a-f]{64}) ("[ -\x7f]*")\n')
_BLOCK = 1 << 16
_REPORT_LINES = 20_000


class Verified(NamedTuple):
    """How far a file is whole."""

    lines: int
    head: str
    """Hash of the last line; 64 zeros where there is none."""
    anchored: int | None = None
    """The line whose hash is the head that was asked for: up to it nothing was cut off or rewritten."""


EMPTY = Verified(0, "0" * 64)


def append(path: str | Path, kind: str, facts: Mapping[str, Any], at: datetime) -> str:
    """Add one line and return its hash, the new head; see `extend`."""
    return extend(path, kind, [facts], at)


def extend(path: str | Path, kind: str, facts: Iterable[Mapping[str, Any]], at: datetime) -> str:
    """Add a line for each of `facts`, all or none, and return the new head; a missing file is made.

    On return the lines are on disk. Another writer waits meanwhile. Only the last line is checked beforehand.

    Args:
        path: the evidence file.
        kind: one of `KINDS`.
        facts: plain JSON values with finite numbers.
        at: when, with its time zone.

    Raises:
        EvidenceError: the last line is torn or edited, or the file cannot be written; it is as it was.
        ValueError, TypeError: the kind is unknown, `at` lacks a time zone, or facts are no JSON.
    """
    path = Path(path)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if at.tzinfo is None:
        raise ValueError(f"at must have a time zone, got {at}")
    line = {"at": at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"), "kind": kind}
    try:
        check_output(path, EvidenceError)
        new = not path.exists()
        with open(path, "a+b", buffering=0, opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            lock(stream.fileno())
            size = stream.seek(0, os.SEEK_END)
            state = _last(path, stream, size)
            added = []
            for each in facts:
                raw = _line(line | {"facts": each, "prev": state.head, "seq": state.lines + 1})
                state = _next(state, raw)
                added.append(raw)
            _write(path, stream, b"".join(added), size)
        if new:
            sync(path.parent)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be added to ({error.strerror or error})") from None
    return state.head


def anchor(path: str | Path, evidence: str | Path, head: str, at: datetime) -> None:
    """Add a head, with the time and the name of its evidence file, to a file on other storage.

    A line is `TIME HEAD NAME`; it is on disk on return, and added whole or not at all.

    Raises:
        EvidenceError: the file cannot be added to, or its last line is torn.
    """
    path = Path(path)
    name = json.dumps(Path(evidence).name)  # one word in ASCII, whatever the file is called
    line = f"{at.astimezone(UTC).isoformat(timespec='seconds')} {head} {name}\n".encode()
    try:
        check_output(path, EvidenceError)
        with path.open("a+b", buffering=0) as stream:
            lock(stream.fileno())
            size = stream.seek(0, os.SEEK_END)
            if size and os.pread(stream.fileno(), 1, size - 1) != b"\n":
                raise EvidenceError(f"{path} does not end with a line end; it is no file of anchors, or torn")
            _write(path, stream, line, size)
        sync(path.parent)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be added to ({error.strerror or error})") from None


def verify(
    path: str | Path,
    head: str | None = None,
    progress: Progress = silent,
    anchors: str | Path | None = None,
) -> Verified:
    """Check every line, in memory for one line and the heads.

    `head` is a hash that `append` returned earlier, `anchors` a file to which `anchor` added such. Without
    them, lines cut off the end and a file rewritten from its first line stay unseen; with them they show,
    up to the line that the last one stands for.

    Raises:
        EvidenceError: a line was edited, removed, put in, repeated or moved, the last one is torn, or a head
            is that of no line, or of one before that of the head noted before it; the message says which
            line. Or the file of anchors is none, or has no head of this file.
    """
    if head is not None and not re.fullmatch("[0-9a-f]{64}", head := head.strip().lower()):
        raise EvidenceError(f"a head is 64 hexadecimal digits, got {head!r}")
    noted = [] if anchors is None else _anchors_of(Path(anchors), Path(path).name)
    found = dict.fromkeys([head for _, head in noted] + ([] if head is None else [head]), 0)
    state = EMPTY
    for state, _ in lines(path, progress):
        if state.head in found:
            found[state.head] = state.lines
    gone = "lines were cut off its end, or the file was written anew"
    if head is not None and not found[head]:
        raise EvidenceError(f"{path}: none of its {state.lines:,} lines has the hash {head}: {gone}")
    last = 0
    for number, each in noted:
        if found[each] < last or not found[each]:
            why = f"comes before the head noted before it: {anchors} was changed" if found[each] else gone
            what = f"line {found[each]}" if found[each] else f"none of its {state.lines:,} lines"
            raise EvidenceError(f"{path}: the head on line {number} of {anchors} is that of {what}: {why}")
        last = found[each]
    return state._replace(anchored=max(found.values(), default=None))


def _anchors_of(path: Path, name: str) -> list[tuple[int, str]]:
    """Number of the line, and head, of each anchor of the evidence file called `name`."""
    try:
        content = read_bytes(path, MAX_LINE_BYTES)
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read ({error.strerror or error})") from None
    found = []
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if (parts := _ANCHOR.fullmatch(line)) is None:
            raise EvidenceError(f"{path}, line {number} is no anchor (TIME HEAD NAME), or torn")
        if parts[2].decode("ascii") == json.dumps(name):
            found.append((number, parts[1].decode("ascii")))
    if not found:
        raise EvidenceError(f"{path} has no head of an evidence file called {name}")
    return found


def lines(path: str | Path, progress: Progress = silent) -> Iterator[tuple[Verified, bytes]]:
    """The lines that the file has now, each with the state that it leads to, checked as they are read.

    Raises:
        EvidenceError: as `verify`, once the reading gets there.
    """
    path = Path(path)
    try:
        with open_input(path) as stream:
            # Of a line that is being written nothing is seen; what is there already does not change.
            lock(stream.fileno(), shared=True)
            size = os.fstat(stream.fileno()).st_size
            unlock(stream.fileno())
            state, done = EMPTY, 0
            while done < size:
                raw = stream.readline(min(size - done, MAX_LINE_BYTES))
                if not raw.endswith(b"\n") and len(raw) < MAX_LINE_BYTES:
                    raise EvidenceError(_torn(path, done, len(raw), f"line {state.lines + 1}"))
                done += len(raw)
                try:
                    state = _next(state, raw)
                except EvidenceError as error:
                    raise EvidenceError(f"{path}, {error}") from None
                if state.lines % _REPORT_LINES == 0:
                    progress("verifying", done / size)
                yield state, raw
    except OSError as error:
        raise EvidenceError(f"{path} cannot be read ({error.strerror or error})") from None


def _next(state: Verified, raw: bytes) -> Verified:
    """The state after one more line; all that is ever checked of a line is checked here."""
    number = state.lines + 1
    seq, prev, own = _parsed(raw, f"line {number}")
    if seq != number:
        raise EvidenceError(
            f"line {number} says that it is line {seq}: a line was removed, put in, repeated or moved here"
        )
    if prev != state.head:
        raise EvidenceError(
            f"line {number} was not written after the line before it: one of them was replaced"
        )
    return Verified(number, own)


def _parsed(raw: bytes, which: str) -> tuple[int, str, str]:
    """(seq, prev, hash) of a line that is as it was written.

    The hash is that of the very bytes, so that no other spelling of the same JSON passes.
    """
    at = raw.rfind(_HASH)
    end = _END.fullmatch(raw, at) if at >= 0 else None
    if end is None:
        raise EvidenceError(f"{which} was edited: it does not end like an evidence line")
    own = hashlib.sha256(raw[:at] + end[2]).hexdigest()
    if own.encode() != end[1]:
        raise EvidenceError(f"{which} was edited: its hash is not that of what it says")
    return int(end[4]), end[3].decode(), own


def _line(fields: dict[str, Any]) -> bytes:
    body = _canonical(fields)
    raw = _canonical(fields | {"hash": hashlib.sha256(body).hexdigest()}) + b"\n"
    if len(raw) >= MAX_LINE_BYTES:
        raise EvidenceError(
            f"a line of evidence may have {MAX_LINE_BYTES:,} bytes, this one has {len(raw):,}"
        )
    return raw


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _last(path: Path, stream: IO[bytes], size: int) -> Verified:
    """The state after the last line, which is checked by itself."""
    span = _BLOCK
    while True:
        begin = stream.seek(max(size - span, 0))
        tail = stream.read(size - begin)
        cut = tail.rfind(b"\n", 0, max(len(tail) - 1, 0)) + 1
        if cut or not begin or span > MAX_LINE_BYTES:
            break
        span *= 8
    if not tail:
        return EMPTY
    if not tail.endswith(b"\n"):
        raise EvidenceError(_torn(path, begin + cut, len(tail) - cut, "the last line"))
    seq, _, own = _parsed(tail[cut:], f"{path}: the last line")
    return Verified(seq, own)


def _torn(path: Path, start: int, size: int, which: str) -> str:
    return (
        f"{path}: {which} is torn ({size:,} byte(s) without a line end), as by a crash while it was written; "
        f"nothing was repaired; keep a copy and cut it off: truncate -s {start} {shlex.quote(str(path))}"
    )


def _write(path: Path, stream: IO[bytes], data: bytes, size: int) -> None:
    """Write everything to disk, or truncate the file to `size` bytes again."""
    try:
        view = memoryview(data)
        while view:
            view = view[stream.write(view) :]
        sync(path)
    except BaseException:
        os.ftruncate(stream.fileno(), size)
        raise
