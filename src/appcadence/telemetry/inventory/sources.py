"""The sources of an inventory, each read into facts about apps; unknown facts are absent."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appcadence._inputs import open_input, read_toml, why_unreadable
from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory.app_archive import (
    Facts,
    bundle,
    checked_length,
    hosts,
    list_within,
    source_bytes,
)
from appcadence.telemetry.inventory.app_lists import (
    APP_IDS,
    EXPECTED,
    NAMES_ALONE,
    VERSIONS,
    AppList,
    Row,
    Unwrapped,
    facts_of,
    listing,
    plain,
    unwrapped,
)
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers._packed import packing
from appcadence.telemetry.sheet import MAX_BYTES, read_sheet

_DELIMITERS = ",;\t"
_MAX_TITLE_LINES = 20
_NO_ANSWERS = ("NotNow", "Error", "CommandFormatError", "Idle")
_BOM = b"\xef\xbb\xbf"
HAND, BUNDLE, MDM, INTUNE = "hand", "bundle", "mdm", "intune"
PRECEDENCE = (HAND, BUNDLE, MDM, INTUNE)
"""Kinds of sources, the most trusted first."""

_HAND_KEYS: dict[str, tuple[str, Any]] = {
    "name": ("app_name", str),
    "purpose": ("declared_purpose", str),
    "category": ("category", str),
    "approved": ("approved", bool),
    "push_entitled": ("push_entitled", bool),
    "expected_hosts": ("expected_hosts", list),
    "expected_period_seconds": ("expected_period_seconds", float),
    "background_modes": ("background_modes", list),
}


@dataclass
class Source:
    """One file: its kind, the device it is about (None = the fleet), and facts by app."""

    path: Path
    kind: str
    apps: dict[str, Facts] = field(default_factory=dict)
    device: str | None = None
    complete: bool = False
    """Whether it lists every app of the device, so that an absent app is gone."""
    rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows that could not be used: number from 1, reason."""
    unmapped: list[str] = field(default_factory=list)
    """Names of apps without a bundle id."""
    more: str = ""
    """The field that shows it is one page of a longer answer; empty if there is none."""


def read_source(path: Path, device_id: str | None, app_map: Mapping[str, str]) -> Source:
    """Read one file, whose kind its content shows.

    Raises:
        TelemetryError: the file cannot be read, is of no known kind, lacks what its kind must have, or is a
            list without any usable row.
    """
    if path.suffix.lower() == ".toml":
        return _hand_kept(path)
    packed = _start(path).startswith(b"PK\x03\x04")
    content = list_within(path, MAX_BYTES) if packed else source_bytes(path, MAX_BYTES)
    if content is None:
        return _of_bundle(path, bundle(path))
    head = content[:4096]
    if not content.strip():
        raise TelemetryError(f"{path} is empty; expected an inventory source")
    if packed_as := packing(head):
        raise TelemetryError(f"{path} is packed ({packed_as}); unpack it first")
    if coding := _utf16(head):
        head = head.decode(coding, "ignore").encode()
    bare = head.removeprefix(_BOM).lstrip()
    if bare.startswith(b"<") and b"<plist" not in bare:
        raise TelemetryError(
            f"{path} is XML or HTML but no property list; export the list as JSON or CSV (an API such as "
            "Jamf's answers in JSON to Accept: application/json)"
        )
    if head.startswith(b"bplist") or bare.startswith(b"<"):
        found = listing(content, str(path))
        if isinstance(found, dict) and "CFBundleIdentifier" in found:
            return _of_bundle(path, bundle(path, found))
        status = found.get("Status") if isinstance(found, dict) else None
        if isinstance(status, str) and status in _NO_ANSWERS:
            raise TelemetryError(
                f"{path} is a device's answer {status} to a command of the MDM server and holds no list; "
                "have the server ask again"
            )
        return _listed(path, unwrapped(str(path), found, complete=True), device_id, app_map)
    if bare.startswith((b"{", b"[")):
        value = _json(path, content)
        if isinstance(value, dict) and "CFBundleIdentifier" in value:  # plutil -convert json Info.plist
            return _of_bundle(path, bundle(path, value))
        return _listed(path, unwrapped(str(path), value, complete=False), device_id, app_map)
    if b"\0" not in head and (rows := _rows(path, content)) is not None:
        return _listed(path, Unwrapped([AppList(rows)]), device_id, app_map, table=True)
    raise TelemetryError(
        f"{path} is no inventory source; expected a list of apps (plist, JSON, CSV; also in a zip archive) "
        f"with {EXPECTED}, an IPA file, an Info.plist or inventory.toml; if this is text that a tool prints "
        "for people, have it write JSON, XML or CSV"
    )


