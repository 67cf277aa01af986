"""Cases as files for other programs: a table for people, and JSON lines for a SIEM, as ECS and as OCSF.

An alert is a row of the cases table, with its findings as `Finding`s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from appcadence._quantity import together
from appcadence._version import VERSION
from appcadence.findings import of_row
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.telemetry.addresses import parsed
from appcadence.triage.cases import CASES, TEXTS

Alert = dict[str, Any]

FRAMEWORK = "MITRE ATT&CK"
ANALYTIC, STRATEGY = "AN1682", "DET0620"
REFERENCE = f"https://attack.mitre.org/detectionstrategies/{STRATEGY}#{ANALYTIC}"
RULE = "App traffic that neither the user nor the app's purpose explains"
TACTIC = ("TA0037", "Command and Control")
TECHNIQUE = ("T1437", "Application Layer Protocol")
SUBTECHNIQUE = ("T1437.001", "Web Protocols")
"""Id and name in ATT&CK for Mobile."""
WEB_PORTS = (80, 443, 8080, 8443)
"""Ports of HTTP, TLS and QUIC."""

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
        some = alert["alerting_devices"]
        loud = f"; {some} {'alerts by itself' if some == 1 else 'alert by themselves'}" if some else ""
        return f"{len(alert['device_ids'])} devices met the {what} {name} for the first time together{loud}."
    (device,) = alert["device_ids"]
    who = "An unknown app" if alert["app_id"] is None else alert["app_id"]
    shown = together([name.replace("_", " ") for name in alert["behaviours"]]) or "unusual traffic"
    if not part:
        return f"{who} on {device} shows {shown}."
    if count != 1 and not any(p["alert"] for p in part):
        return f"{who} on {device} shows {shown} towards {count} destinations together."
    others = f" and {len(part) - 1} more" if len(part) > 1 else ""
    return f"{who} on {device} shows {shown} towards {part[0]['dest']}{others}."


def technique(alert: Alert) -> tuple[str, str] | None:
    """The sub-technique in ATT&CK that a case shows; None where it uses none of the web's ports."""
    web = not alert["ports"] or any(port in WEB_PORTS for port in alert["ports"])
    return SUBTECHNIQUE if web else None


def technique_page(alert: Alert) -> tuple[str, str]:
    """Id of the technique, or the sub-technique, of a case, and its page."""
    name = (technique(alert) or TECHNIQUE)[0]
    return name, f"https://attack.mitre.org/techniques/{name.replace('.', '/')}"


def suspects(alert: Alert) -> list[dict[str, Any]]:
    """Destinations that alert by themselves; all of them where only their rhythm together alerts."""
    return [part for part in alert["destinations"] if part["alert"]] or alert["destinations"]


def own_fields(alert: Alert) -> dict[str, Any]:
    """What no standard field holds, under names of our own."""
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


ECS_VERSION = "9.4.0"
ECS_SEVERITY = {"low": 21, "medium": 47, "high": 73}
"""`event.severity`, by the numbers that Elastic's own rules give these words."""


def ecs(alert: Alert, made_at: datetime) -> dict[str, Any]:
    """A case as a nested ECS document; what ECS has no field for is under `appcadence`.

    `@timestamp` and `event.created` are when the alert was made, `event.start` and `event.end` the times of
    the traffic. `event.risk_score` is the score.
    """
    devices, fleet = alert["device_ids"], alert["kind"].startswith("fleet")
    parts, part = suspects(alert), technique(alert)
    dests = [part["dest"] for part in parts]
    addresses = [address(dest) for dest in dests]
    names = [dest for dest, ip in zip(dests, addresses, strict=True) if ip is None]
    sure = len(parts) == 1 or any(part["alert"] for part in parts)
    (tactic, tactic_name), (main, main_name) = TACTIC, TECHNIQUE
    made, first, last = map(iso_time, (made_at, alert["first_time"], alert["last_time"]))
    fields = {
        "@timestamp": made,
        "message": headline(alert),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "kind": "alert",
            "category": ["intrusion_detection", "network"],
            "type": ["info"],
            "id": alert["id"],
            "module": "appcadence",
            "dataset": "appcadence.alerts",
            "action": alert["kind"],
            "severity": ECS_SEVERITY[alert["severity"]],
            "risk_score": alert["score"],
            "start": first,
            "end": last,
            "created": made,
            "reason": alert["summary"],
        },
        "rule": {
            "id": ANALYTIC,
            "name": RULE,
            "ruleset": STRATEGY,
            "reference": REFERENCE,
            "version": alert["model_version"],
        },
        "threat": {
            "framework": FRAMEWORK,
            "tactic": {"id": [tactic], "name": [tactic_name]},
            "technique": {
                "id": [main],
                "name": [main_name],
                "subtechnique": {} if part is None else {"id": [part[0]], "name": [part[1]]},
            },
        },
        "host": {} if fleet else {"id": devices[0], "os": {"type": "ios"}},
        "destination": _destination(alert, dests[0], addresses[0]) if sure and dests else {},
        "related": {
            "hosts": devices + names,
            "ip": [*dict.fromkeys([*(ip for ip in addresses if ip is not None), *alert["addresses"]])],
        },
        "appcadence": own_fields(alert),
    }
    return dict(known(fields))


