"""Lists of apps as many tools wrap them: where the rows are, and what a row says.

Tools differ in their field names and in what surrounds the rows: an MDM's answer (bare, in a webhook or in
JSON), the pages of an API, a status report, or the list that a tool got from the device. The tables below say
what each name means. Names are compared in lower case, without "_" and "-".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory.app_archive import Facts, checked_id, declared, plist, text
from appcadence.telemetry.schema import MAX_NAME

MAX_PLIST_BYTES = 16 << 20
"""The largest property list with a list of apps."""
MAX_APPS = 100_000
MAX_DEPTH = 16
"""The deepest nesting of lists and dictionaries around a list."""
APP_IDS = (
    *("identifier", "bundleidentifier", "bundleid", "cfbundleidentifier", "softwareversionbundleid"),
    *("bundle id", "bundle identifier", "application identifier", "applicationidentifier", "appidentifier"),
    *("app identifier", "app bundle id", "app bundle identifier", "appbundleid", "appbundleidentifier"),
)
APP_NAMES = (
    *("appname", "app name", "applicationname", "application name", "itemname"),
    *("cfbundledisplayname", "cfbundlename", "name", "displayname"),
)
"""In a row with a bundle id; in tables, "Display Name" is that of the device."""
NAMES_ALONE = (
    *("applicationname", "application name", "appname", "app name"),
    *("displayname", "display name", "name"),
)
"""In a row without a bundle id, as in Intune's lists."""
VERSIONS = (
    *("shortversion", "short version", "cfbundleshortversionstring", "bundleshortversionstring"),
    *("applicationshortversion", "version", "applicationversion", "application version", "cfbundleversion"),
    *("app version", "appversion", "bundleversion"),
)
EXPECTED = (
    "rows with a bundle id (Identifier, bundle_identifier, CFBundleIdentifier, softwareVersionBundleId) or "
    "an app name (displayName, ApplicationName)"
)
_CATEGORIES = ("genre",)
_STATES = ("managementstatus", "app status", "status", "state")
_FLAGS = ("managed", "ismanaged")
_OF_APP = "Data/Application"
_INSTALLED = "installed_versions"
"""In Fleet's software of a host: installed versions with bundle ids; empty if it is only available."""
_GONE = ("uninstalledat", "uninstalled at", "removed")
"""Fields that mark an app as removed from the device: the time, or true."""
_LISTS = re.compile(r"|value|results|data|items|list|.*(app|software).*")
"""Keys of lists of apps; "" = nothing around the list. Lists of profiles have identifiers, too."""
_ANSWERS = {"installedapplicationlist", "managedapplicationlist"}
_DEVICES = (
    *("udid", "enrollmentid", "deviceudid", "uniqueidentifier", "uuid"),
    *("unique identifier", "uniquedeviceid"),
)
_DEVICE_PARTS = ("general", "device", "identifier", "lockdown")
_OF_DEVICES = {*_DEVICES, "serialnumber", "serial number", "imei"}
"""Fields that no row about an app has."""
_SERVERS_DEVICES = ("deviceidentifier", "deviceid")
"""What a tool or a server calls a device; some only number their devices, which names none."""
_MORE = ("@odata.nextlink", "nextlink", "next", "hasmore", "hasnextresults")
_TOTALS = ("@odata.count", "totalcount", "total", "count", "totalrecordcount")
_SYSTEMS = ("platform", "os", "ostype", "operating system", "operatingsystem")
_OURS = ("ios", "ipad", "iphone", "ipod", "apple ios")
_OTHER_TYPE = re.compile(r".*\.(android|mac|win|office|microsoftstore|web)", re.IGNORECASE)
"""`@odata.type` of apps of other systems in Graph's list of all apps."""
_MAC_PATH = re.compile(r"/(Applications|System|Library|Users|usr|opt)/")