def read_app_map(path: Path) -> dict[str, str]:
    """Bundle ids by display name, from a CSV file with the columns app_name and app_id.

    Raises:
        TelemetryError: the file cannot be read, or gives one name two ids.
    """
    found: dict[str, str] = {}
    for line, row in read_sheet(path, ("app_name", "app_id")):
        name, app = row["app_name"], row["app_id"]
        if not name or not app:
            raise TelemetryError(f"{path}, line {line}: app_name and app_id must not be empty")
        checked_length(f"{path}, line {line}: app_id", app)
        if found.setdefault(name, app) != app:
            raise TelemetryError(f"{path}, line {line}: {name!r} is both {found[name]} and {app}; keep one")
    return found


def _start(path: Path) -> bytes:
    try:
        with open_input(path) as stream:
            return stream.read(4096)
    except OSError as error:
        raise TelemetryError(f"{path} {why_unreadable(error, 'an inventory source')}") from None


def _of_bundle(path: Path, facts: Facts) -> Source:
    return Source(path, BUNDLE, {facts["app_id"]: facts}, rows=1)


def _utf16(content: bytes) -> str | None:
    """The encoding of UTF-16 text, which some tools write without a byte order mark."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = content[:64:2], content[1:64:2]
    if len(content) < 4 or (any(even) and any(odd)):
        return None
    return "utf-16-le" if all(even) else "utf-16-be" if all(odd) else None


def _listed(
    path: Path, found: Unwrapped, device_id: str | None, app_map: Mapping[str, str], table: bool = False
) -> Source:
    lists = [one for one in found.lists if one.has_ids] or found.lists
    if not lists:
        raise TelemetryError(f"{path} holds no list of apps; expected {EXPECTED}")
    devices = {one.device for one in lists if one.device is not None}
    device = device_id or (min(devices) if len(devices) == 1 else None)
    if device is None and any(one.complete or one.of_device for one in lists):
        if devices:
            raise TelemetryError(
                f"{path} covers several devices ({listed(sorted(devices))}); give one file per device"
            )
        raise TelemetryError(f"{path} names no device (UDID); give its id", "device_id")
    if device is not None:
        checked_length(f"{path}: the device's id", device)
    source = Source(path, MDM, device=device, more=found.more)
    if lists[0].has_ids:
        for one in lists:
            _by_id(source, one, table)
        # An app whose row could not be read, or is on another page, has not vanished.
        source.complete = any(one.complete for one in lists) and not source.bad and not found.more
    else:
        source.kind, source.device = INTUNE, None
        _by_name(source, (row for one in lists for row in one.rows), app_map)
    if not source.rows and source.complete:
        raise TelemetryError(f"{path} is an empty list, but no device is without apps, so nothing is changed")
    if source.rows and not source.apps and not any(one.by_status and not source.bad for one in lists):
        raise _nothing_usable(source)
    return source


def _by_id(source: Source, found: AppList, table: bool) -> None:
    for raw in found.rows:
        source.rows += 1
        try:
            row = Row.of(raw)
            said = None if row.elsewhere else facts_of(row, found, table)
        except TelemetryError as error:
            source.bad.append((source.rows, str(error)))
            continue
        if said is not None:
            known = source.apps.setdefault(said["app_id"], {})
            version = said["version"]
            # If the fleet has several versions, the version is unknown.
            mixed = source.device is None and version and known.get("version", version) != version
            known.update({key: value for key, value in said.items() if value is not None})
            if mixed:
                known["version"] = None


def _by_name(source: Source, rows: Iterable[Any], app_map: Mapping[str, str]) -> None:
    unmapped: dict[str, None] = {}
    for raw in rows:
        source.rows += 1
        row = Row.of(raw if isinstance(raw, dict) else {})
        name = row.app_name
        if name is None:
            source.bad.append((source.rows, f"the row has no app name; expected {EXPECTED}"))
            continue
        if row.elsewhere:
            continue
        if name not in app_map:
            unmapped[name] = None
            continue
        version = row.plainly(VERSIONS)
        if version is not None:
            version = version.encode("utf-8", "replace").decode()  # JSON may hold half a character
        app = app_map[name]
        known = source.apps.setdefault(app, {"app_id": app, "app_name": name})
        # One row per version: if the fleet has several, the version is unknown.
        if version and known.setdefault("version", version) != version:
            known["version"] = None
    source.unmapped = list(unmapped)


def _nothing_usable(source: Source) -> TelemetryError:
    said = f"{source.path}: none of its {source.rows:,} rows can be used"
    if source.unmapped:
        names = listed(source.unmapped)
        return TelemetryError(f"{said}: there is no bundle id for {names}; give a map of names", "app_map")
    if source.bad:
        return TelemetryError(f"{said}; row {source.bad[0][0]}: {source.bad[0][1]}")
    return TelemetryError(f"{said}: none is an app of iOS or iPadOS")


def _json(path: Path, content: bytes) -> Any:
    try:
        text = _text(content)
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            rows = [_row(line) for line in text.split("\n") if line.strip()]
            if 2 * sum(isinstance(row, dict) for row in rows) <= len(rows):
                raise
            return rows
    except (ValueError, RecursionError) as error:
        raise TelemetryError(f"{path} is not readable JSON ({error})") from None


def _row(line: str) -> Any:
    """The value of a line of JSON lines; None if it is damaged."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _rows(path: Path, content: bytes) -> list[Any] | None:
    """The rows of a table below the first line that names columns; None if it is no table.

    Exports may begin with a title, and Excel's with a line that names the delimiter ("sep=;").
    """
    try:
        text = _text(content)
        found = _header(text.split("\n", _MAX_TITLE_LINES)[:_MAX_TITLE_LINES])
        if found is None:
            return None
        above, delimiter = found
        stream = io.StringIO(text.split("\n", above)[above], newline="")
        return list(csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True))
    except UnicodeDecodeError as error:
        raise TelemetryError(
            f"{path} is neither UTF-8 nor UTF-16 (byte {error.start + 1:,}); save it as CSV UTF-8"
        ) from None
    except csv.Error as error:
        raise TelemetryError(f"{path} is not readable CSV ({error})") from None


