"""The App Privacy Report (ndjson, iOS 15.2 and later): `contact_summaries`, never flows.

Each networkActivity row says how often one app contacted one host in the last seven days, first when and
last when; one row in, one row out. An app has several rows for a host that was contacted through several
web sites: which sites is not read. Rows of other types (camera, location ...) are passed over. Times
carry the offset of the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import ReadOptions, _lines, rejected, tagged
from appcadence.telemetry.readers._device_log import app_id, device_of, iso_micros, table
from appcadence.telemetry.readers._hosts import address, is_address
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.readers._json_objects import first_objects, objects
from appcadence.telemetry.schema import CONTACT_SUMMARIES

NAME = "app_privacy_report"

EXPECTED = "an App Privacy Report (.ndjson)"
_INITIATED = {"AppInitiated": "app", "NonAppInitiated": "user"}
_FIELDS = ("app_id", "dest_host", "first_seen", "last_seen", "hits", "initiated", "dest_owner")

Summary = tuple[str, str, int, int, int, str, str | None]


def sniff(path: Path) -> bool:
    """Whether the file's first lines are rows of an App Privacy Report; never raises."""
    try:
        return _fits(path)
    except TelemetryError:
        return False


def read(paths: Sequence[Path], options: ReadOptions) -> Iterator[tuple[str, pa.Table]]:
    """Yield contact summaries, and rejected rows, of the reports of one device.

    Raises:
        TelemetryError: the device is not given; or a file is missing, empty, damaged or no such report.
    """
    for path in paths:
        device = device_of(path, options)
        if not _fits(path):
            raise TelemetryError(f"{path} is not {EXPECTED}: no such row among its first lines")
        for found in objects(path, EXPECTED):
            bad = [(line, NO_OBJECT) for line in found.bad]
            rows: list[Summary] = []
            for line, row in found.good:
                if row.get("type") == "networkActivity":
                    summary = _summary(row)
                    if isinstance(summary, str):
                        bad.append((line, summary))
                    else:
                        rows.append(summary)
            if bad:
                bad.sort()
                yield "rejected", rejected(path, [line for line, _ in bad], [why for _, why in bad])
            summaries = table(CONTACT_SUMMARIES, _FIELDS, rows, {"device_id": device})
            count = len(found.bad) + len(found.good)
            yield "contact_summaries", tagged(summaries, path, count, found.size)


def _fits(path: Path) -> bool:
    return any(map(_is_row, first_objects(_lines.head(path, EXPECTED))))


def _is_row(row: dict[str, Any]) -> bool:
    if row.get("type") == "networkActivity":
        return "bundleID" in row and "domain" in row
    return row.get("type") == "access" and "accessor" in row


def _summary(row: dict[str, Any]) -> Summary | str:
    """The row as a summary, or what is wrong with it."""
    app, host = app_id(row.get("bundleID")), _host(row.get("domain"))
    first, last = iso_micros(row.get("firstTimeStamp")), iso_micros(row.get("timeStamp"))
    hits, initiated = row.get("hits"), row.get("initiatedType")
    if app is None:
        return "bundleID is no bundle id"
    if host is None:
        return "domain is neither a host name nor an address"
    if first is None or last is None:
        name = "firstTimeStamp" if first is None else "timeStamp"
        return f"{name} is no time with a UTC offset from 1970 to 2100"
    if last < first:
        return "timeStamp is before firstTimeStamp"
    if isinstance(hits, bool) or not isinstance(hits, int) or not 0 < hits < 1 << 62:
        return "hits is no positive whole number"
    if not isinstance(initiated, str) or initiated not in _INITIATED:
        return "initiatedType is neither AppInitiated nor NonAppInitiated"
    return app, host, first, last, hits, _INITIATED[initiated], _owner(row.get("domainOwner"))


def _host(value: object) -> str | None:
    """The host name in lower case, or the address in canonical form."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > 255:
        return None
    bare = value.strip().removeprefix("[").removesuffix("]")
    if is_address(bare):
        return address(bare)
    name = bare.rstrip(".").lower()
    return None if not name or set(name) & set("/@?# :") else name


def _owner(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isprintable() else None
