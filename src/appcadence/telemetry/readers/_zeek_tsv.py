"""Zeek's text logs: '#' header lines, then one row per line; also copies with a plain header line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import UnusableFile
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers import _csv, _lines
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._zeek_fields import EXPECTED, REQUIRED, WANTED, kind_of

_BOM = b"\xef\xbb\xbf"
_PLAIN = re.compile(rb"ts([^\w\s.]|\t)uid\1id\.orig_h\1[^\r\n]*")
_STARTS = (b"#separator", b"#set_separator", b"#empty_field", b"#unset_field", b"#path", b"#fields")


@dataclass(frozen=True)
class Header:
    """The content of the header lines so far."""

    separator: str = "\t"
    set_separator: str = ","
    unset: str = "-"
    empty: str = "(empty)"
    path: str | None = None
    fields: tuple[str, ...] = ()
    kind: str = ""

    def after(self, line: bytes, path: Path, number: int) -> Header:
        """The header after a further '#' line; file and number are for errors."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        name, _, value = text.partition(" " if text.startswith("#separator ") else self.separator)
        if name == "#separator":
            separator = re.sub(r"\\x([0-9a-fA-F]{2})", lambda m: chr(int(m[1], 16)), value)
            if len(separator) != 1 or separator in "\r\n" or not separator.isascii():
                raise _fault(path, number, f"the separator {value!r} is not a single character")
            return Header(separator)
        if name == "#fields":
            # The IoT-23 copies append their labels to the last field with three spaces.
            fields = tuple(part.split("   ")[0] for part in value.split(self.separator))
            return replace(self, fields=fields, kind=_kind(fields, self.path, path, number))
        if name == "#path":
            return replace(self, path=value)
        if name == "#set_separator" and value:
            return replace(self, set_separator=value)
        if name == "#unset_field":
            return replace(self, unset=value)
        if name == "#empty_field":
            return replace(self, empty=value)
        return self


def is_text(start: bytes) -> bool:
    """Whether a file with this start is a text log."""
    start = start.removeprefix(_BOM)
    return start.startswith(_STARTS) or _PLAIN.match(start) is not None


def kind(path: Path, start: bytes) -> str:
    """The kind of a text log with this start.

    Raises:
        UnusableFile: there are rows before any line of fields, or no such line at all.
    """
    start = start.removeprefix(_BOM)
    header = _plain_header(path, start) or Header()
    for number, line in enumerate(start.split(b"\n"), 1):
        if header.fields or not line.startswith(b"#"):
            break
        header = header.after(line, path, number)
    if not header.fields:
        raise UnusableFile(f"{path} has no #fields line before its first row; expected {EXPECTED}", path)
    return header.kind


def rows(path: Path, kind: str) -> Iterator[Rows]:
    """The rows of a text log of a kind, piece by piece between '#' lines.

    Raises:
        UnusableFile: the file cannot be read, a '#' line changes the kind, or a row comes before any #fields.
    """
    header = Header(kind=kind)
    for block in _lines.blocks(path, EXPECTED):
        data, at, line, size = block.data, 0, block.line, block.size
        if block.first:
            data = data.removeprefix(_BOM)
            if plain := _plain_header(path, data):
                header, at, line = plain, _end(data, 0), 2
        while at < len(data):
            if data.startswith(b"#", at):
                end = _end(data, at)
                new = header.after(data[at:end], path, line)
                if new.kind not in ("", kind):
                    what = f"the log changes from {kind} to {new.kind}; expected one kind of log per file"
                    raise _fault(path, line, what)
                # A repeated #separator starts a new header; the kind stays until its #fields.
                header, at, line = replace(new, kind=kind), end, line + 1
                continue
            if not header.fields:
                raise _fault(path, line, f"a row comes before any #fields line; expected {EXPECTED}")
            end = data.find(b"\n#", at) + 1 or len(data)
            piece = Block(data[at:end], line, data.count(b"\n", at, end), size)
            yield _rows(piece, header)
            at, line, size = end, line + piece.ends, 0
        if size:
            yield _rows(Block(b"", line, 0, size), header)


def _plain_header(path: Path, start: bytes) -> Header | None:
    """The header of a copy whose first line only names the fields: "ts|uid|id.orig_h|..."."""
    match = _PLAIN.match(start)
    if not match:
        return None
    separator = match[1].decode("ascii", "replace")
    fields = tuple(match[0].decode("utf-8", "replace").split(separator))
    return Header(separator, fields=fields, kind=_kind(fields, None, path, 1))


def _rows(block: Block, header: Header) -> Rows:
    declared = WANTED[header.kind]
    wanted = {name: header.fields.index(name) for name in declared if name in header.fields}
    types = {n: t for n, t in declared.items() if not (pa.types.is_list(t) or pa.types.is_boolean(t))}
    dialect = _csv.Dialect(header.separator, False, (header.unset, header.empty, ""), types)
    rows = _csv.rows(block, wanted, len(header.fields), dialect)
    return replace(rows, table=_finish(rows.table, header))


def _finish(rows: pa.Table, header: Header) -> pa.Table:
    """All wanted columns, in their declared types; absent ones are null."""
    out = {}
    for name, declared in WANTED[header.kind].items():
        if name not in rows.column_names:
            column = pa.nulls(len(rows), declared)
        elif pa.types.is_boolean(declared):
            column = pc.equal(rows[name], "T")
        elif pa.types.is_list(declared):
            parts = pc.split_pattern(rows[name], header.set_separator)
            column = parts if declared == parts.type else _numbers(parts)
        else:
            column = rows[name]
        out[name] = column
    return pa.table(out) if out else rows


def _numbers(parts: pa.ChunkedArray) -> pa.Array:
    """Lists of text as lists of numbers; other text becomes null."""
    lists = one_array(parts)
    values = lists.flatten()
    numeric = pc.match_substring_regex(values, r"^-?\d{1,18}(\.\d+)?$")
    numbers = pc.if_else(numeric, values, None).cast(pa.float64())
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), numbers, mask=lists.is_null())


def _kind(fields: tuple[str, ...], stated: str | None, path: Path, number: int) -> str:
    kind = kind_of(fields, stated)
    missing = [name for name in REQUIRED[kind] if name not in fields]
    if missing:
        raise _fault(path, number, f"the Zeek {kind} log lacks the field {missing[0]}")
    return kind


def _fault(path: Path, number: int, what: str) -> UnusableFile:
    return UnusableFile(f"{path}, line {number}: {what}", path)


def _end(data: bytes, at: int) -> int:
    return data.find(b"\n", at) + 1 or len(data)
