"""Alerts in the Elastic Common Schema."""

from __future__ import annotations

from typing import Any

from appcadence.triage import siem

VERSION = "9.4.0"
SEVERITY = {"low": 21, "medium": 47, "high": 73}
"""`event.severity`, by the numbers that Elastic's own rules give these words."""


def document(alert: siem.Alert) -> dict[str, Any]:
    """One row of the alerts table as a nested ECS document; what ECS does not know stands under `appcadence`.

    All times come from the telemetry, so that an equal run writes equal bytes: `event.created` is when the
    last alerting window ended. `event.risk_score` is the score.
    """
    devices, fleet = alert["device_ids"], alert["kind"].startswith("fleet")
    parts = siem.suspects(alert)
    dests = [part["dest"] for part in parts]
    addresses = [siem.address(dest) for dest in dests]
    names = [dest for dest, ip in zip(dests, addresses, strict=True) if ip is None]
    sure = len(parts) == 1 or any(part["alert"] for part in parts)
    (tactic, tactic_name), (technique, technique_name) = siem.TACTIC, siem.TECHNIQUE
    first, last = siem.iso_time(alert["first_time"]), siem.iso_time(alert["last_time"])
    fields = {
        "@timestamp": first,
        "message": siem.headline(alert),
        "ecs": {"version": VERSION},
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection", "network"],
            "type": ["info"],
            "id": alert["id"],
            "module": "appcadence",
            "dataset": "appcadence.alerts",
            "action": alert["kind"],
            "severity": SEVERITY[alert["severity"]],
            "risk_score": alert["score"],
            "start": first,
            "end": last,
            "created": last,
            "reason": " ".join(alert["reasons"]) or None,
        },
        "rule": {
            "id": siem.ANALYTIC,
            "name": siem.RULE,
            "ruleset": siem.STRATEGY,
            "reference": siem.REFERENCE,
            "version": alert["model_version"],
        },
        "threat": {
            "framework": siem.FRAMEWORK,
            "tactic": {"id": [tactic], "name": [tactic_name]},
            "technique": {
                "id": [technique],
                "name": [technique_name],
                "subtechnique": {"id": [siem.SUBTECHNIQUE[0]], "name": [siem.SUBTECHNIQUE[1]]},
            },
        },
        "host": {} if fleet else {"id": devices[0], "os": {"type": "ios"}},
        "destination": _destination(dests[0], addresses[0]) if sure else {},
        "related": {"hosts": devices + names, "ip": [ip for ip in addresses if ip is not None]},
        "appcadence": siem.own_fields(alert),
    }
    out: dict[str, Any] = siem.known(fields)
    return out


def _destination(dest: str, ip: str | None) -> dict[str, str]:
    return {"address": dest} | ({"domain": dest} if ip is None else {"ip": ip})
