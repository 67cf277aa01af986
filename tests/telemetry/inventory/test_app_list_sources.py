"""Lists of apps as further tools write them, and what is none of an iPhone."""

from __future__ import annotations

import gzip
import json
import plistlib

import pytest
from bundles import CHAT, info, ipa, mdm, newest, write_plist

from appcadence.errors import TelemetryError
from appcadence.telemetry.inventory.merge import merge

ROW = {"bundle_identifier": CHAT, "name": "Chat", "version": "1.2"}
OTHER = {"bundle_identifier": "com.example.other", "name": "Other"}
DEVICECTL = {
    "info": {"commandType": "devicectl.device.info.apps", "jsonVersion": 2},
    "result": {
        "apps": [{"bundleIdentifier": CHAT, "name": "Chat", "version": "1.2", "bundleVersion": "7"}],
        "deviceIdentifier": "D1",
    },
}
FLEET_HOST = {
    "software": [
        {
            "name": "Chat",
            "source": "ios_apps",
            "installed_versions": [{"version": "1.2", "bundle_identifier": CHAT}],
        },
        {"name": "Could be installed", "source": "ios_apps", "installed_versions": []},
    ],
    "meta": {"has_next_results": False},
}


def merged(tmp_path, content, name="apps.json", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return merge([path], tmp_path / "out", **options), newest(tmp_path / "out")


@pytest.mark.parametrize(
    ("device", "content"),
    [
        ("D1", {"device_id": "D1", "apps": [{"app_id": 5, "app_name": "Chat"} | ROW]}),  # Kandji
        ("D1", DEVICECTL),
        (None, {"device_id": 17, "apps": [ROW]}),
        (None, FLEET_HOST),
    ],
)
def test_whose_apps_they_are(tmp_path, device, content):
    report, rows = merged(tmp_path, content)
    assert set(rows) == {(device, CHAT)} and rows[device, CHAT]["version"] == "1.2"
    assert report.sources[0].rejected == 0


@pytest.mark.parametrize(
    "other",
    [
        OTHER | {"path": "/Applications/Other.app"},  # munki, osquery, computers of Jamf
        OTHER | {"platform": "Mac"},
        OTHER | {"os": "android"},
        OTHER | {"@odata.type": "#microsoft.graph.macOSLobApp"},
        {"displayName": "Other", "@odata.type": "#microsoft.graph.win32LobApp"},
    ],
)
def test_apps_of_other_systems_are_none_of_a_phone(tmp_path, other):
    report, rows = merged(tmp_path, [ROW, other])
    assert set(rows) == {(None, CHAT)} and report.sources[0].rejected == 0


@pytest.mark.parametrize(
    "said",
    [
        {"platform": "iPhone"},
        {"Platform": "Apple"},
        {"os": "17.5"},
        {"@odata.type": "#microsoft.graph.iosStoreApp"},
        {"@odata.type": "#microsoft.graph.detectedApp"},
        {"path": "/private/var/containers/Bundle/Application/A/Chat.app"},
        {"CFBundleIdentifier": CHAT, "Path": "/Applications/MobileSafari.app"},
    ],
)
def test_apps_of_a_phone_are_kept(tmp_path, said):
    assert set(merged(tmp_path, [ROW | said])[1]) == {(None, CHAT)}


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_fleet_with_several_versions_none_is_the_version(tmp_path, order):
    rows = [ROW | {"version": version} for version in ("1.2", "1.3", "1.2")][::order]
    assert merged(tmp_path, rows)[1][None, CHAT]["version"] is None


def test_a_list_with_a_version_each_of_one_device_has_the_last(tmp_path):
    content = {"udid": "D1", "apps": [ROW, ROW | {"version": "1.3"}]}
    assert merged(tmp_path, content)[1]["D1", CHAT]["version"] == "1.3"


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\r\nApp name;Bundle ID;Version\r\nChat;com.example.chat;1.2\r\n",
        "Apps\nMade 2025-01-01, 10:00\n\nName,Bundle ID,Version\nChat,com.example.chat,1.2\n",
        "Bundle ID\ncom.example.chat\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_below_its_title(tmp_path, text, encoding):
    assert set(merged(tmp_path, text.encode(encoding), "apps.csv")[1]) == {(None, CHAT)}


def test_an_encoding_that_is_not_read_is_named(tmp_path):
    content = "App name;Bundle ID\nCaf\xe9;com.example.chat\n".encode("cp1252")
    with pytest.raises(TelemetryError, match=r"neither UTF-8 nor UTF-16 .* save it as CSV UTF-8"):
        merged(tmp_path, content, "apps.csv")


@pytest.mark.parametrize(
    "more",
    [{"next": "https://mdm.example/apps?page=2"}, {"count": 3}, {"Total": 812, "Page": 0, "PageSize": 500}],
)
def test_pages_are_said(tmp_path, more):
    report, _ = merged(tmp_path, {"apps": [ROW]} | more)
    assert any("one page of a longer answer" in note for note in report.notes)


@pytest.mark.parametrize("more", [{"next": None}, {"count": 1}, {"count": True}])
def test_a_whole_answer_is_no_page(tmp_path, more):
    assert not merged(tmp_path, {"apps": [ROW]} | more)[0].notes


def test_half_a_character_in_a_name(tmp_path):
    assert (
        merged(tmp_path, b'[{"identifier": "com.example.chat", "name": "A\\ud83d"}]')[1][None, CHAT][
            "app_name"
        ]
        == "A?"
    )


def test_an_info_plist_as_json(tmp_path):
    _, rows = merged(tmp_path, info(modes=["audio"]), "Info.json")
    assert rows[None, CHAT]["background_modes"] == ["audio"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"CFBundleSupportedPlatforms": ["MacOSX"]}, "an app for MacOSX"),
        ({"LSMinimumSystemVersion": "12.0"}, "an app for macOS"),
        ({"CFBundleSupportedPlatforms": ["WatchOS"]}, "an app for WatchOS"),
        ({"NSExtension": {"NSExtensionPointIdentifier": "com.apple.usernotifications.service"}}, "a part of"),
        ({"CFBundlePackageType": "FMWK"}, "a part of an app"),
    ],
)
def test_an_info_plist_of_what_is_no_app_of_a_phone(tmp_path, values, said):
    with pytest.raises(TelemetryError, match=said):
        merge([write_plist(tmp_path / "Info.plist", info(**values))], tmp_path / "out")


