"""What an app's own bundle declares: an IPA, or an extracted Info.plist with the files beside it.

Everything here may come from an attacker: sizes are bounded, nothing is unpacked to disk, and an archive's
entries are read only by the names they must have.
"""

from __future__ import annotations

import plistlib
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from appcadence._inputs import open_input, read_bytes, why_unreadable
from appcadence.errors import TelemetryError
from appcadence.telemetry.addresses import is_address
from appcadence.telemetry.app_ids import EXTENSION_MODES
from appcadence.telemetry.readers._device_log import app_id
from appcadence.telemetry.readers._packed import InPieces, Stopped
from appcadence.telemetry.schema import MAX_NAME

MAX_PLIST_BYTES = 4 << 20
"""Largest property list read from an archive or beside one; real ones are under 100 kB."""
_MAX_DIRECTORY_BYTES = 8 << 20
_MAX_TEXT = 1000
_MAX_EXTENSIONS = 200
_INFO = re.compile(r"(?:\./)?Payload/([^/]+\.app)/Info\.plist")
_ENTITLEMENTS = ("*.entitlements", "*.xcent", "[Ee]ntitlements.plist")
_EXTENSION = re.compile(r"(?:PlugIns|Extensions)/[^/]+\.appex/Info\.plist")
_POINTS = {
    "NSExtension": "NSExtensionPointIdentifier",
    "EXAppExtensionAttributes": "EXExtensionPointIdentifier",
}
_NETWORK = "com.apple.developer.networking.networkextension"
_PROVIDERS = {
    *("packet-tunnel-provider", "app-proxy-provider", "app-push-provider"),
    *("content-filter-provider", "dns-proxy"),
}
"""Network extensions that keep running; `dns-settings` and `relay` entitle an app to none."""
_PROFILE = "embedded.mobileprovision"
_PHONE = "~iphone"
_PARTS = {*_POINTS, "WKApplication", "WKWatchKitApp"}
_HOST = re.compile(r"(\*\.)?[\w-]+(\.[\w-]+)*", re.ASCII)

Facts = dict[str, Any]
"""Columns of the inventory that a source knows; unknown ones are absent."""


def bundle(path: Path, info: dict[str, Any] | None = None) -> Facts:
    """Facts of one app from its IPA, or from its Info.plist if `info` is the content of that.

    Entitlements or embedded.mobileprovision, and PlugIns/*.appex, may lie beside an Info.plist. A plist
    without UIBackgroundModes declares none, but background work of extensions is a mode, too
    (`EXTENSION_MODES`), and so is a network extension that the app is entitled to. Without entitlements,
    pushes are unknown. No bundle says which hosts its app contacts: associated domains are links that open in
    the app, and domains of a privacy manifest are trackers.

    Raises:
        TelemetryError: the file is damaged, too large, or a value has the wrong type.
    """
    if info is None:
        return _ipa(path)
    _check_kind(str(path), info)
    folder = path.parent
    found = sorted({file for pattern in _ENTITLEMENTS for file in folder.glob(pattern)})
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise TelemetryError(f"{folder} holds several entitlements ({names}); keep only those of {path.name}")
    entitlements = plist(source_bytes(found[0], MAX_PLIST_BYTES), str(found[0])) if found else None
    profile = folder / _PROFILE
    if entitlements is None and profile.is_file():
        entitlements = _provisioned(source_bytes(profile, MAX_PLIST_BYTES), str(profile))
    parts = sorted(
        f for f in folder.glob("*/*.appex/Info.plist") if _EXTENSION.fullmatch("/".join(f.parts[-3:]))
    )
    read = [(str(f), source_bytes(f, MAX_PLIST_BYTES)) for f in parts[:_MAX_EXTENSIONS]]
    return declared(str(path), info, entitlements, read)


def source_bytes(path: Path, max_bytes: int) -> bytes:
    """The whole file, if it is no larger than `max_bytes`."""
    try:
        return read_bytes(path, max_bytes)
    except OSError as error:
        raise TelemetryError(f"{path} {why_unreadable(error, 'an inventory source')}") from None


def plist(content: bytes, name: str) -> Any:
    """A property list, XML or binary; entity declarations are refused."""
    try:
        return plistlib.loads(content.lstrip())
    except Exception as error:  # plistlib passes on whatever its parsers raise on hostile input
        reason = str(error) or type(error).__name__
        raise TelemetryError(f"{name} is not a readable property list ({reason})") from None