# Apple, ManagedApplicationList and app.managed.list: whether a status of an app on the device means managed
# (None = unknown). Any other status means that the app is not on the device, or not yet.
_MANAGED = {
    "managed": True,
    "updating": True,
    "promptingforupdate": True,
    "promptingforupdatelogin": True,
    "validatingupdate": True,
    "updaterejected": True,
    "userinstalledapp": False,
    "promptingformanagement": False,
    "managementrejected": False,
    "unknown": None,
    "unmanaged": False,
    "notmanaged": False,
}


@dataclass
class AppList:
    """One list of apps."""

    rows: list[Any]
    device: str | None = None
    """The device whose apps they are, if the wrapping says so."""
    complete: bool = False
    """Whether it should hold every app of the device."""
    managed_only: bool = False
    """Whether it holds managed apps only."""
    by_status: bool = False
    """Whether only the status of a row says if the app is on the device."""
    of_device: bool = False
    """Whether it means nothing without its device; neither does a complete list."""

    @property
    def has_ids(self) -> bool:
        """Whether its apps are known by bundle id, not only by name."""
        dicts = (row for row in self.rows[:100] if isinstance(row, dict))
        return self.complete or self.by_status or any(Row.of(row).named.keys() & {*APP_IDS} for row in dicts)


@dataclass
class Unwrapped:
    """The lists found in a file."""

    lists: list[AppList] = field(default_factory=list)
    more: str = ""
    """The field that shows further pages of the answer; empty if there is none."""


def plain(key: object) -> str:
    """The name of a field in the form that the tables above use."""
    return str(key).strip().lower().replace("_", "").replace("-", "")


def listing(content: bytes, name: str) -> Any:
    """A property list that may hold a list of apps.

    Raises:
        TelemetryError: it is larger than any such list, or damaged.
    """
    if len(content) > MAX_PLIST_BYTES:
        raise TelemetryError(f"{name} is larger than {MAX_PLIST_BYTES >> 20} MB; no list of apps is")
    return plist(content, name)


def unwrapped(name: str, value: Any, *, complete: bool) -> Unwrapped:
    """The lists of apps in parsed JSON or a parsed property list.

    Args:
        name: of the file, for errors.
        value: its content.
        complete: whether a list with nothing around it holds every app of a device.

    Raises:
        TelemetryError: a list is too long, or the field that names the device is no text.
    """
    found = Unwrapped()
    _Walk(name, complete, found).into(value, None, ())
    return found


