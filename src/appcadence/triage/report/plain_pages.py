"""One phone, or the readiness answer, as one HTML file that runs no code, loads nothing, trusts no name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appcadence.telemetry.readiness.assess import ATTACK, Readiness
from appcadence.telemetry.readiness.capability import BEHAVIOURS, WORDING, DeviceFacts, Log, percent
from appcadence.triage.phone.assess import Phone, PhoneApp
from appcadence.triage.phone.record import Day
from appcadence.triage.report.html import Lane, raster, write_page
from appcadence.triage.report_data import utc_text

BANDS = {
    "unexplained": ("used the network, and nothing on record explains it", "unexplained", 22),
    "explained": ("used it with the phone in use, after a push, or when iOS scheduled it", "session", 22),
    "uses": ("used the network", "session", 22),
    "front": ("app on the screen", "foreground", 9),
    "in_use": ("phone in use", "unlocked", 9),
    "pushes": ("pushes to the app", "push", 9),
    "tasks": ("background work that iOS scheduled", "task", 9),
    "unlogged": ("no log kept", "unlogged", 9),
}
"""By band of a day, from the top: what it shows, its style, and its height in px."""


def write_phone(found: Phone, html: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        AppcadenceError: `html` is no regular file.
    """
    write_page(
        "phone.html",
        html,
        phone=found,
        apps=[_phone_app(app) for app in found.apps],
        system=[_phone_app(app) for app in found.system],
    )


def _phone_app(app: PhoneApp) -> dict[str, Any]:
    used = [name for name in BANDS if any(len(day.bands.get(name, ())) for day in app.days)]
    return {
        "app": app,
        "legend": [BANDS[name][:2] for name in used],
        "days": [(utc_text(day.start, "%a %-d %B %Y"), _picture(day, used)) for day in app.days],
    }


def _picture(day: Day, used: list[str]) -> Any:
    lanes = [
        Lane("", style, [(int(a), int(b)) for a, b in day.bands[name]], height)
        for name, (_, style, height) in BANDS.items()
        if name in used
    ]
    counts = ", ".join(f"{BANDS[name][0]}: {len(day.bands[name])}" for name in used)
    return raster(day.start, day.end, lanes, f"{utc_text(day.start, '%Y-%m-%d')}: {counts}")


MAX_DEVICES = 2000
"""As many devices as the page lists."""


def write_readiness(answer: Readiness, html: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        AppcadenceError: `html` is no regular file.
    """
    write_page(
        "readiness.html",
        html,
        answer=answer,
        ids=", ".join(ATTACK.values()),
        facts=_facts(answer),
        behaviours=[_behaviour(answer, name, threshold) for name, threshold in BEHAVIOURS.items()],
        device_columns=("Device", "Flows", "Span", *BEHAVIOURS),
        devices=[_device(device) for device in answer.devices[:MAX_DEVICES]],
        more=len(answer.devices) - MAX_DEVICES,
    )


def _facts(answer: Readiness) -> list[tuple[str, str, str]]:
    """Name, number and note of each."""
    profiles = answer.profiles
    judged, reports = answer.weekly_sums()
    return [
        ("Devices", f"{len(answer.devices):,}", ""),
        ("Flows", f"{answer.flows:,}", ""),
        *([("Weekly sums", f"{judged:,}", f"devices; {reports:,} App Privacy Reports")] if judged else []),
        ("App known", percent(answer.share("app_known")), "of flows"),
        ("Host known", percent(answer.share("host_known")), "of flows"),
        (
            "Profiles",
            f"{profiles.background_modes_known} of {profiles.apps}",
            f"apps with known background modes; {profiles.approved} approved, "
            f"{profiles.expected_hosts_known} with expected hosts",
        ),
    ]


def _behaviour(answer: Readiness, name: str, threshold: str) -> dict[str, str]:
    levels = ", ".join(f"{WORDING[level]}: {n:,}" for level, n in answer.levels(name).items() if n)
    change, devices = answer.change(name)
    said = {"devices": levels or "no device", "reason": answer.reason(name), "change": change}
    return {"name": name, "threshold": threshold, "helped": f"{devices:,}"} | said


def _device(device: DeviceFacts) -> dict[str, Any]:
    ways = ", ".join(f"{percent(share)} {way}" for way, share in device.attribution.items() if share)
    facts = (
        f"app: {ways or 'no flows'}; hosts {percent(device.host_known)}; durations "
        f"{percent(device.duration_known)}; bytes {percent(device.bytes_known)}; background modes of "
        f"{device.profiles.background_modes_known} of {device.profiles.apps} apps, "
        f"{device.profiles.approved} approved"
    )
    own = f", {device.logged_hours:,.1f} h of its own log" if device.logged_hours else ""
    span = (
        f"{device.observed_hours:,} h observed{own}, {device.gaps:,} gaps ({device.gap_hours:,} h); activity "
        f"{_log(device.activity)}, pushes {_log(device.pushes)}"
    )
    return {
        "id": device.device_id,
        "flows": f"{device.flows:,}",
        "facts": facts,
        "first": device.first,
        "last": device.last,
        "span": span,
        "behaviours": [(found.text, found.reason) for found in device.behaviours.values()],
    }


def _log(log: Log) -> str:
    if not log.records:
        return "none"
    resolution = log.time_resolution_seconds
    known = "" if resolution is None else f", times to {resolution:g} s"
    return f"{log.hours:,} h ({log.hours_with_flows:,} h with flows{known})"