def hosts(values: Iterable[str]) -> tuple[list[str], list[str]]:
    """Distinct host names or addresses in lower case, sorted; and the values that are neither."""
    good, bad = set(), []
    for value in values:
        host = value.strip().rstrip(".").lower()
        if len(host) <= 253 and (_HOST.fullmatch(host) or is_address(host)):
            good.add(host)
        else:
            bad.append(value)
    return sorted(good), bad


class _Archive(zipfile.ZipFile):
    """A zip whose directory and entries are bounded before they are held in memory."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        super().__init__(InPieces(stream, _MAX_DIRECTORY_BYTES))

    def take(self, name: str, max_bytes: int = MAX_PLIST_BYTES) -> bytes:
        """The content of the entry of this name."""
        info = self.getinfo(name)
        where = f"{self._path}: entry {name!r}"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
            raise TelemetryError(f"{where} is encrypted or compressed in a way that no IPA or export is")
        if info.file_size > max_bytes:
            raise TelemetryError(f"{where} claims {info.file_size:,} bytes; at most {max_bytes:,} are read")
        with self.open(info) as stream:
            # The claimed size may be a lie, so the inflated data is bounded as well.
            content = stream.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise TelemetryError(f"{where} is larger than {max_bytes:,} bytes")
        return content


def list_within(path: Path, max_bytes: int) -> bytes | None:
    """The content of the only list (CSV, JSON) in a zip archive; None if the archive is an IPA.

    Raises:
        TelemetryError: the archive is damaged or too large, or holds no list or several.
    """
    with _opened(path) as archive:
        names = archive.namelist()
        if any(_INFO.fullmatch(name) for name in names):
            return None
        if "[Content_Types].xml" in names:
            raise TelemetryError(f"{path} is an Office workbook or document; save its sheet as CSV")
        lists = [name for name in names if name.lower().endswith((".csv", ".json"))]
        if len(lists) != 1:
            raise TelemetryError(
                f"{path} holds 0 Payload/*.app/Info.plist and {len(lists)} lists (CSV, JSON): it is neither "
                "an IPA nor the export of one list; unzip it and give the files themselves"
            )
        return archive.take(lists[0], max_bytes)


@contextmanager
def _opened(path: Path) -> Iterator[_Archive]:
    try:
        with open_input(path) as stream, _Archive(path, stream) as archive:
            yield archive
    except Stopped as stopped:
        raise TelemetryError(f"{path}: {stopped}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError, OSError) as error:
        if isinstance(error, TelemetryError):
            raise
        raise TelemetryError(f"{path} is not a readable IPA or zip archive ({error})") from None


def _ipa(path: Path) -> Facts:
    with _opened(path) as archive:
        names = archive.namelist()
        apps = [name for name in names if _INFO.fullmatch(name)]
        if len(apps) != 1:
            raise TelemetryError(f"{path} holds {len(apps)} Payload/*.app/Info.plist; an IPA has one")
        root = apps[0].removesuffix("Info.plist")
        present = set(names)

        def take(name: str) -> bytes | None:
            return archive.take(name) if name in present else None

        info = plist(archive.take(apps[0]), f"{path}: {apps[0]}")
        if isinstance(info, dict):
            _check_kind(f"{path}: {apps[0]}", info)
        entitlements = None
        if (content := take(f"{root}archived-expanded-entitlements.xcent")) is not None:
            entitlements = plist(content, f"{path}: entitlements")
        elif (content := take(root + _PROFILE)) is not None:
            entitlements = _provisioned(content, f"{path}: {_PROFILE}")
        parts = sorted(n for n in present if n.startswith(root) and _EXTENSION.fullmatch(n[len(root) :]))
        read = [(f"{path}: {n}", archive.take(n)) for n in parts[:_MAX_EXTENSIONS]]
        facts = declared(str(path), info, entitlements, read)
        if (content := take("iTunesMetadata.plist")) is not None:
            store = plist(content, f"{path}: iTunesMetadata.plist")
            genre = store.get("genre") if isinstance(store, dict) else None
            if isinstance(genre, str) and genre.strip():
                facts["category"] = genre.strip()
        return facts


def _provisioned(content: bytes, name: str) -> Any:
    """Entitlements in a provisioning profile, which is a plist inside a signed envelope."""
    start, end = content.find(b"<?xml"), content.rfind(b"</plist>")
    if start < 0 or end < start:
        raise TelemetryError(f"{name} holds no property list")
    found = plist(content[start : end + len(b"</plist>")], name)
    return found.get("Entitlements") if isinstance(found, dict) else None


def declared(
    name: str, values: Any, entitlements: Any, extensions: Iterable[tuple[str, bytes]] = ()
) -> Facts:
    """Facts of an Info.plist's values, of entitlements (None = unknown), and of its extensions' Info.plist.

    A key may name the kind of device (`UIBackgroundModes~iphone`); the phone's is used.

    Raises:
        TelemetryError: a value has the wrong type, or is a variable that only a build fills in.
    """
    if not isinstance(values, dict):
        raise TelemetryError(f"{name} holds no dictionary; expected an Info.plist")
    info = values | {k[: -len(_PHONE)]: v for k, v in values.items() if str(k).endswith(_PHONE)}
    app = text(name, info, "CFBundleIdentifier")
    if app is None:
        raise TelemetryError(f"{name} has no CFBundleIdentifier; expected an app's Info.plist")
    checked_id(name, app)
    modes = {*_strings(name, info, "UIBackgroundModes"), *_modes_of(extensions)}
    facts: Facts = {
        "app_id": app,
        "app_name": text(name, info, "CFBundleDisplayName") or text(name, info, "CFBundleName"),
        "version": text(name, info, "CFBundleShortVersionString") or text(name, info, "CFBundleVersion"),
    }
    facts = {key: None if _is_variable(value) else value for key, value in facts.items()}
    if entitlements is not None:
        if not isinstance(entitlements, dict):
            raise TelemetryError(f"{name}: the entitlements are no dictionary")
        facts["push_entitled"] = text(name, entitlements, "aps-environment") is not None
        providers = entitlements.get(_NETWORK)
        if isinstance(providers, list) and _PROVIDERS & set(map(str, providers)):
            modes.add("network-extension")
    facts["background_modes"] = sorted(modes)
    return {key: value for key, value in facts.items() if value is not None}


def _modes_of(extensions: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """The background modes of extensions; most of them run only in view of the user."""
    for where, content in extensions:
        part = plist(content, where)
        if not isinstance(part, dict):
            raise TelemetryError(f"{where} holds no dictionary; expected an extension's Info.plist")
        for holder, key in _POINTS.items():
            point = part.get(holder)
            mode = EXTENSION_MODES.get(text(where, point, key) or "") if isinstance(point, dict) else None
            if mode:
                yield mode


def _check_kind(name: str, info: Mapping[str, Any]) -> None:
    """Refuse the Info.plist of anything but an app for iPhone or iPad."""
    platforms = info.get("CFBundleSupportedPlatforms")
    platforms = platforms if isinstance(platforms, list) else []
    mac = "LSMinimumSystemVersion" in info and not {"MinimumOSVersion", "LSRequiresIPhoneOS"} & info.keys()
    if (platforms and not any(str(one).startswith("iPhone") for one in platforms)) or (mac and not platforms):
        systems = ", ".join(map(str, platforms)) or "macOS"
        raise TelemetryError(f"{name} belongs to an app for {systems}, not for iOS or iPadOS")
    if _PARTS & info.keys() or info.get("CFBundlePackageType") in ("XPC!", "FMWK", "BNDL"):
        raise TelemetryError(
            f"{name} belongs to a part of an app (an extension, a framework or a watch app); give the one of "
            "the app that contains it"
        )


def checked_id(name: str, app: str) -> None:
    """Check a bundle id.

    Raises:
        TelemetryError: it is no bundle id, or a variable of a source tree.
    """
    if _is_variable(app):
        raise TelemetryError(
            f"{name}: the bundle id is {app}, a variable that Xcode fills in; give the built app's Info.plist"
        )
    if app_id(app) is None:
        raise TelemetryError(f"{name}: {app!r} is no bundle id; expected one like com.example.app")


def checked_length(what: str, identifier: str) -> None:
    """Check that an identifier is short enough for the tables; raises TelemetryError if not."""
    if len(identifier) > MAX_NAME:
        raise TelemetryError(f"{what} has {len(identifier):,} characters; at most {MAX_NAME} are read")


def _is_variable(value: Any) -> bool:
    return isinstance(value, str) and ("$(" in value or "${" in value)


def text(name: str, values: dict[Any, Any], key: str) -> str | None:
    """A text value; None if it is absent or blank."""
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise TelemetryError(f"{name}: {key} is {type(value).__name__}; expected text")
    if len(value) > _MAX_TEXT:
        raise TelemetryError(f"{name}: {key} has {len(value):,} characters; at most {_MAX_TEXT:,} are read")
    return _whole(value.strip()) or None


def _whole(value: str) -> str:
    """The text in a form that can be encoded, because JSON may hold half a character."""
    return value.encode("utf-8", "replace").decode()


def _strings(name: str, values: dict[Any, Any], key: str) -> list[str]:
    found = values.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise TelemetryError(f"{name}: {key} is no list of texts")
    return [_whole(item.strip()) for item in found if item.strip()]
