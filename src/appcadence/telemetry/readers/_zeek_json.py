"""Zeek's JSON logs: one object a line, unset fields left out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers import _json, _text
from appcadence.telemetry.readers._json_layout import first_objects
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._zeek_fields import OTHER, STREAM, WANTED, kind_of
from appcadence.telemetry.times import from_iso

_FIRST_BYTES = 1 << 16
_MS, _US, _NS = 1e11, 1e14, 1e17
"""No present-day time is this many seconds, milliseconds or microseconds."""
_PATH = re.compile(rb'"_path"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


def sniff_kind(head: bytes) -> str | None:
    """The kind of a JSON log from its first objects; None if they are not from Zeek.

    All fields of these objects decide, because the first object alone may lack the telling ones.
    """
    fields: dict[str, None] = {}
    paths: dict[str, None] = {}
    for row in first_objects(head):
        fields.update(dict.fromkeys(row))
        if isinstance(row.get("_path"), str):
            paths[row["_path"]] = None
    if "ts" not in fields:
        return None
    if len(paths) > 1:
        return STREAM
    path = next(iter(paths), None)
    kind = kind_of(fields, path)
    return kind if kind != OTHER or path or "uid" in fields else None


def parts(block: Block) -> dict[str, Block]:
    """The records of each kind in a block of a stream, with their lines.

    A record without a kind is taken for a connection, so that it is counted as faulty.
    """
    lines: dict[str, list[bytes]] = {}
    numbers: dict[str, list[int]] = {}
    for number, text in zip(block.lines.tolist(), block.data.split(b"\n"), strict=False):
        if text.strip():
            stated = _PATH.search(text)
            name = stated[1].decode() if stated else "conn"
            kind = kind_of((), name)
            lines.setdefault(kind, []).append(text)
            numbers.setdefault(kind, []).append(number)
    return {
        kind: Block(b"\n".join(some), numbers[kind][0], len(some) - 1, numbers=np.array(numbers[kind]))
        for kind, some in lines.items()
    }


def parse(block: Block, kind: str) -> Rows:
    """The rows of a block, and the lines that do not fit.

    `ts` is returned in seconds, even if written as ISO or in milliseconds; `id` may be an object of its own.
    """
    wanted = WANTED[kind]
    first = next(first_objects(block.data[:_FIRST_BYTES]), {})
    nested = {name for name in wanted if name.startswith("id.")}
    if nested and isinstance(first.get("id"), dict):
        inner = pa.struct([(name[3:], _json.plain_type(wanted[name])) for name in sorted(nested)])
        rows = _timed(block, {n: t for n, t in wanted.items() if n not in nested} | {"id": inner}, first)
        ids = one_array(rows.table["id"])
        columns = {name: pc.struct_field(ids, name[3:]).cast(wanted[name]) for name in nested}
        rest = {name: rows.table[name] for name in wanted if name not in nested}
        return replace(rows, table=pa.table({name: (columns | rest)[name] for name in wanted}))
    return _timed(block, wanted, first)


def _timed(block: Block, wanted: _json.Fields, first: dict[str, Any]) -> Rows:
    if "ts" not in wanted:
        return _json.parse(block, wanted, _in_seconds)
    if not isinstance(first.get("ts"), str):
        rows = _json.parse(block, wanted, _in_seconds)
        return replace(rows, table=_with_ts(rows.table, _seconds(rows.table["ts"])))
    rows = _json.parse(block, {**wanted, "ts": pa.string()}, _as_text)
    micros, bad = _text.times(rows.table["ts"])
    table = _with_ts(rows.table, pc.divide(micros.cast(pa.float64(), safe=False), 1e6))
    return replace(
        rows,
        table=table.filter(pa.array(~bad)),
        lines=rows.lines[~bad],
        bad=[*rows.bad, *((line, "ts is not a time") for line in rows.lines[bad].tolist())],
    )


def _with_ts(table: pa.Table, seconds: Any) -> pa.Table:
    return table.set_column(table.column_names.index("ts"), "ts", seconds)


def _seconds(ts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Counts of seconds, or of thousandths, millionths or billionths of one, as seconds."""
    if (pc.max(ts).as_py() or 0.0) < _MS:
        return ts
    finer = pc.if_else(pc.less(ts, _US), 1e3, pc.if_else(pc.less(ts, _NS), 1e6, 1e9))
    units = pc.if_else(pc.less(ts, _MS), 1.0, finer)
    return pc.divide(ts, units)


def _in_seconds(row: dict[str, Any]) -> dict[str, Any]:
    time = from_iso(row["ts"]) if isinstance(row.get("ts"), str) else None
    return row if time is None else row | {"ts": time.timestamp()}


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    ts = row.get("ts")
    return row | {"ts": str(ts)} if isinstance(ts, int | float) and not isinstance(ts, bool) else row
