"""How far a device's telemetry can show each of the analytic's three behaviours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any


class Level(StrEnum):
    """How far a behaviour can be judged; see `WORDING`."""

    JUDGED = "judged"
    TOO_LITTLE = "too_little"
    PER_DEVICE = "per_device"
    BLIND = "blind"


WORDING: Mapping[Level, str] = {
    Level.JUDGED: "can be judged",
    Level.TOO_LITTLE: "too little yet",
    Level.PER_DEVICE: "only per device",
    Level.BLIND: "blind",
}
WEEKLY_SUMS = "what it can show is judged in weekly sums"
BEHAVIOURS = {
    "structured_cadence": "HTTPSCadenceAnomalyThreshold",
    "session_persistence": "SessionPersistenceThreshold",
    "notification_burst": "NotificationWakeFrequencyThreshold",
}
"""The behaviours, and the threshold that ATT&CK names for each."""

MIN_FLOWS = 6
MIN_PUSHES = 3
MAX_RESOLUTION_SECONDS = 60.0
"""Coarser times can neither show a rhythm nor tie a burst to a push."""
MIN_SHARE = 0.5
"""A fact known for less than this share of the flows or hours is not enough to judge by."""
MIN_HOURS = 6.0
"""A shorter own log of a phone says little about it."""
MIN_LOGGED_HOURS = 72.0
"""A shorter own log of a phone has no past to compare with."""

CHANGES: Mapping[str, str] = {
    "flows": "convert connection logs of the device",
    "app": "log flows where the app is known: an on-device content filter or a per-app VPN",
    "destination": "log flows with their destination address or host",
    "duration": "log whole connections with their duration (Zeek conn, NetFlow, a content filter)",
    "time": "log the start of every flow to the second",
    "push": "collect a sysdiagnose (its PowerLog names pushes by app) or an agent's push log",
    "activity": "collect a sysdiagnose (PowerLog) or an agent's log of unlocks and apps in front",
    "host": "route DNS and TLS metadata of managed devices through a sensor (Zeek ssl, quic and dns logs)",
    "modes": "declare the apps' background modes: appcadence inventory merge their IPA or Info.plist",
    "again": "collect another sysdiagnose in two or three days: a past shows what is usual",
    "report": "collect an App Privacy Report (seven days): it names the hosts of each app, as weekly sums",
    "gaps": "close the gaps in the flow log",
    "": "none: nothing is missing",
}
"""What would help most, by kind."""


@dataclass(frozen=True)
class Capability:
    """How far one behaviour can be judged on one device."""

    level: Level
    reason: str
    change: str
    """A key of `CHANGES`."""

    @property
    def text(self) -> str:
        return WORDING[self.level]

    def as_dict(self) -> dict[str, str]:
        return {
            "code": self.level.value,
            "text": self.text,
            "reason": self.reason,
            "change_code": self.change,
            "change": CHANGES[self.change],
        }


@dataclass(frozen=True)
class Log:
    """What the activity or push log of one device covers."""

    hours: int
    """Hours that it covers; a silence of up to a day counts as covered."""
    hours_with_flows: int
    """Covered hours in which the device has flows."""
    records: int
    time_resolution_seconds: float | None
    """Resolution of unlocks and apps in front, or of pushes received; None if there are none of these."""
    kinds: dict[str, int]


@dataclass(frozen=True)
class Profiles:
    """Apps that were seen, and for how many of them the inventory knows each fact."""

    apps: int
    in_inventory: int
    background_modes_known: int
    approved: int
    approval_known: int
    expected_hosts_known: int


@dataclass(frozen=True)
class DeviceFacts:
    """The facts about one device; shares are of its flows, 0 to 1."""

    device_id: str
    flows: int
    attribution: dict[str, float]
    """Share of flows by how their app is known: exact, process, display_name, none."""
    app_known: float
    dest_known: float
    host_known: float
    host_passive: float
    duration_known: float
    bytes_known: float
    lookups: float
    """Share that are DNS lookups."""
    time_resolution_seconds: float | None
    first: str | None
    last: str | None
    span_hours: float
    """From the first flow to the last, which is the time retained."""
    observed_hours: int
    """Clock hours with flows, including silences of up to four hours."""
    gaps: int
    """Silences longer than four hours."""
    gap_hours: int
    logged_hours: float
    """Time for which the phone's own log, which shows no destinations, was kept."""
    contact_summaries: int
    reports: int
    """App Privacy Reports of two days and more, which can be judged by weekly sums."""
    activity: Log
    pushes: Log
    pushes_with_app: int
    """Pushes received whose app is known."""
    profiles: Profiles

    @cached_property
    def behaviours(self) -> dict[str, Capability]:
        """How far each behaviour can be judged."""
        unseen, unnamed = _unseen(self), _unnamed(self)
        return {
            "structured_cadence": unseen or unnamed or _short(self) or _cadence(self),
            "session_persistence": (
                unseen or _untimed(self) or unnamed or _short(self) or _known_of(self, "durations")
            ),
            "notification_burst": unseen or _unpushed(self) or _short(self) or _bursts(self),
        }

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"behaviours": {n: found.as_dict() for n, found in self.behaviours.items()}}

    @property
    def own_log(self) -> bool:
        """Whether it is seen through its own log: apps and times, no destinations."""
        return self.flows > 0 and self.dest_known < MIN_SHARE <= self.app_known

    @property
    def present(self) -> bool:
        """Whether the activity log shows for most observed hours if the user was present."""
        return self.activity.hours_with_flows >= MIN_SHARE * self.observed_hours

    @property
    def undeclared(self) -> int:
        """Apps without known background modes."""
        return self.profiles.apps - self.profiles.background_modes_known


