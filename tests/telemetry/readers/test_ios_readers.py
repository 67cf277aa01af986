"""Readers of logs kept by an iOS device, on real files counted without them."""

import json
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ios_files import OFFSETS, PUSHES, read

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import detect

POWERLOG = "powerlog_2021-12-16_05-54_84E2141B.PLSQL"
KNOWLEDGE = "knowledgec-10.14.db"
REPORT = "ios_app_privacy_report.ndjson"


def query(path: Path, text: str) -> list[tuple]:
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True).execute(text).fetchall()


def utc(seconds: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=round(seconds * 1e6))


@pytest.fixture(scope="module")
def ios(shared_data) -> Path:
    return shared_data / "ios"


@pytest.fixture(scope="module")
def power(ios) -> dict[str, list[dict]]:
    return read("powerlog", ios / POWERLOG)


def test_a_real_powerlog_is_read_whole(ios, power):
    count = {
        name: query(ios / POWERLOG, f"SELECT count(*) FROM {name}")[0][0]
        for name in (
            PUSHES,
            "PLPushAgent_EventPoint_SentKeepAlive",
            "PLXPCAgent_EventPoint_BackgroundTransfer",
            "PLApplicationAgent_EventNone_AllApps",
        )
    }
    assert list(count.values()) == [9, 6, 563, 132]
    tasks = "SELECT count(DISTINCT bundleID || taskUUID) FROM PLXPCAgent_EventPoint_BackgroundTransfer"
    kinds = Counter(row["kind"] for row in power["notifications"])
    assert kinds == {
        "push_received": 9,
        "apns_keepalive": 6,
        "background_transfer": query(ios / POWERLOG, tasks)[0][0],
    }
    assert kinds["background_transfer"] == 218
    kinds = Counter(row["kind"] for row in power["activity"])
    assert kinds == {
        "device_unlocked": 2,
        "screen_on": 11,
        "app_foreground": 1,
    }
    assert [len(power[name]) for name in ("flows", "usage", "tasks", "coverage")] == [218, 182, 22, 1]
    assert len({row["app_id"] for row in power["inventory"]}) == len(power["inventory"]) == 132
    assert power.get("rejected") is None
    assert {row["device_id"] for rows in power.values() for row in rows} == {"phone"}


def test_a_push_keeps_its_raw_time_plus_the_offset_before_it(ios, power):
    raw = query(ios / POWERLOG, f"SELECT timestamp, BundleID, Priority, Size FROM {PUSHES} ORDER BY ID")
    offsets = query(ios / POWERLOG, f"SELECT timestamp, system FROM {OFFSETS} ORDER BY timestamp")
    pushes = [row for row in power["notifications"] if row["kind"] == "push_received"]
    assert raw[7] == (1635875820.0, "com.toyopagroup.picaboo", 5, 810)
    assert pushes[7] == {
        "device_id": "phone",
        "app_id": "com.toyopagroup.picaboo",
        "time": utc(1635875820.0 - 411.5740089416504 - 30),
        "kind": "push_received",
        "priority": 5,
        "content_available": None,
        "size_bytes": 810,
        "source_app_id": None,
        "source": "powerlog",
        "time_resolution_seconds": 60.0,
    }
    for (stamp, app, priority, size), push in zip(raw, pushes, strict=True):
        offset = [system for when, system in offsets if when <= stamp][-1]
        assert push["time"] == utc(stamp + offset - 30)
        assert (push["app_id"], push["priority"], push["size_bytes"]) == (app, priority, size)
    assert all(stamp % 60 == 0 for stamp, *_ in raw)
    assert {push["time_resolution_seconds"] for push in pushes} == {60.0}


def test_the_log_ends_when_its_name_says(power):
    # The name gives the time of export in local time, which was five hours behind UTC.
    last = max(row["end"] for row in power["activity"])
    assert last.strftime("%Y-%m-%d %H:%M") == "2021-12-16 10:54"


def test_states_of_a_real_powerlog(ios, power):
    lock = query(ios / POWERLOG, "SELECT timestamp, Locked FROM PLSpringBoardAgent_EventForward_SBLock")
    unlocked = [row for row in power["activity"] if row["kind"] == "device_unlocked"]
    offset = -631.9400539398193
    assert unlocked[0]["start"] == utc(1639652652.7973127 + offset)
    assert unlocked[0]["end"] == utc(1639652662.6237729 + offset)
    assert [locked for _, locked in lock] == [1, 1, 1, 0, 1, 0]
    (front,) = [row for row in power["activity"] if row["kind"] == "app_foreground"]
    assert front["app_id"] == "com.apple.Preferences"
    assert front["start"] == utc(1639652688.6550088 + offset)
    lit = [row for row in power["activity"] if row["kind"] == "screen_on"]
    # The log is silent for 34 and then 10 days; no interval may reach over that.
    assert max(row["end"] - row["start"] for row in lit) < timedelta(minutes=2)
    assert all(row["start"] < row["end"] for row in power["activity"])


