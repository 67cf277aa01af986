"""The sources of an inventory, each read into facts about apps; what a source does not say is absent."""

from __future__ import annotations

import csv
import io
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appcadence._files import open_input, why_unreadable
from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory.app_archive import (
    Facts,
    bundle,
    hosts,
    plist,
    source_bytes,
    text,
)
from appcadence.telemetry.sheet import MAX_BYTES, read_sheet

_MAX_LIST_BYTES, _MAX_LIST = 16 << 20, 100_000
HAND, BUNDLE, MDM, INTUNE = "hand", "bundle", "mdm", "intune"
PRECEDENCE = (HAND, BUNDLE, MDM, INTUNE)
"""Kinds of sources, the one believed most first."""

# Apple, ManagedApplicationList: what each status says about an app that is on the device. Any other status
# means that it is not, or not yet.
_MANAGED = {
    "Managed": True,
    "Updating": True,
    "PromptingForUpdate": True,
    "PromptingForUpdateLogin": True,
    "ValidatingUpdate": True,
    "UpdateRejected": True,
    "UserInstalledApp": False,
    "PromptingForManagement": False,
    "ManagementRejected": False,
    "Unknown": None,
}
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
_NAMES = ("displayname", "applicationname", "name")
_VERSIONS = ("version", "applicationshortversion", "applicationversion")


