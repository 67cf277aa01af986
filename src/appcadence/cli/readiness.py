"""readiness: what the telemetry can show, and what would help most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.options import Directory, Json, check_files
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text, word
from appcadence.telemetry.listing import many
from appcadence.telemetry.readiness import assess as measurement
from appcadence.telemetry.readiness.capability import BEHAVIOURS, WORDING, DeviceFacts, Level, Log, percent
from appcadence.telemetry.readiness.counts import ATTRIBUTIONS
from appcadence.triage.report.plain_pages import write_readiness

_MAX_DEVICES = 20
_SHORT = {
    Level.JUDGED: "yes",
    Level.TOO_LITTLE: "too little",
    Level.PER_DEVICE: "device",
    Level.BLIND: "blind",
}


def readiness(
    directory: Directory,
    html: Annotated[Path | None, typer.Option(help="Also write the answer as an HTML page.")] = None,
    as_json: Json = False,
) -> None:
    """Show what the telemetry can reveal: per device, whether each behaviour of AN1682 can be judged.

    A behaviour can be judged, has too little data so far, can be judged only per device (the app is unknown),
    or is blind. Each answer has a reason and the one change that would help most.

    Example: appcadence readiness telemetry --html readiness.html
    """
    check_files(html=html)
    with progress_bar() as progress:
        answer = measurement.readiness(directory, progress)
    if html is not None:
        write_readiness(answer, html)
    if as_json:
        typer.echo(json.dumps(answer.as_dict(), indent=1))
        return
    _print(answer)
    if html is not None:
        say(f"Page written to {html}")


def _print(answer: measurement.Readiness) -> None:
    profiles = answer.profiles
    ways = ", ".join(f"{percent(answer.share(way))} {way}" for way in ATTRIBUTIONS if answer.share(way))
    ids = ", ".join(measurement.ATTACK.values())
    say(f"{many(len(answer.devices), 'device')}, {answer.flows:,} flows. ATT&CK: {ids}.")
    say(f"App attribution: {ways or 'no flows'}.")
    say(
        f"Known about the flows: host {percent(answer.share('host_known'))} (passively "
        f"{percent(answer.share('host_passive'))}), duration {percent(answer.share('duration_known'))}, "
        f"bytes {percent(answer.share('bytes_known'))}."
    )
    say(
        f"Apps seen: {profiles.apps}; background modes known for {profiles.background_modes_known}, approved "
        f"{profiles.approved}, expected hosts known for {profiles.expected_hosts_known}."
    )
    say()
    for name in BEHAVIOURS:
        counts = ", ".join(f"{WORDING[level]} on {n:,}" for level, n in answer.levels(name).items() if n)
        say(f"{name.replace('_', ' ')}: {counts or 'no device'}")
        change, devices = answer.change(name)
        say(f"why: {answer.reason(name)}", "  ")
        say(f"would help most ({many(devices, 'device')}): {change}", "  ")
    if own := answer.own_logs():
        say(own)
    devices, reports = answer.weekly_sums()
    if devices:
        what = f"{many(devices, 'device')} ({many(reports, 'App Privacy Report')})"
        say(f"weekly sums (no rhythm, no sessions, no pushes): can be judged on {what}")
        say(f"how: appcadence weekly {answer.directory}", "  ")
    say()
    numbers = ("flows", "app", "host", "days", "gaps", "user", "pushes")
    columns = [text("device"), *map(number, numbers), *map(word, ("cadence", "session", "bursts"))]
    print_table(columns, map(_cells, answer.devices[:_MAX_DEVICES]))
    if len(answer.devices) > _MAX_DEVICES:
        say(f"{len(answer.devices) - _MAX_DEVICES:,} more devices: see --json or --html.")
    say()
    for spot in answer.blind_spots:
        say(spot)


def _cells(device: DeviceFacts) -> tuple[object, ...]:
    return (
        device.device_id,
        device.flows,
        percent(device.app_known),
        percent(device.host_known),
        f"{device.span_hours / 24:.1f}",
        f"{device.gap_hours:,} h",
        _log(device, device.activity),
        _log(device, device.pushes),
        *(_SHORT[found.level] for found in device.behaviours.values()),
    )


def _log(device: DeviceFacts, log: Log) -> str:
    """Hours that a log covers, among those with flows if there are any, and its resolution."""
    hours = log.hours_with_flows if device.flows else log.hours
    if not hours:
        return "-"
    resolution = log.time_resolution_seconds
    return f"{hours:,} h" + (f"/{resolution:.0f} s" if resolution and resolution >= 1 else "")
