"""Hand-made iOS logs, made only from documentation (FORMATS) and the real schemas."""

import json
import sqlite3
import struct
import zlib
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


def segb(
    path: Path, records: list[tuple[float, bytes]], version: int = 2, deleted: tuple[int, ...] = ()
) -> Path:
    """A Biome file of records: seconds since 2001, message."""
    body, ends = b"", b""
    for place, (time, data) in enumerate(records):
        state = 3 if place in deleted else 1
        if version == 1:
            body += struct.pack("<iiddIi", len(data), state, time, time, zlib.crc32(data), 0) + data
            body += bytes(-len(body) % 8)
        else:
            body += struct.pack("<Ii", zlib.crc32(data), 0) + data
            ends += struct.pack("<iid", len(body), state, time)
            body += bytes(-len(body) % 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == 1:
        path.write_bytes(struct.pack("<I48x4s", 56 + len(body), b"SEGB") + body)
    else:
        path.write_bytes(struct.pack("<4sid16x", b"SEGB", len(records), 7e8) + body + ends)
    return path


def message(*fields: tuple[int, int | float | str | bytes]) -> bytes:
    """A Protocol Buffers message; a float takes eight bytes."""
    parts = []
    for number, value in fields:
        wire = {int: 0, float: 1, str: 2, bytes: 2}[type(value)]
        parts.append(_varint(number << 3 | wire))
        if isinstance(value, int):
            parts.append(_varint(value))
        elif isinstance(value, float):
            parts.append(struct.pack("<d", value))
        else:
            data = value if isinstance(value, bytes) else value.encode()
            parts.append(_varint(len(data)) + data)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def in_focus(time: float, app: str, shown: int) -> tuple[float, bytes]:
    """A record of App.InFocus: seconds since 2001."""
    return time + 0.01, message((2, 1), (3, shown), (4, time), (6, app))


def notified(time: float, app: str, usage: int, *texts: str) -> tuple[float, bytes]:
    """A record of Notification.Usage; the texts stand where iOS keeps those of the notification."""
    return time, message(
        (1, "U"), (2, time), (3, usage), *zip((8, 9, 12, 5, 15), texts, strict=False), (14, app)
    )
