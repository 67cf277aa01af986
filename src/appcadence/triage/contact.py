"""Who can explain an alert, and what to ask them: one sentence, from telemetry and inventory alone."""

from __future__ import annotations

from appcadence.triage.report_data import Row, Window

_DOES = {
    "structured_cadence": "contact {} on a steady beat",
    "session_persistence": "stay connected to {} for so long",
    "notification_burst": "answer pushes with traffic to {}",
}


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
