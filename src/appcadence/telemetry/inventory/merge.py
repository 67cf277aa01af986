"""Inventories of many sources merged into one snapshot, and what changed since the last one.

Sources, told apart by content: lists of apps by bundle id in property lists, JSON or CSV, however wrapped
(`app_lists`; an MDM's answers and webhooks, Jamf, Fleet, SimpleMDM, a declarative status, MVT's and
ideviceinstaller's lists), Intune's lists (display names only, so a map gives the bundle ids), an IPA or an
extracted Info.plist (entitlements and embedded.mobileprovision are looked for beside it, and
PlugIns/*.appex), and the hand-kept inventory.toml:

    [apps."com.example.chat"]              # one table an app, its bundle id in quotes
    name = "Chat"
    purpose = "Messages between staff"     # in the owner's words
    category = "Business"
    approved = true                        # true or false; leave it out while nobody has decided
    expected_hosts = ["chat.example"]      # example.com covers what is under it, *.example.com only that
    expected_period_seconds = 900          # the shortest period at which it may talk by itself
    background_modes = ["fetch"]           # [] = declares none; leave it out if unknown
    push_entitled = true

Every key may be left out: what no source says is null, which means unknown and never "none". If sources
disagree, the hand-kept file is believed first, then the bundle, the lists, Intune, and last the latest
snapshot. Expected hosts and periods come only from the hand-kept file, because no app declares them. Of two
files of one kind, the later one wins. Facts of the fleet also fill the rows of single devices, because only
a device's own row is used for it. A list of which no row can be used is refused. If a list is incomplete or
has bad rows, no absent app counts as vanished.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from appcadence._inputs import sha256
from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import DirectoryWriter, TelemetryDirectory, existing
from appcadence.telemetry.file_report import FileReport
from appcadence.telemetry.inventory.app_archive import Facts
from appcadence.telemetry.inventory.snapshot import FACTS, Rows, Scope, Snapshot, order
from appcadence.telemetry.inventory.sources import (
    BUNDLE,
    MDM,
    PRECEDENCE,
    Source,
    read_app_map,
    read_source,
)
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers import rejected
from appcadence.telemetry.schema import INVENTORY

CHANGES = (
    "new_app",
    "vanished_app",
    "new_background_modes",
    "approval_lost",
    "push_entitlement_gained",
    "approved_period_changed",
)
"""Kinds of change, in the order of a report."""
_PSEUDONYM = re.compile("device-[0-9a-f]{16}")
"""The pseudonym of a device, as a conversion makes it."""


@dataclass(frozen=True)
class SourceReport:
    """The report on one file."""

    name: str
    kind: str
    """hand, bundle, mdm (a list by bundle id, of whatever tool) or intune (one by name)."""
    device_id: str | None
    rows: int
    apps: int
    rejected: int
    unmapped: tuple[str, ...]
    """App names without a bundle id, which need a line in the app map."""


@dataclass(frozen=True)
class Change:
    """One change of one app since the last snapshot, on these devices."""

    kind: str
    app_id: str
    device_ids: tuple[Scope, ...]
    """None = fleet-wide."""
    detail: str = ""


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    out: Path
    snapshot_time: datetime | None
    """None = nothing differs from the last snapshot, and nothing was written."""
    sources: tuple[SourceReport, ...]
    rows: int
    """Rows of the new snapshot."""
    first: tuple[Scope, ...]
    """Devices (None = the fleet) without an earlier snapshot; none of their apps counts as new."""
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        return {
            "out": str(self.out),
            "snapshot_time": self.snapshot_time.isoformat() if self.snapshot_time else None,
            "rows": self.rows,
            "first_snapshot_of": list(self.first),
            "sources": [asdict(source) for source in self.sources],
            "changes": [asdict(change) for change in self.changes],
            "notes": list(self.notes),
        }


def merge(
    sources: Sequence[str | Path],
    into: str | Path,
    *,
    device_id: str | None = None,
    app_map: str | Path | None = None,
    now: datetime | None = None,
) -> MergeReport:
    """Merge sources into a new snapshot of the `inventory` table of a telemetry directory.

    A device whose InstalledApplicationList is given has exactly the apps of that list. The snapshot is added
    whole or not at all; a device without any difference gets no new rows.

    Args:
        sources: files; see the module.
        into: the telemetry directory; made if absent.
        device_id: the device of the list of apps, instead of its UDID.
        app_map: CSV file (app_name, app_id) for names without a bundle id.
        now: time of the snapshot; None = the present. Times before the last snapshot are moved after it.

    Raises:
        TelemetryError: a source cannot be read, or `into` is in use for something else.
    """
    into = Path(into)
    if not sources:
        raise TelemetryError("no inventory source; give at least one file")
    if device_id is not None and not device_id.strip():
        raise TelemetryError("the device id is empty; give a name")
    names = read_app_map(Path(app_map)) if app_map is not None else {}
    read = [read_source(Path(path), device_id, names) for path in sources]
    lists = [source.device for source in read if source.complete]
    for device in lists:
        if lists.count(device) > 1:
            raise TelemetryError(f"device {device} has several application lists; merge one after the other")
    with DirectoryWriter(into, adding=True) as writer:
        telemetry = existing(into)
        before = Snapshot.latest(telemetry)
        after = _combined(read, before)
        hidden = telemetry is not None and any(entry.get("key") for entry in telemetry.sources)
        clear = [scope for scope in after if scope is not None and not _PSEUDONYM.fullmatch(scope)]
        if hidden and clear:
            raise TelemetryError(
                f"{into} holds pseudonyms, which clear names such as {clear[0]} must not be mixed with; give "
                "the device's pseudonym, or merge into another directory",
                "device_id",
            )
        changed = {scope: rows for scope, rows in after.items() if rows != before.present.get(scope)}
        time = None
        if changed:
            time = max(now or datetime.now(UTC), before.time + timedelta(microseconds=1))
            _write(writer, read, changed, time, hidden)
    return MergeReport(
        into,
        time,
        tuple(_report(source) for source in read),
        sum(map(len, changed.values())),
        tuple(sorted((s for s in after if s not in before.present), key=order)),
        _changes(before, after),
        tuple(_notes(read, after, telemetry)),
    )


def _combined(sources: Sequence[Source], before: Snapshot) -> dict[Scope, Rows]:
    """The apps of every scope in the sources, each with its facts so far."""
    later_first = list(sources)[::-1]
    layers = sorted(later_first, key=lambda source: PRECEDENCE.index(source.kind))
    fleet = {app for source in layers if source.device is None for app in source.apps}
    apps: dict[Scope, set[str]] = {
        scope: set(rows) for scope, rows in before.present.items() if fleet & set(rows)
    }
    if fleet:
        apps[None] = set(before.present.get(None, ())) | fleet
    for device in {source.device for source in layers if source.device is not None}:
        mine = [source for source in layers if source.device == device]
        found = {app for source in mine for app in source.apps}
        complete = any(source.complete for source in mine)
        apps[device] = found if complete else found | set(before.present.get(device, ()))
    return {
        scope: {app: _facts(app, scope, layers, before) for app in sorted(members)}
        for scope, members in apps.items()
    }


def _facts(app: str, scope: Scope, layers: Iterable[Source], before: Snapshot) -> Facts:
    said = [s.apps[app] for s in layers if app in s.apps and s.device in (None, scope)]
    for owner in dict.fromkeys((scope, None)):
        if app in before.known.get(owner, ()):
            said.append(before.known[owner][app])
    return {key: next((facts[key] for facts in said if facts.get(key) is not None), None) for key in FACTS}


def _changes(before: Snapshot, after: Mapping[Scope, Rows]) -> tuple[Change, ...]:
    found: dict[tuple[str, str, str], list[Scope]] = {}

    def note(kind: str, app: str, scope: Scope, detail: str = "") -> None:
        found.setdefault((kind, app, detail), []).append(scope)

    for scope in sorted(set(after) & set(before.present), key=order):
        old, new = before.present[scope], after[scope]
        for app in new.keys() - old.keys():
            # An app that single devices were known to have is not new to the fleet.
            if scope is None and any(app in rows for rows in before.present.values()):
                continue
            note("new_app", app, scope, new[app]["app_name"] or "")
        for app in old.keys() - new.keys():
            note("vanished_app", app, scope, old[app]["app_name"] or "")
        for app, facts in new.items():
            was = old.get(app) or before.known[scope].get(app)
            if was is None:
                continue
            if was["background_modes"] is not None:
                modes = sorted(set(facts["background_modes"] or ()) - set(was["background_modes"]))
                if modes:
                    note("new_background_modes", app, scope, ", ".join(modes))
            if was["approved"] and not facts["approved"]:
                note("approval_lost", app, scope)
            if was["push_entitled"] is False and facts["push_entitled"]:
                note("push_entitlement_gained", app, scope)
            period, old_period = facts["expected_period_seconds"], was["expected_period_seconds"]
            if old_period is not None and period != old_period:
                detail = f"period approved before was {old_period:g} s, now {period:g} s"
                note("approved_period_changed", app, scope, detail)
    ordered = sorted(found, key=lambda key: (CHANGES.index(key[0]), *key[1:]))
    return tuple(Change(kind, app, tuple(found[kind, app, detail]), detail) for kind, app, detail in ordered)


def _notes(
    sources: Sequence[Source], after: Mapping[Scope, Rows], telemetry: TelemetryDirectory | None
) -> Iterable[str]:
    for s in sources:
        if s.more:
            yield (
                f"{_name(s.path)} is one page of a longer answer ({s.more}), so apps on the other pages are "
                "missing; merge those pages too."
            )
    versions = {
        (app, facts["version"])
        for s in sources
        if s.kind == BUNDLE
        for app, facts in s.apps.items()
        if "version" in facts
    }
    for app, version in sorted(versions):
        other = {s.apps[app].get("version") for s in sources if s.kind == MDM and app in s.apps} - {
            None,
            version,
        }
        if other:
            installed = ", ".join(sorted(map(str, other)))
            yield f"{app}: the bundle has version {version}, but {installed} is installed."
    if telemetry and "flows" in telemetry.tables():
        inventoried = {scope for scope in after if scope is not None}
        strangers = inventoried - telemetry.names("flows", "device_id") if inventoried else set()
        if strangers:
            yield (
                f"{len(strangers)} listed device(s) have no flows: {listed(sorted(strangers))}. Flows may "
                "use other names for them: merge each list with the device_id that the flows use."
            )


def _report(source: Source) -> SourceReport:
    return SourceReport(
        _name(source.path),
        source.kind,
        source.device,
        source.rows,
        len(source.apps),
        len(source.bad),
        tuple(source.unmapped),
    )


def _name(path: Path) -> str:
    return path.name.encode("utf-8", "replace").decode()


def _write(
    writer: DirectoryWriter,
    sources: Sequence[Source],
    changed: Mapping[Scope, Rows],
    time: datetime,
    hidden: bool,
) -> None:
    rows = [
        {"app_id": app, "device_id": scope, "snapshot_time": time} | facts
        for scope in sorted(changed, key=order)
        for app, facts in changed[scope].items()
    ]
    entries, digest = [], hashlib.sha256(time.isoformat().encode())
    for source in sources:
        content = sha256(source.path)
        digest.update(bytes.fromhex(content))
        report = FileReport(
            f"file-{content[:16]}" if hidden else _name(source.path),
            content,
            f"inventory:{source.kind}",
            source.rows,
            len(source.apps),
            len(source.bad),
        )
        named = {} if hidden or source.device is None else {"key": None}  # forbids pseudonyms beside it
        entries.append(report.as_source() | named)
    writer.conversion, writer.sources = digest.hexdigest()[:16], entries
    writer.write("inventory", INVENTORY.of_rows(rows))
    for source in sources:
        for name, batch in rejected(source.path, source.bad):
            writer.write(name, batch)
