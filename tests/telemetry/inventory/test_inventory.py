"""Inventories: real property lists and archives made here, hostile ones, and what a merge makes of them."""

from __future__ import annotations

import json
import plistlib
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bundles import BINARY, CHAT, XML, chat_ipa, info, mdm, newest, write_plist
from make import flows, inventory

from appcadence.errors import TelemetryError
from appcadence.features.declarations import Declarations
from appcadence.telemetry.directory import SOURCES, TelemetryDirectory, write_directory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.inventory.merge import merge

NETWORK = "com.apple.networkextension.packet-tunnel"
FIELDS = (
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state"
).replace(" ", "\t")
FLOW = "1.0 A 10.0.0.5 1 192.0.2.1 443 tcp ssl 1.0 10 20 SF\n".replace(" ", "\t")


def changes(report):
    return {(c.kind, c.app_id, c.device_ids, c.detail) for c in report.changes}


@pytest.mark.parametrize("fmt", [XML, BINARY])
def test_three_sources_make_one_snapshot(tmp_path, fmt):
    hand = tmp_path / "inventory.toml"
    hand.write_text(f'[apps."{CHAT}"]\npurpose = "Staff chat"\napproved = true\n')
    listed = mdm(tmp_path / "mdm.plist", [CHAT, "com.other"], fmt=fmt)
    report = merge([listed, chat_ipa(tmp_path / "chat.ipa", fmt=fmt), hand], tmp_path / "out")
    rows = newest(tmp_path / "out")
    assert set(rows) == {("D1", CHAT), ("D1", "com.other"), (None, CHAT)}
    for scope in ("D1", None):
        row = rows[scope, CHAT]
        assert row["approved"] and row["declared_purpose"] == "Staff chat" and row["push_entitled"]
        assert row["background_modes"] == ["fetch"] and row["category"] == "Social Networking"
        assert row["expected_hosts"] is None  # links and trackers are not what an app contacts
    other = rows["D1", "com.other"]
    unknown = ("approved", "background_modes", "push_entitled", "expected_hosts", "managed")
    assert all(other[name] is None for name in unknown)
    assert report.first == (None, "D1") and not report.changes and report.rows == 3
    assert b"canary" not in b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_merging_again_changes_nothing_and_conversion_still_works(tmp_path):
    sources = [mdm(tmp_path / "mdm.plist"), chat_ipa(tmp_path / "a.ipa")]
    merge(sources, tmp_path / "out")
    files = sorted((tmp_path / "out").rglob("*"))
    again = merge(sources, tmp_path / "out")
    assert again.snapshot_time is None and sorted((tmp_path / "out").rglob("*")) == files
    assert again.as_dict()["snapshot_time"] is None
    entries = json.loads((tmp_path / "out" / SOURCES).read_text())
    assert {entry["format"] for entry in entries} == {"inventory:mdm", "inventory:bundle"}
    log = tmp_path / "conn.log"
    log.write_text(f"#separator \\x09\n#path\tconn\n#fields\t{FIELDS}\n{FLOW}")
    assert convert([log], tmp_path / "out").changed
    assert TelemetryDirectory(tmp_path / "out").tables() == ("flows", "inventory")


def test_what_changed_since_the_last_snapshot(tmp_path):
    out, hand = tmp_path / "out", tmp_path / "i.toml"
    hand.write_text(f'[apps."{CHAT}"]\napproved = true\npush_entitled = false\n')
    merge([mdm(tmp_path / "1.plist", [CHAT, "com.gone"]), chat_ipa(tmp_path / "1.ipa"), hand], out)
    merge([mdm(tmp_path / "d2.plist", [CHAT], udid="D2")], out)
    hand.write_text(f'[apps."{CHAT}"]\napproved = false\npush_entitled = true\n')
    second = chat_ipa(tmp_path / "2.ipa", modes=("fetch", "audio", "voip"))
    report = merge([mdm(tmp_path / "2.plist", [CHAT, "com.new"]), second, hand], out)
    everywhere = (None, "D1", "D2")
    assert changes(report) == {
        ("new_app", "com.new", ("D1",), "new"),
        ("vanished_app", "com.gone", ("D1",), "gone"),
        ("new_background_modes", CHAT, everywhere, "audio, voip"),
        ("approval_lost", CHAT, everywhere, ""),
        ("push_entitlement_gained", CHAT, everywhere, ""),
    }
    # Gone is said once; what comes back is new, and what was known of it is still known.
    assert not merge([mdm(tmp_path / "3.plist", [CHAT, "com.new"])], out).changes
    back = merge([mdm(tmp_path / "4.plist", [CHAT, "com.new", "com.gone"])], out)
    assert changes(back) == {("new_app", "com.gone", ("D1",), "gone")}


