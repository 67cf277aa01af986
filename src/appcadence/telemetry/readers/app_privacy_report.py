"""The App Privacy Report (ndjson, iOS 15.2 and later): `contact_summaries` and `accesses`, never flows.

Each networkActivity row says how often one app contacted one host in the last seven days, and when first and
last; each row gives one row. An app has several rows for a host that it contacted through several web sites;
the sites are not read. From access rows, the app, the category and the times are read; the two rows of one
access share an identifier. Times carry the offset of the device.

No row says when the report was made, and its name has no offset. A report is taken to end with its latest
time, and to begin with its earliest, but at most seven days before the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from appcadence._types import DAY_US
from appcadence.telemetry.addresses import canonical, is_address
from appcadence.telemetry.readers import Batches, ReadOptions, rejected, tagged
from appcadence.telemetry.readers._device_log import app_id, device_of, iso_micros, table
from appcadence.telemetry.readers._hosts import MAX_HOST
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.readers._json_layout import OBJECT_BYTES, blocks, check, fits, objects
from appcadence.telemetry.schema import ACCESSES, CONTACT_SUMMARIES, MAX_NAME

NAME = "app_privacy_report"

EXPECTED = "an App Privacy Report (.ndjson)"
_INITIATED = {"AppInitiated": "app", "NonAppInitiated": "user"}
_FIELDS = ("app_id", "dest_host", "first_seen", "last_seen", "hits", "initiated", "dest_owner")
_ACCESS_FIELDS = ("app_id", "category", "start", "end")
_CATEGORY = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
REPORT_DAYS = 7
_MAX_OPEN = 100_000
"""Most accesses that wait for their end; beyond that, the oldest one is written without an end."""

Summary = tuple[str, str, int, int, int, str, str | None]
Access = tuple[str, str, int, int | None]


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file's first objects are rows of an App Privacy Report; never raises."""
    return fits(start, _is_row)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield contact summaries, accesses and rejected rows of the reports of one device.

    Raises:
        UnusableFile: the device is not given, or a file is missing, empty, damaged or no such report.
    """
    for path in paths:
        same = {"device_id": device_of(path, options)}
        check(path, EXPECTED, _is_row)
        start, end = _span(path)
        span: dict[str, object] = {"report_start": start, "report_end": end}
        pairs = _Pairs()
        for block in blocks(path, EXPECTED, OBJECT_BYTES):
            rows: list[Summary] = []
            bad: list[tuple[int, str]] = []
            read = others = 0
            for line, row in objects(block):
                read += 1
                access = row is not None and row.get("type") == "access"
                said = pairs.add(row) if row and access else _summary(row)
                others += said is None and not access
                if isinstance(said, tuple):
                    rows.append(said)
                elif said:
                    bad.append((line, said))
            yield from rejected(path, bad)
            summaries = table(CONTACT_SUMMARIES, _FIELDS, rows, span | same)
            yield "contact_summaries", tagged(summaries, path, read, block.size, {"other_kind": others})
            yield from _accesses(path, pairs.ended(), same)
        yield from _accesses(path, pairs.left(), same)


def _accesses(path: Path, rows: Sequence[Access], same: dict[str, str]) -> Batches:
    if rows:
        yield "accesses", tagged(table(ACCESSES, _ACCESS_FIELDS, rows, same | {"source": NAME}), path)


def _span(path: Path) -> tuple[int | None, int | None]:
    """When the report in a file begins and ends; None if no row has a time."""
    times = list(_extremes(path))
    if not times:
        return None, None
    first, last = min(times), max(times)
    return max(first, last - REPORT_DAYS * DAY_US), last


def _extremes(path: Path) -> Iterator[int]:
    """The first and last time of each block of a file."""
    for block in blocks(path, EXPECTED, OBJECT_BYTES):
        texts = (
            row.get(name) for _, row in objects(block) if row for name in ("firstTimeStamp", "timeStamp")
        )
        if times := [at for at in map(iso_micros, texts) if at is not None]:
            yield from (min(times), max(times))


def _is_row(row: dict[str, Any]) -> bool:
    if row.get("type") == "networkActivity":
        return "bundleID" in row and "domain" in row
    return row.get("type") == "access" and "accessor" in row


class _Pairs:
    """Joins the begin and end rows of each access."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str], int] = {}
        self._ended: list[Access] = []

    def add(self, row: dict[str, Any]) -> str | None:
        """Add a row; returns what is wrong with it, if anything."""
        accessor, category = row.get("accessor"), row.get("category")
        app = app_id(accessor.get("identifier")) if isinstance(accessor, dict) else None
        at, identifier, kind = iso_micros(row.get("timeStamp")), row.get("identifier"), row.get("kind")
        if app is None:
            return "accessor is no app with a bundle id"
        if not isinstance(category, str) or not _CATEGORY.fullmatch(category):
            return "category is no word"
        if at is None:
            return "timeStamp is no time with a UTC offset from 1970 to 2100"
        if not isinstance(identifier, str) or len(identifier) > MAX_NAME:
            return f"identifier is no text of at most {MAX_NAME} characters"
        if kind not in ("intervalBegin", "intervalEnd"):
            return "kind is neither intervalBegin nor intervalEnd"
        key = app, category, identifier
        if kind == "intervalBegin":
            self._open.setdefault(key, at)
            if len(self._open) > _MAX_OPEN:
                self._end(next(iter(self._open)), None)
        else:
            # It may have begun before the report did.
            self._open.setdefault(key, at)
            self._end(key, at)
        return None

    def ended(self) -> list[Access]:
        """The accesses that ended since the last call."""
        found, self._ended = self._ended, []
        return found

    def left(self) -> list[Access]:
        """The accesses without an end."""
        for key in list(self._open):
            self._end(key, None)
        return self.ended()

    def _end(self, key: tuple[str, str, str], at: int | None) -> None:
        start = self._open.pop(key)
        self._ended.append((*key[:2], start, at if at is None else max(at, start)))


