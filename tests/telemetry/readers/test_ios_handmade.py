"""What the real iOS samples lack, on hand-made files: documentation-only."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest
from ios_files import (
    APPS,
    BACKLIGHT,
    BRIGHTNESS,
    LOCK,
    PUSHES,
    SCREEN,
    START,
    TRANSFERS,
    access,
    contact,
    database,
    knowledge,
    lines,
    powerlog,
    push,
    read,
    record,
)

from appcadence.telemetry.readers import _log_forms, app_privacy_report, detect
from appcadence.telemetry.readers._device_log import app_of_topic, resolution_seconds
from appcadence.telemetry.readers._powerlog_states import silences, spans

ZERO = datetime.fromtimestamp(START - 100.5, UTC)
START_OF_LOG = datetime(2024, 6, 16, 20, 0, tzinfo=UTC)


def seconds(rows: list[dict], kind: str, zero: datetime = ZERO) -> list[tuple[float, float]]:
    return [
        ((row["start"] - zero).total_seconds(), (row["end"] - zero).total_seconds())
        for row in rows
        if row["kind"] == kind
    ]


def test_powerlog_without_a_grid_dropped_pushes_and_topics(tmp_path):
    columns = "timestamp REAL, BundleID TEXT, Topic TEXT, Priority INTEGER, IsDropped INTEGER"
    rows = [
        (START, "com.example.a", "com.example.a", 10, 0),
        (START + 1.25, None, "com.example.b.voip", 10, None),
        (START + 2, "com.example.c", None, 5, 1),
        (START + 3, None, None, None, None),
    ]
    found = read("powerlog", powerlog(tmp_path / "x", {PUSHES: (columns, rows)}))["notifications"]
    assert [row["app_id"] for row in found] == ["com.example.a", "com.example.b.voip", None]
    assert {row["time_resolution_seconds"] for row in found} == {1e-6}
    assert {row["size_bytes"] for row in found} == {None} == {row["content_available"] for row in found}


def test_powerlog_push_types_in_words_tell_silent_pushes(tmp_path):
    rows = [(START + k, f"com.example.{k}", sort) for k, sort in enumerate(("background", "alert", 2, None))]
    found = read(
        "powerlog", powerlog(tmp_path / "x", {PUSHES: ("timestamp REAL, BundleID TEXT, PushType", rows)})
    )
    assert [row["content_available"] for row in found["notifications"]] == [True, False, None, None]


def test_powerlog_clock_changes(tmp_path):
    table = {
        "PLStorageOperator_EventForward_TimeOffset": (
            "timestamp REAL, system REAL",
            [(START + 50, 7.0), (START, -3.0)],
        ),
        LOCK: ("timestamp REAL, Locked", [(START - 5, 0), (START + 50, 1)]),
    }
    (row,) = read("powerlog", powerlog(tmp_path / "x", table))["activity"]
    assert row["start"].timestamp() == START - 5 - 3
    assert row["end"].timestamp() == START + 50 + 7


def test_powerlog_states(tmp_path):
    tables = {
        SCREEN: (
            "timestamp REAL, bundleID TEXT, Display INTEGER",
            [
                (START, "com.apple.lock-screen", 0),
                (START + 10, "com.example.a", 0),
                (START + 10, "com.example.b", 0),
                (START + 20, "com.example.b", 0),
                (START + 30, "com.apple.springboard.home-screen", 0),
                (START + 40, "com.example.a", 0),
                (START + 4000, "com.example.a", 0),
            ],
        ),
        BRIGHTNESS: (
            "timestamp REAL, Brightness REAL",
            [(START + 5, 40.0), (START + 60, 0), (START + 70, 1)],
        ),
    }
    rows = read("powerlog", powerlog(tmp_path / "x", tables))["activity"]
    front = {
        app: seconds([r for r in rows if r["app_id"] == app], "app_foreground")
        for app in ("com.example.a", "com.example.b")
    }
    assert front == {"com.example.a": [(10, 20), (40, 60)], "com.example.b": [(10, 30)]}
    # The log is silent from 70 to 4,000.
    assert seconds(rows, "screen_on") == [(5, 60)]


def test_powerlog_other_screens_and_floating_videos(tmp_path):
    columns = "timestamp REAL, bundleID TEXT, Display INTEGER, AppRole INTEGER"
    tables = {
        SCREEN: (
            columns,
            [
                (START, "com.example.a", 0, 1),
                (START + 5, "com.example.video", 0, 5),
                (START + 6, "com.example.map", 2, 1),
                (START + 40, None, 2, 0),
            ],
        ),
        f"{SCREEN}X": (columns, [(START + 1, "com.example.b", 0, 1)]),
        BACKLIGHT: (
            "timestamp REAL, Block TEXT, Active",
            [(START, "Backlight", 1), (START + 20, "Backlight", 0)],
        ),
        f"{BACKLIGHT}X": ("timestamp REAL, Block TEXT, Active", [(START + 30, "Backlight", 0)]),
    }
    rows = read("powerlog", powerlog(tmp_path / "x", tables))["activity"]
    found = {(row["app_id"] or row["kind"], *seconds([row], row["kind"])[0]) for row in rows}
    # Each screen has its own light; CarPlay goes on in the dark, until a layout without an app.
    assert found == {
        ("com.example.a", 0, 20),
        ("com.example.b", 1, 30),
        ("com.example.map", 6, 40),
        ("screen_on", 0, 20),
    }


def test_a_screen_that_always_shows_the_time_is_not_in_use(tmp_path):
    """Phones with such a screen write 2 where others write 0; whoever takes it for nothing finds the screen
    lit all day, and every beacon explained by a person who looks at it."""
    lit = [(START, 1), (START + 20, 2), (START + 400, 1), (START + 410, 2), (START + 900, 0)]
    columns = "timestamp REAL, Block TEXT, Active"
    tables = {
        SCREEN: ("timestamp REAL, bundleID TEXT, Display", [(START, "com.example.a", 0)]),
        BACKLIGHT: (columns, [(time, "Backlight", level) for time, level in lit]),
    }
    rows = read("powerlog", powerlog(tmp_path / "x", tables))
    assert seconds(rows["activity"], "screen_on") == [(0, 20), (400, 410)]
    assert seconds(rows["activity"], "app_foreground") == [(0, 20)] and "rejected" not in rows


def test_powerlogs_that_follow_or_overlap_each_other_are_one_timeline(tmp_path):
    def part(name: str, front: list[tuple], locks: list[tuple]):
        tables = {SCREEN: ("timestamp REAL, bundleID TEXT", front), LOCK: ("timestamp REAL, Locked", locks)}
        return powerlog(tmp_path / name, tables)

    first = part("1", [(START, "com.example.a")], [(START, 0), (START + 100, 0)])
    second = part("2", [(START + 300, "com.example.b")], [(START + 200, 0), (START + 400, 1)])
    third = part("3", [(START, "com.example.a"), (START + 300, "com.example.b")], [(START + 400, 1)])
    whole = [("com.example.a", (0, 300)), ("com.example.b", (300, 400)), (None, (0, 400))]
    for paths in ((first, second), (second, first), (first, second, third), (first, second, first)):
        rows = read("powerlog", *paths)["activity"]
        found = [(row["app_id"], seconds([row], row["kind"])[0]) for row in rows]
        assert sorted(found, key=str) == sorted(whole, key=str)


def test_knowledgec_of_other_devices_and_extensions(tmp_path):
    columns = "ZSTREAMNAME, ZSTARTDATE, ZENDDATE, ZVALUESTRING, ZVALUEINTEGER, ZSTRUCTUREDMETADATA, ZSOURCE"
    rows = [
        ("/app/usage", 7e8, 7e8 + 1, "com.example.a", None, None, 1),
        ("/app/usage", 7e8, 7e8 + 1, "com.example.b", None, None, 2),
        ("/app/usage", 7e8, 7e8 + 1, "com.example.b", None, 9, None),
        ("/app/inFocus", 7e8, 7e8 + 1, "com.example.c.ShareExtension", None, 1, 3),
    ]
    holder = "Z_DKAPPLICATIONMETADATAKEY__EXTENSIONCONTAININGBUNDLEIDENTIFIER"
    path = database(
        tmp_path / "x.db",
        {
            "ZOBJECT": (columns, rows),
            "ZSOURCE": ("Z_PK INTEGER, ZDEVICEID TEXT", [(1, None), (2, "6F0D-IPAD")]),
            "ZSTRUCTUREDMETADATA": (f"Z_PK INTEGER, {holder} TEXT", [(1, "com.example.c"), (9, "no id!")]),
        },
    )
    found = read("knowledgec", path)
    assert [(row["app_id"], row["source_app_id"]) for row in found["activity"]] == [
        ("com.example.a", None),
        ("com.example.b", None),
        ("com.example.c", "com.example.c.ShareExtension"),
    ]
    assert [(row["line"], row["reason"]) for row in found["rejected"]] == [
        (2, "ZOBJECT: recorded by another device (ZSOURCE)")
    ]


def test_powerlog_transfers_count_once_a_task_and_deleted_apps_are_left_out(tmp_path):
    tables = {
        TRANSFERS: (
            "timestamp REAL, bundleID TEXT, taskUUID TEXT, bytesReceived INTEGER, bytesSent INTEGER",
            [
                (START + 2, "com.apple.nsurlsessiond:[com.example.a:(null)]", "T1", 100, 5),
                (START + 1, "com.apple.nsurlsessiond:[com.example.a:(null)]", "T1", None, None),
                (START + 3, "com.example.b", None, None, None),
                (START + 4, "com.example.b", None, 0, 0),
            ],
        ),
        APPS: (
            "timestamp REAL, AppBundleId TEXT, AppName TEXT, AppBundleVersion TEXT, AppDeletedDate INTEGER",
            [(START, "com.example.a", "A", "1.0", 0), (START, "com.example.b", "B", "2", 1_600_000_000)],
        ),
    }
    plain = powerlog(tmp_path / "x.PLSQL", tables)
    packed = tmp_path / "x.PLSQL.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows = read("powerlog", plain)
    assert rows == read("powerlog", packed)
    assert detect(packed).NAME == "powerlog"
    transfers = [(row["app_id"], row["time"] - ZERO, row["size_bytes"]) for row in rows["notifications"]]
    assert transfers == [
        ("com.example.a", timedelta(seconds=1), 105),
        ("com.example.b", timedelta(seconds=3), None),
        ("com.example.b", timedelta(seconds=4), 0),
    ]
    assert [(row["app_id"], row["app_name"], row["version"]) for row in rows["inventory"]] == [
        ("com.example.a", "A", "1.0")
    ]


def test_knowledgec_lock_is_inverted_and_the_screen_is_no_app(tmp_path):
    rows = [
        ("/device/isLocked", 700_000_000.5, 700_000_010, None, 0),
        ("/device/isLocked", 700_000_010, 700_000_020, None, 1),
        ("/display/isBacklit", 700_000_000, 700_000_015, None, 1),
        ("/app/inFocus", 700_000_001, 700_000_002, "com.apple.springboard.home-screen", None),
        ("/app/inFocus", 700_000_002, 700_000_009, "com.example.a", None),
        ("/safari/history", 700_000_002, 700_000_003, "https://example.com/", None),
    ]
    found = read("knowledgec", knowledge(tmp_path / "knowledgeC.db", rows))
    zero = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(seconds=700_000_000)
    assert seconds(found["activity"], "device_unlocked", zero) == [(0.5, 10)]
    assert seconds(found["activity"], "screen_on", zero) == [(0, 15)]
    assert [row["app_id"] for row in found["activity"]] == [None, None, "com.example.a"]
    assert found.keys() == {"activity"}


LOG = [
    record("Screen did lock (Was unlocked for 30.000000 seconds)", 60),
    record("Screen did lock (Was unlocked for 30.100000 seconds)", 60.1, "imagent"),
    record(
        push("com.example.a", '{ aps = { "content-available" = 1; }; }', "' with priority 5 for device"), 90
    ),
    record(push("com.example.b.voip", '{ alert = "\' with priority 5"; }', "' with priority 10 for x"), 91),
    record(push("com.apple.icloud-container.com.example.c", "{ aps = {}; }"), 92),
    record(push("<private>"), 93),
    record("Screen did unlock (Was locked for 60.0 seconds)", 120),
    record("Screen did unlock (Was locked for 60.0 seconds)", 120.2, "imagent"),
    record("Screen did light up (Was down for 9.0 seconds)", 121),
    # The lock message in between is missing.
    record("Screen did unlock (Was locked for 20.0 seconds)", 180),
    record("Screen did light down (Was lit for 62.0 seconds)", 183),
    record("Screen did unlock (Was locked for 1.0 seconds)", 190)
    | {"processImagePath": "/private/var/containers/Bundle/Application/X/Evil.app/Evil"},
    record(push("com.example.d"), 191, "notapsd"),
    record("Received message for ignored topic 'com.example.e', apsd current QOS: 1", 192),
    record("the end", 200),
]


@pytest.mark.parametrize("form", ["array", "pretty", "lines", "mandiant"])
def test_unified_log(tmp_path, form, monkeypatch):
    monkeypatch.setattr(_log_forms, "BLOCK_BYTES", 700)
    path = tmp_path / "log.json"
    if form in ("array", "pretty"):
        path.write_text(json.dumps(LOG, indent=2 if form == "pretty" else None))
    else:
        names = {"eventMessage": "message", "processImagePath": "process"} if form == "mandiant" else {}
        rows = [{names.get(k, k): v for k, v in row.items()} | {"subsystem": "x"} for row in LOG]
        lines(path, [*rows, {"count": len(LOG), "finished": 1}])
    assert detect(path).NAME == "unified_log"
    found = read("unified_log", path)
    assert found.keys() == {"notifications", "activity"}
    pushes = [(row["app_id"], row["priority"], row["content_available"]) for row in found["notifications"]]
    assert pushes == [
        ("com.example.a", 5, True),
        ("com.example.b", 10, False),
        ("com.example.c", None, False),
        (None, None, None),
    ]
    assert found["notifications"][0]["time"] == START_OF_LOG + timedelta(seconds=90)
    assert seconds(found["activity"], "device_unlocked", START_OF_LOG) == [(30, 60), (120, 160), (180, 200)]
    assert seconds(found["activity"], "screen_on", START_OF_LOG) == [(121, 183)]


def test_app_privacy_report_addresses_and_offsets(tmp_path):
    domains = {
        "API.Example.com.": "api.example.com",
        "192.0.2.1": "192.0.2.1",
        "ff02::fb": "ff02::fb",
        "2001:0DB8::0001": "2001:db8::1",
        "fe80::1%en0": "fe80::1%en0",
    }
    rows = [{"type": "access", "accessor": {}}, *(contact(domain=domain) for domain in domains)]
    rows.append(
        contact(firstTimeStamp="2024-10-12T18:28:33Z", domainOwner="Example", initiatedType="NonAppInitiated")
    )
    found = read("app_privacy_report", lines(tmp_path / "report.ndjson", rows))["contact_summaries"]
    assert [row["dest_host"] for row in found[:-1]] == list(domains.values())
    assert found[0]["first_seen"] == datetime(2024, 10, 12, 18, 28, 33, 132_000, UTC)
    assert found[-1]["first_seen"] == datetime(2024, 10, 12, 18, 28, 33, tzinfo=UTC)
    assert (found[-1]["initiated"], found[-1]["dest_owner"]) == ("user", "Example")


def test_accesses_are_paired_and_a_report_ends_with_its_latest_time(tmp_path):
    def at(minute, **changes):
        return access(timeStamp=f"2024-10-18T10:{minute:02}:00+02:00", **changes)

    rows = [
        contact(firstTimeStamp="2024-10-01T00:00:00Z"),
        at(0),
        at(1, category="microphone", identifier="M"),
        at(2, kind="intervalEnd"),
        at(3, kind="intervalEnd", identifier="begun before"),
        at(9, category="camera", accessCount=3, outOfProcess=True),
    ]
    found = read("app_privacy_report", lines(tmp_path / "report.ndjson", rows))
    minute = {n: datetime(2024, 10, 18, 8, n, tzinfo=UTC) for n in range(10)}
    assert [(row["category"], row["start"], row["end"]) for row in found["accesses"]] == [
        ("location", minute[0], minute[2]),
        ("location", minute[3], minute[3]),
        ("microphone", minute[1], None),
        ("camera", minute[9], None),
    ]
    assert {row["app_id"] for row in found["accesses"]} == {"com.example.app"}
    (row,) = found["contact_summaries"]
    assert row["report_end"] == minute[9]
    assert row["report_end"] - row["report_start"] == timedelta(days=7)


def test_bad_accesses_of_a_report(tmp_path, monkeypatch):
    faults = {
        "accessor": (None, {}, {"identifier": 5}, "com.example.app", {"identifier": "/usr/libexec/x"}),
        "category": (None, 5, "", "what is this", "x" * 65),
        "kind": (None, "event"),
        "identifier": (None, 5, "x" * 10_000),
        "timeStamp": (None, 1e9, "2024-10-18T10:00:00"),
    }
    rows = [access(**{key: value}) for key, values in faults.items() for value in values]
    monkeypatch.setattr(app_privacy_report, "_MAX_OPEN", 3)
    many = [access(identifier=str(n)) for n in range(9)]
    found = read("app_privacy_report", lines(tmp_path / "x", [contact(), *rows, *many]))
    assert [row["line"] for row in found["rejected"]] == list(range(2, len(rows) + 2))
    assert [row["end"] for row in found["accesses"]] == [None] * 9


def test_topics_and_grids():
    assert app_of_topic("com.example.a.push-type.liveactivity") == "com.example.a"
    assert app_of_topic("com.example.a.complication") == "com.example.a"
    assert app_of_topic("<private>") is None and app_of_topic(None) is None
    assert resolution_seconds([60.0, 180.0]) == 60 and resolution_seconds([60.0, 61.0]) == 1
    assert resolution_seconds([3600.0, 7200.0]) == 60 and resolution_seconds([0.0, 3600.0, 7200.0]) == 3600
    assert resolution_seconds([1.5]) == 1e-6


def test_spans_stop_at_silence():
    assert silences([0, 5, 100, 101], 50) == [(5, 100)]
    assert spans([(0, True), (3, True), (4, False), (4, True)], [(5, 100)], 101) == [(0, 4), (4, 5)]
    assert spans([(100, True)], [(5, 100)], 101) == [(100, 101)]
    assert spans([(0, False)], [], 9) == []