class _Walk:
    def __init__(self, name: str, complete: bool, found: Unwrapped) -> None:
        self._name = name
        self._complete = complete
        self._found = found
        # References can blow up a small property list, so each part is visited once.
        self._seen: dict[int, Any] = {}

    def into(self, value: Any, device: str | None, keys: tuple[str, ...], depth: int = MAX_DEPTH) -> None:
        if not isinstance(value, list | dict) or id(value) in self._seen or not depth:
            return
        self._seen[id(value)] = value
        if isinstance(value, dict):
            self._dict(value, device, keys, depth - 1)
        elif self._complete and not keys and not any(map(_is_answer, value)):
            self._add(AppList(value, device, complete=True))
        elif _LISTS.fullmatch(keys[-1] if keys else "") and any(map(_is_app, value[:100])):
            managed = ".".join(keys).endswith("managed.list")
            self._add(AppList(value, device, managed_only=managed, by_status=managed))
        else:
            for item in value:
                self.into(item, device, keys, depth - 1)

    def _dict(self, value: dict[Any, Any], device: str | None, keys: tuple[str, ...], depth: int) -> None:
        named = {plain(key): key for key in value}
        device = _device(self._name, value) or device
        self._pages(value, named)
        inside = {key: row for key, row in value.items() if not _is_other_container(row)}
        backed_up = keys[-1:] == ("applications",) and any(map(_is_app, inside.values()))
        if inside and all(
            isinstance(row, dict) and (backed_up or "CFBundleIdentifier" in row) for row in inside.values()
        ):
            self._add(AppList([_with_id(key, row) for key, row in inside.items()], device))
            return
        if not keys and "softwareversionbundleid" in named:  # iTunesMetadata.plist
            self._add(AppList([value]))
            return
        for name, key in named.items():
            inner = value[key]
            if name.endswith("payload") and isinstance(inner, str):
                self.into(self._decoded(key, inner), device, (*keys, name), depth)
            elif name == "installedapplicationlist":
                if not isinstance(inner, list):
                    raise TelemetryError(f"{self._name}: InstalledApplicationList is no list")
                # A user enrolment has no UDID, and its list names managed apps only.
                managed = "enrollmentid" in named and "udid" not in named
                self._add(AppList(inner, device, complete=True, managed_only=managed))
            elif name == "installed applications" and isinstance(inner, list):  # Info.plist of a backup
                self._add(AppList([{"Identifier": app} for app in inner], device, complete=True))
            elif name == "managedapplicationlist":
                if not isinstance(inner, dict):
                    raise TelemetryError(f"{self._name}: ManagedApplicationList is no dictionary")
                rows = [_with_id(app, status) for app, status in inner.items()]
                self._add(AppList(rows, device, managed_only=True, by_status=True, of_device=True))
            else:
                self.into(inner, device, (*keys, name), depth)

    def _pages(self, value: dict[Any, Any], named: Mapping[str, Any]) -> None:
        longest = max((len(inner) for inner in value.values() if isinstance(inner, list)), default=0)
        for name in (*_MORE, *_TOTALS):
            said = value.get(named.get(name))
            if said and (name in _MORE or (type(said) is int and said > longest > 0)):
                total = next(
                    (value[named[n]] for n in _TOTALS if isinstance(value.get(named.get(n)), int)), 0
                )
                share = f", {longest:,} of {total:,} rows" if total else ""
                self._found.more = self._found.more or f"{named[name]}{share}"

    def _decoded(self, key: Any, payload: str) -> Any:
        """A property list in a JSON string: as it is, or in base64."""
        try:
            known = payload.lstrip().startswith("<")
            content = payload.encode() if known else base64.b64decode(payload, validate=True)
        except ValueError as error:
            raise TelemetryError(f"{self._name}: {key} is not readable base64 ({error})") from None
        return listing(content, f"{self._name}: {key}")

    def _add(self, found: AppList) -> None:
        if len(found.rows) > MAX_APPS:
            raise TelemetryError(
                f"{self._name} lists {len(found.rows):,} apps; no device has more than {MAX_APPS:,}"
            )
        self._found.lists.append(found)


def _is_answer(row: Any) -> bool:
    return isinstance(row, dict) and bool({plain(key) for key in row} & _ANSWERS)