def _unseen(d: DeviceFacts) -> Capability | None:
    resolution = d.time_resolution_seconds or 0.0
    if not d.flows and d.contact_summaries:
        more = f"; {WEEKLY_SUMS}" if d.reports else ""
        return _blind(f"an App Privacy Report has sums of contacts without their times{more}", "flows")
    if d.flows < MIN_FLOWS:
        return _blind(f"{d.flows} flows: too few for any behaviour to show", "flows")
    if d.dest_known < MIN_SHARE and not d.own_log:
        return _blind(f"{percent(1 - d.dest_known)} of the flows name no destination", "destination")
    if not resolution <= MAX_RESOLUTION_SECONDS:
        return _blind(f"flow times are known to {resolution:g} s only", "time")
    return None


def _untimed(d: DeviceFacts) -> Capability | None:
    if d.duration_known >= MIN_SHARE:
        return None
    return _blind(f"{percent(1 - d.duration_known)} of the flows have no duration", "duration")


def _unnamed(d: DeviceFacts) -> Capability | None:
    if d.app_known >= MIN_SHARE:
        return None
    said = "no flow names" if not d.app_known else f"only {percent(d.app_known)} of the flows name"
    reason = f"{said} its app: a blind spot; the device and its destinations stand in for it"
    if d.lookups >= MIN_SHARE:
        reason += "; most records are DNS lookups, whose rhythm caching distorts"
    return Capability(Level.PER_DEVICE, reason, "app")


def _unpushed(d: DeviceFacts) -> Capability | None:
    records, named, resolution = d.pushes.records, d.pushes_with_app, d.pushes.time_resolution_seconds or 0.0
    if not records:
        return _blind("no push telemetry: a blind spot", "push")
    if named < MIN_PUSHES:
        what = f"only {named} of its {records:,} push records name an app that got a push"
        return _blind(f"{what}: a blind spot", "push")
    if not resolution <= MAX_RESOLUTION_SECONDS:
        return _blind(f"push times are known to {resolution:g} s only", "push")
    if not d.pushes.hours_with_flows:
        return _blind("the push log and the flows share no hour", "push")
    if d.app_known < MIN_SHARE:
        return _blind(
            "pushes are known, but flows do not name the app that they belong to: a blind spot", "app"
        )
    return None


def _short(d: DeviceFacts) -> Capability | None:
    hours = d.logged_hours or float(d.observed_hours)
    if not d.own_log or hours >= MIN_HOURS:
        return None
    return Capability(Level.TOO_LITTLE, f"{hours:,.1f} h of log: too short to say much", "again")


def _blind(reason: str, change: str) -> Capability:
    return Capability(Level.BLIND, reason, change)


def _cadence(d: DeviceFacts) -> Capability:
    slot = d.time_resolution_seconds or 0.0
    return _known_of(d, "starts", f" (a beat under about {2 * slot:g} s looks like one long session)")


def _known_of(d: DeviceFacts, what: str, limit: str = "") -> Capability:
    """Judged by app and destination; in a phone's own log only by app, within a limit."""
    said = f"apps, destinations and {what} are known"
    if d.own_log:
        kept = f", over {d.logged_hours:,.1f} h of log" if d.logged_hours else ""
        said = f"by app, to {d.time_resolution_seconds:g} s{limit}{kept}; destinations are a blind spot"
    return Capability(Level.JUDGED, f"{said}{_missing(d)}", _next(d))


def _bursts(d: DeviceFacts) -> Capability:
    resolution, shared = d.pushes.time_resolution_seconds or 0.0, d.pushes.hours_with_flows
    known = f", push times to {resolution:g} s" if resolution >= 1 else ""
    enough = shared >= MIN_SHARE * d.observed_hours
    part = "" if enough else f" in {shared:,} of {d.observed_hours:,} hours with flows"
    change = _next(d) if enough else "push"
    return Capability(Level.JUDGED, f"pushes and flows are known by app{known}{part}{_missing(d)}", change)


def _missing(d: DeviceFacts) -> str:
    """What is missing, as the end of a reason."""
    missing = []
    if not d.present:
        missing.append("whether the user was present is a blind spot")
    if d.undeclared:
        missing.append(f"{d.undeclared} of {d.profiles.apps} apps have no known background modes")
    return "".join(f"; {text}" for text in missing)


def _next(d: DeviceFacts) -> str:
    missing = {
        "activity": not d.present,
        "again": d.own_log and d.logged_hours < MIN_LOGGED_HOURS,
        "report": d.own_log and not d.reports,
        "host": d.host_known < MIN_SHARE,
        "gaps": d.gap_hours > d.observed_hours,
        "modes": d.undeclared,
    }
    return next((change for change, needed in missing.items() if needed), "")


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.0f}%"
