"""The fields of the Elastic Common Schema that alerts use, and a check of documents against them.

No Python package contains the schema. `FIELDS` is a table of our own; if npm and its registry are available,
`published` reads Elastic's own package, and a test compares the two.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shutil
import subprocess

import pytest

from appcadence.triage import siem

_SHA512 = (
    "ce793a26bdfc28d46cc942acb68ae6357e102adaa7c10635116aab30258883f9"
    "d8e9d0b58a64b1ceb751eb1ba58f19d8e891e3fbff4d753891a2155b794100fd"
)
_ONE, _MANY = False, True
FIELDS = {
    "@timestamp": ("date", _ONE),
    "message": ("match_only_text", _ONE),
    "ecs.version": ("keyword", _ONE),
    "event.kind": ("keyword", _ONE),
    "event.category": ("keyword", _MANY),
    "event.type": ("keyword", _MANY),
    "event.id": ("keyword", _ONE),
    "event.module": ("keyword", _ONE),
    "event.dataset": ("keyword", _ONE),
    "event.action": ("keyword", _ONE),
    "event.severity": ("long", _ONE),
    "event.risk_score": ("float", _ONE),
    "event.start": ("date", _ONE),
    "event.end": ("date", _ONE),
    "event.created": ("date", _ONE),
    "event.reason": ("keyword", _ONE),
    "rule.id": ("keyword", _ONE),
    "rule.name": ("keyword", _ONE),
    "rule.ruleset": ("keyword", _ONE),
    "rule.reference": ("keyword", _ONE),
    "rule.version": ("keyword", _ONE),
    "threat.framework": ("keyword", _ONE),
    "threat.tactic.id": ("keyword", _MANY),
    "threat.tactic.name": ("keyword", _MANY),
    "threat.technique.id": ("keyword", _MANY),
    "threat.technique.name": ("keyword", _MANY),
    "threat.technique.subtechnique.id": ("keyword", _MANY),
    "threat.technique.subtechnique.name": ("keyword", _MANY),
    "host.id": ("keyword", _ONE),
    "host.os.type": ("keyword", _ONE),
    "destination.address": ("keyword", _ONE),
    "destination.domain": ("keyword", _ONE),
    "destination.ip": ("ip", _ONE),
    "related.hosts": ("keyword", _MANY),
    "related.ip": ("ip", _MANY),
}
"""Type, and whether the field is a list."""
_ALLOWED = {
    "event.kind": {"alert"},
    "event.category": {"intrusion_detection", "network"},
    "event.type": {"info"},
    "host.os.type": {"ios"},
}
_REQUIRED = ("@timestamp", "message", "ecs.version", "event.kind", "event.category", "event.type", "event.id")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def problems(document: dict) -> list[str]:
    """What in a document is not ECS; `appcadence` is ours and only has to be there."""
    leaves = dict(_leaves({k: v for k, v in document.items() if k != "appcadence"}))
    out = [f"{name} is missing" for name in _REQUIRED if name not in leaves]
    out += [] if document.get("appcadence") else ["appcadence is missing"]
    for name, value in leaves.items():
        if name not in FIELDS:
            out.append(f"{name} is no field")
            continue
        kind, many = FIELDS[name]
        values = value if many and isinstance(value, list) else [value]
        if many != isinstance(value, list):
            out.append(f"{name} is {'no' if many else 'a'} list")
        elif not all(_fits(kind, one) for one in values):
            out.append(f"{name} is no {kind}: {value!r}")
        elif not set(values) <= _ALLOWED.get(name, set(values)):
            out.append(f"{name} may not be {value!r}")
    return out


def published(path) -> dict[str, tuple[str, bool]]:
    """Type and list-ness of every field in Elastic's npm package of the version that alerts state."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node, which read Elastic's own schema, are not installed")
    command = [npm, "pack", "--silent", f"@elastic/ecs@{siem.ECS_VERSION}"]
    got = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"the npm registry did not serve Elastic's schema: {got.stderr.strip()[-200:]}")
    (archive,) = path.glob("*.tgz")
    assert hashlib.sha512(archive.read_bytes()).hexdigest() == _SHA512
    shutil.unpack_archive(archive, path, filter="data")
    script = "console.log(JSON.stringify(require('./package').EcsFlat))"
    flat = json.loads(subprocess.run([node, "-e", script], cwd=path, capture_output=True, check=True).stdout)
    for name, allowed in _ALLOWED.items():
        theirs = flat[name].get("expected_values") or [v["name"] for v in flat[name]["allowed_values"]]
        assert allowed <= set(theirs)
    return {name: (field["type"], "array" in field["normalize"]) for name, field in flat.items()}


def _leaves(value: dict, prefix: str = ""):
    for name, part in value.items():
        if isinstance(part, dict):
            yield from _leaves(part, f"{prefix}{name}.")
        else:
            yield prefix + name, part


def _fits(kind: str, value: object) -> bool:
    if kind == "long":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return isinstance(value, float | int) and not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    if kind == "ip":
        return _is_address(value)
    return kind != "date" or bool(_DATE.fullmatch(value))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
