"""The analytic's first question: what can this telemetry show, on which device, and what would help most?

In ATT&CK, analytic AN1682 of detection strategy DET0620 detects T1437.001 (Web Protocols) on iOS from data
component DC0085. It needs traffic attributed to apps, push timing, user interaction and declared behaviour.
Each fact below is one of these, and each capability says how far one of the analytic's three behaviours can
be judged. Memory grows with devices, apps and hours, not with flows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from appcadence._types import Progress, silent
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.inventory.app_archive import Facts
from appcadence.telemetry.inventory.snapshot import Snapshot
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readiness.capability import (
    BEHAVIOURS,
    CHANGES,
    MIN_SHARE,
    Capability,
    DeviceFacts,
    Level,
    Log,
    Profiles,
)
from appcadence.telemetry.readiness.counts import ATTRIBUTIONS, SHARES, WHOLE, Counts, count

ATTACK = {
    "analytic": "AN1682",
    "detection_strategy": "DET0620",
    "technique": "T1437.001",
    "data_component": "DC0085",
}
CONNECTION_BLIND_SPOT = (
    "Blind spot: requests inside one HTTP/2 or QUIC connection cannot be told apart in flow records."
)
"""Holds for everything but phones' own logs, because no flow record can show it."""
_MAX_APPS = 14