def test_a_real_knowledgec(ios):
    rows = read("knowledgec", ios / KNOWLEDGE)
    streams = dict(query(ios / KNOWLEDGE, "SELECT ZSTREAMNAME, count(*) FROM ZOBJECT GROUP BY 1"))
    assert (streams["/app/inFocus"], streams["/app/usage"], streams["/display/isBacklit"]) == (52, 11, 5)
    lit = query(
        ios / KNOWLEDGE,
        "SELECT ZSTARTDATE, ZENDDATE FROM ZOBJECT WHERE ZSTREAMNAME='/display/isBacklit' AND ZVALUEINTEGER",
    )
    assert Counter(row["kind"] for row in rows["activity"]) == {"app_foreground": 63, "screen_on": 2}
    assert [(row["start"], row["end"]) for row in rows["activity"] if row["kind"] == "screen_on"] == [
        (utc(start + 978307200), utc(end + 978307200)) for start, end in lit
    ]
    assert {row["time_resolution_seconds"] for row in rows["activity"]} == {1.0}
    assert rows.keys() == {"activity"}


def test_a_real_app_privacy_report(ios):
    lines = [json.loads(line) for line in (ios / REPORT).read_text().splitlines()]
    network = [line for line in lines if line["type"] == "networkActivity"]
    assert (len(lines), len(network), sum(line["hits"] for line in network)) == (72, 64, 159)
    rows = read("app_privacy_report", ios / REPORT)
    assert rows.keys() == {"contact_summaries", "accesses"}
    summaries = rows["contact_summaries"]
    assert len(summaries) == 64 and sum(row["hits"] for row in summaries) == 159
    assert Counter(row["initiated"] for row in summaries) == {"app": 47, "user": 17}
    assert sum(row["dest_owner"] is not None for row in summaries) == 5
    assert network[1]["firstTimeStamp"] == "2022-04-27T10:59:32.695-04:00"
    assert summaries[1] == {
        "device_id": "phone",
        "app_id": "com.apple.mobilecal",
        "dest_host": "p56-caldav.icloud.com",
        "first_seen": datetime(2022, 4, 27, 14, 59, 32, 695_000, UTC),
        "last_seen": datetime(2022, 4, 27, 15, 4, 16, 905_000, UTC),
        "hits": 10,
        "initiated": "user",
        "dest_owner": None,
        "report_start": datetime(2022, 4, 27, 14, 41, 46, 510_000, UTC),
        "report_end": datetime(2022, 4, 27, 15, 7, 14, 951_000, UTC),
    }
    used = [
        (row["app_id"].removeprefix("com.apple."), row["category"], (row["end"] - row["start"]).seconds)
        for row in rows["accesses"]
    ]
    assert used == [
        ("mobileslideshow", "photos", 3),
        ("mobilecal", "location", 10),
        ("mobilecal", "contacts", 44),
        ("mobilemail", "contacts", 44),
    ]


def test_the_files_are_told_apart_and_converted(ios, tmp_path):
    names = {POWERLOG: "powerlog", KNOWLEDGE: "knowledgec", REPORT: "app_privacy_report"}
    assert {name: detect(ios / name).NAME for name in names} == names
    for other in ("DataUsage.sqlite", "netusage.sqlite"):
        with pytest.raises(TelemetryError, match="without the times at which"):
            detect(ios / other)
    paths = [ios / name for name in names]
    with pytest.raises(TelemetryError, match=r"does not say which device it comes from; give its id"):
        convert(paths, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = convert(paths, tmp_path / "out", device_id="phone")
    assert report.tables == {
        "accesses": 4,
        "activity": 79,
        "contact_summaries": 64,
        "coverage": 1,
        "flows": 218,
        "inventory": 132,
        "notifications": 233,
        "tasks": 22,
        "usage": 182,
    }
    assert report.rejected == 0
    assert [file.read for file in report.files] == [1075, 68, 72]
    assert set(TelemetryDirectory(tmp_path / "out").tables()) == set(report.tables)
    assert not convert(paths, tmp_path / "out", device_id="phone").changed
