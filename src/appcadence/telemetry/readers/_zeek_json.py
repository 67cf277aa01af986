"""Zeek's JSON logs: one object a line, unset fields left out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.readers import _json
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._zeek_fields import OTHER, WANTED, kind_of


def sniff_kind(head: bytes) -> str | None:
    """The kind of a JSON log from its first lines; None where they are no Zeek objects.

    The last line of `head` may be cut off. The kind is decided by all fields of the lines at hand, as
    the first row alone may lack any telling one.
    """
    fields: dict[str, None] = {}
    path = None
    for row in _json.first_objects(head):
        fields.update(dict.fromkeys(row))
        stated = row.get("_path")
        path = path or (stated if isinstance(stated, str) else None)
    if "ts" not in fields:
        return None
    kind = kind_of(fields, path)
    return kind if kind != OTHER or path or "uid" in fields else None


def parse(block: Block, kind: str) -> Rows:
    """The rows of a block, with the lines that are no such rows; `ts` is in seconds, also where it is ISO."""
    wanted = WANTED[kind]
    first = _json.object_of(block.data[: block.data.find(b"\n")]) or {}
    if "ts" not in wanted or not isinstance(first.get("ts"), str):
        return _json.parse(block, wanted, _in_seconds)
    rows = _json.parse(block, wanted | {"ts": _json.TIME}, _as_time)
    seconds = pc.divide(rows.table["ts"].cast(pa.int64()).cast(pa.float64(), safe=False), 1e6)
    table = rows.table.set_column(rows.table.column_names.index("ts"), "ts", seconds)
    return Rows(table, rows.lines, rows.read, rows.bad_lines, rows.reasons)


def _in_seconds(row: dict[str, Any]) -> dict[str, Any]:
    time = _time(row.get("ts"))
    return row if time is None else row | {"ts": time.timestamp()}


def _as_time(row: dict[str, Any]) -> dict[str, Any]:
    ts = row.get("ts")
    try:
        time = _time(ts) if isinstance(ts, str) else datetime.fromtimestamp(ts, UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        time = None
    return row if time is None else row | {"ts": time}


def _time(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time
