"""Hostile inventory sources: one sentence each, and nothing left behind."""

from __future__ import annotations

import base64
import json
import plistlib
import struct
import zipfile

import pytest
from bundles import BINARY, info, ipa, write_plist

from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory import app_archive as _bundle
from appcadence.telemetry.inventory import app_lists
from appcadence.telemetry.inventory.merge import merge

INFO = "Payload/A.app/Info.plist"
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE plist [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    b"<plist><dict><key>CFBundleIdentifier</key><string>&b;</string></dict></plist>"
)


def hostile(tmp_path):
    good = plistlib.dumps(info())
    yield "entry .* claims", ipa(tmp_path / "bomb.ipa", {INFO: b"0" * (_bundle.MAX_PLIST_BYTES + 1)})
    # The same bomb with a lie about its size in the directory.
    lie = bytearray((tmp_path / "bomb.ipa").read_bytes())
    at = lie.rfind(b"PK\x01\x02")
    lie[at + 24 : at + 28] = struct.pack("<I", 100)
    (tmp_path / "lie.ipa").write_bytes(lie)
    yield "not a readable IPA|not a readable property list|larger than", tmp_path / "lie.ipa"
    yield "holds 0", ipa(tmp_path / "path.ipa", {"../../Payload/A.app/Info.plist": good, "/" + INFO: good})
    yield "holds 2", ipa(tmp_path / "two.ipa", {INFO: good, "Payload/B.app/Info.plist": good})
    yield "not a readable property list", ipa(tmp_path / "laughs.ipa", {INFO: LAUGHS})
    yield (
        "UIBackgroundModes is no list",
        ipa(tmp_path / "type.ipa", {INFO: plistlib.dumps(info(modes="audio"))}),
    )
    yield "no dictionary", ipa(tmp_path / "list.ipa", {INFO: plistlib.dumps([1])})
    with zipfile.ZipFile(tmp_path / "lzma.ipa", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(INFO, b"0" * 10_000_000)
    yield "compressed in a way", tmp_path / "lzma.ipa"
    (tmp_path / "torn.ipa").write_bytes((tmp_path / "two.ipa").read_bytes()[:-30])
    yield "not a readable IPA", tmp_path / "torn.ipa"
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "Identifier\ncom.a\n")
        archive.writestr("b.csv", "Identifier\ncom.a\n")
    yield "2 lists .*; unzip it", tmp_path / "two.zip"
    (tmp_path / "laughs.plist").write_bytes(LAUGHS)
    yield "entity declarations|not a readable property list", tmp_path / "laughs.plist"
    (tmp_path / "deep.plist").write_bytes(b"<plist>" + b"<array>" * 100_000)
    yield "not a readable property list", tmp_path / "deep.plist"
    (tmp_path / "half.plist").write_bytes(plistlib.dumps(info(), fmt=BINARY)[:40])
    yield "not a readable property list", tmp_path / "half.plist"
    yield "CFBundleIdentifier is int", write_plist(tmp_path / "id.plist", {"CFBundleIdentifier": 5})
    yield "holds no list of apps", write_plist(tmp_path / "none.plist", {"a": 1})
    yield "is no list", write_plist(tmp_path / "l.plist", {"UDID": "D", "InstalledApplicationList": {}})
    long = "a" * 256
    (tmp_path / "long.toml").write_text(f'[apps."{long}"]\napproved = true\n')
    yield "bundle id has 256 characters; at most 255", tmp_path / "long.toml"
    apps = [{"Identifier": "com.a"}]
    yield (
        "id has 256 characters",
        write_plist(tmp_path / "long.plist", {"UDID": long, "InstalledApplicationList": apps}),
    )
    yield "UDID is int", write_plist(tmp_path / "u.plist", {"UDID": 1, "InstalledApplicationList": []})
    row = {"Identifier": "com.a"}
    many = {"UDID": "D", "InstalledApplicationList": [row] * 100_001}
    yield "lists 100,001 apps", write_plist(tmp_path / "many.plist", many, BINARY)
    nested: list = [{"Identifier": "com.a"}]
    for _ in range(60):
        nested = [nested, nested]
    yield "names no device", write_plist(tmp_path / "laughs.b", nested, BINARY)
    yield "holds no list", write_plist(tmp_path / "laughs.c", {"a": nested}, BINARY)
    yield "empty list", write_plist(tmp_path / "e.plist", {"UDID": "D", "InstalledApplicationList": []})
    for identifier in ("$(PRODUCT_BUNDLE_IDENTIFIER)", "com.example.${TARGET}"):
        yield "a variable that Xcode fills in", write_plist(tmp_path / "v.plist", info(identifier))
    yield "'My App' is no bundle id", write_plist(tmp_path / "w.plist", info("My App"))
    for name, content, message in (
        ("empty", b"", "is empty"),
        ("binary", b"\x00\xff\x00", "no inventory source"),
        ("x.json", b'{"value": 3}', "holds no list of apps"),
        ("deep.json", b"[" * 200_000, "not readable JSON"),
        ("deeper.json", b'{"apps":' * 900 + b"[]" + b"}" * 900, "holds no list of apps"),
        ("payload.json", b'{"acknowledge_event": {"raw_payload": "%%%"}}', "not readable base64"),
        ("plist.json", b'{"acknowledge_event": {"raw_payload": "AAAA"}}', "not a readable property list"),
        ("names.json", b'[{"displayName": "Chat"}]', "there is no bundle id for Chat; give a map"),
        ("fleet.csv", b"name,bundle_identifier,source\nA,com.a,apps\n", "none is an app of iOS or iPadOS"),
        ("ids.json", b'[{"identifier": 5}, {"identifier": "a b"}]', "none of its 2 rows .* expected text"),
        ("device.json", b'{"udid": 5, "apps": [{"identifier": "com.a"}]}', "udid is int; expected text"),
        ("bad.json", b'[{"displayName": "\xff"}]', "not readable JSON"),
        ("odd.csv", b"a,b\n1,2\n", "none of its 1 rows can be used; row 1: the row has no app name"),
        ("a.toml", b"[apps.", "not readable TOML"),
        ("b.toml", b"[apps.com.chat]\napproved = true\n", "quote the whole bundle id"),
        ("c.toml", b'[apps."a"]\napproved = "yes"\n', "expected true or false"),
        ("d.toml", b'[apps."a"]\nhosts = []\n', "unknown key 'hosts'"),
        ("e.toml", b'[apps."a"]\nexpected_hosts = ["https://x/y"]\n', "is no host name"),
        ("f.toml", b"[other]\n", "unknown table"),
        *(
            (f"{i}.toml", b'[apps."a"]\nexpected_period_seconds = ' + value, "expected a number above 0")
            for i, value in enumerate(
                (b"0", b"-900", b"nan", b"inf", b"true", b'"900"', b"[900]", b"1" + b"0" * 400)
            )
        ),
        ("g.toml", b'[apps."a"]\nexpected_period_seconds = ' + b"1" * 5000, "not readable TOML"),
    ):
        (tmp_path / name).write_bytes(content)
        yield message, tmp_path / name
    yield "does not exist", tmp_path / "missing.plist"
    yield "is a directory", tmp_path


def test_hostile_sources_end_in_one_sentence_and_leave_nothing(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    cases = list(hostile(folder))
    for message, path in cases:
        with pytest.raises(TelemetryError, match=message) as caught:
            merge([path], out)
        assert path.name in str(caught.value) and not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_a_payload_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(app_lists, "MAX_PLIST_BYTES", 1 << 20)
    path = tmp_path / "event.json"
    path.write_text(json.dumps({"raw_payload": base64.b64encode(bytes(2 << 20)).decode()}))
    with pytest.raises(TelemetryError, match="raw_payload is larger than 1 MB"):
        merge([path], tmp_path / "out")


def test_an_archive_directory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(_bundle, "_MAX_DIRECTORY_BYTES", 70_000)
    path = ipa(tmp_path / "a.ipa", {INFO: plistlib.dumps(info())} | {f"x{i:05}": b"" for i in range(3000)})
    with pytest.raises(TelemetryError, match="has a directory of"):
        merge([path], tmp_path / "out")