def test_an_approved_period_is_kept_and_its_change_is_told(tmp_path):
    out, hand = tmp_path / "out", tmp_path / "i.toml"
    hand.write_text(f'[apps."{CHAT}"]\napproved = true\nexpected_hosts = ["chat.example"]\n')
    merge([hand, mdm(tmp_path / "mdm.plist")], out)
    assert newest(out)[None, CHAT]["expected_period_seconds"] is None
    hand.write_text(f'[apps."{CHAT}"]\nexpected_period_seconds = 900\n')
    assert not merge([hand], out).changes  # the first decision changes none
    assert merge([hand], out).snapshot_time is None
    hand.write_text(f'[apps."{CHAT}"]\npurpose = "Staff chat"\n')
    assert not merge([hand], out).changes
    assert {row["expected_period_seconds"] for row in newest(out).values()} == {900.0}
    hand.write_text(f'[apps."{CHAT}"]\nexpected_period_seconds = 59.5\n')
    told = "period approved before was 900 s, now 59.5 s"
    assert changes(merge([hand], out)) == {("approved_period_changed", CHAT, (None, "D1"), told)}
    assert {row["expected_period_seconds"] for row in newest(out).values()} == {59.5}


def test_an_inventory_without_the_column_of_periods_is_still_read(tmp_path):
    out, hand = tmp_path / "out", tmp_path / "i.toml"
    old = inventory({"app_id": CHAT, "approved": True}).drop_columns("expected_period_seconds")
    out.mkdir()
    pq.write_table(old, out / "inventory.parquet")
    hand.write_text(f'[apps."{CHAT}"]\nexpected_period_seconds = 900\n')
    assert not merge([hand], out).changes
    assert newest(out)[None, CHAT]["expected_period_seconds"] == 900.0


def test_a_device_list_alone_keeps_what_was_known(tmp_path):
    out = tmp_path / "out"
    merge([chat_ipa(tmp_path / "a.ipa")], out)
    merge([mdm(tmp_path / "mdm.plist")], out)
    # A device's own row is the only one that features look at.
    declared = Declarations.of(TelemetryDirectory(out).read("inventory"), pd.Index(["D1"]), pd.Index([CHAT]))
    assert declared.background[declared.of_windows(np.array([0]), np.array([0]))] == [1.0]
    assert newest(out)["D1", CHAT]["background_modes"] == ["fetch"]


def test_a_hand_alone_decides_which_hosts_are_expected(tmp_path):
    out, hand = tmp_path / "out", tmp_path / "i.toml"
    write_directory(out, {"inventory": inventory({"app_id": CHAT, "expected_hosts": ["api.chat.example"]})})
    merge([chat_ipa(tmp_path / "a.ipa")], out)
    assert newest(out)[None, CHAT]["expected_hosts"] == ["api.chat.example"]
    hand.write_text(f'[apps."{CHAT}"]\nexpected_hosts = ["API.chat.example."]\n')
    merge([chat_ipa(tmp_path / "a.ipa"), hand], out)
    assert newest(out)[None, CHAT]["expected_hosts"] == ["api.chat.example"]


def test_managed_application_list(tmp_path):
    managed = {
        "com.managed": {"Status": "Managed"},
        "com.users": {"Status": "UserInstalledApp"},
        "com.removed": {"Status": "ManagedButUninstalled"},
        "com.coming": {"Status": "Prompting"},
        "com.odd": {"Status": 5},
    }
    path = write_plist(tmp_path / "m.plist", {"UDID": "D1", "ManagedApplicationList": managed})
    report = merge([path], tmp_path / "out")
    rows = newest(tmp_path / "out")
    assert {app: row["managed"] for (_, app), row in rows.items()} == {
        "com.managed": True,
        "com.users": False,
    }
    assert report.sources[0].rejected == 1
    # It lists managed apps alone, so that no other app has vanished.
    only = write_plist(tmp_path / "n.plist", {"UDID": "D1", "ManagedApplicationList": {}})
    assert not merge([only], tmp_path / "out").changes
    bad = TelemetryDirectory(tmp_path / "out").read("rejected").to_pylist()
    assert bad == [{"file": "m.plist", "line": 3, "reason": "com.odd: Status is int; expected text"}]


