"""The unified log as JSON (`log show --style json` or `ndjson`): pushes, unlocked and lit screen.

Reads three messages of the system's own processes and nothing else: apsd's "Received message for enabled
topic" (`notifications`), and "Screen did lock / unlock" and "Screen did light up / down" (`activity`). Of a
push's payload only whether it says content-available is kept. Without a logging profile the topic and
payload are <private>: such a push has no app. Times carry the offset of the machine that exported the log.

Also reads the JSON lines of mandiant's unifiedlog_iterator (fields `message` and `process`).

Several processes log the same unlocking; it counts once. A lock message tells how long the device was
unlocked before: so begins an interval whose unlock message is older than the log, and so ends one whose
lock message is missing. What is on at the end of the log ends with its last record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appcadence._types import DAY_US
from appcadence.telemetry.readers import Batches, ReadOptions, rejected, tagged
from appcadence.telemetry.readers._device_log import (
    FINEST_SECONDS,
    app_of_topic,
    device_of,
    iso_micros,
    micros,
    table,
)
from appcadence.telemetry.readers._flows import MAX_DAYS
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.readers._json_layout import OBJECT_BYTES, blocks, check, fits, objects
from appcadence.telemetry.schema import ACTIVITY, NOTIFICATIONS

NAME = "unified_log"

EXPECTED = "a unified log in JSON (log show --style ndjson)"

_PUSH = re.compile(r"[^']{0,300}Received message for enabled topic '([^']{0,300})'")
_PRIORITY = re.compile(r"(1|5|10)\b")
_SILENT = re.compile(r'(?<!\\)"content-available"\s*[=:]\s*"?1\b')
_SCREEN = re.compile(
    r"Screen did (unlock|lock|light up|light down)\b(?: \(Was \w+ for ([0-9.]{1,20}) seconds)?"
)
_STATES = {"unlock": "device_unlocked", "lock": "device_unlocked"}
_ON = ("unlock", "light up")
_EVENT_FIELDS = ("app_id", "time", "priority", "content_available")
_STATE_FIELDS = ("kind", "start", "end")

Event = tuple[str | None, int, int | None, bool | None]
State = tuple[str, int, int]


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file's first objects are unified log records; never raises."""
    return fits(start, _is_record)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield notifications and activity, and rejected rows, of the logs of one device.

    Raises:
        UnusableFile: the device is not given; or a file is missing, empty, damaged or no such log.
    """
    for path in paths:
        same: dict[str, object] = {
            "device_id": device_of(path, options),
            "source": NAME,
            "time_resolution_seconds": FINEST_SECONDS,
        }
        check(path, EXPECTED, _is_record)
        log = _Log()
        for block in blocks(path, EXPECTED, OBJECT_BYTES):
            found = [(line, NO_OBJECT if row is None else log.take(row)) for line, row in objects(block)]
            yield from log.tables(same, path)
            bad = [(line, fault) for line, fault in found if fault]
            yield from rejected(path, [line for line, _ in bad], [fault for _, fault in bad])
            yield "activity", tagged(ACTIVITY.empty(), path, len(found), block.size)
        log.finish()
        yield from log.tables(same, path)


def _is_record(row: dict[str, Any]) -> bool:
    apple = "eventMessage" in row and "timestamp" in row
    return apple or {"timestamp", "message", "subsystem", "process"} <= row.keys()


class _Log:
    """What the records so far gave and has not been written yet."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.states: list[State] = []
        self._last = 0
        self._switches = {kind: _Switch(kind, self.states) for kind in ("device_unlocked", "screen_on")}

    def take(self, row: dict[str, Any]) -> str | None:
        """Use one record; returns what is wrong with it, if anything."""
        if "finished" in row and "timestamp" not in row:
            # The last line of `log show --style ndjson`.
            return None
        time = iso_micros(row.get("timestamp"))
        if time is None:
            return "timestamp is no time with a UTC offset from 1970 to 2100"
        self._last = max(self._last, time)
        message = row.get("eventMessage", row.get("message"))
        process = row.get("processImagePath", row.get("process"))
        if not isinstance(message, str) or not isinstance(process, str):
            return None
        # Apps live in containers; what they log proves nothing about the device.
        if not process or "/containers/" in process.lower():
            return None
        if screen := _SCREEN.match(message):
            kind = _STATES.get(screen[1], "screen_on")
            self._switches[kind].set(time, screen[1] in _ON, _seconds(screen[2]))
        elif process.rpartition("/")[2] == "apsd" and (push := _PUSH.match(message)):
            self.events.append(_event(push[1], time, message[push.end() :]))
        return None

    def finish(self) -> None:
        for switch in self._switches.values():
            switch.end(self._last)

    def tables(self, same: dict[str, object], path: Path) -> Batches:
        if self.events:
            constants = same | {"kind": "push_received"}
            yield "notifications", tagged(table(NOTIFICATIONS, _EVENT_FIELDS, self.events, constants), path)
            self.events.clear()
        if self.states:
            yield "activity", tagged(table(ACTIVITY, _STATE_FIELDS, self.states, same), path)
            self.states.clear()


class _Switch:
    """Turns repeated on and off messages into intervals."""

    def __init__(self, kind: str, states: list[State]) -> None:
        self._kind = kind
        self._states = states
        self._known = False
        self._since: int | None = None

    def set(self, time: int, on: bool, before: int | None) -> None:
        """`before`: how long the opposite had been the case."""
        if on:
            missed = None if before is None else time - before
            if self._since is not None and missed is not None and missed > self._since:
                self._close(missed)
            self._since = time if self._since is None else self._since
        else:
            if not self._known and before is not None:
                self._since = max(time - before, 0)
            self._close(time)
        self._known = True

    def end(self, time: int) -> None:
        self._close(time)

    def _close(self, time: int) -> None:
        if self._since is not None:
            self._states.append((self._kind, self._since, max(time, self._since)))
            self._since = None


def _event(topic: str, time: int, rest: str) -> Event:
    _, _, payload = rest.partition(" with payload '")
    # The payload may hold anything, even these words: what the system says of it comes last.
    shown, found, after = payload.rpartition("' with priority ")
    priority = _PRIORITY.match(after) if found else None
    shown = shown if found else payload
    private = not shown or shown.startswith("<private>")
    silent = None if private else bool(_SILENT.search(shown))
    return app_of_topic(topic), time, int(priority[1]) if priority else None, silent


def _seconds(text: str | None) -> int | None:
    try:
        known = micros(float(text)) if text else None
    except ValueError:
        return None
    return known if known is None or known <= MAX_DAYS * DAY_US else None
