"""Zeek's JSON logs: one object a line, unset fields left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from appcadence.telemetry.readers._lines import Block
from appcadence.telemetry.readers._zeek_fields import OTHER, WANTED, Rows, kind_of

_PARSE_BYTES = 4 << 20
_TIME = pa.timestamp("us", tz="UTC")


def sniff_kind(head: bytes) -> str | None:
    """The kind of a JSON log from its first lines; None where they are no Zeek objects.

    The last line of `head` may be cut off. The kind is decided by all fields of the lines at hand, as
    the first row alone may lack any telling one.
    """
    fields: dict[str, None] = {}
    path = None
    for line in head.splitlines()[:100]:
        row = _object(line)
        if row is None:
            continue
        fields.update(dict.fromkeys(row))
        stated = row.get("_path")
        path = path or (stated if isinstance(stated, str) else None)
    if "ts" not in fields:
        return None
    kind = kind_of(fields, path)
    return kind if kind != OTHER or path or "uid" in fields else None


def parse(block: Block, kind: str) -> Rows:
    """The rows of a block, with the lines that are no such rows."""
    count = block.ends + (not block.data.endswith(b"\n"))
    try:
        table = _table(block.data, kind)
        if len(table) == count:
            return Rows(table, np.arange(block.line, block.line + count), count)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    return _line_by_line(block, kind)


def _table(data: bytes, kind: str) -> pa.Table:
    wanted = WANTED[kind]
    schema = pa.schema([(name, _json_type(declared)) for name, declared in wanted.items()])
    iso = "ts" in wanted and isinstance((_object(data[: data.find(b"\n")]) or {}).get("ts"), str)
    if iso:
        schema = schema.set(schema.get_field_index("ts"), pa.field("ts", _TIME))
    table = pajson.read_json(
        pa.BufferReader(data),
        read_options=pajson.ReadOptions(block_size=_PARSE_BYTES),
        parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    if not wanted:
        return pa.table({"row": pa.nulls(len(table))})
    columns = {name: table[name] for name in wanted}
    if iso:
        columns["ts"] = pc.divide(columns["ts"].cast(pa.int64()).cast(pa.float64()), 1e6)
    encoded = _encoded(columns, kind)
    # Arrow's JSON reader lets bytes through that are no UTF-8.
    for column in encoded.columns:
        column.validate(full=True)
    return encoded


def _json_type(declared: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(declared) else declared


def _encoded(columns: dict[str, Any], kind: str) -> pa.Table:
    words = {
        name: c.dictionary_encode()
        for name, c in columns.items()
        if pa.types.is_dictionary(WANTED[kind][name])
    }
    return pa.table(columns | words)


def _line_by_line(block: Block, kind: str) -> Rows:
    wanted = WANTED[kind]
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    lines, bad, reasons = [], [], []
    for number, text in enumerate(block.data.split(b"\n"), block.line):
        if not text.strip():
            continue
        row = _object(text)
        if row is None:
            reason: str | None = "not a JSON object"
        else:
            values, reason = _values(row, wanted)
        if reason:
            bad.append(number)
            reasons.append(reason)
            continue
        lines.append(number)
        for name, value in values.items():
            columns[name].append(value)
    arrays = {name: pa.array(values, _json_type(wanted[name])) for name, values in columns.items()}
    table = _encoded(arrays, kind) if wanted else pa.table({"row": pa.nulls(len(lines))})
    return Rows(table, np.array(lines, np.int64), len(lines) + len(bad), bad, reasons)


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(text.removeprefix(b"\xef\xbb\xbf").decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _values(row: dict[str, Any], wanted: dict[str, pa.DataType]) -> tuple[dict[str, Any], str | None]:
    values = {}
    for name, declared in wanted.items():
        value = row.get(name)
        if name == "ts" and isinstance(value, str):
            value = _seconds(value)
        if value is not None and not _fits(value, declared):
            return {}, f"{name} is not {_NOUN[declared]}"
        values[name] = float(value) if value is not None and pa.types.is_floating(declared) else value
    return values, None


def _seconds(text: str) -> float | str:
    try:
        time = datetime.fromisoformat(text)
        return (time.replace(tzinfo=UTC) if time.tzinfo is None else time).timestamp()
    except (ValueError, OverflowError):
        return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_text(value: Any) -> bool:
    # A lone surrogate is valid JSON, yet no text.
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


_FITS: dict[pa.DataType, Callable[[Any], bool]] = {
    pa.float64(): _is_number,
    pa.int64(): _is_count,
    pa.bool_(): lambda value: isinstance(value, bool),
    pa.string(): _is_text,
}
_NOUN = {
    pa.float64(): "a number",
    pa.int64(): "a whole number",
    pa.bool_(): "true or false",
    pa.string(): "text",
    pa.dictionary(pa.int32(), pa.string()): "text",
    pa.list_(pa.string()): "a list of texts",
    pa.list_(pa.float64()): "a list of numbers",
}


def _fits(value: Any, declared: pa.DataType) -> bool:
    if pa.types.is_list(declared):
        fits = _FITS[declared.value_type]
        return isinstance(value, list) and all(item is None or fits(item) for item in value)
    return _FITS[pa.string() if pa.types.is_dictionary(declared) else declared](value)
