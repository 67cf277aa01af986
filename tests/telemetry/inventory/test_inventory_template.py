"""The hand-kept inventory to start from: what was seen in comments, nothing decided."""

from __future__ import annotations

import tomllib

import numpy as np
import pyarrow as pa
import pytest
from bundles import CHAT, newest
from make import flows, inventory, together

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory, write_directory
from appcadence.telemetry.inventory.merge import merge
from appcadence.telemetry.inventory.template import template, write_template


def seen(tmp_path):
    rhythm = flows(np.arange(0, 86_400, 600.0), "d1", CHAT, "api.chat.example")
    noise = flows([5.0, 900.0, 70_000.0], "d2", CHAT, "cdn.chat.example")
    unnamed = flows([7.0], "d2", CHAT, None, dest_ip="192.0.2.1")
    evil = flows([9.0], "d2", 'com.e"\n[apps."x"]\napproved=true\n', "h\n[apps.y]\n\u2028\x7f")
    nobody = flows(np.arange(9.0), "d3", None, "x.example")
    known = inventory(
        {"app_id": CHAT, "approved": True, "background_modes": ["fetch"]}, {"app_id": "com.idle"}
    )
    tables = {"flows": together(rhythm, noise, unnamed, evil, nobody), "inventory": known}
    write_directory(tmp_path / "t", tables)
    return tmp_path / "t"


def test_the_template_shows_what_was_seen_and_approves_nothing(tmp_path):
    text, apps = template(seen(tmp_path))
    assert apps == 3
    assert tomllib.loads(text)["apps"] == {app: {} for app in tomllib.loads(text)["apps"]}
    for line in (
        "# seen: 148 flows on 2 device(s)",
        "# contacts: api.chat.example 97%, cdn.chat.example 2%, addresses without a name 1%",
        "# rhythm: about every 10.0 min to api.chat.example on 1 device(s)",
        "# approved = true  # declared now",
        '# background_modes = ["fetch"]  # declared now',
        "# seen: no flows; known from the inventory alone",
        "# Blind spot: 9 flows (6%) name no app and are not listed below.",
    ):
        assert line in text.splitlines(), line
    assert "[apps.y]" not in text.splitlines() and set(tomllib.loads(text)["apps"]) >= {CHAT, "com.idle"}


def test_the_template_merged_unchanged_changes_no_fact_and_uncommented_it_does(tmp_path):
    directory, out = seen(tmp_path), tmp_path / "inventory.toml"
    before = newest(directory)
    assert write_template(directory, out) == 3
    report = merge([out], directory)
    after = newest(directory)
    facts = set(before[None, CHAT]) - {"snapshot_time"}
    assert not {c.kind for c in report.changes} - {"new_app"}
    for key, row in after.items():
        was = before.get(key, dict.fromkeys(facts) | {"app_id": key[1]})
        assert {name: row[name] for name in facts} == {name: was[name] for name in facts}
    with pytest.raises(TelemetryError, match="may hold decisions"):
        write_template(directory, out)
    keys = ("approved", "name", "purpose", "category", "expected_", "background_modes", "push_entitled")
    lines = out.read_text().splitlines()
    opened = [line[2:] if line[2:].startswith(keys) and " = " in line else line for line in lines]
    out.write_text("\n".join(opened))
    merge([out], directory)
    chat = newest(directory)[None, CHAT]
    assert chat["approved"] and chat["expected_hosts"] == ["api.chat.example", "cdn.chat.example"]
    assert chat["expected_period_seconds"] == 600.0


def test_the_period_of_the_steadiest_channel_is_proposed(tmp_path):
    beats = np.arange(50.0)
    loose = 1000 * beats + 400 * (beats % 6 == 5)  # two of six gaps are far from the median, on more devices
    told = [flows(loose, device, "com.both", "loose.example") for device in ("d1", "d2")]
    told.append(flows(600.4 * beats, "d1", "com.both", "steady.example"))
    told.append(flows(600 * beats[:12], "d1", "com.few", "few.example"))
    told.append(flows(600 * beats, "d1", CHAT, "chat.example"))
    known = inventory({"app_id": CHAT, "expected_period_seconds": 450.5})
    write_directory(tmp_path / "t", {"flows": together(*told), "inventory": known})
    parts = template(tmp_path / "t")[0].split("\n[apps.")
    lines = {part.split("]")[0].strip('"'): part.splitlines() for part in parts[1:]}
    assert "# rhythm: about every 16.7 min to loose.example on 2 device(s)" in lines["com.both"]
    assert "# expected_period_seconds = 600  # seen, not declared" in lines["com.both"]
    assert "# expected_period_seconds = 450.5  # declared now" in lines[CHAT]
    assert not any("expected_period_seconds" in line for line in lines["com.few"])


def test_a_template_without_apps_or_flows(tmp_path):
    write_directory(tmp_path / "a", {"flows": flows([1.0], app=None)})
    assert "name no app" in template(tmp_path / "a")[0] and template(tmp_path / "a")[1] == 0
    write_directory(tmp_path / "b", {"inventory": inventory({"app_id": CHAT})})
    assert template(tmp_path / "b")[1] == 1
    assert pa.types.is_list(TelemetryDirectory(tmp_path / "b").read("inventory")["background_modes"].type)