def test_the_device_of_a_list(tmp_path):
    assert merge([mdm(tmp_path / "a.plist")], tmp_path / "a", device_id="phone").first == ("phone",)
    user = mdm(tmp_path / "b.plist", udid=None, EnrollmentID="E1")
    merge([user], tmp_path / "b")
    assert newest(tmp_path / "b")["E1", CHAT]["managed"] is True
    with pytest.raises(TelemetryError, match=r"names no device.*give its id"):
        merge([mdm(tmp_path / "c.plist", udid=None)], tmp_path / "c")
    with pytest.raises(TelemetryError, match="device phone has several application lists"):
        merge([tmp_path / "a.plist", user], tmp_path / "c", device_id="phone")
    assert not (tmp_path / "c").exists()
    write_directory(tmp_path / "t", {"flows": flows([1.0])})
    assert "no flows: D1" in merge([tmp_path / "a.plist"], tmp_path / "t").notes[0]


def test_intune_names_are_mapped_and_never_guessed(tmp_path):
    rows = [
        {"id": "1", "displayName": "Chat", "version": "1.0", "platform": "ios"},
        {"id": "2", "displayName": "Chat", "version": "1.1", "platform": "ios"},
        {"id": "3", "displayName": "Word", "version": "2", "platform": "windows"},
        {"id": "4", "displayName": "chat", "version": "2", "platform": "ios"},
        {"id": "5", "version": "2", "platform": "ios"},
    ]
    source, names = tmp_path / "apps.json", tmp_path / "map.csv"
    source.write_text(json.dumps({"value": rows}))
    names.write_text(f"app_name,app_id\nChat,{CHAT}\n")
    report = merge([source], tmp_path / "out", app_map=names)
    assert report.sources[0].unmapped == ("chat",) and report.sources[0].rejected == 1
    row = newest(tmp_path / "out")[None, CHAT]
    assert (row["app_name"], row["version"]) == ("Chat", None)
    source.write_text('[{"displayName": "Chat", "version": "\\ud800"}, {"displayName": "\\ud800"}]')
    assert json.dumps(merge([source], tmp_path / "out", app_map=names).as_dict())
    assert newest(tmp_path / "out")[None, CHAT]["version"] == "?"
    exported = tmp_path / "apps.csv"
    exported.write_text("﻿ApplicationName,ApplicationVersion,Platform\r\nChat,3,iOS\r\nPay,1,iOS\r\n")
    report = merge([exported], tmp_path / "out", app_map=names)
    assert report.sources[0].unmapped == ("Pay",) and newest(tmp_path / "out")[None, CHAT]["version"] == "3"
    names.write_text(f"app_name,app_id\nChat,{CHAT}\nChat,com.b\n")
    with pytest.raises(TelemetryError, match=r"'Chat' is both com\.example\.chat and com\.b"):
        merge([source], tmp_path / "out", app_map=names)


def test_precedence_of_sources(tmp_path):
    hand, names, detected = tmp_path / "i.toml", tmp_path / "map.csv", tmp_path / "d.csv"
    names.write_text(f"app_name,app_id\nDetected,{CHAT}\n")
    detected.write_text("displayName,version,platform\nDetected,0.1,ios\n")
    listed, bundled = mdm(tmp_path / "m.plist"), tmp_path / "Info.plist"
    write_plist(bundled, info(CFBundleShortVersionString="9"))
    hand.write_text(f'[apps."{CHAT}"]\nname = "Mine"\n')
    sources = [hand, bundled, listed, detected]
    for left in range(4):
        out = tmp_path / f"out{left}"
        report = merge(sources[left:], out, app_map=names)
        row = newest(out)["D1" if left < 3 else None, CHAT]
        assert row["app_name"] == ["Mine", "Chat", "chat", "Detected"][left]
        assert row["version"] == ["9", "9", "1.0", "0.1"][left]
        if left < 2:
            assert f"{CHAT}: the bundle has version 9, but 1.0 is installed." in report.notes


