"""Inventory sources for tests: property lists and archives in the form that devices and stores make."""

from __future__ import annotations

import plistlib
import zipfile

from appcadence.telemetry.directory import TelemetryDirectory

CHAT = "com.example.chat"
XML, BINARY = plistlib.FMT_XML, plistlib.FMT_BINARY


def write_plist(path, value, fmt=XML):
    path.write_bytes(plistlib.dumps(value, fmt=fmt))
    return path


def mdm(path, apps=(CHAT,), udid="D1", fmt=XML, **more):
    rows = [{"Identifier": app, "Name": app.rsplit(".", 1)[-1], "ShortVersion": "1.0"} for app in apps]
    device = {} if udid is None else {"UDID": udid}
    return write_plist(
        path, device | {"Status": "Acknowledged", "InstalledApplicationList": rows} | more, fmt
    )


def info(app=CHAT, modes=None, **more):
    values = {"CFBundleIdentifier": app, "CFBundleName": "Chat", "CFBundleShortVersionString": "1.0"}
    return values | ({} if modes is None else {"UIBackgroundModes": modes}) | more


def ipa(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def chat_ipa(path, modes=("fetch",), fmt=BINARY, **more):
    root = "Payload/Chat.app/"
    profile = b"0\x82" + plistlib.dumps(
        {
            "Entitlements": {
                "aps-environment": "production",
                "com.apple.developer.associated-domains": ["applinks:WWW.chat.example?mode=developer"],
            }
        }
    )
    entries = {
        f"{root}Info.plist": plistlib.dumps(info(modes=list(modes)), fmt=fmt),
        f"{root}embedded.mobileprovision": profile + b"\0signature",
        f"{root}PrivacyInfo.xcprivacy": plistlib.dumps({"NSPrivacyTrackingDomains": ["track.example"]}),
        f"{root}Frameworks/Ads.framework/PrivacyInfo.xcprivacy": plistlib.dumps(
            {"NSPrivacyTrackingDomains": ["ads.example", "not a host"]}
        ),
        f"{root}PlugIns/Share.appex/Info.plist": plistlib.dumps(info("com.example.chat.share", ["audio"])),
        "iTunesMetadata.plist": plistlib.dumps({"genre": "Social Networking", "apple-id": "canary@x"}),
    }
    return ipa(path, entries | more)


def newest(out):
    """The latest row of each (device, app)."""
    rows = TelemetryDirectory(out).read("inventory").to_pylist()
    return {(r["device_id"], r["app_id"]): r for r in sorted(rows, key=lambda r: r["snapshot_time"])}
