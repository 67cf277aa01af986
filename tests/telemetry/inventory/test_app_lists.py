"""Lists of apps in the wrappings and under the names of many tools."""

from __future__ import annotations

import base64
import json
import plistlib
import zipfile

import pytest
from bundles import BINARY, CHAT, info, mdm, newest, write_plist

from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory.merge import merge

ROW = {"identifier": CHAT, "name": "Chat", "version": "120", "shortVersion": "1.2"}
MDM_ANSWER = {"InstalledApplicationList": [{"Identifier": CHAT, "Name": "Chat", "ShortVersion": "1.2"}]}
FLEET = {"name": "Chat", "version": "1.2", "bundle_identifier": CHAT, "source": "ios_apps"}
STORE = {"itemName": "Chat", "softwareVersionBundleId": CHAT, "bundleShortVersionString": "1.2"}
PROXY = {"CFBundleIdentifier": CHAT, "CFBundleDisplayName": "Chat", "CFBundleShortVersionString": "1.2"}
OF_MAC = {"bundleIdentifier": CHAT, "displayName": "Chat", "itunesName": "Chat", "bundleVersion": "1.2"}
PROFILE = {"displayName": "Wi-Fi", "identifier": "com.example.profile", "uuid": "U"}


def webhook(**event: str) -> dict:
    payload = base64.b64encode(plistlib.dumps(MDM_ANSWER)).decode()
    return {"topic": "mdm.Connect", "acknowledge_event": event | {"raw_payload": payload}}


WRAPPINGS = {
    "Jamf": (None, [ROW]),
    "Jamf, one device": ("D1", {"udid": "D1", "applications": [ROW], "profiles": [PROFILE]}),
    "Jamf, devices": (
        "D1",
        {"results": [{"general": {"udid": "D1"}, "applications": [ROW]}], "totalCount": 1},
    ),
    "Jamf classic": (
        "D1",
        {
            "mobile_device": {
                "general": {"udid": "D1", "name": "iPad 1"},
                "applications": [
                    {"application_name": "Chat", "application_version": "1.2", "identifier": CHAT}
                ],
            }
        },
    ),
    "two devices": (
        None,
        {"results": [{"udid": "D1", "applications": [ROW]}, {"udid": "D2", "applications": [ROW]}]},
    ),
    "Fleet": (None, {"software": [FLEET, FLEET | {"bundle_identifier": "com.mac", "source": "apps"}]}),
    "Fleet, one host": ("D1", {"host": {"uuid": "D1", "software": [FLEET]}}),
    "SimpleMDM": (None, {"data": [{"type": "installed_app", "id": 1, "attributes": ROW}], "has_more": False}),
    "Graph": (None, {"value": [{"displayName": "Chat", "bundleId": CHAT, "version": "1.2"}]}),
    "Apple Configurator": (None, {"Devices": ["0x1"], "Output": {"0x1": {"installedApps": [OF_MAC]}}}),
    "MVT": (None, [STORE | {"artistName": "Example"}]),
    "pymobiledevice3": (None, {CHAT: PROXY}),
    "MDM in JSON": ("D1", MDM_ANSWER | {"UDID": "D1"}),
    "webhook": ("D1", webhook(udid="D1", status="Acknowledged")),
    "webhooks": ("D1", [{"topic": "mdm.Authenticate"}, webhook(udid="D1")]),
    "in text": ("D1", {"udid": "D1", "Payload": plistlib.dumps(MDM_ANSWER).decode()}),
    "Workspace ONE": (
        None,
        {"DeviceApps": [{"ApplicationName": "Chat", "BundleId": CHAT, "Version": "1.2"}]},
    ),
    "Workspace ONE, states by number": (
        None,
        {
            "DeviceApps": [
                {"ApplicationName": "Chat", "ApplicationIdentifier": CHAT, "Version": "1.2", "Status": 2}
            ]
        },
    ),
    "iTunesMetadata": (None, STORE),
    "flat status": (None, {"StatusItems": {"app.managed.list": [ROW | {"state": "managed"}]}}),
    "declarative": (
        "D1",
        {
            "StatusItems": {
                "device": {"identifier": {"udid": "D1"}},
                "app": {"managed": {"list": [ROW | {"short-version": "1.2", "state": "managed"}]}},
            }
        },
    ),
}


@pytest.mark.parametrize("tool", WRAPPINGS)
def test_every_wrapping_gives_the_app(tmp_path, tool):
    device, content = WRAPPINGS[tool]
    path = tmp_path / "apps.json"
    path.write_text(json.dumps(content))
    report = merge([path], tmp_path / "out")
    assert not report.notes and report.sources[0].kind == "mdm" and not report.sources[0].rejected
    ((scope, app),) = newest(tmp_path / "out")
    assert (scope, app) == (device, CHAT)
    row = newest(tmp_path / "out")[device, CHAT]
    assert (row["app_name"], row["version"]) == ("Chat", "1.2")
    assert row["managed"] is (True if tool in ("declarative", "flat status") else None)


