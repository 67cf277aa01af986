"""What to do about a case: whom to ask, where to look, how to contain it; sentences for page and terminal."""

from __future__ import annotations

from appcadence.triage.report_data import Row, Window, utc_text
from appcadence.triage.siem import suspects

MAX_NAMED = 5
"""Destinations that are named."""
_EVIDENCE = (
    "Keep the evidence before anything is removed: {}, and a sysdiagnose of the phone, whose logs last a few "
    "days."
)
_DOES = {
    "structured_cadence": "contact {} on a steady beat",
    "session_persistence": "stay connected to {} for so long",
    "notification_burst": "answer pushes with traffic to {}",
}


def look(case: Row) -> list[str]:
    """Where the traffic of a case can be found again: hosts, addresses, ports, times, ids of records."""
    hosts = [part["dest"] for part in suspects(case)]
    out = []
    if hosts:
        alone = any(part["alert"] for part in case["destinations"])
        count = len(hosts) if alone else case["n_destinations"]
        more = f" and {count - MAX_NAMED:,} more" if count > MAX_NAMED else ""
        out.append(f"Destination: {', '.join(hosts[:MAX_NAMED])}{more}")
    seen = [address for address in case["addresses"] if address not in hosts]
    if seen:
        out.append(f"Address: {', '.join(seen)}")
    if case["ports"]:
        out.append(f"Port: {', '.join(map(str, case['ports']))}")
    out.append(f"Time: {utc_text(case['first_time'])} to {utc_text(case['last_time'])} UTC")
    if case["record_ids"]:
        out.append(f"Records in the source: {', '.join(case['record_ids'])}")
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
        out.append(f"Block {', '.join(hosts[:MAX_NAMED])} for {device} at the DNS filter, VPN or gateway.")
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


def contact(window: Window) -> str:
    """The sentence. The first that fits: the owner of an exception that does not hold, whoever runs the
    telemetry (unknown app), the owner of a managed or approved app, the device's user."""
    row, known = window.row, window.context
    if window.failed is not None:
        exception, owner = window.failed
        who = "the owner" if owner is None else f"{owner}, the owner"
        return f"Ask {who} of exception {exception}, which does not hold here."
    dest = _destination(row, known)
    if row["app_id"] is None:
        return f"Ask whoever runs the telemetry which app of {row['device_id']} contacts {dest}."
    app = known.get("app_name") or row["app_id"]
    if known.get("managed") or known.get("approved"):
        kind = "managed" if known["managed"] else "approved"
        shown = [b for b in row["behaviours"] or () if row[b] and row[b]["p_value"] is not None]
        does = _DOES[min(shown, key=lambda b: row[b]["p_value"])] if shown else "contact {}"
        does = does.replace("{}", dest)
        return f"Ask the owner of the {kind} app {app} in device management whether it is meant to {does}."
    note = ""
    if known and not known["in_inventory"]:
        note = " (not in the inventory)"
    elif known:
        note = next((f" (not {name})" for name in ("approved", "managed") if known[name] is False), "")
    return f"Ask the user of {row['device_id']} what they use {app}{note} for, and whether they know {dest}."


def identity(known: Row) -> str:
    """What the inventory says of the app, as a sentence; empty where it says nothing."""
    if not known.get("in_inventory"):
        return ""
    words = [known["app_name"]] if known["app_name"] else []
    for name in ("managed", "approved"):
        if known[name] is not None:
            words.append(name if known[name] else f"not {name}")
    purpose = known["declared_purpose"]
    said = f"App in the inventory: {', '.join(words)}. " if words else ""
    return said + (f"Declared purpose: {purpose}." if purpose else "No declared purpose.")


def _destination(row: Row, known: Row) -> str:
    if row["dest"] == "*":
        return "its destinations"
    declared_by = known.get("declared_by")
    alone = declared_by is not None and declared_by != row["app_id"]
    return f"{row['dest']} (which {declared_by} alone declares)" if alone else str(row["dest"])
