"""Alerts as Detection Findings of the Open Cybersecurity Schema Framework."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from appcadence import _version
from appcadence.triage import siem

VERSION = "1.4.0"
"""The oldest version that knows `is_alert`; later ones accept what it accepts."""
SEVERITY = {"low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High")}


def document(alert: siem.Alert, made_at: datetime) -> dict[str, Any]:
    """A case as a Detection Finding (class 2004); our own fields stand under `unmapped`.

    `time` and `finding_info.created_time` are when the alert was made, `start_time` and `end_time` those of
    the traffic, in milliseconds since the epoch. A case that was raised updates its finding.
    """
    made, new = siem.milliseconds(made_at), alert["status"] == "new"
    first, last = siem.milliseconds(alert["first_time"]), siem.milliseconds(alert["last_time"])
    severity_id, severity = SEVERITY[alert["severity"]]
    title = siem.headline(alert)
    devices, fleet = alert["device_ids"], alert["kind"].startswith("fleet")
    apps = [] if alert["app_id"] is None else [{"uid": alert["app_id"], "type": "app"}]
    fields = {
        "activity_id": 1 if new else 2,
        "activity_name": "Create" if new else "Update",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401 if new else 200402,
        "type_name": f"Detection Finding: {'Create' if new else 'Update'}",
        "time": made,
        "start_time": first,
        "end_time": last,
        "severity_id": severity_id,
        "severity": severity,
        "status_id": 1 if new else 2,
        "status": "New" if new else "In Progress",
        "is_alert": True,
        "message": title,
        "metadata": {
            "version": VERSION,
            "product": {"name": "appcadence", "vendor_name": "appcadence", "version": _version.VERSION},
        },
        "finding_info": {
            "uid": alert["id"],
            "title": title,
            "desc": alert["summary"],
            "types": alert["behaviours"],
            "created_time": made,
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
        "evidences": [_evidence(alert, part) for part in siem.suspects(alert)],
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


def _evidence(alert: siem.Alert, destination: dict[str, Any]) -> dict[str, Any]:
    ip, only = siem.address(destination["dest"]), len(siem.suspects(alert)) == 1
    endpoint: dict[str, Any] = {"hostname": destination["dest"]} if ip is None else {"ip": ip}
    if only and alert["ports"]:
        endpoint["port"] = alert["ports"][0]
    actor = {} if alert["app_id"] is None else {"app_uid": alert["app_id"]}
    return {"dst_endpoint": endpoint, "actor": actor, "data": destination}