def test_answers_in_one_property_list(tmp_path):
    one = write_plist(tmp_path / "a.plist", [MDM_ANSWER | {"UDID": "D1"}])
    merge([one], tmp_path / "out")
    assert list(newest(tmp_path / "out")) == [("D1", CHAT)]
    two = write_plist(tmp_path / "b.plist", [MDM_ANSWER | {"UDID": "D1"}, MDM_ANSWER | {"UDID": "D2"}])
    with pytest.raises(TelemetryError, match=r"several devices \(D1, D2\)"):
        merge([two], tmp_path / "out")


def test_lines_of_json(tmp_path):
    path = tmp_path / "apps.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW | {"identifier": "com.b"}) + "\n")
    merge([path], tmp_path / "out")
    assert set(newest(tmp_path / "out")) == {(None, CHAT), (None, "com.b")}


@pytest.mark.parametrize(
    "text",
    [
        "name,version,bundle_identifier,source,hosts_count\nChat,1.2,{id},ios_apps,3\nWord,1,com.w,programs,1\n",
        "Display Name,App Name,Identifier,Version,Short Version\niPad 1,Chat,{id},120,1.2\n",
        "Display Name,Serial Number,App Name,App Identifier,App Version\niPad 1,F1,Chat,{id},1.2\n",
        "App Name;Bundle ID;Version\r\nChat;{id};1.2\r\n",
        'CFBundleIdentifier, CFBundleShortVersionString, CFBundleDisplayName\n{id}, "1.2", "Chat"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables(tmp_path, text, encoding):
    path = tmp_path / "apps.csv"
    path.write_bytes(text.replace("{id}", CHAT).encode(encoding))
    merge([path], tmp_path / "out")
    rows = newest(tmp_path / "out")
    assert list(rows) == [(None, CHAT)]
    assert (rows[None, CHAT]["app_name"], rows[None, CHAT]["version"]) == ("Chat", "1.2")


def test_the_name_of_a_device_is_no_app(tmp_path):
    path = tmp_path / "apps.csv"
    path.write_text(f"Display Name,Identifier\niPad 1,{CHAT}\n")
    merge([path], tmp_path / "out")
    assert newest(tmp_path / "out")[None, CHAT]["app_name"] is None
    path.write_text(json.dumps({"results": [{"udid": "D1", "name": "iPad 1"}]}))
    with pytest.raises(TelemetryError, match="holds no list of apps"):
        merge([path], tmp_path / "out")


def test_a_list_in_a_zip(tmp_path):
    path, names = tmp_path / "export.zip", tmp_path / "map.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AppInvRawData_1.csv", "ApplicationName,Platform\nChat,iOS\nWord,Windows\n")
    names.write_text(f"app_name,app_id\nChat,{CHAT}\n")
    report = merge([path], tmp_path / "out", app_map=names)
    assert report.sources[0].kind == "intune" and list(newest(tmp_path / "out")) == [(None, CHAT)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"value": [ROW], "@odata.nextLink": "https://x", "@odata.count": 1201}, "nextLink, 1 of 1,201 rows"),
        ({"results": [ROW], "totalCount": 90}, "totalCount, 1 of 90 rows"),
        ({"data": [ROW], "has_more": True}, "has_more"),
        ({"software": [FLEET], "meta": {"has_next_results": True}}, "has_next_results"),
    ],
)
def test_one_page_of_many_is_said(tmp_path, content, said):
    path = tmp_path / "apps.json"
    path.write_text(json.dumps(content))
    (note,) = merge([path], tmp_path / "out").notes
    assert "apps.json is one page of a longer answer" in note and said in note


def test_apps_that_could_not_be_read_have_not_vanished(tmp_path):
    out = tmp_path / "out"
    merge([mdm(tmp_path / "1.plist", [CHAT, "com.b"], udid="D1")], out)
    before = sorted(out.rglob("*"))
    nameless = write_plist(tmp_path / "2.plist", [{"CFBundleDisplayName": "Chat"}])
    with pytest.raises(TelemetryError, match=r"none of its 1 rows can be used; row 1: .* no bundle id"):
        merge([nameless], out, device_id="D1")
    assert sorted(out.rglob("*")) == before
    half = {"UDID": "D1", "InstalledApplicationList": [{"Identifier": CHAT}, {"Name": "B"}]}
    assert not merge([write_plist(tmp_path / "3.plist", half)], out).changes


def test_what_the_device_says_of_its_apps(tmp_path):
    entitled = {"aps-environment": "production"}
    listed = [
        PROXY | {"UIBackgroundModes": ["fetch"], "Entitlements": entitled},
        {"CFBundleIdentifier": "com.none", "Entitlements": {}},
        {"CFBundleIdentifier": "com.unknown"},
    ]
    path = write_plist(tmp_path / "apps.plist", listed)
    merge([path], tmp_path / "out", device_id="D1")
    found = {
        app: (row["background_modes"], row["push_entitled"])
        for (_, app), row in newest(tmp_path / "out").items()
    }
    assert found == {CHAT: (["fetch"], True), "com.none": ([], False), "com.unknown": (None, None)}


