"""Biome streams of a full extraction (SEGB files): apps in front, notifications, unlocked and lit screen.

The folders of a file say which stream it belongs to (`.../App.InFocus/local/NAME`): give files with them.
Files under `remote` hold what other devices did, those under `tombstone` what was deleted; neither is read.
Of a notification, only its app, its time and whether it was shown or opened are decoded; its texts are in
fields that are skipped. Records that are in several files count once.

In App.InFocus, an app is in front from its own record until its next one or, if that is missing, until the
next record of any app; a record of a `_DKEvent` stream is a whole interval. A state that is on at the end of
the last file ends with its last record. The numbers of fields and usages come from public forensic tools
(iLEAPP); Apple documents none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from appcadence._types import DAY_US
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import Batches, ReadOptions, _segb, rejected, tagged
from appcadence.telemetry.readers._device_log import (
    FINEST_SECONDS,
    app_id,
    device_of,
    is_app,
    micros,
    table,
)
from appcadence.telemetry.readers._flows import MAX_DAYS
from appcadence.telemetry.readers._protobuf import BYTES, DOUBLE, VARINT, Value, fields
from appcadence.telemetry.schema import ACTIVITY, NOTIFICATIONS
from appcadence.telemetry.times import COCOA_EPOCH

NAME = "biome"

EXPECTED = "a Biome stream (SEGB)"
_FIRST_RECORDS = 20
_FOLDERS = re.compile(
    r"/(?P<stream>[^/]+)/(?P<side>local|remote)/(?:(?!tombstone/)[^/]+/)?(?P<tombstone>tombstone/)?[^/]+$"
)
"""The end of a path: a file of the device itself, of another (in its folder), or of deleted records."""
_ACTIVITY_FIELDS = ("app_id", "kind", "start", "end")
_NOTIFICATION_FIELDS = ("app_id", "time", "kind")


Fields = dict[int, Value]


@dataclass(frozen=True)
class Stream:
    """What is read from the records of one stream."""

    kinds: Mapping[int, str]
    """What each value means; for a state, the value that means it is on. Any other ends a state of the
    device, such as 2 of a screen that always shows the time."""
    value: int | None
    """The field with the value; None = every record means that the state is on."""
    time: int | None = None
    """The field with the time; None = the record's own."""
    apps: tuple[int, ...] = ()
    """Fields with the app, the most reliable first; none = the stream is about the device."""
    events: bool = False
    """Whether a record is an event rather than a change of state (0 or 1)."""
    end: int | None = None
    """The field with the end, if a record is a whole interval."""
    inside: int | None = None
    """The field with the message that holds value and app; None = the record itself."""

    def read(self, record: bytes) -> tuple[Fields, Fields] | None:
        """The fields with times, and those of value and app; None if it is no such message."""
        times = {number: DOUBLE for number in (self.time, self.end) if number is not None}
        said = dict.fromkeys(self.apps, BYTES) | ({} if self.value is None else {self.value: VARINT})
        if self.inside is None:
            found = fields(record, times | said)
            return None if found is None else (found, found)
        outer = fields(record, times | {self.inside: BYTES})
        if outer is None:
            return None
        inner = outer.get(self.inside, b"")
        held = fields(inner, said) if isinstance(inner, bytes) else None
        return None if held is None else (outer, held)


_SHOWN = {1: "notification_shown", 2: "notification_opened"}
_LIT = Stream({1: "screen_on"}, value=2, time=1)
STREAMS = {
    "App.InFocus": Stream({1: "app_foreground"}, value=3, time=4, apps=(6,)),
    "Notification.Usage": Stream(_SHOWN, value=3, time=2, apps=(14, 4), events=True),
    "Notification": Stream(_SHOWN, value=3, time=2, apps=(14, 4), events=True),
    "_DKEvent.App.InFocus": Stream({1: "app_foreground"}, None, time=2, apps=(3,), end=3, inside=4),
    "_DKEvent.Keybag.IsLocked": Stream({0: "device_unlocked"}, value=4, time=2, end=3, inside=4),
    "Device.ScreenLocked": Stream({0: "device_unlocked"}, value=1),
    "Device.Display.Backlight": _LIT,
    "Backlight": _LIT,
}
"""By name; since iOS 17 some streams have longer ones."""


class Said(NamedTuple):
    """What a record says."""

    time: int
    """Microseconds since the epoch, like `end`."""
    app: str
    """"" for the device."""
    value: int
    end: int
    """0 = it says none."""


Place = tuple[Path, int]
"""File and number of a record."""


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file starts like a SEGB file; never raises."""
    return _segb.version(start) is not None


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield activity and notifications, and rejected rows, of the streams of one device.

    A rejected row's line is the number of the record.

    Raises:
        UnusableFile: the device is not given, or a file is missing, damaged, no SEGB file, or of a stream
            that is not read.
    """
    found: dict[str, dict[Said, Place]] = {}
    for path in paths:
        same: dict[str, object] = {
            "device_id": device_of(path, options),
            "source": NAME,
            "time_resolution_seconds": FINEST_SECONDS,
        }
        name = _name_of(path)
        places = found.setdefault(name, {})
        read, bad = 0, []
        for record in _segb.records(path, EXPECTED):
            read += 1
            said = _said(record, STREAMS[name]) if isinstance(record, _segb.Record) else record[1]
            if isinstance(said, str):
                bad.append((record[0], said))
            elif said is not None:
                places.setdefault(said, (path, record[0]))
        yield from rejected(path, bad)
        yield "activity", tagged(ACTIVITY.empty(), path, read, path.stat().st_size)
    for name, places in found.items():
        yield from (_notifications if STREAMS[name].events else _activity)(STREAMS[name], places, same)