def _is_app(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    names = {plain(key) for key in _flat(row)}
    return not names & _OF_DEVICES and bool(names & {*APP_IDS, *NAMES_ALONE})


def _flat(row: dict[Any, Any]) -> dict[Any, Any]:
    for name in ("attributes", _INSTALLED):
        inner = row.get(name)
        inner = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
        row = row | inner if isinstance(inner, dict) else row
    return row


def _with_id(app: Any, status: Any) -> Any:
    return {"Identifier": app} | status if isinstance(status, dict) else None


def _device(name: str, value: dict[Any, Any], depth: int = 3) -> str | None:
    named = {plain(key): key for key in value}
    for alias in _DEVICES:
        if alias in named and (device := text(name, value, named[alias])):
            return device
    parts = (value[named[part]] for part in _DEVICE_PARTS if part in named and depth)
    found = (_device(name, part, depth - 1) for part in parts if isinstance(part, dict))
    called = (value[named[alias]] for alias in _SERVERS_DEVICES if alias in named)
    texts = (said.strip() for said in called if isinstance(said, str) and len(said) <= MAX_NAME)
    return next((device for device in (*found, *texts) if device), None)


@dataclass(frozen=True)
class Row:
    """One row of a list, its fields found by what they mean."""

    values: dict[Any, Any]
    named: dict[str, Any]
    """The key of each field, by its plain name."""

    @classmethod
    def of(cls, row: Any) -> Row:
        """Raises TelemetryError if the row is no dictionary."""
        if not isinstance(row, dict):
            raise TelemetryError("the entry is no dictionary")
        values = _flat(row)
        return cls(values, {plain(key): key for key in values if key is not None})

    def plainly(self, names: Iterable[str]) -> str | None:
        """As `first`, but fields that are not text are skipped."""
        said = (self.values[self.named[name]] for name in names if name in self.named)
        return next((value.strip() for value in said if isinstance(value, str) and value.strip()), None)

    def first(self, names: Iterable[str], where: str = "the entry") -> str | None:
        """The first of some fields with a value."""
        keys = (self.named[name] for name in names if name in self.named)
        return next((said for key in keys if (said := text(where, self.values, key))), None)

    @property
    def app_name(self) -> str | None:
        """The name of the app if the row has no bundle id; the name of a device does not count."""
        names = NAMES_ALONE if _OF_DEVICES.isdisjoint(self.named) else NAMES_ALONE[:4]
        return self.plainly(names)

    @property
    def elsewhere(self) -> bool:
        """Whether it is about an app of a system other than iOS or iPadOS."""
        # "17.5" is a version and says nothing about the system.
        system = next((said for name in _SYSTEMS if (said := self.plainly([name])) and said[0].isalpha()), "")
        kind, source, path = (self.values.get(self.named.get(n)) for n in ("@odata.type", "source", "path"))
        if not system and isinstance(source, str) and source.islower() and " " not in source:
            # Fleet: ios_apps, ipados_apps, and apps (of macOS), programs, deb_packages ...
            system = source
        if system:
            return not system.lower().startswith(_OURS) and system.lower() != "apple"
        # Tools that query the phone itself give paths of its own apps, which look the same.
        of_mac = isinstance(path, str) and _MAC_PATH.match(path) and "CFBundleIdentifier" not in self.values
        return bool(of_mac) or (isinstance(kind, str) and bool(_OTHER_TYPE.match(kind)))

    @property
    def absent(self) -> bool:
        """Whether the row itself says that the app is not on the device."""
        gone = any(_is_said(self.values.get(self.named.get(name))) for name in _GONE)
        return gone or self.values.get(_INSTALLED) == []


def _is_other_container(row: Any) -> bool:
    """Whether it is a container of a group or an extension, which a backup lists beside its apps."""
    return isinstance(row, dict) and row.get("ContainerContentClass", _OF_APP) != _OF_APP


def _is_said(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() not in ("", "false", "no", "0"))


def facts_of(row: Row, found: AppList, table: bool) -> Facts | None:
    """The facts of a row with a bundle id; None if the app is not on the device.

    Raises:
        TelemetryError: there is no bundle id, or a field is no text.
    """
    if row.absent:
        return None
    app = row.first(APP_IDS)
    if app is None:
        raise TelemetryError(f"the entry has no bundle id; expected {EXPECTED}")
    checked_id("the entry", app)
    # Some tools number their states.
    status = row.first(_STATES, app) if found.by_status else row.plainly(_STATES)
    state = plain(status or "").replace(" ", "")
    if found.by_status and state not in _MANAGED:
        return None
    said: Facts = {}
    if "CFBundleIdentifier" in row.values:
        entitlements = row.values.get("Entitlements")
        said = declared(app, row.values, entitlements)
        if entitlements is None and "uibackgroundmodes" not in row.named:
            # The tool did not ask for it: this means unknown, not none.
            del said["background_modes"]
    by_mdm = row.values.get("Source") == "Declarative Device Management"
    flags = (row.values.get(row.named.get(name)) for name in _FLAGS)
    flag = next((said for said in flags if isinstance(said, bool)), None)
    managed = True if by_mdm or (found.managed_only and status is None) else _MANAGED.get(state, flag)
    names = APP_NAMES[:-1] if table else APP_NAMES
    return {
        "app_name": row.first(names, app),
        "version": row.first(VERSIONS, app),
        "category": row.first(_CATEGORIES, app),
        "managed": managed,
        **said,
        "app_id": app,
    }
