"""Alerts as Detection Findings of the Open Cybersecurity Schema Framework."""

from __future__ import annotations

from typing import Any

from appcadence import _version
from appcadence.triage import siem

VERSION = "1.4.0"
"""The oldest version that knows `is_alert`; later ones accept what it accepts."""
SEVERITY = {"low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High")}


def document(alert: siem.Alert) -> dict[str, Any]:
    """One row of the alerts table as a Detection Finding (class 2004); our own fields stand under `unmapped`.

    All times come from the telemetry, in milliseconds since the epoch: `time` is the start of the first
    alerting window, `finding_info.created_time` the end of the last. Every finding is new to this program.
    """
    first, last = siem.milliseconds(alert["first_time"]), siem.milliseconds(alert["last_time"])
    severity_id, severity = SEVERITY[alert["severity"]]
    title = siem.headline(alert)
    devices, fleet = alert["device_ids"], alert["kind"].startswith("fleet")
    apps = [] if alert["app_id"] is None else [{"uid": alert["app_id"], "type": "app"}]
    fields = {
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "type_name": "Detection Finding: Create",
        "time": first,
        "start_time": first,
        "end_time": last,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 1,
        "status": "New",
        "is_alert": True,
        "message": title,
        "metadata": {
            "version": VERSION,
            "product": {"name": "appcadence", "vendor_name": "appcadence", "version": _version.VERSION},
        },
        "finding_info": {
            "uid": alert["id"],
            "title": title,
            "desc": " ".join(alert["reasons"]) or None,
            "types": alert["behaviours"],
            "created_time": last,
            "first_seen_time": first,
            "last_seen_time": last,
            "analytic": {
                "uid": siem.ANALYTIC,
                "name": siem.RULE,
                "type_id": 4,
                "type": "Learning (ML/DL)",
                "version": alert["model_version"],
                "related_analytics": [{"uid": siem.STRATEGY, "type_id": 2, "type": "Behavioral"}],
            },
            "attacks": [
                {
                    "tactic": _named(siem.TACTIC),
                    "technique": _named(siem.TECHNIQUE),
                    "sub_technique": _named(siem.SUBTECHNIQUE),
                }
            ],
        },
        "device": {} if fleet else _device(devices[0]),
        "resources": apps + ([{"uid": device, "type": "device"} for device in devices] if fleet else []),
        "evidences": [_evidence(part, alert["app_id"]) for part in siem.suspects(alert)],
        "unmapped": siem.own_fields(alert),
    }
    out: dict[str, Any] = siem.known(fields)
    return out


def _named(entry: tuple[str, str]) -> dict[str, str]:
    return {"uid": entry[0], "name": entry[1]}


def _device(device: str) -> dict[str, Any]:
    return {
        "uid": device,
        "type_id": 5,
        "type": "Mobile",
        "os": {"name": "iOS", "type_id": 301, "type": "iOS"},
    }


def _evidence(destination: dict[str, Any], app: str | None) -> dict[str, Any]:
    ip = siem.address(destination["dest"])
    endpoint = {"hostname": destination["dest"]} if ip is None else {"ip": ip}
    actor = {} if app is None else {"app_uid": app}
    return {"dst_endpoint": endpoint, "actor": actor, "data": destination}