def test_keys_for_the_phone(tmp_path):
    values = info(CHAT, **{"UIBackgroundModes~iphone": ["fetch"], "UIBackgroundModes~ipad": ["audio"]})
    values |= {"CFBundleName": "$(PRODUCT_NAME)", "CFBundleShortVersionString": "$(MARKETING_VERSION)"}
    merge([write_plist(tmp_path / "Info.plist", values, BINARY)], tmp_path / "out")
    row = newest(tmp_path / "out")[None, CHAT]
    assert row["background_modes"] == ["fetch"] and row["app_name"] is None and row["version"] is None


def test_a_managed_app_that_is_not_on_the_device_is_left_out(tmp_path):
    rows = [ROW | {"state": "managed"}, ROW | {"identifier": "com.failed", "state": "failed"}]
    path = tmp_path / "status.json"
    path.write_text(json.dumps({"StatusItems": {"app": {"managed": {"list": rows}}}}))
    merge([path], tmp_path / "out", device_id="D1")
    assert list(newest(tmp_path / "out")) == [("D1", CHAT)]


def test_nothing_personal_is_kept(tmp_path):
    said = "Canary7f3a"
    content = {
        "udid": "D1",
        "owner": said,
        "applications": [
            ROW | {"apple-id": said, "purchaser": said, "com.apple.iTunesStore.downloadInfo": said}
        ],
        "certificates": [{"commonName": said}],
        "location": {"name": said},
    }
    path = tmp_path / "apps.json"
    path.write_text(json.dumps(content))
    table = tmp_path / "apps.csv"
    table.write_text(f"Identifier,App Name,Username,Email Address,Wi-Fi\n{CHAT},Chat,{said},{said},{said}\n")
    merge([path, table], tmp_path / "out")
    assert said.encode() not in b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_a_backup_lists_its_apps(tmp_path):
    containers = {
        CHAT: {
            "CFBundleIdentifier": CHAT,
            "CFBundleVersion": "12",
            "ContainerContentClass": "Data/Application",
        },
        f"{CHAT}.share": {"ContainerContentClass": "Data/PluginKitPlugin"},
        f"group.{CHAT}": {"ContainerContentClass": "Shared/AppGroup"},
    }
    manifest = {"Applications": containers, "Lockdown": {"UniqueDeviceID": "D1", "DeviceName": "Ann's"}}
    merge([write_plist(tmp_path / "Manifest.plist", manifest)], tmp_path / "out")
    assert set(newest(tmp_path / "out")) == {("D1", CHAT)}
    backup = {
        "Unique Identifier": "D2",
        "Installed Applications": [CHAT, "com.b"],
        "Applications": {CHAT: {}},
    }
    merge([write_plist(tmp_path / "Info.plist", backup)], tmp_path / "out2")
    assert set(newest(tmp_path / "out2")) == {("D2", CHAT), ("D2", "com.b")}


@pytest.mark.parametrize("gone", [{"uninstalledAt": "2024-11-01T00:00:00Z"}, {"_removed": True}])
def test_an_app_that_was_uninstalled_is_left_out(tmp_path, gone):
    path = tmp_path / "apps.json"
    path.write_text(json.dumps([ROW | {"uninstalledAt": None}, ROW | {"identifier": "com.b"} | gone]))
    merge([path], tmp_path / "out")
    assert set(newest(tmp_path / "out")) == {(None, CHAT)}


@pytest.mark.parametrize("flag", ["managed", "IsManaged"])
def test_a_flag_says_who_manages_the_app(tmp_path, flag):
    path = tmp_path / "apps.json"
    path.write_text(json.dumps([ROW | {flag: True}, ROW | {"identifier": "com.b", flag: False}]))
    merge([path], tmp_path / "out")
    assert {app: row["managed"] for (_, app), row in newest(tmp_path / "out").items()} == {
        CHAT: True,
        "com.b": False,
    }


def test_the_owner_of_a_device_is_no_app(tmp_path):
    path = tmp_path / "devices.csv"
    path.write_text("Display Name,Serial Number,Model\nAnn's iPhone,F1,iPhone 15\n")
    with pytest.raises(TelemetryError, match="row 1: the row has no app name"):
        merge([path], tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["<?xml version='1.0'?><mobile_device><applications/></mobile_device>", "<html>"]
)
def test_xml_that_is_no_property_list_says_what_to_ask_for(tmp_path, text):
    path = tmp_path / "apps.xml"
    path.write_text(text)
    with pytest.raises(TelemetryError, match="no property list; export the list as JSON or CSV"):
        merge([path], tmp_path / "out")