def is_read(path: Path) -> bool:
    """Whether, by its folders, a SEGB file is of a stream of the device itself that is read."""
    try:
        return bool(_name_of(path))
    except UnusableFile:
        return False


def _name_of(path: Path) -> str:
    """The stream of a file, by its folders; App.InFocus is also known by its content."""
    read = f"the streams that are read are {', '.join(STREAMS)} of the device itself"
    folders = _FOLDERS.search(path.absolute().as_posix())
    name = folders["stream"] if folders else ""
    if folders is None or ("." not in name and name not in STREAMS):
        if _is_in_focus(path):
            return "App.InFocus"
        raise UnusableFile(
            f"{path} is {EXPECTED} whose folders do not say what it holds; give it with its folders, such as "
            f".../App.InFocus/local/{path.name}; {read}",
            path,
        )
    if folders["side"] == "remote" or folders["tombstone"]:
        raise UnusableFile(f"{path} is {EXPECTED} of another device or of deleted records; {read}", path)
    if name not in STREAMS:
        raise UnusableFile(f"{path} is the Biome stream {name} (SEGB), which is not read; {read}", path)
    return name


def _is_in_focus(path: Path) -> bool:
    written = (record for record in _segb.records(path, EXPECTED) if isinstance(record, _segb.Record))
    first = [_said(record, STREAMS["App.InFocus"]) for record in islice(written, _FIRST_RECORDS)]
    return bool(first) and all(isinstance(said, Said) and "." in said.app for said in first)


def _said(record: _segb.Record, stream: Stream) -> Said | str | None:
    """The content of a record, or what is wrong with it; None if it is of no interest."""
    read = stream.read(record.data)
    if read is None:
        return "the record is no message of this stream"
    times, found = read
    value = 1 if stream.value is None else found.get(stream.value)
    if not isinstance(value, int):
        return f"the record has no field {stream.value}, its state"
    if stream.events and value not in stream.kinds:
        return None
    if stream.apps and not stream.events and value not in (0, 1):
        return f"field {stream.value} is neither 0 nor 1"
    time = _micros(record.time if stream.time is None else times.get(stream.time))
    end = 0 if stream.end is None else _micros(times.get(stream.end))
    if time is None or end is None:
        return "the time is not from 1970 to 2100"
    if stream.end is not None and end < time:
        return "the interval ends before it begins"
    if not stream.apps:
        return Said(time, "", value, end)
    names = (found[number] for number in stream.apps if number in found)
    name = next((name for name in names if isinstance(name, bytes)), b"")
    app = app_id(name.decode("ascii", "replace"))
    return "the record names no bundle id" if app is None else Said(time, app, value, end)


def _micros(seconds: Value | None) -> int | None:
    return micros(seconds + COCOA_EPOCH) if isinstance(seconds, float) else None


def _notifications(stream: Stream, places: Mapping[Said, Place], same: Mapping[str, object]) -> Batches:
    rows: dict[Path, list[tuple[str, int, str]]] = {}
    for (time, app, value, _), (path, _) in sorted(places.items()):
        rows.setdefault(path, []).append((app, time, stream.kinds[value]))
    for path, events in rows.items():
        yield "notifications", tagged(table(NOTIFICATIONS, _NOTIFICATION_FIELDS, events, same), path)


def _activity(stream: Stream, places: Mapping[Said, Place], same: Mapping[str, object]) -> Batches:
    (on,) = stream.kinds
    rows: dict[Path, list[tuple[str | None, str, int, int]]] = {}
    whole = stream.end is not None
    stated = ((said, said.end) for said in sorted(places, reverse=True) if said.value == on)
    for said, end in stated if whole else _intervals(sorted(places), on):
        start, app = said.time, said.app
        path, number = places[said]
        if end - start > MAX_DAYS * DAY_US:
            fault = f"the interval that begins here lasts more than {MAX_DAYS} days"
            yield from rejected(path, [(number, fault)])
        elif not app or is_app(app):
            rows.setdefault(path, []).append((app or None, stream.kinds[on], start, end))
    for path, states in rows.items():
        yield "activity", tagged(table(ACTIVITY, _ACTIVITY_FIELDS, states[::-1], same), path)


def _intervals(records: Sequence[Said], on: int) -> Iterator[tuple[Said, int]]:
    """The first record and the end time of each interval, the last interval first."""
    # A state repeated without anything in between counts once.
    changes = [said for before, said in pairwise([Said(0, "", -1, 0), *records]) if before[1:] != said[1:]]
    later: dict[str, Said] = {}
    following = records[-1].time if records else 0
    for said in reversed(changes):
        if said.value == on:
            own = later.get(said.app)
            yield said, own.time if own is not None and own.value != on else following
        later[said.app] = said
        following = said.time
