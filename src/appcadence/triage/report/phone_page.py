"""One phone as one HTML file that runs no code, loads nothing and trusts no name in the telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appcadence.triage.phone.assess import Phone, PhoneApp
from appcadence.triage.phone.record import Day
from appcadence.triage.report.drawing import Lane, raster
from appcadence.triage.report.html import write_page
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
        apps=[_card(app) for app in found.apps],
        system=[_card(app) for app in found.system],
    )


def _card(app: PhoneApp) -> dict[str, Any]:
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