def test_a_damaged_line_of_json_costs_that_line_alone(tmp_path):
    line = json.dumps(ROW).encode()
    report, rows = merged(
        tmp_path, line + b"\n" + json.dumps(OTHER).encode() + b'\n{"name": "cut', "apps.jsonl"
    )
    assert set(rows) == {(None, CHAT), (None, "com.example.other")} and report.sources[0].rejected == 1


@pytest.mark.parametrize("text", [b'[{"name": "A"}] more', b'{"apps": [\n{"identifier": "com.a"},\n{"ident'])
def test_json_that_is_cut_off_is_refused(tmp_path, text):
    with pytest.raises(TelemetryError, match="not readable JSON"):
        merged(tmp_path, text)


def test_blank_lines_before_a_property_list(tmp_path):
    content = b"\r\n\r\n" + mdm(tmp_path / "a.plist").read_bytes()
    assert set(merged(tmp_path, content, "b.plist")[1]) == {("D1", CHAT)}


@pytest.mark.parametrize("status", ["NotNow", "Error"])
def test_an_answer_without_a_list_is_named(tmp_path, status):
    path = write_plist(tmp_path / "answer.plist", {"UDID": "D1", "Status": status, "CommandUUID": "C"})
    with pytest.raises(TelemetryError, match=f"answer {status} .* ask again"):
        merge([path], tmp_path / "out")


def test_a_packed_list_says_to_unpack_it(tmp_path):
    with pytest.raises(TelemetryError, match=r"packed \(gzip\); unpack it first"):
        merged(tmp_path, gzip.compress(json.dumps([ROW]).encode()), "apps.json.gz")


def test_an_ipa_packed_from_its_folder(tmp_path):
    path = ipa(tmp_path / "chat.ipa", {"./Payload/Chat.app/Info.plist": plistlib.dumps(info())})
    merge([path], tmp_path / "out")
    assert set(newest(tmp_path / "out")) == {(None, CHAT)}


def test_a_workbook_and_a_profile_say_what_they_lack(tmp_path):
    with pytest.raises(TelemetryError, match="save its sheet as CSV"):
        merge([ipa(tmp_path / "a.xlsx", {"[Content_Types].xml": "<Types/>"})], tmp_path / "out")
    profile = {"PayloadIdentifier": "com.example.profile", "PayloadContent": [{"PayloadUUID": "U"}]}
    with pytest.raises(TelemetryError, match="holds no list of apps"):
        merge([write_plist(tmp_path / "a.mobileconfig", profile)], tmp_path / "out")


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    source, out = mdm(tmp_path / "apps.plist"), tmp_path / "out"
    with pytest.raises(TelemetryError, match="the device's id has 900 characters"):
        merge([source], out, device_id="d" * 900)
    assert not out.exists()
    merge([source], out)
    (tmp_path / "inventory.toml").write_text(f'[apps."{"a" * 900}"]\nname = "A"\n')
    with pytest.raises(TelemetryError, match="a bundle id has 900 characters"):
        merge([tmp_path / "inventory.toml"], out)
    assert set(newest(out)) == {("D1", CHAT)}
