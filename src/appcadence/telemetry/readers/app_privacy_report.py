"""The App Privacy Report (ndjson, iOS 15.2 and later): `contact_summaries`, never flows.

Each networkActivity row says how often one app contacted one host in the last seven days, first when and
last when; one row in, one row out. An app has several rows for a host that was contacted through several
web sites: which sites is not read. Rows of other types (camera, location ...) are passed over. Times
carry the offset of the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appcadence.telemetry.addresses import canonical, is_address
from appcadence.telemetry.readers import Batches, ReadOptions, rejected, tagged
from appcadence.telemetry.readers._device_log import app_id, device_of, iso_micros, table
from appcadence.telemetry.readers._flows import MAX_NAME
from appcadence.telemetry.readers._hosts import MAX_HOST
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.readers._json_layout import OBJECT_BYTES, blocks, check, fits, objects
from appcadence.telemetry.schema import CONTACT_SUMMARIES

NAME = "app_privacy_report"

EXPECTED = "an App Privacy Report (.ndjson)"
_INITIATED = {"AppInitiated": "app", "NonAppInitiated": "user"}
_FIELDS = ("app_id", "dest_host", "first_seen", "last_seen", "hits", "initiated", "dest_owner")

Summary = tuple[str, str, int, int, int, str, str | None]


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file's first objects are rows of an App Privacy Report; never raises."""
    return fits(start, _is_row)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield contact summaries, and rejected rows, of the reports of one device.

    Raises:
        UnusableFile: the device is not given; or a file is missing, empty, damaged or no such report.
    """
    for path in paths:
        device = device_of(path, options)
        check(path, EXPECTED, _is_row)
        for block in blocks(path, EXPECTED, OBJECT_BYTES):
            found = [(line, _summary(row)) for line, row in objects(block)]
            bad = [(line, said) for line, said in found if isinstance(said, str)]
            yield from rejected(path, [line for line, _ in bad], [fault for _, fault in bad])
            rows = [said for _, said in found if isinstance(said, tuple)]
            summaries = table(CONTACT_SUMMARIES, _FIELDS, rows, {"device_id": device})
            yield "contact_summaries", tagged(summaries, path, len(found), block.size)


def _is_row(row: dict[str, Any]) -> bool:
    if row.get("type") == "networkActivity":
        return "bundleID" in row and "domain" in row
    return row.get("type") == "access" and "accessor" in row


def _summary(row: dict[str, Any] | None) -> Summary | str | None:
    """The row as a summary, what is wrong with it, or None where it is of another type."""
    if row is None:
        return NO_OBJECT
    if row.get("type") != "networkActivity":
        return None
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
    owner = row.get("domainOwner")
    if isinstance(owner, str) and len(owner) > MAX_NAME:
        return f"domainOwner is longer than {MAX_NAME} characters"
    return app, host, first, last, hits, _INITIATED[initiated], _owner(owner)


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
