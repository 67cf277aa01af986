"""Zeek's text logs: '#' header lines, then one row a line; also copies with a plain header line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._zeek_fields import EXPECTED, REQUIRED, WANTED, kind_of

_PLAIN = re.compile(rb"(?:\xef\xbb\xbf)?ts([^\w\s.]|\t)uid\1id\.orig_h\1[^\r\n]*")
_FLOAT = re.compile(rb"-?\d{1,18}(\.\d+)?([eE][-+]?\d{1,2})?")
_COUNT = re.compile(rb"-?\d{1,18}")
_PARSE_BYTES = 4 << 20


@dataclass(frozen=True)
class Header:
    """What the header lines said so far."""

    separator: str = "\t"
    set_separator: str = ","
    unset: str = "-"
    empty: str = "(empty)"
    path: str | None = None
    fields: tuple[str, ...] = ()
    kind: str = ""

    def after(self, line: bytes, origin: str) -> Header:
        """The header once a '#' line was read; `origin` names file and line in errors."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        name, _, value = text.partition(" " if text.startswith("#separator ") else self.separator)
        if name == "#separator":
            separator = re.sub(r"\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), value)
            if len(separator) != 1 or separator in "\r\n" or not separator.isascii():
                raise TelemetryError(f"{origin}: the separator {value!r} is no single character")
            return Header(separator)
        if name == "#fields":
            # The IoT-23 copies glue their labels to the last field by three spaces.
            fields = tuple(part.split("   ")[0] for part in value.split(self.separator))
            return replace(self, fields=fields, kind=_kind(fields, self.path, origin))
        if name == "#path":
            return replace(self, path=value)
        if name == "#set_separator" and value:
            return replace(self, set_separator=value)
        if name == "#unset_field":
            return replace(self, unset=value)
        if name == "#empty_field":
            return replace(self, empty=value)
        return self


def plain_header(path: Path, line: bytes) -> Header | None:
    """The header of a copy whose first line only names the fields: "ts|uid|id.orig_h|..."."""
    match = _PLAIN.match(line)
    if not match:
        return None
    separator = match[1].decode("ascii", "replace")
    fields = tuple(match[0].decode("utf-8", "replace").lstrip("\ufeff").split(separator))
    return Header(separator, fields=fields, kind=_kind(fields, None, f"{path}, line 1"))


def first_header(path: Path, head: bytes) -> Header:
    """The header that stands at the start of a text log.

    Raises:
        TelemetryError: there are rows before any line of fields, or no such line at all.
    """
    found = plain_header(path, head)
    if found:
        return found
    header = Header()
    for number, line in enumerate(head.split(b"\n"), 1):
        if not line.startswith(b"#"):
            break
        header = header.after(line, f"{path}, line {number}")
        if header.fields:
            return header
    raise TelemetryError(f"{path} has no #fields line before its first row; expected {EXPECTED}")


def parse(path: Path, block: Block, header: Header) -> Iterator[tuple[Header, Rows]]:
    """The rows of a block, piece by piece between '#' lines, each with the header after it.

    Raises:
        TelemetryError: a '#' line changes the kind of log.
    """
    data, at, line = block.data, 0, block.line
    if line == 1 and _PLAIN.match(data):
        at, line = _end(data, 0), 2
    while at < len(data):
        if data.startswith(b"#", at):
            end = _end(data, at)
            new = header.after(data[at:end], f"{path}, line {line}")
            if header.kind and new.kind not in ("", header.kind):
                raise TelemetryError(
                    f"{path}, line {line}: the log changes from {header.kind} to {new.kind}; "
                    "expected one kind of Zeek log a file"
                )
            # A repeated #separator starts a new header; until its #fields the kind stays.
            header, at, line = replace(new, kind=new.kind or header.kind), end, line + 1
            continue
        end = data.find(b"\n#", at) + 1 or len(data)
        piece, ends = (data[at:end], None) if at or end < len(data) else (data, block.ends)
        ends = piece.count(b"\n") if ends is None else ends
        if not header.fields:
            raise TelemetryError(f"{path}, line {line}: a row before any #fields line; expected {EXPECTED}")
        yield header, _rows(path, piece, line, ends + (not piece.endswith(b"\n")), header)
        line += ends
        at = end
    yield header, Rows(_finish({}, header, 0), np.empty(0, np.int64), 0)


def _rows(path: Path, data: bytes, line: int, count: int, header: Header) -> Rows:
    try:
        table = _table(data, header, _PARSE_BYTES)
        if len(table) == count:
            return Rows(table, np.arange(line, line + count), count)
    except pa.ArrowInvalid:
        pass
    good, lines, bad, reasons = [], [], [], []
    check = _Check(header)
    for number, text in enumerate(data.split(b"\n"), line):
        text = text.removesuffix(b"\r")
        if not text:
            continue
        reason = check.fault(text)
        if reason:
            bad.append(number)
            reasons.append(reason)
        else:
            good.append(text)
            lines.append(number)
    table = _finish({}, header, 0)
    if good:
        try:
            table = _table(b"\n".join(good), header, len(data) + 1)
        except pa.ArrowInvalid as error:
            raise TelemetryError(f"{path}, lines from {line}: not readable as {EXPECTED} ({error})") from None
        if len(table) != len(good):
            raise TelemetryError(f"{path}, lines from {line}: not readable as {EXPECTED}")
    return Rows(table, np.array(lines, np.int64), len(good) + len(bad), bad, reasons)


class _Check:
    """Says what is wrong with a line; only used on blocks that did not parse as a whole."""

    def __init__(self, header: Header) -> None:
        self.separator = header.separator.encode()
        self.fields = header.fields
        self.missing = {header.unset.encode(), header.empty.encode(), b""}
        wanted = WANTED[header.kind]
        patterns = {pa.float64(): _FLOAT, pa.int64(): _COUNT}
        self.wanted = [(i, patterns.get(wanted[f])) for i, f in enumerate(header.fields) if f in wanted]

    def fault(self, text: bytes) -> str | None:
        parts = text.split(self.separator)
        if len(parts) != len(self.fields):
            return f"{len(parts)} columns instead of {len(self.fields)}"
        if b"\r" in text:
            return "stray carriage return"
        for index, pattern in self.wanted:
            value = parts[index]
            if pattern and value not in self.missing and not pattern.fullmatch(value):
                return f"{self.fields[index]} is not a number"
            try:
                value.decode()
            except UnicodeDecodeError:
                return f"{self.fields[index]} is not UTF-8"
        return None


def _table(data: bytes, header: Header, block: int) -> pa.Table:
    wanted = WANTED[header.kind]
    # Unread columns get names that cannot clash.
    names = [
        f if f in wanted and f not in header.fields[:i] else f"#{i}" for i, f in enumerate(header.fields)
    ]
    include = [name for name in names if name in wanted] or names[:1]
    types = {name: _csv_type(wanted.get(name, pa.string())) for name in include}
    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(column_names=names, block_size=block),
        parse_options=pacsv.ParseOptions(
            delimiter=header.separator,
            quote_char=False,
            double_quote=False,
            escape_char=False,
            ignore_empty_lines=False,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            include_columns=include,
            null_values=[header.unset, header.empty, ""],
            strings_can_be_null=True,
        ),
    )
    columns = {name: table[name] for name in include if name in wanted}
    return _finish(columns, header, len(table))