def test_info_plist_with_what_lies_beside_it(tmp_path):
    folder = tmp_path / "app"
    folder.mkdir()
    path = write_plist(folder / "Info.plist", info())
    merge([path], tmp_path / "a")
    row = newest(tmp_path / "a")[None, CHAT]
    assert row["background_modes"] == [] and row["push_entitled"] is None and row["expected_hosts"] is None
    write_plist(
        folder / "Chat.entitlements", {"com.apple.developer.associated-domains": ["applinks:*.a.example"]}
    )
    write_plist(folder / "PrivacyInfo.xcprivacy", {"NSPrivacyTrackingDomains": ["t.example"]})
    merge([path], tmp_path / "b")
    row = newest(tmp_path / "b")[None, CHAT]
    assert row["push_entitled"] is False and row["expected_hosts"] is None
    write_plist(folder / "Other.xcent", {})
    with pytest.raises(TelemetryError, match="several entitlements"):
        merge([path], tmp_path / "c")


@pytest.mark.parametrize(
    ("folder", "holder", "key", "point", "modes"),
    [
        ("PlugIns", "NSExtension", "NSExtensionPointIdentifier", NETWORK, ["network-extension"]),
        (
            "PlugIns",
            "NSExtension",
            "NSExtensionPointIdentifier",
            "com.apple.fileprovider-nonui",
            ["file-provider"],
        ),
        ("PlugIns", "NSExtension", "NSExtensionPointIdentifier", "com.apple.widgetkit-extension", ["widget"]),
        (
            "Extensions",
            "EXAppExtensionAttributes",
            "EXExtensionPointIdentifier",
            NETWORK,
            ["network-extension"],
        ),
        ("PlugIns", "NSExtension", "NSExtensionPointIdentifier", "com.apple.share-services", []),
        ("Frameworks", "NSExtension", "NSExtensionPointIdentifier", NETWORK, []),
    ],
)
def test_what_extensions_do_in_the_background_is_a_mode(tmp_path, folder, holder, key, point, modes):
    """iOS runs a tunnel or a widget without the app, which needs no UIBackgroundModes for it."""
    part = info(f"{CHAT}.part", **{holder: {key: point}})
    packed = {f"Payload/Chat.app/{folder}/Part.appex/Info.plist": plistlib.dumps(part)}
    merge([chat_ipa(tmp_path / "a.ipa", modes=(), **packed)], tmp_path / "packed")
    assert newest(tmp_path / "packed")[None, CHAT]["background_modes"] == modes
    inside = tmp_path / "Chat.app" / folder / "Part.appex"
    inside.mkdir(parents=True)
    write_plist(inside / "Info.plist", part)
    merge([write_plist(tmp_path / "Chat.app" / "Info.plist", info())], tmp_path / "unpacked")
    assert newest(tmp_path / "unpacked")[None, CHAT]["background_modes"] == modes


@pytest.mark.parametrize(
    ("kind", "modes"), [("packet-tunnel-provider", ["network-extension"]), ("relay", [])]
)
def test_a_list_that_knows_entitlements_knows_of_network_extensions(tmp_path, kind, modes):
    entitlements = {"com.apple.developer.networking.networkextension": [kind]}
    path = tmp_path / "apps.plist"
    write_plist(path, [info(modes=[], Entitlements=entitlements)])
    merge([path], tmp_path / "out", device_id="D1")
    assert newest(tmp_path / "out")["D1", CHAT]["background_modes"] == modes


def test_bad_rows_are_rejected_one_by_one(tmp_path):
    rows = [{"Identifier": CHAT}, {"Name": "x"}, 5, {"Identifier": 7}, {"Identifier": " "}]
    path = write_plist(tmp_path / "m.plist", {"UDID": "D1", "InstalledApplicationList": rows})
    report = merge([path], tmp_path / "out")
    assert (report.sources[0].apps, report.sources[0].rejected) == (1, 4)
    assert TelemetryDirectory(tmp_path / "out").read("rejected")["line"].to_pylist() == [2, 3, 4, 5]


def test_a_directory_in_other_use_is_left_alone(tmp_path):
    source = mdm(tmp_path / "m.plist")
    with pytest.raises(TelemetryError, match="no telemetry table"):
        merge([source], tmp_path)
    with pytest.raises(TelemetryError, match="give at least one"):
        merge([], tmp_path / "out")


def test_a_snapshot_is_never_older_than_the_last(tmp_path):
    out = tmp_path / "out"
    late = datetime(2030, 1, 1, tzinfo=UTC)
    merge([mdm(tmp_path / "m.plist")], out, now=late)
    report = merge([mdm(tmp_path / "n.plist", [CHAT, "com.b"])], out, now=datetime(2029, 1, 1, tzinfo=UTC))
    assert report.snapshot_time > late and len(report.changes) == 1
