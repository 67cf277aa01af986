"""The state of an inventory after its snapshots so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.app_archive import Facts
from appcadence.telemetry.schema import INVENTORY

FACTS = tuple(c.name for c in INVENTORY.columns if c.name not in ("app_id", "device_id", "snapshot_time"))

Scope = str | None
"""A device, or None = the fleet."""
Rows = dict[str, Facts]
"""Facts by app."""


def latest(telemetry: TelemetryDirectory) -> Rows:
    """Newest facts of every app: from the fleet's own row, else from one of the devices."""
    known = Snapshot.latest(telemetry).known
    found: Rows = {}
    for scope in sorted(known, key=order, reverse=True):
        for app, facts in known[scope].items():
            said = {key: value for key, value in facts.items() if value is not None}
            found[app] = found.get(app, dict.fromkeys(FACTS)) | said
    return found


@dataclass
class Snapshot:
    """The newest facts by scope and app; `present` holds those in the scope's last snapshot."""

    known: dict[Scope, Rows]
    present: dict[Scope, Rows]
    time: datetime

    @classmethod
    def latest(cls, telemetry: TelemetryDirectory | None) -> Snapshot:
        newest: dict[tuple[Scope, str], tuple[int, Facts]] = {}
        last: dict[Scope, int] = {}
        for piece in telemetry.scan("inventory", 50_000) if telemetry else ():
            times = piece["snapshot_time"].cast(pa.int64())
            for row in piece.set_column(len(piece.schema) - 1, "snapshot_time", times).to_pylist():
                scope, app, when = row.pop("device_id"), row.pop("app_id"), row.pop("snapshot_time")
                if when >= newest.get((scope, app), (when,))[0]:
                    facts = {k: sorted(set(v)) if isinstance(v, list) else v for k, v in row.items()}
                    newest[scope, app] = when, facts
                last[scope] = max(when, last.get(scope, when))
        known: dict[Scope, Rows] = {}
        present: dict[Scope, Rows] = {}
        for (scope, app), (when, facts) in newest.items():
            known.setdefault(scope, {})[app] = facts
            if when == last[scope]:
                present.setdefault(scope, {})[app] = facts
        try:
            time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=max(last.values(), default=0))
        except OverflowError:
            raise TelemetryError("table inventory: a snapshot_time lies beyond the year 9999") from None
        return cls(known, present, time)


def order(scope: Scope) -> str:
    return scope or ""