@dataclass
class Source:
    """One file: its kind, the device it speaks of (None = the fleet), and facts by app."""

    path: Path
    kind: str
    apps: dict[str, Facts] = field(default_factory=dict)
    device: str | None = None
    complete: bool = False
    """Whether it lists every app of the device, so that one that is absent is gone."""
    rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Rows that could not be used: number from 1, reason."""
    unmapped: list[str] = field(default_factory=list)
    """Names of apps without a bundle id."""


def read_source(path: Path, device_id: str | None, app_map: Mapping[str, str]) -> Source:
    """Read one file; its content says what it is.

    Raises:
        TelemetryError: the file cannot be read, is of no known kind, or lacks what its kind must have.
    """
    if path.suffix.lower() == ".toml":
        return _hand_kept(path)
    start = _start(path)
    if start.startswith(b"PK\x03\x04"):
        facts = bundle(path)
        return Source(path, BUNDLE, {facts["app_id"]: facts}, rows=1)
    content = source_bytes(path, MAX_BYTES)
    bare = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"bplist", b"\xff\xfe", b"\xfe\xff")) or bare.startswith(b"<"):
        return _plist(path, content, device_id)
    if bare.startswith((b"{", b"[")):
        return _intune(path, _json_rows(path, content), app_map)
    if b"," in bare.split(b"\n", 1)[0]:
        return _intune(path, _csv_rows(path, content), app_map)
    raise TelemetryError(
        f"{path} is no inventory source; known are MDM application lists (plist), Intune detectedApps "
        "(JSON, CSV), IPA files, Info.plist and inventory.toml"
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
        if found.setdefault(name, app) != app:
            raise TelemetryError(f"{path}, line {line}: {name!r} is {found[name]} and {app}; keep one")
    return found


def _start(path: Path) -> bytes:
    try:
        with open_input(path) as stream:
            return stream.read(4096)
    except OSError as error:
        raise TelemetryError(f"{path} {why_unreadable(error, 'an inventory source')}") from None


def _plist(path: Path, content: bytes, device_id: str | None) -> Source:
    if len(content) > _MAX_LIST_BYTES:
        raise TelemetryError(f"{path} is larger than {_MAX_LIST_BYTES >> 20} MB, which no list of apps is")
    found = plist(content, str(path))
    if isinstance(found, dict) and "CFBundleIdentifier" in found:
        facts = bundle(path, content)
        return Source(path, BUNDLE, {facts["app_id"]: facts}, rows=1)
    if isinstance(found, list):
        found = {"InstalledApplicationList": found}
    installed = found.get("InstalledApplicationList") if isinstance(found, dict) else None
    managed = found.get("ManagedApplicationList") if isinstance(found, dict) else None
    if installed is None and managed is None:
        raise TelemetryError(
            f"{path} holds no InstalledApplicationList, ManagedApplicationList or CFBundleIdentifier"
        )
    for rows in (installed, managed):
        # References make a small binary list as long as one likes.
        if isinstance(rows, list | dict) and len(rows) > _MAX_LIST:
            raise TelemetryError(f"{path} lists {len(rows):,} apps; no device has more than {_MAX_LIST:,}")
    # A user enrolment has no UDID, and its list names managed apps only.
    enrolment = text(str(path), found, "EnrollmentID")
    device = device_id or text(str(path), found, "UDID") or enrolment
    if device is None:
        raise TelemetryError(f"{path} names no device (UDID); give its id", "device_id")
    source = Source(path, MDM, device=device, complete=installed is not None)
    if installed is not None:
        if not isinstance(installed, list):
            raise TelemetryError(f"{path}: InstalledApplicationList is no list")
        for number, row in enumerate(installed, 1):
            only_managed = enrolment is not None and "UDID" not in found
            _add(source, number, _installed, row, only_managed)
    if managed is not None:
        if not isinstance(managed, dict):
            raise TelemetryError(f"{path}: ManagedApplicationList is no dictionary")
        for number, row in enumerate(managed.items(), 1):
            _add(source, number, _managed, row)
    return source


def _add(source: Source, number: int, reading: Any, *row: Any) -> None:
    source.rows += 1
    try:
        facts = reading(*row)
    except TelemetryError as error:
        source.bad.append((number, str(error)))
        return
    if facts is not None:
        known = source.apps.setdefault(facts["app_id"], {})
        known.update({key: value for key, value in facts.items() if value is not None})


def _installed(row: Any, only_managed: bool) -> Facts:
    if not isinstance(row, dict):
        raise TelemetryError("the entry is no dictionary")
    app = text("the entry", row, "Identifier")
    if app is None:
        raise TelemetryError("the entry has no Identifier")
    by_mdm = only_managed or text(app, row, "Source") == "Declarative Device Management"
    return {
        "app_id": app,
        "app_name": text(app, row, "Name"),
        "version": text(app, row, "ShortVersion") or text(app, row, "Version"),
        "managed": True if by_mdm else None,
    }


def _managed(row: tuple[Any, Any]) -> Facts | None:
    app, values = row
    if not isinstance(app, str) or not app.strip() or not isinstance(values, dict):
        raise TelemetryError("the entry is no bundle id with a dictionary")
    status = text(app, values, "Status")
    if status not in _MANAGED:
        return None
    return {"app_id": app.strip(), "managed": _MANAGED[status]}


def _json_rows(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TelemetryError(f"{path} is not readable JSON ({error})") from None
    rows = found.get("value") if isinstance(found, dict) else found
    if not isinstance(rows, list):
        raise TelemetryError(f"{path} holds no list of detected apps; expected Intune's detectedApps")
    for row in rows:
        yield {str(key): value for key, value in row.items()} if isinstance(row, dict) else {}


def _csv_rows(path: Path, content: bytes) -> Iterator[dict[str, Any]]:
    try:
        stream = io.StringIO(content.decode("utf-8-sig"), newline="")
        for row in csv.DictReader(stream):
            yield {str(key).strip(): value for key, value in row.items() if key is not None}
    except (UnicodeDecodeError, csv.Error) as error:
        raise TelemetryError(f"{path} is not readable CSV ({error})") from None


def _intune(path: Path, rows: Iterator[dict[str, Any]], app_map: Mapping[str, str]) -> Source:
    source = Source(path, INTUNE)
    unmapped: dict[str, None] = {}
    for number, raw in enumerate(rows, 1):
        source.rows += 1
        row = {key.lower().replace(" ", "").replace("_", ""): value for key, value in raw.items()}
        if number == 1 and not any(name in row for name in _NAMES):
            raise TelemetryError(
                f"{path} has no displayName or ApplicationName; expected Intune's detectedApps"
            )
        name = next((row[key] for key in _NAMES if row.get(key)), None)
        if not isinstance(name, str) or not name.strip():
            source.bad.append((number, "the row has no app name"))
            continue
        platform = row.get("platform")
        if isinstance(platform, str) and platform and not platform.lower().startswith(("ios", "ipad")):
            continue
        name = name.strip()
        if name not in app_map:
            unmapped[name] = None
            continue
        version = next((row[key] for key in _VERSIONS if isinstance(row.get(key), str) and row[key]), None)
        if version is not None:
            version = version.encode("utf-8", "replace").decode()  # JSON may hold half a character
        app = app_map[name]
        known = source.apps.setdefault(app, {"app_id": app, "app_name": name})
        # One row a version: of a fleet that has several, none is the version.
        if version and known.setdefault("version", version) != version:
            known["version"] = None
    source.unmapped = list(unmapped)
    return source


def _hand_kept(path: Path) -> Source:
    try:
        found = tomllib.loads(source_bytes(path, MAX_BYTES).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise TelemetryError(f"{path} is not readable TOML ({error})") from None
    if unknown := sorted(set(found) - {"apps"}):
        raise TelemetryError(f'{path}: unknown table {unknown[0]!r}; every app is a table [apps."bundle.id"]')
    apps = found.get("apps", {})
    source = Source(path, HAND)
    if not isinstance(apps, dict):
        raise TelemetryError(f'{path}: apps is no table; write [apps."bundle.id"]')
    for app, values in apps.items():
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
            raise TelemetryError(f"{where}: unknown key {key!r}; known are {', '.join(_HAND_KEYS)}")
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
