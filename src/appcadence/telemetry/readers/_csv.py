"""Text tables with a header line, as columns of text; only the wanted columns are kept."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import _lines
from appcadence.telemetry.readers._lines import Block, Rows

Choose = Callable[[Sequence[str]], Mapping[str, str]]
"""From the names in the header to {our name: name in the header}; raises TelemetryError if they do not do."""

_PARSE_BYTES = 4 << 20


def header(path: Path, expected: str, delimiter: str = ",") -> list[str]:
    """The names in the first line, stripped.

    Raises:
        TelemetryError: the file cannot be read, or its first line is no text.
    """
    head = _lines.head(path, expected)
    return _names(head.split(b"\n", 1)[0], path, expected, delimiter)


def read(
    path: Path, expected: str, choose: Choose, delimiter: str = ",", until: bytes | None = None
) -> Iterator[tuple[Rows, int]]:
    """The rows block by block, each with the bytes of the file read for it; an empty value is null.

    Args:
        path: the file, plain or gzip.
        expected: what the file should be, for errors.
        choose: picks the columns.
        delimiter: between values. Values may be quoted, yet hold no line end.
        until: the start of the line after which there are no more rows.
    """
    # So that an empty file is said to be one.
    _lines.head(path, expected, 1)
    names: list[str] = []
    wanted: dict[str, int] = {}
    ended = False
    for block in _lines.blocks(path, expected):
        data, line = block.data, block.line
        if line == 1:
            first, _, data = data.partition(b"\n")
            names, line = _names(first, path, expected, delimiter), 2
            wanted = {ours: names.index(theirs) for ours, theirs in choose(names).items()}
        if ended:
            data = b""
        elif until is not None and (at := (b"\n" + data).find(b"\n" + until)) >= 0:
            data, ended = data[:at], True
        yield _rows(Block(data, line, data.count(b"\n"), 0), wanted, len(names), delimiter), block.size


def _names(first: bytes, path: Path, expected: str, delimiter: str) -> list[str]:
    try:
        text = first.decode("utf-8-sig").strip("\r\n")
        return [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    except (UnicodeDecodeError, csv.Error):
        raise TelemetryError(f"{path} is not {expected}: its first line is no text") from None


def _rows(block: Block, wanted: Mapping[str, int], width: int, delimiter: str) -> Rows:
    count = block.ends + (not block.data.endswith(b"\n")) if block.data else 0
    if not count:
        return Rows(pa.table({name: pa.nulls(0, pa.string()) for name in wanted}), np.empty(0, np.int64), 0)
    try:
        table = _table(block.data, wanted, width, delimiter)
        if len(table) == count:
            return Rows(table, np.arange(block.line, block.line + count), count)
    except pa.ArrowInvalid:
        pass
    return _line_by_line(block, wanted, width, delimiter)


def _table(data: bytes, wanted: Mapping[str, int], width: int, delimiter: str) -> pa.Table:
    include = sorted({f"#{index}" for index in wanted.values()})
    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(column_names=[f"#{i}" for i in range(width)], block_size=_PARSE_BYTES),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(
            column_types={name: pa.string() for name in include},
            include_columns=include,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )
    return pa.table({ours: table[f"#{index}"] for ours, index in wanted.items()})


def _line_by_line(block: Block, wanted: Mapping[str, int], width: int, delimiter: str) -> Rows:
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    lines, bad, reasons = [], [], []
    for number, raw in enumerate(block.data.split(b"\n"), block.line):
        if not raw.strip():
            continue
        values, reason = _values(raw, width, delimiter)
        if reason:
            bad.append(number)
            reasons.append(reason)
            continue
        lines.append(number)
        for name, index in wanted.items():
            columns[name].append(values[index] or None)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    return Rows(table, np.array(lines, np.int64), len(lines) + len(bad), bad, reasons)


def _values(raw: bytes, width: int, delimiter: str) -> tuple[list[str], str | None]:
    try:
        values = next(csv.reader([raw.decode().rstrip("\r\n")], delimiter=delimiter, strict=True), [])
    except UnicodeDecodeError:
        return [], "not UTF-8"
    except csv.Error:
        return [], "not readable as CSV"
    if len(values) != width:
        return [], f"{len(values)} columns instead of {width}"
    return values, None
