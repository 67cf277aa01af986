"""The readiness answer as one HTML file that runs no code, loads nothing and trusts no name."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from appcadence._files import write_text
from appcadence.telemetry.readiness.assess import ATTACK, BEHAVIOURS, Device, Log, Readiness
from appcadence.triage.report.drawing import STYLE, text

MAX_DEVICES = 2000
"""As many devices as the page lists."""


def write_readiness(answer: Readiness, html: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        AppcadenceError: `html` is no regular file.
    """
    write_text(html, _page(answer))


def _page(answer: Readiness) -> str:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ids = ", ".join(ATTACK.values())
    sections = (_facts(answer), _behaviours(answer), _blind_spots(answer), _devices(answer))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>Telemetry readiness</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>Telemetry readiness</h1><p>What {text(answer.directory)} can show of ATT&amp;CK {ids}. "
        f"Times are UTC.</p></header>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _facts(answer: Readiness) -> str:
    profiles = answer.profiles
    facts = (
        ("Devices", f"{len(answer.devices):,}", ""),
        ("Flows", f"{answer.flows:,}", ""),
        ("App known", _percent(answer.share("app_known")), "of flows"),
        ("Host known", _percent(answer.share("host_known")), "of flows"),
        (
            "Profiles",
            f"{profiles.background_modes_known} of {profiles.apps}",
            f"apps with known background modes; {profiles.approved} approved, "
            f"{profiles.expected_hosts_known} with expected hosts",
        ),
    )
    cells = "".join(
        f"<div><dt>{name}</dt><dd><strong>{value}</strong> {text(note)}</dd></div>"
        for name, value, note in facts
    )
    return _section("facts", "Facts", f'<dl class="facts">{cells}</dl>')


def _behaviours(answer: Readiness) -> str:
    rows = []
    for name, threshold in BEHAVIOURS.items():
        verdicts = ", ".join(f"{verdict}: {n:,}" for verdict, n in answer.verdicts(name).items() if n)
        change, devices = answer.change(name)
        rows.append(
            (
                f"{_words(name)}<br><code>{threshold}</code>",
                text(verdicts or "no device"),
                text(answer.reason(name)),
                f"{text(change)} <code>(devices: {devices:,})</code>",
            )
        )
    head = ("Behaviour", "Devices", "Commonest reason", "What would help most")
    return _section("behaviours", "Behaviours of AN1682", _table(head, rows))


def _blind_spots(answer: Readiness) -> str:
    items = "".join(f"<li>{text(spot)}</li>" for spot in answer.blind_spots)
    return _section("blind", "Blind spots", f"<ul>{items}</ul>")


def _devices(answer: Readiness) -> str:
    head = ("Device", "Flows", "Span", *(_words(name) for name in BEHAVIOURS))
    rows = [_device(device) for device in answer.devices[:MAX_DEVICES]]
    rest = len(answer.devices) - MAX_DEVICES
    more = f"<p>{rest:,} more devices are in the output of --json.</p>" if rest > 0 else ""
    return _section("devices", "Devices", _table(head, rows) + more)


def _device(device: Device) -> Sequence[str]:
    ways = ", ".join(f"{_percent(share)} {way}" for way, share in device.attribution.items() if share)
    facts = (
        f"app: {ways or 'no flows'}; hosts {_percent(device.host_known)}; durations "
        f"{_percent(device.duration_known)}; bytes {_percent(device.bytes_known)}; background modes of "
        f"{device.profiles.background_modes_known} of {device.profiles.apps} apps, "
        f"{device.profiles.approved} approved"
    )
    span = (
        f"{text(device.first)} to {text(device.last)}<br><code>{device.observed_hours:,} h observed, "
        f"{device.gaps:,} gaps ({device.gap_hours:,} h); activity {_log(device.activity)}, pushes "
        f"{_log(device.pushes)}</code>"
    )
    return (
        f"<bdi>{text(device.device_id)}</bdi>",
        f"{device.flows:,}<br><code>{text(facts)}</code>",
        span,
        *(
            f"<strong>{text(verdict.verdict)}</strong><br><code>{text(verdict.reason)}</code>"
            for verdict in device.behaviours.values()
        ),
    )


def _log(log: Log) -> str:
    if not log.records:
        return "none"
    grid = log.time_resolution_seconds
    known = "" if grid is None else f", known to {grid:g} s"
    return f"{log.hours:,} h ({log.hours_with_flows:,} h with flows{known})"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    names = "".join(f'<th scope="col">{name}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="named"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>\n'


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
