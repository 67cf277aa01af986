"""Zeek's JSON logs: one object a line, unset fields left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.readers import _json, _text
from appcadence.telemetry.readers._json_layout import first_objects
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._zeek_fields import OTHER, WANTED, kind_of
from appcadence.telemetry.times import from_iso

_FIRST_BYTES = 1 << 16


def sniff_kind(head: bytes) -> str | None:
    """The kind of a JSON log from its first objects; None where they are none of Zeek's.

    The kind is decided by all fields of the objects at hand, as the first one alone may lack any telling one.
    """
    fields: dict[str, None] = {}
    path = None
    for row in first_objects(head):
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
    first = next(first_objects(block.data[:_FIRST_BYTES]), {})
    if "ts" not in wanted or not isinstance(first.get("ts"), str):
        return _json.parse(block, wanted, _in_seconds)
    rows = _json.parse(block, wanted | {"ts": pa.string()}, _as_text)
    micros, bad = _text.times(rows.table["ts"])
    seconds = pc.divide(micros.cast(pa.float64(), safe=False), 1e6)
    table = rows.table.set_column(rows.table.column_names.index("ts"), "ts", seconds)
    return replace(
        rows,
        table=table.filter(pa.array(~bad)),
        lines=rows.lines[~bad],
        bad_lines=[*rows.bad_lines, *rows.lines[bad].tolist()],
        reasons=[*rows.reasons, *["ts is not a time"] * int(np.sum(bad))],
    )


def _in_seconds(row: dict[str, Any]) -> dict[str, Any]:
    time = from_iso(row["ts"]) if isinstance(row.get("ts"), str) else None
    return row if time is None else row | {"ts": time.timestamp()}


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    ts = row.get("ts")
    return row | {"ts": str(ts)} if isinstance(ts, int | float) and not isinstance(ts, bool) else row