def _csv_type(declared: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_list(declared) or pa.types.is_boolean(declared) else declared


def _finish(columns: dict[str, pa.ChunkedArray], header: Header, rows: int) -> pa.Table:
    """All wanted columns, in their declared types; absent ones are null."""
    out = {}
    for name, declared in WANTED[header.kind].items():
        column = columns.get(name)
        if column is None:
            column = pa.nulls(rows, declared)
        elif pa.types.is_boolean(declared):
            column = pc.equal(column, "T")
        elif pa.types.is_list(declared):
            parts = pc.split_pattern(column, header.set_separator)
            column = parts if declared == parts.type else _numbers(parts)
        out[name] = column
    if not out:
        return pa.table({"row": pa.nulls(rows)})
    return pa.table(out)


def _numbers(parts: pa.ChunkedArray) -> pa.Array:
    """Lists of text as lists of numbers; what is none becomes null."""
    lists = one_array(parts)
    values = lists.flatten()
    numeric = pc.match_substring_regex(values, r"^-?\d{1,18}(\.\d+)?$")
    numbers = pc.if_else(numeric, values, None).cast(pa.float64())
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=lists.is_null())


def _kind(fields: tuple[str, ...], path: str | None, origin: str) -> str:
    kind = kind_of(fields, path)
    missing = [name for name in REQUIRED[kind] if name not in fields]
    if missing:
        raise TelemetryError(f"{origin}: a Zeek {kind} log without the field {missing[0]}")
    return kind


def _end(data: bytes, at: int) -> int:
    return data.find(b"\n", at) + 1 or len(data)
