"""inventory and readiness as a person types them."""

from __future__ import annotations

import json
import plistlib
import re
import tomllib
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from make import activity, flows, inventory, pushes, together
from typer.testing import CliRunner

from appcadence.cli import app, main
from appcadence.telemetry.directory import write_directory

CHAT = "com.example.chat"
EVIL = "\x1b[31mred[bold]x[/]<script>alert(1)</script>"


def run(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    assert "\x1b" not in done.output
    return done.output


def narrow(text):
    return max(map(len, text.splitlines())) <= 80


def fails(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["appcadence", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = [{"Identifier": CHAT, "Name": "Chat", "ShortVersion": "1.0"}]
    with open("mdm.plist", "wb") as stream:  # noqa: PTH123
        plistlib.dump({"UDID": "D1", "InstalledApplicationList": listed}, stream, fmt=plistlib.FMT_BINARY)
    info = {"CFBundleIdentifier": CHAT, "CFBundleShortVersionString": "1.0", "UIBackgroundModes": ["fetch"]}
    (tmp_path / "Info.plist").write_bytes(plistlib.dumps(info))
    (tmp_path / "inventory.toml").write_text(f'[apps."{CHAT}"]\npurpose = "Staff chat"\napproved = true\n')
    with zipfile.ZipFile("chat.ipa", "w") as archive:
        archive.writestr(
            "Payload/Chat.app/Info.plist", plistlib.dumps(info | {"UIBackgroundModes": ["fetch", "voip"]})
        )
    return tmp_path


def test_merge_prints_what_changed(place):
    said = run("inventory", "merge", "mdm.plist", "Info.plist", "inventory.toml", "--into", "t")
    assert "First snapshot of: the fleet, D1" in said and "a snapshot of 2 rows" in said and narrow(said)
    said = run("inventory", "merge", "chat.ipa", "--into", "t")
    assert f"new background modes: {CHAT} (voip) on the fleet, D1" in said and narrow(said)
    assert "t is unchanged" in run("inventory", "merge", "chat.ipa", "--into", "t")
    (place / "inventory.toml").write_text(f'[apps."{CHAT}"]\napproved = false\n')
    report = json.loads(run("inventory", "merge", "inventory.toml", "--into", "t", "--json"))
    assert [(c["kind"], c["device_ids"]) for c in report["changes"]] == [("approval_lost", [None, "D1"])]
    rows = pq.read_table(place / "t" / "inventory").to_pylist()
    assert len(rows) == 6 and max(rows, key=lambda r: r["snapshot_time"])["approved"] is False
    for seconds in (900, 60):
        (place / "inventory.toml").write_text(f'[apps."{CHAT}"]\nexpected_period_seconds = {seconds}\n')
        said = run("inventory", "merge", "inventory.toml", "--into", "t")
    told = f"approved period changed: {CHAT} (period approved before was 900 s, now 60 s) on the fleet, D1"
    assert told in " ".join(said.split()) and narrow(said)


def test_names_without_a_bundle_id_are_listed(place):
    (place / "apps.csv").write_text(f"displayName,platform\n{EVIL},ios\nChat,ios\n")
    (place / "map.csv").write_text(f"app_name,app_id\nChat,{CHAT}\n")
    said = run("inventory", "merge", "apps.csv", "--into", "t", "--app-map", "map.csv")
    assert "No bundle id, not used (give --app-map): ?[31mred[bold]x[/]" in said.replace("\n", " ")


def test_template_is_written_once_and_merges_unchanged(place, monkeypatch, capsys):
    write_directory(place / "t", {"flows": flows(np.arange(0, 9000, 60.0), app=EVIL, host=EVIL)})
    assert "1 app written" in run("inventory", "template", "t", "--out", "new.toml")
    assert tomllib.loads((place / "new.toml").read_text()) == {"apps": {EVIL: {}}}
    assert "may hold decisions" in fails(
        monkeypatch, capsys, "inventory", "template", "t", "--out", "new.toml"
    )
    run("inventory", "merge", "new.toml", "--into", "t")
    (row,) = pq.read_table(place / "t" / "inventory").to_pylist()
    assert {k for k, v in row.items() if v is not None} == {"app_id", "snapshot_time"}


def test_bad_input_is_one_sentence(place, monkeypatch, capsys):
    assert "missing" in fails(monkeypatch, capsys, "inventory", "merge", "missing", "--into", "t")
    assert "nowhere" in fails(monkeypatch, capsys, "inventory", "template", "nowhere", "--out", "x")
    assert "nowhere" in fails(monkeypatch, capsys, "readiness", "nowhere")
    write_directory(place / "t", {"flows": flows([1.0])})
    assert "is a directory" in fails(monkeypatch, capsys, "readiness", "t", "--html", place)
    (place / "t" / "flows.parquet").write_bytes(b"PAR1")
    assert "flows.parquet" in fails(monkeypatch, capsys, "readiness", "t")


@pytest.fixture
def mixture(place):
    hour = np.arange(0, 86_400, 600.0)
    tables = {
        "flows": together(
            flows(hour, "good"), flows(hour, EVIL, app=None, host=EVIL), flows(hour, "quiet", app=EVIL)
        ),
        "activity": activity([(t, t + 9) for t in hour], "good"),
        "notifications": pushes(hour, "good", grid=60.0),
        "inventory": inventory({"app_id": "com.a", "background_modes": []}),
    }
    write_directory(place / "mix", tables)
    return place / "mix"


def test_readiness_reads_well_at_80_columns(mixture):
    said = run("readiness", mixture)
    assert narrow(said), [line for line in said.splitlines() if len(line) > 80]
    assert "AN1682, DET0620, T1437.001, DC0085" in said
    assert "structured cadence: can be judged on 2, only per device on 1" in said
    assert "notification burst: can be judged on 1, blind on 2" in said
    assert re.search(r"^good .*24 h/60 s +yes +yes +yes", said, re.M)
    assert re.search(r"^quiet .* - +yes +yes +blind", said, re.M)
    assert "HTTP/2 or QUIC" in said.replace("\n", " ")


def test_readiness_as_json(mixture):
    found = json.loads(run("readiness", mixture, "--json"))
    assert found["attack"]["technique"] == "T1437.001"
    good = next(device for device in found["devices"] if device["device_id"] == "good")
    assert good["behaviours"]["notification_burst"]["code"] == "judged"
    assert good["behaviours"]["notification_burst"]["text"] == "can be judged"
    assert found["fleet"]["behaviours"]["notification_burst"]["devices"] == {
        "judged": 1,
        "per_device": 0,
        "too_little": 0,
        "blind": 2,
    }
    assert good["pushes"]["time_resolution_seconds"] == 60.0


def test_the_page_is_inert_and_complete(mixture, place):
    run("readiness", mixture, "--html", "page.html")
    page = (place / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "\x1b" not in page
    assert "default-src &#x27;none&#x27;" in page or "default-src 'none'" in page
    assert not re.search(r"(src|href)\s*=", page)
    for text in ("AN1682", "SessionPersistenceThreshold", "can be judged", "only per device", "Blind spot"):
        assert text in page
    assert not list(place.glob(".*.tmp"))


@pytest.mark.parametrize("words", [("readiness",), ("inventory", "merge"), ("inventory", "template")])
def test_help_has_an_example(words):
    assert "Example: appcadence" in run(*words, "--help")
