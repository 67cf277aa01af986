"""Alerts in the Elastic Common Schema."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from appcadence.triage import siem

VERSION = "9.4.0"
SEVERITY = {"low": 21, "medium": 47, "high": 73}
"""`event.severity`, by the numbers that Elastic's own rules give these words."""


def document(alert: siem.Alert, made_at: datetime) -> dict[str, Any]:
    """A case as a nested ECS document; what ECS does not know stands under `appcadence`.

    `@timestamp` and `event.created` are when the alert was made, `event.start` and `event.end` the times of
    the traffic. `event.risk_score` is the score.
    """
    devices, fleet = alert["device_ids"], alert["kind"].startswith("fleet")
    parts = siem.suspects(alert)
    dests = [part["dest"] for part in parts]
    addresses = [siem.address(dest) for dest in dests]
    names = [dest for dest, ip in zip(dests, addresses, strict=True) if ip is None]
    sure = len(parts) == 1 or any(part["alert"] for part in parts)
    (tactic, tactic_name), (technique, technique_name) = siem.TACTIC, siem.TECHNIQUE
    made, first, last = (
        siem.iso_time(made_at),
        siem.iso_time(alert["first_time"]),
        siem.iso_time(alert["last_time"]),
    )
    fields = {
        "@timestamp": made,
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
            "created": made,
            "reason": alert["summary"],
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
        "destination": _destination(alert, dests[0], addresses[0]) if sure and dests else {},
        "related": {
            "hosts": devices + names,
            "ip": [*dict.fromkeys([*(ip for ip in addresses if ip is not None), *alert["addresses"]])],
        },
        "appcadence": siem.own_fields(alert),
    }
    out: dict[str, Any] = siem.known(fields)
    return out


def _destination(alert: siem.Alert, dest: str, ip: str | None) -> dict[str, Any]:
    seen = [siem.address(address) for address in alert["addresses"]]
    known = {"ip": ip or next(iter(seen), None), "port": next(iter(alert["ports"]), None)}
    return {"address": dest, "domain": dest if ip is None else None} | known
