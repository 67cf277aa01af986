"""Nothing personal that stands in an iOS log reaches a telemetry directory."""

from pathlib import Path

import pyarrow.parquet as pq
from ios_files import (
    APPS,
    PUSHES,
    START,
    TRANSFERS,
    contact,
    database,
    in_focus,
    lines,
    notified,
    powerlog,
    push,
    record,
    segb,
)

from appcadence.telemetry.ingest.convert import convert

SECRET = "Canary7f3a"


def logs_as_text(folder: Path, entries: list[dict]) -> list[Path]:
    """The entries in the styles default and pymobiledevice3, and as CSV."""
    forms = {
        "default": "{time} 0x4f1      Default     0x0          90     0    {name}: (Library) {message}",
        "live": "{time} {name}{{Library}}[90] <NOTICE>: {message}",
        "csv": '{time},{name},"{message}"',
    }
    paths = []
    for form, line in forms.items():
        first = [] if form != "csv" else ["timestamp,process,message"]
        rows = (
            line.format(
                time=entry["timestamp"].replace("+0900", "" if form == "live" else "+0900"),
                name=entry["processImagePath"].rpartition("/")[2],
                message=entry["eventMessage"].replace('"', '""' if form == "csv" else '"'),
            )
            for entry in entries
        )
        paths.append(lines(folder / form, [*first, *rows]))
    return paths


def test_nothing_personal_reaches_the_output(tmp_path):
    said = f"{SECRET} said hello"
    tables = {
        PUSHES: (
            "timestamp, BundleID, Topic, Size, ServerHostname, ServerIP, MessageText",
            [
                (START, "com.example.a", said, 1, said, said, said),
                (START, said, None, 1, said, said, said),
                (said, None, None, 1, None, None, None),
            ],
        ),
        TRANSFERS: (
            "timestamp, bundleID, errorFailingURL, sessionID, taskUUID",
            [(START, "com.example.a", said, said, said), (START, said, said, said, said)],
        ),
        APPS: ("timestamp, AppBundleId, AppVendorID, AppUUID", [(START, "com.example.a", said, said)]),
        "PLConfigAgent_EventNone_Config": ("timestamp, DeviceName, IcloudAccountType", [(START, said, said)]),
    }
    stream = "/app/usage"
    columns = "ZSTREAMNAME, ZSTARTDATE, ZENDDATE, ZVALUESTRING, ZVALUEINTEGER, ZSTRING, ZUUID"
    objects = [
        (stream, 7e8, 7e8, "com.example.a", None, said, said),
        (stream, 7e8, 7e8, said, None, said, said),
        ("/safari/history", 7e8, 7e8, said, None, said, said),
        ("/notification/usage", 7e8, 7e8, said, None, said, said),
    ]
    payload = f'{{ aps = {{ alert = "{said}"; "content-available" = 1; }}; }}'
    log = [
        record(push("com.example.a", payload, "' with priority 10 for device token: " + SECRET)),
        record(push(said, payload), 1),
        record(said, 2, "Messages"),
        record(f"Screen did unlock (Was locked for 3 seconds) {said}", 3, said=said),
        record(said) | {"timestamp": said},
        said,
    ]
    report = [
        contact(context=said),
        contact(bundleID=said),
        contact(domain=f"https://example.com/{said}"),
        contact(timeStamp=said, hits=said),
        {"type": "access", "accessor": {"identifier": said}, "identifier": said},
    ]
    paths = [
        powerlog(tmp_path / "x.PLSQL", tables),
        database(tmp_path / "x.db", {"ZOBJECT": (columns, objects), "ZSOURCE": ("ZUSERID", [(said,)])}),
        lines(tmp_path / "log.ndjson", log),
        *logs_as_text(tmp_path, [entry for entry in log if isinstance(entry, dict)]),
        segb(tmp_path / "App.InFocus" / "local" / "1", [in_focus(7e8, said, 1), in_focus(7e8, "com.a", 1)]),
        segb(tmp_path / "Notification.Usage" / "local" / "2", [notified(7e8, "com.a", 1, *[said] * 5)]),
        lines(tmp_path / "report.ndjson", report),
    ]
    out = tmp_path / "out"
    result = convert(paths, out, device_id="phone")
    assert not [file.unusable for file in result.files if file.unusable]
    assert result.tables.keys() == {
        "activity",
        "contact_summaries",
        "inventory",
        "notifications",
        "rejected",
    }
    for file in filter(Path.is_file, out.rglob("*")):
        shown = str(pq.read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_text()
        assert SECRET.lower() not in shown.lower()
        assert SECRET.encode() not in file.read_bytes()
