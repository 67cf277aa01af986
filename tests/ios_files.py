"""Hand-made iOS logs: documentation-only, shaped after FORMATS and the real schemas."""

import json
import sqlite3
from pathlib import Path

from appcadence.telemetry.readers import ReadOptions, reader
from appcadence.telemetry.schema import DIRECTORY_TABLES, conform

OFFSETS = "PLStorageOperator_EventForward_TimeOffset"
PUSHES = "PLPushAgent_EventPoint_ReceivedPush"
TRANSFERS = "PLXPCAgent_EventPoint_BackgroundTransfer"
SCREEN = "PLScreenStateAgent_EventForward_ScreenState"
LOCK = "PLSpringBoardAgent_EventForward_SBLock"
BACKLIGHT = "PLDisplayAgent_EventPoint_Display"
BRIGHTNESS = "PLDisplayAgent_EventForward_Display"
APPS = "PLApplicationAgent_EventNone_AllApps"
START = 1_700_000_040.0
"""A full minute on the device's clock."""


def database(path: Path, tables: dict[str, tuple[str, list[tuple]]]) -> Path:
    """An SQLite file; each table as its columns and rows."""
    connection = sqlite3.connect(path)
    for name, (columns, rows) in tables.items():
        connection.execute(f"CREATE TABLE {name} (ID INTEGER PRIMARY KEY, {columns})")
        for row in rows:
            marks = ", ".join("?" * len(row))
            names = ", ".join(c.split()[0] for c in columns.split(", "))
            connection.execute(f"INSERT INTO {name} ({names}) VALUES ({marks})", row)
    connection.commit()
    connection.close()
    return path


def powerlog(path: Path, tables: dict[str, tuple[str, list[tuple]]], system: float = -100.5) -> Path:
    return database(path, {OFFSETS: ("timestamp REAL, system REAL", [(START - 10, system)])} | tables)


def knowledge(path: Path, rows: list[tuple]) -> Path:
    columns = "ZSTREAMNAME TEXT, ZSTARTDATE, ZENDDATE, ZVALUESTRING, ZVALUEINTEGER"
    return database(path, {"ZOBJECT": (columns, rows)})


def record(message: str, second: float = 0, process: str = "apsd", **more: object) -> dict:
    minute, rest = divmod(second, 60)
    return {
        "timestamp": f"2024-06-17 05:{int(minute):02}:{rest:09.6f}+0900",
        "processImagePath": f"/System/Library/PrivateFrameworks/ApplePushService.framework/{process}",
        "eventMessage": message,
    } | more


def push(topic: str, payload: str = "<private>", tail: str = "") -> str:
    start = "<APSCourier 0x100a39ef0 development>: Received message for enabled topic"
    return f"{start} '{topic}' onInterface: NonCellular with payload '{payload}'{tail}"


def contact(**changes: object) -> dict:
    return {
        "type": "networkActivity",
        "bundleID": "com.example.app",
        "domain": "api.example.com",
        "firstTimeStamp": "2024-10-12T20:28:33.132+02:00",
        "timeStamp": "2024-10-18T10:05:24.994+02:00",
        "hits": 6,
        "initiatedType": "AppInitiated",
        "domainOwner": "",
        "context": "",
    } | changes


def access(**changes: object) -> dict:
    return {
        "type": "access",
        "accessor": {"identifier": "com.example.app", "identifierType": "bundleID"},
        "category": "location",
        "identifier": "0634B0EB",
        "kind": "intervalBegin",
        "timeStamp": "2024-10-18T10:00:00.000+02:00",
    } | changes


def lines(path: Path, rows: list[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(name: str, *paths: Path) -> dict[str, list[dict]]:
    """All rows that a reader gives, by table."""
    rows: dict[str, list[dict]] = {}
    for table, batch in reader(name).read(paths, ReadOptions(device_id="phone")):
        rows.setdefault(table, []).extend(conform(DIRECTORY_TABLES[table], batch).to_pylist())
    return rows