def _header(lines: list[str]) -> tuple[int, str] | None:
    """How many lines come before the header line, and its delimiter.

    If no line names a known column, the very first line serves as the header, if it has a delimiter.
    """
    first = None
    for above, line in enumerate(lines):
        delimiter = max(_DELIMITERS, key=line.count)
        names = {plain(name.strip().strip('"')) for name in line.split(delimiter)}
        if names & {*APP_IDS} or (len(names) > 1 and names & {*NAMES_ALONE}):
            return above, delimiter
        if above == 0 and delimiter in line:
            first = above, delimiter
    return first


def _text(content: bytes) -> str:
    return content.decode(_utf16(content) or "utf-8-sig")


def _hand_kept(path: Path) -> Source:
    found = read_toml(path, "a hand-kept inventory", TelemetryError)
    if unknown := sorted(set(found) - {"apps"}):
        raise TelemetryError(f'{path}: unknown table {unknown[0]!r}; every app is a table [apps."bundle.id"]')
    apps = found.get("apps", {})
    source = Source(path, HAND)
    if not isinstance(apps, dict):
        raise TelemetryError(f'{path}: apps is no table; write [apps."bundle.id"]')
    for app, values in apps.items():
        checked_length(f"{path}: a bundle id", app)
        where = f"{path}, app {app!r}"
        if not isinstance(values, dict) or not app.strip():
            raise TelemetryError(f'{where}: is no table; write [apps."bundle.id"]')
        source.apps[app.strip()] = {"app_id": app.strip()} | dict(_hand_facts(where, values))
        source.rows += 1
    return source


def _hand_facts(where: str, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key not in _HAND_KEYS:
            if isinstance(value, dict):
                raise TelemetryError(f"{where}: {key!r} is a table; quote the whole bundle id")
            raise TelemetryError(f"{where}: unknown key {key!r}; expected one of {', '.join(_HAND_KEYS)}")
        column, kind = _HAND_KEYS[key]
        if kind is float:
            # The bound also refuses infinity, and whole numbers that no float holds; bool is an int.
            if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
                raise TelemetryError(f"{where}: {key} is {value!r}; expected a number above 0")
            yield column, float(value)
            continue
        wanted = {str: "text", bool: "true or false", list: "a list of texts"}[kind]
        if not isinstance(value, kind) or (kind is list and not all(isinstance(v, str) for v in value)):
            raise TelemetryError(f"{where}: {key} is {value!r}; expected {wanted}")
        if key == "expected_hosts":
            value, bad = hosts(value)
            if bad:
                raise TelemetryError(
                    f"{where}: {bad[0]!r} is no host name; write api.example.com or *.example.com"
                )
        elif key == "background_modes":
            value = sorted({mode.strip() for mode in value if mode.strip()})
        elif kind is str and not value.strip():
            continue
        yield column, value.strip() if kind is str else value
