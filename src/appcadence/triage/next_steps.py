"""What to do about a case: where to look, and how to contain it. Sentences, for page and terminal."""

from __future__ import annotations

from collections.abc import Sequence

from appcadence.triage.report_data import Row, utc_text
from appcadence.triage.siem import suspects

MAX_NAMED = 5
"""Destinations that are named."""
_EVIDENCE = (
    "Keep the evidence before anything is removed: {}, and a sysdiagnose of the phone, whose logs last a few "
    "days."
)


def look(case: Row) -> list[str]:
    """Where the traffic of a case can be found again: hosts, addresses, ports, times, ids of records."""
    hosts = [part["dest"] for part in suspects(case)]
    out = []
    if hosts:
        alone = any(part["alert"] for part in case["destinations"])
        count = len(hosts) if alone else case["n_destinations"]
        more = f" and {count - MAX_NAMED:,} more" if count > MAX_NAMED else ""
        out.append(f"Destination: {_listed(hosts[:MAX_NAMED])}{more}")
    seen = [address for address in case["addresses"] if address not in hosts]
    if seen:
        out.append(f"Address: {_listed(seen)}")
    if case["ports"]:
        out.append(f"Port: {_listed(map(str, case['ports']))}")
    out.append(f"Time: {utc_text(case['first_time'])} to {utc_text(case['last_time'])} UTC")
    if case["record_ids"]:
        out.append(f"Records in the source: {_listed(case['record_ids'])}")
    return out


def contain(case: Row) -> list[str]:
    """What stops it, the mildest first; none is advised before someone was asked."""
    kind, app = case["kind"], case["app_id"]
    hosts = [part["dest"] for part in suspects(case) if part["dest"] != "*"]
    if kind.startswith("fleet"):
        name = app or (hosts[0] if hosts else "it")
        return [f"If nobody rolled it out: block {name} for the fleet, then look at the devices one by one."]
    device, out = case["device_ids"][0], []
    if hosts:
        out.append(f"Block {_listed(hosts[:MAX_NAMED])} for {device} at the DNS filter, VPN or gateway.")
    if app is None:
        out.append(
            f"Find the app: on {device}, Settings > Privacy & Security > App Privacy Report lists the apps "
            "behind each host."
        )
    else:
        if "notification_burst" in case["behaviours"]:
            out.append(f"Turn off notifications and Background App Refresh of {app}: no push wakes it then.")
        else:
            out.append(f"Turn off Background App Refresh of {app} on {device}.")
        out.append(f"Remove {app}, or restrict it in device management.")
    return [*out, _EVIDENCE.format("the records above" if case["record_ids"] else "the records of that time")]


def _listed(names: Sequence[str] | map[str]) -> str:
    return ", ".join(names)
