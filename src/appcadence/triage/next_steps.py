"""What to do about a case: whom to ask, where to look, how to contain it. Sentences for page and terminal."""

from __future__ import annotations

from appcadence._quantity import told_behaviours
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import sentences
from appcadence.telemetry.addresses import is_address
from appcadence.telemetry.apns import is_apple
from appcadence.telemetry.system_services import is_system_app, is_system_host
from appcadence.triage.report_data import Row, Window, utc_text
from appcadence.triage.siem import suspects

MAX_OTHERS, FLEET_PART = 2, 20
"""A destination is rare if at most MAX_OTHERS other devices contact it, or one in FLEET_PART of the fleet."""

MAX_NAMED = 5
"""Destinations that are named."""
_EVIDENCE = (
    "First keep the evidence, before anything is changed: {}, and a sysdiagnose of {} taken now, as its logs "
    "last a few days."
)
_FIND_APP = (
    "Find the app: match the times with the sysdiagnose. Settings > Privacy & Security > App Privacy Report "
    "on {} names the apps behind each host, but only if it was already on, and only for the last 7 days."
)
_LOOK_UP = "Look up who runs {} (WHOIS, passive DNS)"
_AT_HOME = "A gateway blocks it on its own network only, not on cellular."
_REMOVE = {
    True: "If it is not wanted, remove {} in device management, which installed it.",
    False: (
        "If it is not wanted, let the user delete {}: device management can remove only what it "
        "manages, and hide others only on supervised phones."
    ),
    None: (
        "If it is not wanted, remove {}: in device management if it manages the app, else the user deletes "
        "it, or it is hidden on a supervised phone."
    ),
}
"""By whether the app is managed."""
_AWAKE = {
    "audio": "audio",
    "location": "location updates",
    "voip": "calls",
    "push-to-talk": "push to talk",
    "external-accessory": "accessories",
    "bluetooth-central": "Bluetooth",
    "bluetooth-peripheral": "Bluetooth",
    "nearby-interaction": "nearby interaction",
}
"""Background modes that Background App Refresh does not govern, in words."""
_PERMISSIONS = {"location": ("location",), "Bluetooth": ("bluetooth-central", "bluetooth-peripheral")}
_DOES = {
    "structured_cadence": "contact {} on a steady beat",
    "session_persistence": "stay connected to {} for so long",
    "notification_burst": "answer pushes with traffic to {}",
}


def look(case: Row) -> list[str]:
    """Where to find the traffic of a case: hosts, addresses, ports, times, ids of records."""
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


def contain(case: Row, known: Row) -> list[str]:
    """How to stop it, step by step: evidence first, then the mildest step.

    Never advises to block or remove what iOS or many other devices need.

    Args:
        case: a row of the cases table.
        known: what the inventory says of the app, a row of `window_facts.CONTEXT`; empty = nothing.
    """
    kind, app = case["kind"], case["app_id"]
    fleet = kind.startswith("fleet")
    device = "one of the phones" if fleet else case["device_ids"][0]
    records = "the records above" if case["record_ids"] else "the records of that time"
    out = [_EVIDENCE.format(records, device)]
    if app is None and not fleet:
        out.append(_FIND_APP.format(device))
    of_ios = app is not None and is_system_app(app)
    if fleet:
        out.append("Find out whether it was rolled out on purpose. Only if it was not, take the steps below.")
    if kind != "fleet_app":
        out += _block(case, "all phones" if fleet else device)
    if app is None:
        return out
    if of_ios:
        return [
            *out,
            f"{app} is part of iOS and cannot be removed: see which setting, account or app uses it.",
        ]
    if not fleet:
        out += _background(case, known, device)
    return [*out, _REMOVE[known.get("managed")].format(app)]


