"""JSON objects as tables of the wanted fields; other fields are never kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as pajson

from appcadence.telemetry.readers import _json_columns
from appcadence.telemetry.readers._json_layout import Fits, blocks, check, objects
from appcadence.telemetry.readers._lines import Block, Rows

Fields = Mapping[str, pa.DataType]
Check = tuple[str, pa.DataType, Callable[[Any], bool], str | None]
"""A field, its type, whether a value is plain (see _PLAIN), and what is wrong with the others, if known."""
Adapt = Callable[[dict[str, Any]], dict[str, Any]]
"""Changes a row before its fields are checked, where a log writes one field in several ways."""

NO_OBJECT = "not a JSON object"
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,19}(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?")
_TRUTHS = {"true": True, "t": True, "false": False, "f": False}
_PARSE_BYTES = 4 << 20
_BARE_NULL = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|[\n}])[ \t\r]*null")


def rows(
    path: Path, expected: str, wanted: Fields, fits: Fits | None = None, adapt: Adapt | None = None
) -> Iterator[Rows]:
    """The rows of a file, block by block; see `parse`. One of its first objects must pass `fits`.

    Raises:
        UnusableFile: none does; or the file is missing, empty, unreadable or damaged.
    """
    if fits is not None:
        check(path, expected, fits)
    for block in blocks(path, expected):
        yield parse(block, wanted, adapt)


def parse(block: Block, wanted: Fields, adapt: Adapt | None = None) -> Rows:
    """The rows of a block, and the lines that do not fit.

    `wanted` may hold structs and lists; an absent field is null. `adapt` is called only for blocks that do
    not parse as they are.
    """
    types = {name: plain_type(declared) for name, declared in wanted.items()}
    try:
        if plain := _json_columns.columns(block.data, block.count, types):
            return Rows(_checked(plain, wanted), block.lines, block.count, size=block.size)
    except pa.ArrowInvalid:
        pass
    # Arrow's reader crashes if the first object it sees is null.
    if not (b"null" in block.data and _BARE_NULL.search(block.data)):
        try:
            table = _table(block.data, wanted)
            if len(table) == block.count:
                return Rows(table, block.lines, block.count, size=block.size)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    return _line_by_line(block, wanted, adapt)


def _table(data: bytes, wanted: Fields) -> pa.Table:
    schema = pa.schema([(name, plain_type(declared)) for name, declared in wanted.items()])
    table = pajson.read_json(
        pa.BufferReader(data),
        read_options=pajson.ReadOptions(block_size=_PARSE_BYTES),
        parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    if not wanted:
        return pa.table({"row": pa.nulls(len(table))})
    return _checked({name: table[name] for name in wanted}, wanted)


def _checked(columns: dict[str, Any], wanted: Fields) -> pa.Table:
    encoded = _encoded(columns, wanted)
    # Nothing has checked yet that the text is UTF-8.
    for column in encoded.columns:
        column.validate(full=True)
    return encoded


def plain_type(declared: pa.DataType) -> pa.DataType:
    """The type in JSON, where words are plain strings."""
    return pa.string() if pa.types.is_dictionary(declared) else declared


def _encoded(columns: dict[str, Any], wanted: Fields) -> pa.Table:
    words = {
        name: c.dictionary_encode() for name, c in columns.items() if pa.types.is_dictionary(wanted[name])
    }
    return pa.table(columns | words)


def _line_by_line(block: Block, wanted: Fields, adapt: Adapt | None) -> Rows:
    columns: dict[str, list[Any]] = {name: [] for name in wanted}
    checks = [_check(name, declared) for name, declared in wanted.items()]
    lines, bad = [], []
    for number, row in objects(block):
        if row is None:
            reason: str | None = NO_OBJECT
        else:
            values, reason = _values(adapt(row) if adapt else row, checks)
        if reason:
            bad.append((number, reason))
            continue
        lines.append(number)
        for name, value in values.items():
            columns[name].append(value)
    arrays = {name: pa.array(values, plain_type(wanted[name])) for name, values in columns.items()}
    table = _encoded(arrays, wanted) if wanted else pa.table({"row": pa.nulls(len(lines))})
    return Rows(table, np.array(lines, np.int64), len(lines) + len(bad), bad, block.size)


def _check(name: str, declared: pa.DataType) -> Check:
    kind = plain_type(declared)
    fixed = kind in _FITS and not pa.types.is_floating(kind)
    return name, declared, _PLAIN.get(kind, _never), f"{name} is not {_NOUN[kind][0]}" if fixed else None


def _values(row: dict[str, Any], checks: Sequence[Check]) -> tuple[dict[str, Any], str | None]:
    values = {}
    for name, declared, plain, fixed in checks:
        value = row.get(name)
        if value is not None and not plain(value):
            value = _unquoted(value, declared)
            fault = None if plain(value) else fixed or _fault(name, value, declared)
            if fault:
                return {}, fault
            value = _cut(value, declared)
        values[name] = value
    return values, None


def _unquoted(value: Any, declared: pa.DataType) -> Any:
    """A quoted number or boolean without its quotation marks; in an object, likewise for its parts."""
    if isinstance(value, dict) and pa.types.is_struct(declared):
        parts = {field.name: _unquoted(value.get(field.name), field.type) for field in declared}
        return value | {name: part for name, part in parts.items() if part is not None}
    if not isinstance(value, str):
        return value
    text = value.strip()
    if pa.types.is_boolean(declared):
        return _TRUTHS.get(text.lower(), value)
    if pa.types.is_integer(declared) and _WHOLE.fullmatch(text):
        return int(text)
    if pa.types.is_floating(declared) and _NUMBER.fullmatch(text):
        return float(text)
    return value


def _fault(name: str, value: Any, declared: pa.DataType) -> str | None:
    """What is wrong with the value of a field, if anything."""
    if pa.types.is_struct(declared):
        if not isinstance(value, dict):
            return f"{name} is not an object"
        parts = ((f"{name}.{f.name}", value.get(f.name), f.type) for f in declared)
        return next(filter(None, (_fault(*part) for part in parts if part[1] is not None)), None)
    if pa.types.is_list(declared):
        noun = "objects" if pa.types.is_struct(declared.value_type) else _NOUN[declared.value_type][1]
        items = value if isinstance(value, list) else [None]
        fits = isinstance(value, list) and not any(
            _fault(name, item, declared.value_type) for item in items if item is not None
        )
        return None if fits else f"{name} is not a list of {noun}"
    if not _FITS[plain_type(declared)](value):
        return f"{name} is not {_NOUN[plain_type(declared)][0]}"
    return None


def _cut(value: Any, declared: pa.DataType) -> Any:
    """The value with only the wanted fields."""
    if value is None:
        return None
    if pa.types.is_struct(declared):
        return {f.name: _cut(value.get(f.name), f.type) for f in declared}
    if pa.types.is_list(declared):
        return [_cut(item, declared.value_type) for item in value]
    return float(value) if pa.types.is_floating(declared) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_text(value: Any) -> bool:
    # A lone surrogate is valid JSON but not valid text.
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value))


def _never(_: Any) -> bool:
    return False


_FITS: dict[pa.DataType, Callable[[Any], bool]] = {
    pa.float64(): _is_number,
    pa.int64(): _is_count,
    pa.bool_(): lambda value: isinstance(value, bool),
    pa.string(): _is_text,
}
_PLAIN = _FITS | {pa.float64(): lambda value: isinstance(value, float) and _is_number(value)}
"""Whether a value fits as it is; checked first, because most values do."""
_NOUN = {
    pa.float64(): ("a number", "numbers"),
    pa.int64(): ("a whole number", "whole numbers"),
    pa.bool_(): ("true or false", "truths"),
    pa.string(): ("text", "texts"),
}