def _summary(row: dict[str, Any] | None) -> Summary | str | None:
    """The row as a summary, or what is wrong with it; None if it is of another type."""
    if row is None:
        return NO_OBJECT
    if row.get("type") != "networkActivity":
        return None
    app, host = app_id(row.get("bundleID")), _host(row.get("domain"))
    first, last = iso_micros(row.get("firstTimeStamp")), iso_micros(row.get("timeStamp"))
    hits, initiated = _whole(row.get("hits")), row.get("initiatedType")
    if app is None:
        return "bundleID is no bundle id"
    if host is None:
        return "domain is neither a host name nor an address"
    if first is None or last is None:
        name = "firstTimeStamp" if first is None else "timeStamp"
        return f"{name} is no time with a UTC offset from 1970 to 2100"
    if last < first:
        return "timeStamp is before firstTimeStamp"
    if hits is None or not 0 < hits < 1 << 62:
        return "hits is no positive whole number"
    if not isinstance(initiated, str) or initiated not in _INITIATED:
        return "initiatedType is neither AppInitiated nor NonAppInitiated"
    owner = row.get("domainOwner")
    if isinstance(owner, str) and len(owner) > MAX_NAME:
        return f"domainOwner is longer than {MAX_NAME} characters"
    return app, host, first, last, hits, _INITIATED[initiated], _owner(owner)


def _whole(value: object) -> int | None:
    """A whole number, even if a tool that rewrote the report quoted it or made it a float."""
    if isinstance(value, str) and len(value) < 20 and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _host(value: object) -> str | None:
    """The host name in lower case, or the address in canonical form."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > MAX_HOST:
        return None
    bare = value.strip().removeprefix("[").removesuffix("]")
    if is_address(bare):
        return canonical(bare)
    name = bare.rstrip(".").lower()
    return None if not name or set(name) & set("/@?# :") else name


def _owner(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None