def _block(case: Row, where: str) -> list[str]:
    """Where to block the destinations that few other devices contact."""
    told = case["findings"][0].parameters
    most = max(MAX_OTHERS, (told.get("devices") or 0) // FLEET_PART)
    few = []
    for part in suspects(case):
        dest, others = part["dest"], part.get("other_devices")
        if others is None and dest == told.get("dest"):
            others = told.get("other_devices")
        # Whom a fleet event meets are many by its nature.
        rare = case["kind"].startswith("fleet") or (others is not None and others <= most)
        if rare and dest not in (APP_LEVEL, "unknown") and not _is_apples(dest):
            few.append(dest)
    hosts, addresses = (
        [d for d in few[:MAX_NAMED] if is_address(d.partition("%")[0]) == by] for by in (False, True)
    )
    out = []
    if hosts:
        out.append(f"Block {', '.join(hosts)} for {where} at the DNS filter or VPN. {_AT_HOME}")
    if addresses:
        out.append(f"Block {', '.join(addresses)} for {where} at the firewall or VPN. {_AT_HOME}")
    return out


def _is_apples(dest: str) -> bool:
    return bool(is_apple(None, dest) if is_address(dest) else is_system_host(dest.rstrip(".").lower()))


def _background(case: Row, known: Row, device: str) -> list[str]:
    """What the phone's switches stop, and which of the app's declared background modes they do not."""
    app, modes = case["app_id"], known.get("background_modes")
    said = (
        f"Turn off Background App Refresh for {app} on {device}: that stops fetches, tasks and silent pushes"
    )
    awake = sorted({_AWAKE[mode] for mode in modes or () if mode in _AWAKE})
    if awake:
        out = [f"{said}, but not its {', '.join(awake)}, which it declares."]
    else:
        out = [f"{said}, but not calls, audio, location, Bluetooth, VPN or file extensions."]
    for permission, names in _PERMISSIONS.items():
        if any(mode in names for mode in modes or ()):
            out.append(f"Revoke its permission for {permission}.")
    pushed = {"voip", "push-to-talk"} & {*(modes or ())}
    if "notification_burst" in {*(case["behaviours"] or ()), *_headline(case)}:
        calls = "; call pushes (PushKit) still wake it" if pushed or modes is None else ""
        may = "" if pushed or not calls else ", if it takes any"
        out.append(f"Turn off its notifications, so that no alert starts its extension{calls}{may}.")
    return out


def contact(window: Window, case: Row | None = None) -> str:
    """Whom to ask, a sentence. The first that fits: the owner of an exception that does not hold, the user
    (unknown app), nobody (a part of iOS), the owner of a managed app, the device's user.

    `case` is the one whose strongest window it is: what it says happened is what is asked about.
    """
    row, known = window.row, window.context
    if window.failed is not None:
        exception, owner = window.failed
        who = "the owner" if owner is None else f"{owner}, the owner"
        return f"Ask {who} of exception {exception}, which does not hold here."
    device, dest = row["device_id"], _destination(row, known)
    if row["app_id"] is None:
        declared_by = known.get("declared_by")
        if declared_by and is_system_app(declared_by):
            return (
                f"See whether it is iOS itself: {declared_by}, a part of it, alone declares {row['dest']}; "
                "the telemetry names no app."
            )
        if declared_by:
            return (
                f"Ask the user of {device} about {declared_by}, which alone declares {row['dest']}; the "
                "telemetry names no app."
            )
        if is_address(row["dest"].partition("%")[0]):
            return (
                f"{_LOOK_UP.format(row['dest'])}, then ask the user of {device} which apps they used then; "
                "the telemetry names no app."
            )
        return (
            f"Ask the user of {device} whether they know {dest}, and which apps they used then; the "
            "telemetry names no app."
        )
    app = known.get("app_name") or row["app_id"]
    if is_system_app(row["app_id"]):
        return (
            f"{app} is part of iOS, which nobody chose to install: see which setting, account or app on "
            f"{device} makes it contact {dest}."
        )
    if known.get("managed"):
        shown = _shown(row) if case is None else _behaviours_described(row, case)
        does = (_DOES[shown[0]] if shown else "contact {}").replace("{}", dest)
        return f"Ask the owner of the managed app {app} in device management whether it is meant to {does}."
    note = ""
    if known and not known["in_inventory"]:
        note = " (not in the inventory)"
    elif known:
        note = next((f" (not {name})" for name in ("approved", "managed") if known[name] is False), "")
    use = f"sk the user of {device} what they use {app}{note} for"
    if is_address(row["dest"].partition("%")[0]):
        return f"{_LOOK_UP.format(row['dest'])}, then a{use}."
    return f"A{use}, and whether they know {dest}."


def _shown(row: Row) -> list[str]:
    """The behaviours that a window shows, the least likely by chance first."""
    shown = [b for b in row["behaviours"] or () if row[b] and row[b]["p_value"] is not None]
    return sorted(shown, key=lambda b: row[b]["p_value"])


def _behaviours_described(row: Row, case: Row) -> list[str]:
    """The behaviours that the case's sentence tells of, those that its window shows first."""
    told = _headline(case)
    shown = [name for name in _shown(row) if name in told]
    return [*shown, *(name for name in told if name not in shown)]


def _headline(case: Row) -> list[str]:
    """The behaviours that the case's sentence tells of."""
    first = case["findings"][0]
    return told_behaviours(first.parameters) if first.code == "case" else []


def explained(row: Row) -> list[str]:
    """What speaks for a benign reading of a case or window; of an unknown app, nothing is usual for it."""
    unfit = "usual_for_app" if row["app_id"] is None else None
    return sentences([code for code in row["explained_by"] or () if code != unfit])


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
