"""The analytic's first question: what can this telemetry show, on which device, and what would help most?

Answers to ATT&CK: analytic AN1682 of detection strategy DET0620 detects T1437.001 (Web Protocols) on iOS from
data component DC0085. It wants traffic attributed to apps, push timing, user interaction and declared
behaviour; each fact below is one of these, and each verdict says whether one of the analytic's three
behaviours can be judged. Memory grows with devices, apps and hours, not with flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.app_archive import Facts
from appcadence.telemetry.inventory.snapshot import Snapshot
from appcadence.telemetry.readiness.capability import BEHAVIOURS as BEHAVIOURS
from appcadence.telemetry.readiness.capability import (
    BLIND,
    CHANGES,
    JUDGED,
    MIN_SHARE,
    VERDICTS,
    Evidence,
    Verdict,
    judge,
)
from appcadence.telemetry.readiness.counts import ATTRIBUTIONS as ATTRIBUTIONS
from appcadence.telemetry.readiness.counts import Counts, count

ATTACK = {
    "analytic": "AN1682",
    "detection_strategy": "DET0620",
    "technique": "T1437.001",
    "data_component": "DC0085",
}
CONNECTION_BLIND_SPOT = (
    "Blind spot: requests inside one HTTP/2 or QUIC connection cannot be told apart in flow records."
)
"""Said always: no flow record can show it."""
_MAX_APPS = 14


@dataclass(frozen=True)
class Log:
    """How far the activity or push log of one device goes."""

    hours: int
    """Hours that it covers; a silence of up to a day counts as covered."""
    hours_with_flows: int
    """Those of them in which the device has flows."""
    records: int
    time_resolution_seconds: float | None
    """Grid of unlocks and apps in front, or of pushes received; None = it has none of these."""
    kinds: dict[str, int]


@dataclass(frozen=True)
class Profiles:
    """Apps that were seen, and how many of them the inventory knows what of."""

    apps: int
    in_inventory: int
    background_modes_known: int
    approved: int
    approval_known: int
    expected_hosts_known: int


@dataclass(frozen=True)
class Device:
    """Facts and verdicts of one device; shares are of its flows, 0 to 1."""

    device_id: str
    flows: int
    attribution: dict[str, float]
    """Share of flows by how their app is known: exact, process, display_name, none."""
    app_known: float
    host_known: float
    host_passive: float
    duration_known: float
    bytes_known: float
    time_resolution_seconds: float | None
    first: str | None
    last: str | None
    span_hours: float
    """From the first flow to the last: what is retained."""
    observed_hours: int
    """Clock hours with flows, silences of up to four hours included."""
    gaps: int
    """Silences longer than four hours."""
    gap_hours: int
    contact_summaries: int
    activity: Log
    pushes: Log
    pushes_with_app: int
    profiles: Profiles
    behaviours: dict[str, Verdict]

    def as_dict(self) -> dict[str, Any]:
        verdicts = {name: verdict.as_dict() for name, verdict in self.behaviours.items()}
        return asdict(self) | {"behaviours": verdicts}


@dataclass(frozen=True)
class Readiness:
    """The answer for a telemetry directory."""

    directory: str
    devices: tuple[Device, ...]
    profiles: Profiles
    """Of all apps seen anywhere."""
    undeclared: tuple[str, ...]
    """Apps without known background modes, those with the most flows first."""
    blind_spots: tuple[str, ...]

    @property
    def flows(self) -> int:
        return sum(device.flows for device in self.devices)

    def share(self, fact: str) -> float:
        """A share of the whole fleet's flows: app_known, host_known ..., or a way of attribution."""
        if not self.flows:
            return 0.0
        values = (d.attribution[fact] if fact in ATTRIBUTIONS else getattr(d, fact) for d in self.devices)
        return sum(v * d.flows for v, d in zip(values, self.devices, strict=True)) / self.flows

    def verdicts(self, behaviour: str) -> dict[str, int]:
        """Devices by verdict."""
        found = Counter(device.behaviours[behaviour].verdict for device in self.devices)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def change(self, behaviour: str) -> tuple[str, int]:
        """What would help most, and on how many devices: on those that are not judged, if there are any."""
        behind = [d for d in self.devices if d.behaviours[behaviour].verdict != JUDGED] or self.devices
        found = Counter(d.behaviours[behaviour].change for d in behind)
        if not found:
            return CHANGES["flows"], 0
        kind, devices = min(found.items(), key=lambda item: (-item[1], item[0] == "", item[0]))
        return self._worded(kind), devices

    def reason(self, behaviour: str) -> str:
        """The commonest reason, of those that are not judged if there are any."""
        behind = [d for d in self.devices if d.behaviours[behaviour].verdict != JUDGED] or self.devices
        found = Counter(d.behaviours[behaviour].reason for d in behind)
        return min(found, key=lambda reason: (-found[reason], reason)) if found else "there is no device"

    def _worded(self, kind: str) -> str:
        if kind != "modes" or not self.undeclared:
            return CHANGES[kind]
        few = ", ".join(self.undeclared[:_MAX_APPS]) + (" ..." if len(self.undeclared) > _MAX_APPS else "")
        return (
            f"declare background modes for these {len(self.undeclared)} apps (their IPA or Info.plist): {few}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The answer as plain values, ready for JSON."""
        behaviours = {}
        for name, threshold in BEHAVIOURS.items():
            change, devices = self.change(name)
            behaviours[name] = {
                "devices": self.verdicts(name),
                "reason": self.reason(name),
                "change": change,
                "change_helps_devices": devices,
                "attack": ATTACK | {"threshold": threshold},
            }
        shares = ("app_known", "host_known", "host_passive", "duration_known", "bytes_known")
        fleet = {
            "devices": len(self.devices),
            "flows": self.flows,
            "attribution": {name: self.share(name) for name in ATTRIBUTIONS},
            **{name: self.share(name) for name in shares},
            "profiles": asdict(self.profiles),
            "apps_without_background_modes": list(self.undeclared),
            "analytic_needs": {
                "traffic attributed to apps, share of flows": self.share("app_known"),
                "push timing by app, devices": sum(d.pushes_with_app > 0 for d in self.devices),
                "user interaction, devices": sum(d.activity.hours > 0 for d in self.devices),
                "declared behaviour, apps": self.profiles.background_modes_known,
            },
            "behaviours": behaviours,
        }
        return {
            "directory": self.directory,
            "attack": ATTACK,
            "fleet": fleet,
            "blind_spots": list(self.blind_spots),
            "devices": [device.as_dict() for device in self.devices],
        }


def readiness(
    directory: str | Path | TelemetryDirectory, progress: Callable[[str, float], None] | None = None
) -> Readiness:
    """Measure what a telemetry directory can show.

    Raises:
        TelemetryError: the directory or one of its files cannot be read.
    """
    source = directory if isinstance(directory, TelemetryDirectory) else TelemetryDirectory(directory)
    counts = count(source, progress)
    known = Snapshot.latest(source).known
    devices = tuple(
        _device(counts, code, name, known)
        for name, code in sorted((name, code) for code, name in enumerate(counts.devices))
        if counts.present[code]
    )
    ranked = [
        counts.apps[code] for code in np.argsort(-counts.app_flows, kind="stable") if counts.app_flows[code]
    ]
    owners: dict[str, list[str]] = {}
    for code, app in counts.seen:
        owners.setdefault(counts.apps[app], []).append(counts.devices[code])
    best = {app: _best([_profile(known, device, app) for device in owners[app]]) for app in ranked}
    undeclared = tuple(app for app in ranked if best[app].get("background_modes") is None)
    profiles = _profiles([best[app] for app in ranked])
    return Readiness(
        str(source.path), devices, profiles, undeclared, tuple(_blind_spots(devices, undeclared, len(ranked)))
    )


def _device(counts: Counts, code: int, name: str, known: dict[str | None, dict[str, Facts]]) -> Device:
    flows = int(counts.flows[code])

    def share(values: Any) -> float:
        return float(values[code]) / flows if flows else 0.0

    apps = [_profile(known, name, counts.apps[app]) for app in counts.apps_of(code)]
    profiles = _profiles(apps)
    grid = float(counts.grid[code]) if flows else None
    first, last = int(counts.first[code]), int(counts.last[code])
    activity = Log(
        int(counts.activity_hours[code]), int(counts.activity_shared[code]), *counts.log("activity", code)
    )
    pushes = Log(
        int(counts.push_hours[code]), int(counts.push_shared[code]), *counts.log("notifications", code)
    )
    evidence = Evidence(
        flows=flows,
        app=share(counts.app_known),
        destination=share(counts.dest_known),
        host=share(counts.host_known),
        duration=share(counts.duration_known),
        lookups=share(counts.lookups),
        resolution_seconds=grid or 0.0,
        hours=int(counts.hours[code]),
        gap_hours=int(counts.gap_hours[code]),
        activity_hours=activity.hours_with_flows,
        push_hours=pushes.hours_with_flows,
        pushes=int(counts.pushes[code]),
        other_pushes=pushes.records - int(counts.pushes[code]),
        push_resolution_seconds=pushes.time_resolution_seconds or 0.0,
        apps=profiles.apps,
        apps_without_modes=profiles.apps - profiles.background_modes_known,
        summaries=int(counts.summaries[code]),
    )
    return Device(
        device_id=name,
        flows=flows,
        attribution={way: share(counts.attribution[:, i]) for i, way in enumerate(ATTRIBUTIONS)},
        app_known=evidence.app,
        host_known=evidence.host,
        host_passive=share(counts.host_passive),
        duration_known=evidence.duration,
        bytes_known=share(counts.bytes_known),
        time_resolution_seconds=grid,
        first=_iso(first) if flows else None,
        last=_iso(last) if flows else None,
        span_hours=(last - first) / 3.6e9 if flows else 0.0,
        observed_hours=evidence.hours,
        gaps=int(counts.gaps[code]),
        gap_hours=evidence.gap_hours,
        contact_summaries=evidence.summaries,
        activity=activity,
        pushes=pushes,
        pushes_with_app=evidence.pushes,
        profiles=profiles,
        behaviours=judge(evidence),
    )


def _profile(known: dict[str | None, dict[str, Facts]], device: str, app: str) -> Facts:
    """The newest facts of an app: the device's own row is the one that counts, else the fleet's."""
    own = known.get(device, {}).get(app)
    return own if own is not None else known.get(None, {}).get(app, {})


def _best(profiles: Sequence[Facts]) -> Facts:
    """Of one app on many devices, what all of them know: unknown on one is unknown."""
    keys = set.intersection(*({k for k, v in p.items() if v is not None} for p in profiles))
    found = {key: profiles[0][key] for key in keys}
    if "approved" in found:
        found["approved"] = all(profile["approved"] for profile in profiles)
    return found


def _profiles(apps: Sequence[Facts]) -> Profiles:
    return Profiles(
        len(apps),
        sum(bool(app) for app in apps),
        sum(app.get("background_modes") is not None for app in apps),
        sum(app.get("approved") is True for app in apps),
        sum(app.get("approved") is not None for app in apps),
        sum(bool(app.get("expected_hosts")) for app in apps),
    )


def _blind_spots(devices: Sequence[Device], undeclared: Sequence[str], apps: int) -> list[str]:
    n = len(devices)
    flowing = [d for d in devices if d.flows]

    def named(where: Sequence[Device]) -> str:
        few = ", ".join(d.device_id for d in where[:3])
        return f"{len(where)} of {n} device{'s' * (n > 1)} ({few}{' ...' if len(where) > 3 else ''})"

    unpushed = [
        d for d in devices if not d.pushes_with_app and d.behaviours["notification_burst"].verdict == BLIND
    ]
    alone = [d for d in flowing if d.activity.hours_with_flows < MIN_SHARE * d.observed_hours]
    said = [
        ([d for d in devices if not d.flows], "no flows", "nothing about traffic can be said there"),
        (
            [d for d in flowing if d.app_known < MIN_SHARE],
            "most flows do not name their app",
            "only device and destination can be judged there",
        ),
        (
            [d for d in flowing if d.host_known < MIN_SHARE],
            "most destinations are addresses without a name",
            "a service that changes its address looks like many",
        ),
        (
            [d for d in flowing if d.duration_known < MIN_SHARE],
            "most flows have no duration",
            "how long connections last is unknown there",
        ),
        (unpushed, "no push telemetry by app", "bursts after notifications cannot be recognised there"),
        (
            alone,
            "the user's presence is unknown most of the time",
            "traffic that nobody asked for looks like any other there",
        ),
    ]
    out = [f"Blind spot: {what} on {named(where)}: {so}." for where, what, so in said if where]
    if undeclared:
        out.append(
            f"Blind spot: {len(undeclared)} of {apps} apps have no known background modes: a conflict with "
            "what they declare cannot be seen."
        )
    return [*out, CONNECTION_BLIND_SPOT]


def _iso(micros: int) -> str:
    # Not datetime: a broken clock may name a year that it does not have.
    return f"{np.datetime64(micros, 'us').astype('datetime64[s]')}+00:00"
