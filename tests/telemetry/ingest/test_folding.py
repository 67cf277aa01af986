"""Parts of apps count for their app, from every reader."""

import json

import pyarrow as pa
from ios_files import APPS, PUSHES, START, TRANSFERS, lines, powerlog

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.ingest.folding import Folding
from appcadence.telemetry.schema import FLOWS

CHAT = "com.example.chat"


def report(app: str | None, second: int) -> str:
    minute = f"2025-10-09T09:00:{second:02}Z"
    return json.dumps(
        {"device_id": "phone", "app": app, "open": minute, "close": minute, "host": "a.example"}
    )


def columns(out, table: str, *names: str) -> list[tuple]:
    rows = TelemetryDirectory(out).read(table).to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


def test_flows_pushes_and_transfers_meet_in_one_app(tmp_path):
    out = tmp_path / "out"
    apps = [f"ABCDE12345.{CHAT}.NotificationService", f"{CHAT}.Odd", "com.apple.nsurlsessiond", None]
    flows = lines(tmp_path / "filter.jsonl", [report(app, second) for second, app in enumerate(apps)])
    log = powerlog(
        tmp_path / "log.PLSQL",
        {
            PUSHES: ("timestamp REAL, BundleID TEXT", [(START, f"{CHAT}.voip")]),
            TRANSFERS: ("timestamp REAL, bundleID TEXT", [(START, f"nsurlsessiond:[{CHAT}.Odd:(null)]")]),
            APPS: ("timestamp REAL, AppBundleId TEXT", [(START, CHAT)]),
        },
    )
    # The log names the installed apps, so it is read first, whatever the order.
    convert([flows, log], out, device_id="phone")
    assert columns(out, "flows", "app_id", "source_app_id", "app_attribution") == [
        (CHAT, apps[0], "exact"),
        (CHAT, apps[1], "exact"),
        ("com.apple.nsurlsessiond", None, "process"),
        (None, None, "none"),
    ]
    assert columns(out, "notifications", "app_id", "source_app_id") == [
        (CHAT, f"{CHAT}.voip"),
        (CHAT, f"{CHAT}.Odd"),
    ]


def test_apps_that_the_directory_knows(tmp_path):
    out = tmp_path / "out"
    convert(
        [powerlog(tmp_path / "log", {APPS: ("timestamp REAL, AppBundleId TEXT", [(START, CHAT)])})],
        out,
        device_id="phone",
    )
    convert([lines(tmp_path / "filter.jsonl", [report(f"{CHAT}.Odd", 1)])], out)
    assert columns(out, "flows", "app_id", "source_app_id") == [(CHAT, f"{CHAT}.Odd")]


def test_display_names_are_no_ids():
    batch = pa.table(
        {
            "app_id": ["Chat.for.you.Widget", "com.example.chat.Widget", "com.apple.WebKit.Networking"],
            "app_attribution": ["display_name", "process", "process"],
        }
    ).replace_schema_metadata({"file": "x"})
    folded = Folding().apply("flows", batch)
    assert folded["app_id"].to_pylist() == ["Chat.for.you.Widget", CHAT, "com.apple.WebKit.Networking"]
    assert folded["source_app_id"].to_pylist() == [None, "com.example.chat.Widget", None]
    assert folded["app_attribution"].to_pylist() == ["display_name", "process", "process"]
    assert folded.schema.metadata == batch.schema.metadata
    assert len(Folding().apply("flows", FLOWS.empty())) == 0
