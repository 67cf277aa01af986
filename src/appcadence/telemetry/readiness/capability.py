"""What a device's telemetry lets one say about each of the analytic's three behaviours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

JUDGED, PER_DEVICE, BLIND = "can be judged", "only per device", "blind"
VERDICTS = (JUDGED, PER_DEVICE, BLIND)
BEHAVIOURS = {
    "structured_cadence": "HTTPSCadenceAnomalyThreshold",
    "session_persistence": "SessionPersistenceThreshold",
    "notification_burst": "NotificationWakeFrequencyThreshold",
}
"""The behaviours, and the threshold that ATT&CK names for each."""

MIN_FLOWS = 6
MIN_PUSHES = 3
MAX_RESOLUTION_SECONDS = 60.0
"""Times on a coarser grid can neither show a rhythm nor tie a burst to a push."""
MIN_SHARE = 0.5
"""What holds for less than this share of the flows or hours does not carry a verdict."""

CHANGES: Mapping[str, str] = {
    "flows": "convert connection logs of the device",
    "app": "log flows where the app is known: an on-device content filter or a per-app VPN",
    "destination": "log flows with the address or host that they go to",
    "duration": "log whole connections with their duration (Zeek conn, NetFlow, a content filter)",
    "time": "log the start of every flow to the second, instead of on a coarse grid",
    "push": "collect a sysdiagnose (its PowerLog names pushes by app) or an agent's push log",
    "activity": "collect a sysdiagnose (PowerLog) or an agent's log of unlocks and apps in front",
    "host": "route DNS and TLS metadata of managed devices through a sensor (Zeek ssl, quic and dns logs)",
    "modes": "declare the apps' background modes: appcadence inventory merge their IPA or Info.plist",
    "gaps": "close the gaps in the flow log",
    "": "none: nothing that the verdict needs is missing",
}
"""What would help most, by kind."""


@dataclass(frozen=True)
class Verdict:
    """Whether one behaviour can be judged on one device."""

    verdict: str
    """One of `VERDICTS`."""
    reason: str
    change: str
    """A key of `CHANGES`."""

    def as_dict(self) -> dict[str, str]:
        return {"verdict": self.verdict, "reason": self.reason, "change": CHANGES[self.change]}


@dataclass(frozen=True)
class Evidence:
    """The facts that verdicts rest on; shares are of flows, hours are those with flows."""

    flows: int
    app: float
    destination: float
    host: float
    duration: float
    lookups: float
    resolution_seconds: float
    hours: int
    gap_hours: int
    activity_hours: int
    push_hours: int
    pushes: int
    """Pushes received whose app is known."""
    other_pushes: int
    push_resolution_seconds: float
    apps: int
    apps_without_modes: int
    summaries: int


def judge(e: Evidence) -> dict[str, Verdict]:
    """The verdict on each behaviour."""
    return {
        "structured_cadence": _unseen(e) or _unnamed(e) or _cadence(e),
        "session_persistence": _unseen(e) or _untimed(e) or _unnamed(e) or _persistence(e),
        "notification_burst": _unseen(e) or _unpushed(e) or _bursts(e),
    }


def _unseen(e: Evidence) -> Verdict | None:
    if not e.flows and e.summaries:
        return Verdict(BLIND, "an App Privacy Report sums up contacts and has no times of its own", "flows")
    if e.flows < MIN_FLOWS:
        return Verdict(BLIND, f"{e.flows} flows: too few for any behaviour to show", "flows")
    if e.destination < MIN_SHARE:
        return Verdict(
            BLIND, f"{_percent(1 - e.destination)} of the flows name no destination", "destination"
        )
    if not e.resolution_seconds <= MAX_RESOLUTION_SECONDS:
        return Verdict(BLIND, f"flow times lie on a grid of {e.resolution_seconds:g} s", "time")
    return None


def _untimed(e: Evidence) -> Verdict | None:
    if e.duration >= MIN_SHARE:
        return None
    return Verdict(BLIND, f"{_percent(1 - e.duration)} of the flows have no duration", "duration")


def _unnamed(e: Evidence) -> Verdict | None:
    if e.app >= MIN_SHARE:
        return None
    said = "no flow names" if not e.app else f"only {_percent(e.app)} of the flows name"
    reason = f"{said} its app: a blind spot; the device and its destinations stand in for it"
    if e.lookups >= MIN_SHARE:
        reason += "; most records are DNS lookups, whose rhythm caching distorts"
    return Verdict(PER_DEVICE, reason, "app")


def _unpushed(e: Evidence) -> Verdict | None:
    if not e.pushes + e.other_pushes:
        return Verdict(BLIND, "no push telemetry: a blind spot", "push")
    if e.pushes < MIN_PUSHES:
        what = (
            f"only {e.pushes} of its {e.pushes + e.other_pushes:,} push records name an app that got a push"
        )
        return Verdict(BLIND, f"{what}: a blind spot", "push")
    if not e.push_resolution_seconds <= MAX_RESOLUTION_SECONDS:
        return Verdict(BLIND, f"push times lie on a grid of {e.push_resolution_seconds:g} s", "push")
    if not e.push_hours:
        return Verdict(BLIND, "the push log and the flows share no hour", "push")
    if e.app < MIN_SHARE:
        return Verdict(
            BLIND, "pushes are known, but flows name no app that they could belong to: a blind spot", "app"
        )
    return None


def _cadence(e: Evidence) -> Verdict:
    return Verdict(JUDGED, f"apps, destinations and starts are known{_without(e)}", _next(e))


def _persistence(e: Evidence) -> Verdict:
    return Verdict(JUDGED, f"apps, destinations and durations are known{_without(e)}", _next(e))


def _bursts(e: Evidence) -> Verdict:
    grid = f" on a grid of {e.push_resolution_seconds:g} s" if e.push_resolution_seconds >= 1 else ""
    part = (
        "" if e.push_hours >= MIN_SHARE * e.hours else f" in {e.push_hours:,} of {e.hours:,} hours with flows"
    )
    change = "push" if part else _next(e)
    return Verdict(JUDGED, f"pushes and flows are known by app{grid}{part}{_without(e)}", change)


def _without(e: Evidence) -> str:
    """What the verdict has to do without."""
    missing = []
    if e.activity_hours < MIN_SHARE * e.hours:
        missing.append("whether the user was present is a blind spot")
    if e.apps_without_modes:
        missing.append(f"{e.apps_without_modes} of {e.apps} apps have no known background modes")
    return "".join(f"; {text}" for text in missing)


def _next(e: Evidence) -> str:
    if e.activity_hours < MIN_SHARE * e.hours:
        return "activity"
    if e.host < MIN_SHARE:
        return "host"
    if e.gap_hours > e.hours:
        return "gaps"
    return "modes" if e.apps_without_modes else ""


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