def _destination(alert: Alert, dest: str, ip: str | None) -> dict[str, Any]:
    seen = [address(one) for one in alert["addresses"]]
    known = {"ip": ip or next(iter(seen), None), "port": next(iter(alert["ports"]), None)}
    return {"address": dest, "domain": dest if ip is None else None} | known


OCSF_VERSION = "1.4.0"
"""The oldest version that knows `is_alert`; later ones accept what it accepts."""
_PHONE = {"type_id": 5, "type": "Mobile", "os": {"name": "iOS", "type_id": 301, "type": "iOS"}}
OCSF_SEVERITY = {"low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High")}


def ocsf(alert: Alert, made_at: datetime) -> dict[str, Any]:
    """A case as a Detection Finding (class 2004); our own fields stand under `unmapped`.

    `time` and `finding_info.created_time` are when the alert was made, `start_time` and `end_time` those of
    the traffic, in milliseconds since the epoch. A case that was raised updates its finding.
    """
    made, first, last = map(milliseconds, (made_at, alert["first_time"], alert["last_time"]))
    new = alert["status"] == "new"
    severity_id, severity = OCSF_SEVERITY[alert["severity"]]
    title = headline(alert)
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
            "version": OCSF_VERSION,
            "product": {"name": "appcadence", "vendor_name": "appcadence", "version": VERSION},
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
                "uid": ANALYTIC,
                "name": RULE,
                "type_id": 4,
                "type": "Learning (ML/DL)",
                "version": alert["model_version"],
                "related_analytics": [{"uid": STRATEGY, "type_id": 2, "type": "Behavioral"}],
            },
            "attacks": [
                {
                    "tactic": _named(TACTIC),
                    "technique": _named(TECHNIQUE),
                    "sub_technique": _named(technique(alert)),
                }
            ],
        },
        "device": {} if fleet else {"uid": devices[0]} | _PHONE,
        "resources": apps + ([{"uid": device, "type": "device"} for device in devices] if fleet else []),
        "evidences": [_evidence(alert, part) for part in suspects(alert)],
        "unmapped": own_fields(alert),
    }
    return dict(known(fields))


def _named(entry: tuple[str, str] | None) -> dict[str, str]:
    return {} if entry is None else {"uid": entry[0], "name": entry[1]}


def _evidence(alert: Alert, destination: dict[str, Any]) -> dict[str, Any]:
    ip, only = address(destination["dest"]), len(suspects(alert)) == 1
    endpoint: dict[str, Any] = {"hostname": destination["dest"]} if ip is None else {"ip": ip}
    if only and alert["ports"]:
        endpoint["port"] = alert["ports"][0]
    actor = {} if alert["app_id"] is None else {"app_uid": alert["app_id"]}
    return {"dst_endpoint": endpoint, "actor": actor, "data": destination}


_UNSEEN = "\\s\u0000-\u001f\u00ad\ufeff\u200b-\u200f\u2028-\u202e\u2060-\u2069"
_FORMULA = f"^([{_UNSEEN}]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
"""What a spreadsheet takes for a formula: also full-width forms, and behind invisible characters."""


def write(cases: pa.Table, directory: Path, made_at: datetime) -> None:
    """Write alerts.csv, of all cases, and alerts.ecs.jsonl and alerts.ocsf.jsonl, of those new or raised.

    Equal cases that were made at the same time give equal bytes. In the CSV, texts that a spreadsheet would
    take for formulas get an apostrophe in front.
    """
    cases = cases.combine_chunks()
    pacsv.write_csv(_spreadsheet(cases), directory / "alerts.csv")
    alerts = cases.filter(pc.is_in(cases["status"], pa.array(["new", "raised"])))
    for name, document in (("ecs", ecs), ("ocsf", ocsf)):
        # ASCII alone: a hostile name can neither end the line nor turn the direction of the text.
        with (directory / f"alerts.{name}.jsonl").open("w", encoding="ascii", newline="\n") as file:
            for alert in _dicts(alerts):
                line = json.dumps(document(alert, made_at), separators=(",", ":"), allow_nan=False)
                file.write(line + "\n")


def _dicts(cases: pa.Table) -> Iterator[Alert]:
    for batch in cases.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row | {"findings": of_row(row)}


def _spreadsheet(cases: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name in CASES.names:
        values = cases[name].combine_chunks()
        if name in BEHAVIOURS:
            columns[f"{name}_score"], columns[f"{name}_p_value"] = values.flatten()
            continue
        if name == "destinations":
            values = pa.array([[part["dest"] for part in suspects(row)] for row in _dicts(cases)], TEXTS)
        if name == "findings":
            values = pa.array([[":".join(f.subject) for f in row[name]] for row in _dicts(cases)], TEXTS)
        if pa.types.is_list(values.type):
            values = pc.binary_join(values.cast(TEXTS), " ")
        if pa.types.is_string(values.type):
            values = pc.replace_substring_regex(values, _FORMULA, "'\\1")
        columns[name] = values
    return pa.table(columns)
