"""What every SIEM format says of an alert: the analytic it serves, one sentence, and our own fields.

An alert is a row of the cases table, with its findings as `Finding`s.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from appcadence.models.eligibility import BEHAVIOURS
from appcadence.telemetry.addresses import parsed

Alert = dict[str, Any]

FRAMEWORK = "MITRE ATT&CK"
ANALYTIC, STRATEGY = "AN1682", "DET0620"
REFERENCE = f"https://attack.mitre.org/detectionstrategies/{STRATEGY}#{ANALYTIC}"
RULE = "App traffic whose rhythm neither the user nor the app's purpose explains"
TACTIC = ("TA0037", "Command and Control")
TECHNIQUE = ("T1437", "Application Layer Protocol")
SUBTECHNIQUE = ("T1437.001", "Web Protocols")
"""Id and name in ATT&CK for Mobile."""
TECHNIQUE_PAGE = "https://attack.mitre.org/techniques/T1437/001"

_OWN = (
    *("status", "kind", "severity", "alert_days", "app_id", "app_attribution", "device_ids"),
    *("alerting_devices", "addresses", "ports", "record_ids"),
    *("score", "p_value", "rank", *BEHAVIOURS, "behaviours", "destinations", "n_destinations"),
    *("n_windows", "n_flows", "n_sessions", "reasons"),
    *("unchecked", "explained_by", "exception_ids", "model_name", "model_version"),
)


def headline(alert: Alert) -> str:
    """The alert in one sentence."""
    part, count = suspects(alert), alert["n_destinations"]
    if alert["kind"].startswith("fleet"):
        name = alert["app_id"] if alert["kind"] == "fleet_app" else part[0]["dest"]
        what = alert["kind"].removeprefix("fleet_")
        loud = f"; {alert['alerting_devices']} alert for their rhythm" if alert["alerting_devices"] else ""
        return f"{len(alert['device_ids'])} devices met the {what} {name} for the first time together{loud}."
    (device,) = alert["device_ids"]
    who = "An unknown app" if alert["app_id"] is None else alert["app_id"]
    shown = ", ".join(name.replace("_", " ") for name in alert["behaviours"]) or "an unusual rhythm"
    if count != 1 and not any(p["alert"] for p in part):
        return f"{who} on {device} shows {shown} towards {count} destinations together."
    others = f" and {len(part) - 1} more" if len(part) > 1 else ""
    return f"{who} on {device} shows {shown} towards {part[0]['dest']}{others}."


def suspects(alert: Alert) -> list[dict[str, Any]]:
    """Destinations that alert by themselves, or all where only the rhythm of all together alerts."""
    return [part for part in alert["destinations"] if part["alert"]] or alert["destinations"]


def own_fields(alert: Alert) -> dict[str, Any]:
    """What no standard field holds, under our own names."""
    findings = [{"code": f.code, "parameters": dict(f.parameters)} for f in alert["findings"]]
    return {name: alert[name] for name in _OWN} | {"findings": findings}


def known(value: Any) -> Any:
    """A document without its nulls, empty lists and empty objects."""
    if isinstance(value, dict):
        parts = {name: known(part) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not None and part not in ([], {})}
    return [known(part) for part in value] if isinstance(value, list) else value


def address(dest: str) -> str | None:
    """The destination's IP address, null where it is a name."""
    address = parsed(dest.partition("%")[0])
    return None if address is None else str(address)


def iso_time(time: datetime) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond // 1000:03}Z"


def milliseconds(time: datetime) -> int:
    """Milliseconds since the epoch."""
    return int(time.timestamp()) * 1000 + time.microsecond // 1000