@dataclass(frozen=True)
class Readiness:
    """The answer for a telemetry directory."""

    directory: str
    devices: tuple[DeviceFacts, ...]
    profiles: Profiles
    """For all apps seen anywhere."""
    undeclared: tuple[str, ...]
    """Apps without known background modes, most flows first."""
    blind_spots: tuple[str, ...]

    @property
    def flows(self) -> int:
        return sum(device.flows for device in self.devices)

    def share(self, fact: str) -> float:
        """A share of all flows of the fleet: app_known, host_known ..., or a way of attribution."""
        if not self.flows:
            return 0.0
        values = (d.attribution[fact] if fact in ATTRIBUTIONS else getattr(d, fact) for d in self.devices)
        return sum(v * d.flows for v, d in zip(values, self.devices, strict=True)) / self.flows

    def levels(self, behaviour: str) -> dict[Level, int]:
        """The number of devices by how far the behaviour can be judged on them."""
        found = Counter(device.behaviours[behaviour].level for device in self.devices)
        return {level: found[level] for level in Level}

    def change(self, behaviour: str) -> tuple[str, int]:
        """What would help most, and on how many devices; only unjudged devices count, if there are any."""
        found = Counter(capability.change for capability in self._behind(behaviour))
        if not found:
            return CHANGES["flows"], 0
        kind, devices = min(found.items(), key=lambda item: (-item[1], item[0] == "", item[0]))
        return self._worded(kind), devices

    def weekly_sums(self) -> tuple[int, int]:
        """Devices that weekly sums can judge (they show no behaviour), and the number of their reports."""
        reports = [device.reports for device in self.devices if device.reports]
        return len(reports), sum(reports)

    def own_logs(self) -> str:
        """What phones' own logs (sysdiagnoses) can show, in a sentence; empty if there are none."""
        found = [device for device in self.devices if device.own_log]
        if not found:
            return ""
        counts = {sum(c.level == Level.JUDGED for c in d.behaviours.values()) for d in found}
        judged = " to ".join(map(str, sorted({min(counts), max(counts)})))
        resolution = max(device.time_resolution_seconds or 0.0 for device in found)
        hours = sum(device.logged_hours for device in found)
        return (
            f"Phones seen through their own log (a sysdiagnose): {len(found):,}. There {judged} of "
            f"{len(BEHAVIOURS)} behaviours can be judged by app, to {resolution:g} s, over {hours:,.1f} h."
        )

    def reason(self, behaviour: str) -> str:
        """The commonest reason; only unjudged devices count, if there are any."""
        found = Counter(capability.reason for capability in self._behind(behaviour))
        return min(found, key=lambda reason: (-found[reason], reason)) if found else "there is no device"

    def _behind(self, behaviour: str) -> list[Capability]:
        every = [device.behaviours[behaviour] for device in self.devices]
        return [capability for capability in every if capability.level != Level.JUDGED] or every

    def _worded(self, kind: str) -> str:
        if kind != "modes" or not self.undeclared:
            return CHANGES[kind]
        few = listed(self.undeclared, _MAX_APPS)
        return (
            f"declare background modes for these {len(self.undeclared)} apps (their IPA or Info.plist): {few}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The answer as plain values, ready for JSON."""
        behaviours = {}
        for name, threshold in BEHAVIOURS.items():
            change, devices = self.change(name)
            behaviours[name] = {
                "devices": {level.value: n for level, n in self.levels(name).items()},
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
            "own_logs": self.own_logs(),
            "weekly_sums": dict(zip(("devices", "reports"), self.weekly_sums(), strict=True)),
        }
        return {
            "directory": self.directory,
            "attack": ATTACK,
            "fleet": fleet,
            "blind_spots": list(self.blind_spots),
            "devices": [device.as_dict() for device in self.devices],
        }


def readiness(directory: str | Path | TelemetryDirectory, progress: Progress = silent) -> Readiness:
    """Measure what a telemetry directory can show.

    Raises:
        TelemetryError: the directory or one of its files cannot be read.
    """
    source = directory if isinstance(directory, TelemetryDirectory) else TelemetryDirectory(directory)
    counts = count(source, progress)
    known = Snapshot.latest(source).known
    present, apps = counts.present(), counts.apps_of()
    devices = tuple(
        _device(counts, code, [_profile(known, name, counts.apps[app]) for app in apps.get(code, ())])
        for name, code in sorted((name, code) for code, name in enumerate(counts.devices))
        if present[code]
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


def _device(counts: Counts, code: int, profiles: Sequence[Facts]) -> DeviceFacts:
    figures: dict[str, Any] = {name: values[code].item() for name, values in counts.figures.items()}
    flows = figures["flows"]
    shares = {name: figures[name] / max(flows, 1) for name in (*SHARES, *ATTRIBUTIONS)}
    known = figures | shares

    def log(table: str) -> Log:
        records = counts.logs[table].get(code, (0, None, {}))
        return Log(figures[f"{table}_hours"], figures[f"{table}_shared"], *records)

    first, last = figures["first"], figures["last"]
    return DeviceFacts(
        device_id=counts.devices[code],
        attribution={way: shares[way] for way in ATTRIBUTIONS},
        **{name: known[name] for name in (*WHOLE, *SHARES)},
        time_resolution_seconds=figures["resolution"] if flows else None,
        first=_iso(first) if flows else None,
        last=_iso(last) if flows else None,
        span_hours=(last - first) / 3.6e9 if flows else 0.0,
        logged_hours=figures["logged_minutes"] / 60,
        activity=log("activity"),
        pushes=log("notifications"),
        profiles=_profiles(profiles),
    )


def _profile(known: dict[str | None, dict[str, Facts]], device: str, app: str) -> Facts:
    """The newest facts of an app: from the device's own row, else from the fleet's."""
    own = known.get(device, {}).get(app)
    return own if own is not None else known.get(None, {}).get(app, {})


def _best(profiles: Sequence[Facts]) -> Facts:
    """The facts of one app that are known on all of its devices; unknown on one means unknown."""
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


def _blind_spots(devices: Sequence[DeviceFacts], undeclared: Sequence[str], apps: int) -> list[str]:
    n = len(devices)
    flowing = [d for d in devices if d.flows]

    def named(where: Sequence[DeviceFacts]) -> str:
        few = listed([d.device_id for d in where])
        return f"{len(where)} of {n} device{'s' * (n > 1)} ({few})"

    unpushed = [
        d
        for d in devices
        if not d.pushes_with_app and d.behaviours["notification_burst"].level == Level.BLIND
    ]
    alone = [d for d in flowing if not d.present]
    said = [
        (
            [d for d in devices if not d.flows and not d.reports],
            "no flows",
            "nothing can be said about their traffic",
        ),
        (
            [d for d in devices if not d.flows and d.reports],
            "App Privacy Reports and no flows",
            "how often apps contact which hosts a week can be judged there, but no rhythm",
        ),
        (
            [d for d in flowing if d.app_known < MIN_SHARE],
            "most flows do not name their app",
            "only device and destination can be judged there",
        ),
        (
            [d for d in flowing if d.own_log],
            "the phone's own log shows no destinations",
            "apps are judged as a whole there, and neither their hosts nor new hosts are known",
        ),
        (
            [d for d in flowing if d.host_known < MIN_SHARE and not d.own_log],
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
    # Slots of a phone's own log show requests, whatever connection they went through.
    return [*out, *([] if flowing and all(d.own_log for d in flowing) else [CONNECTION_BLIND_SPOT])]


def _iso(micros: int) -> str:
    # Not datetime, which lacks years that a broken clock may give.
    return f"{np.datetime64(micros, 'us').astype('datetime64[s]')}+00:00"
