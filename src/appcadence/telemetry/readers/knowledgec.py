"""knowledgeC.db (SQLite, plain or gzip): apps in front, unlocked and lit screen, as `activity`.

Reads the streams /app/inFocus, /app/usage, /device/isLocked and /display/isBacklit. Times count from
2001-01-01 UTC; the local offset stored beside them is not applied. /app/usage is what Screen Time counts and
overlaps with /app/inFocus, so a span may be in both. An app shown through an extension counts for the app
that contains it. Rows that other devices of the same person recorded (ZSOURCE) are rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appcadence._types import DAY_US
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import Batches, ReadOptions, _sqlite, rejected, tagged
from appcadence.telemetry.readers._device_log import (
    app_id,
    device_of,
    is_app,
    micros,
    resolution_seconds,
    table,
)
from appcadence.telemetry.readers._flows import MAX_DAYS
from appcadence.telemetry.schema import ACTIVITY
from appcadence.telemetry.times import COCOA_EPOCH

NAME = "knowledgec"

EXPECTED = "a knowledgeC.db"
_TABLE = "ZOBJECT"
_APPS = ("/app/inFocus", "/app/usage")
_STATES = {"/device/isLocked": ("device_unlocked", 0), "/display/isBacklit": ("screen_on", 1)}
"""Each stream's kind of activity, and the value that means it is on."""
_COLUMNS = ("ZSTREAMNAME", "ZSTARTDATE", "ZENDDATE")
_VALUES = ("ZVALUESTRING", "ZVALUEINTEGER")
_KEYS = ("ZSTRUCTUREDMETADATA", "ZSOURCE")
_HOLDER = "Z_DKAPPLICATIONMETADATAKEY__EXTENSIONCONTAININGBUNDLEIDENTIFIER"
_FIELDS = ("app_id", "kind", "start", "end", "source_app_id")

State = tuple[str | None, str, int, int, str | None]
Keyed = dict[_sqlite.Value, str]


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file is an SQLite database with the table ZOBJECT; never raises."""
    return _sqlite.has_table(path, start, (_TABLE,), EXPECTED)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield activity, and rejected rows, of the databases of one device.

    A rejected row's line is its row id (Z_PK). Rows that say "locked" or "dark" are read but not kept.

    Raises:
        UnusableFile: the device is not given, or a file is missing, damaged or no knowledgeC.db.
    """
    for path in paths:
        device = device_of(path, options)
        with _sqlite.opened(path, EXPECTED) as database:
            options.said.update(database.said)
            missing = set(_COLUMNS) - (database.columns(_TABLE) or set())
            if missing:
                names = ", ".join(sorted(missing))
                raise UnusableFile(
                    f"{path} has no plain table {_TABLE} with {names}; expected {EXPECTED}", path
                )
            read = 0
            states: list[State] = []
            stamps: set[float] = set()
            bad: list[tuple[int, str]] = []
            streams = (*_APPS, *_STATES)
            holders = _keyed(database, "ZSTRUCTUREDMETADATA", _HOLDER)
            others = _keyed(database, "ZSOURCE", "ZDEVICEID")
            rows = database.rows(_TABLE, _COLUMNS + _VALUES + _KEYS, _COLUMNS[0], streams)
            for line, (*values, metadata, origin) in rows:
                read += 1
                state: State | str | None = "recorded by another device (ZSOURCE)"
                if origin is None or origin not in others:
                    state = _state(values, holders.get(metadata))
                if isinstance(state, str):
                    bad.append((line, f"{_TABLE}: {state}"))
                elif state is not None:
                    states.append(state)
                    stamps.update(float(value) for value in values[1:3] if isinstance(value, int | float))
        same = {"device_id": device, "source": NAME, "time_resolution_seconds": resolution_seconds(stamps)}
        yield from rejected(path, bad)
        activity = table(ACTIVITY, _FIELDS, states, same)
        yield "activity", tagged(activity, path, read, path.stat().st_size)


def _keyed(database: _sqlite.Database, table: str, column: str) -> Keyed:
    """The texts of a column by Z_PK; empty if there is no such table or column."""
    rows = database.rows(table, ("Z_PK", column))
    return {key: text for _, (key, text) in rows if isinstance(text, str) and text}


def _state(values: Sequence[_sqlite.Value], holder: str | None) -> State | str | None:
    """The row as activity, or what is wrong with it; None if it means that a state is off."""
    stream, first, last, text, number = values
    start, end = _utc(first), _utc(last)
    if start is None or end is None:
        return f"{'ZSTARTDATE' if start is None else 'ZENDDATE'} is no time from 1970 to 2100"
    if end < start:
        return "ZENDDATE is before ZSTARTDATE"
    if end - start > MAX_DAYS * DAY_US:
        return f"ZENDDATE is more than {MAX_DAYS} days after ZSTARTDATE"
    if stream in _APPS:
        app = app_id(text)
        if app is None:
            return "ZVALUESTRING is no bundle id"
        raw = app if app_id(holder) else None
        return (app_id(holder) or app, "app_foreground", start, end, raw) if is_app(app) else None
    kind, meaning = _STATES[str(stream)]
    if number not in (0, 1):
        return "ZVALUEINTEGER is neither 0 nor 1"
    return (None, kind, start, end, None) if number == meaning else None


def _utc(value: _sqlite.Value) -> int | None:
    return micros(value + COCOA_EPOCH) if isinstance(value, int | float) else None
