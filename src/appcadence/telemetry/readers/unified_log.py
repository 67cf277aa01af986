"""The unified log, in every style of `log show` and of other tools: pushes, unlocked and lit screen.

Reads three messages of the system's own processes and nothing else: apsd's "Received message for enabled
topic" (`notifications`), and "Screen did lock / unlock" and "Screen did light up / down" (`activity`). Of a
push's payload, only whether it says content-available is kept. Without a logging profile, the topic and
payload are <private>, and such a push has no app. `_log_forms` describes the forms and times that are read.

Entries may come in any order; they are sorted by time before intervals are made. Several processes log the
same unlocking; it counts once. A lock message says how long the device was unlocked before. This gives the
start of an interval whose unlock message is older than the log, and the end of one whose lock message is
missing. A state that is on at the end of the log ends with its last entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from appcadence._types import DAY_US
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import Batches, ReadOptions, _lines, rejected, tagged
from appcadence.telemetry.readers._device_log import (
    FINEST_SECONDS,
    app_of_topic,
    device_of,
    micros,
    table,
)
from appcadence.telemetry.readers._flows import MAX_DAYS
from appcadence.telemetry.readers._lines import Fault
from appcadence.telemetry.readers._log_forms import EXPECTED, Entry, form_of
from appcadence.telemetry.schema import ACTIVITY, NOTIFICATIONS

NAME = "unified_log"

MAX_CHANGES = 1_000_000
"""Most messages about lock and screen; a device logs some thousands a day, for days."""
_PUSH = re.compile(r"[^']{0,300}Received message for enabled topic '([^']{0,300})'")
_PRIORITY = re.compile(r"(1|5|10)\b")
_SILENT = re.compile(r'(?<!\\)"content-available"\s*[=:]\s*"?1\b')
_SCREEN = re.compile(
    r"Screen did (unlock|lock|light up|light down)\b(?: \(Was \w+ for ([0-9.]{1,20}) seconds)?"
)
_KINDS = {"unlock": "device_unlocked", "lock": "device_unlocked"}
_ON = ("unlock", "light up")
_EVENT_FIELDS = ("app_id", "time", "priority", "content_available")
_STATE_FIELDS = ("kind", "start", "end")

Event = tuple[str | None, int, int | None, bool | None]
State = tuple[str, int, int]


class _Change(NamedTuple):
    """One message about lock or screen; they sort by time."""

    time: int
    on: bool
    before: int
    """Microseconds for which the opposite state had lasted; -1 = not given."""
    line: int


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file starts like a unified log; never raises."""
    return form_of(start) is not None


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield notifications and activity, and rejected rows, of the logs of one device.

    Raises:
        UnusableFile: the device is not given, or a file is missing, empty, damaged or no such log.
    """
    for path in paths:
        same: dict[str, object] = {
            "device_id": device_of(path, options),
            "source": NAME,
            "time_resolution_seconds": FINEST_SECONDS,
        }
        form = form_of(_lines.head(path, EXPECTED))
        if form is None:
            raise UnusableFile(f"{path} is not {EXPECTED}: no entry among its first lines", path)
        changes: dict[str, list[_Change]] = {"device_unlocked": [], "screen_on": []}
        last = 0
        for piece in form(path):
            last = max([last, *(entry.time for entry in piece.entries)])
            events = list(_pushes(piece.entries, changes))
            if sum(map(len, changes.values())) > MAX_CHANGES:
                said = f"has more than {MAX_CHANGES:,} messages about lock and screen"
                raise UnusableFile(f"{path} {said}; no device logs so many", path)
            if events:
                pushes = table(NOTIFICATIONS, _EVENT_FIELDS, events, same | {"kind": "push_received"})
                yield "notifications", tagged(pushes, path)
            yield from rejected(path, piece.bad)
            yield from rejected(path, piece.unzoned, len(piece.unzoned))
            options.said.update({(path, what): None for _, what in piece.unzoned})
            yield "activity", tagged(ACTIVITY.empty(), path, piece.read, piece.size)
        states: list[State] = []
        bad: list[Fault] = []
        for kind, found in changes.items():
            for line, start, end in _spans(sorted(found), last):
                if end - start > MAX_DAYS * DAY_US:
                    bad.append((line, f"the interval that begins here lasts more than {MAX_DAYS} days"))
                else:
                    states.append((kind, start, end))
        yield from rejected(path, bad)
        if states:
            yield "activity", tagged(table(ACTIVITY, _STATE_FIELDS, states, same), path)


def _pushes(entries: Sequence[Entry], changes: dict[str, list[_Change]]) -> Iterator[Event]:
    """The pushes of some entries; lock and screen messages are added to `changes`."""
    for line, time, process, message in entries:
        # Apps live in containers, and their messages prove nothing about the device.
        if not process or "/containers/" in process.lower():
            continue
        if screen := _SCREEN.match(message):
            change = _Change(time, screen[1] in _ON, _micros_before(screen[2]), line)
            changes[_KINDS.get(screen[1], "screen_on")].append(change)
        elif process.rpartition("/")[2] == "apsd" and (push := _PUSH.match(message)):
            yield _event(push[1], time, message[push.end() :])


def _spans(changes: Sequence[_Change], last: int) -> Iterator[tuple[int, int, int]]:
    """Line, start and end of each interval, given changes sorted by time."""
    known, since, line = False, -1, 0
    for change in changes:
        if change.on:
            missed = change.time - change.before if change.before >= 0 else -1
            if since >= 0 and missed > since:
                yield line, since, missed
                since = -1
            if since < 0:
                since, line = change.time, change.line
        else:
            if not known and change.before >= 0:
                since, line = max(change.time - change.before, 0), change.line
            if since >= 0:
                yield line, since, change.time
            since = -1
        known = True
    if since >= 0:
        yield line, since, max(last, since)


def _event(topic: str, time: int, rest: str) -> Event:
    _, _, payload = rest.partition(" with payload '")
    # The payload may hold anything, even these words: what the system says of it comes last.
    shown, found, after = payload.rpartition("' with priority ")
    priority = _PRIORITY.match(after) if found else None
    shown = shown if found else payload
    private = not shown or shown.startswith("<private>")
    silent = None if private else bool(_SILENT.search(shown))
    return app_of_topic(topic), time, int(priority[1]) if priority else None, silent


def _micros_before(text: str | None) -> int:
    try:
        known = micros(float(text)) if text else None
    except ValueError:
        known = None
    return -1 if known is None or known > MAX_DAYS * DAY_US else known
