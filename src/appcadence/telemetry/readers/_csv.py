"""Text tables with one row per line, as columns; only the wanted columns are kept."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from appcadence._types import Ints
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _lines
from appcadence.telemetry.readers._lines import Block, Rows

Choose = Callable[[Sequence[str]], Mapping[str, str]]
"""From the names in the header to {our name: name in the header}; raises UnusableFile if one is missing."""
Known = Mapping[str, tuple[str, ...]]
"""The names that each wanted column may have in a header, in lower case."""

_PARSE_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"
_FORMS = {
    pa.float64(): re.compile(r"-?\d{1,18}(\.\d+)?([eE][-+]?\d{1,2})?", re.ASCII),
    pa.int64(): re.compile(r"-?\d{1,18}", re.ASCII),
}


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str = ","
    quoted: bool = True
    """Whether values may be quoted; a value never contains a line end."""
    nulls: tuple[str, ...] = ("",)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)
    """Types of columns that are not plain text: float64, int64 or a dictionary of texts."""
    ragged: bool = False
    """Whether lines may differ in width; missing values are null."""


def header(start: bytes, delimiter: str = ",") -> list[str]:
    """The stripped names in the first line; none if it is no text."""
    try:
        end = start.find(b"\n")
        text = start[: len(start) if end < 0 else end].decode("utf-8-sig").strip("\r\n")
        return [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    except (UnicodeDecodeError, csv.Error):
        return []


def delimiter(start: bytes) -> str:
    """The delimiter of the first line: the commonest of the usual characters."""
    first = start[: start.find(b"\n") % (len(start) + 1)]
    return max(",;\t|", key=lambda one: first.count(one.encode()))


def fits(start: bytes, known: Known, required: Collection[str]) -> bool:
    """Whether the first line names all required columns."""
    return set(required) <= _named(header(start, delimiter(start)), known).keys()


def choose(
    path: Path, expected: str, known: Known, required: Sequence[str], names: Sequence[str]
) -> dict[str, str]:
    """The known columns among those of a header.

    Raises:
        UnusableFile: a required column is absent.
    """
    found = _named(names, known)
    for ours in required:
        if ours not in found:
            lacks = " or ".join(known[ours])
            raise UnusableFile(f"{path} is not {expected}: it has no column {lacks}", path)
    return found


def _named(names: Sequence[str], known: Known) -> dict[str, str]:
    present = {name.lower(): name for name in reversed(names)}
    found = {ours: [present[name] for name in theirs if name in present] for ours, theirs in known.items()}
    return {ours: theirs[0] for ours, theirs in found.items() if theirs}


def read(
    path: Path, expected: str, choose: Choose, delimiter: str = ",", until: bytes | None = None
) -> Iterator[Rows]:
    """The rows of a table with a header line, block by block; an empty value is null.

    Args:
        path: the file, plain or gzip.
        expected: what the file should be, for errors.
        choose: picks the columns.
        delimiter: between values.
        until: the start of the line that ends the rows, unless another header follows it.
    """
    # So that an empty file is reported as empty.
    _lines.head(path, expected, 1)
    dialect = Dialect(delimiter)
    names: list[str] = []
    wanted: dict[str, int] = {}
    top, ended = b"", False
    for block in _lines.blocks(path, expected):
        data, line, ends = block.data, block.line, block.ends
        if block.first:
            names, (top, _, data), line = header(data, delimiter), data.partition(b"\n"), line + 1
            top, ends = top.removeprefix(_BOM).strip(), max(ends - 1, 0)
            if not names:
                raise UnusableFile(f"{path} is not {expected}: its first line is no text", path)
            wanted = {ours: names.index(theirs) for ours, theirs in choose(names).items()}
        numbers, length = None, len(data)
        if top in data:
            data, numbers, ended = _rows_below_headers(data, line, top, until, ended)
        elif ended:
            data = b""
        elif until is not None and (at := _line_with(until, data)) >= 0:
            data, ended = data[:at], True
        ends = ends if len(data) == length else data.count(b"\n")
        yield rows(Block(data, line, ends, block.size, numbers), wanted, len(names), dialect)


def _rows_below_headers(
    data: bytes, line: int, top: bytes, until: bytes | None, ended: bool
) -> tuple[bytes, Ints, bool]:
    """The rows of a block with headers inside, as in concatenated tables: their lines, the line numbers, and
    whether the last table has ended."""
    kept, numbers = [], []
    for number, raw in enumerate(data.split(b"\n"), line):
        if raw.strip().removeprefix(_BOM) == top:
            ended = False
            continue
        ended = ended or (until is not None and raw.startswith(until))
        if not ended:
            kept.append(raw)
            numbers.append(number)
    body = b"\n".join(kept)
    return body, np.array(numbers[: len(numbers) - body.endswith(b"\n")], np.int64), ended


def _line_with(start: bytes, data: bytes) -> int:
    """Where the first line with this start begins; -1 = nowhere."""
    # Searching for one byte is far faster than for several.
    if data.startswith(start) or start[-1:] not in data:
        return 0 if data.startswith(start) else -1
    return data.find(b"\n" + start) + 1 or -1


def rows(block: Block, wanted: Mapping[str, int], width: int, dialect: Dialect) -> Rows:
    """The rows of a block of `width` columns, and the lines that do not fit.

    `wanted` gives the place of each column.
    """
    first = block.data[: block.data.find(b"\n")].rstrip(b"\r")
    # A forwarder may end every line with an extra separator.
    more = first.endswith(dialect.delimiter.encode()) and first.count(dialect.delimiter.encode()) == width
    try:
        table = _table(block.data, wanted, width + more, dialect)
        if len(table) == block.count:
            return Rows(table, block.lines, block.count, size=block.size)
    except pa.ArrowInvalid:
        pass
    return _line_by_line(block, wanted, width, dialect)


def _table(data: bytes, wanted: Mapping[str, int], width: int, dialect: Dialect) -> pa.Table:
    # Unwanted columns may have clashing names, so columns are numbered.
    types = {f"#{index}": dialect.types.get(ours, pa.string()) for ours, index in wanted.items()}
    table = pacsv.read_csv(
        pa.BufferReader(data),
        read_options=pacsv.ReadOptions(column_names=[f"#{i}" for i in range(width)], block_size=_PARSE_BYTES),
        parse_options=pacsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            double_quote=dialect.quoted,
            escape_char=False,
            ignore_empty_lines=False,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=types,
            include_columns=sorted(types) or ["#0"],
            null_values=list(dialect.nulls),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
        ),
    )
    columns = {ours: table[f"#{index}"] for ours, index in wanted.items()}
    return pa.table(columns or {"row": pa.nulls(len(table))})


def _line_by_line(block: Block, wanted: Mapping[str, int], width: int, dialect: Dialect) -> Rows:
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    lines, bad = [], []
    for number, raw in zip(block.lines.tolist(), block.data.split(b"\n"), strict=False):
        if not raw.strip():
            continue
        values, reason = _values(raw.removesuffix(b"\r"), wanted, width, dialect)
        if reason:
            bad.append((number, reason))
            continue
        lines.append(number)
        for name, value in zip(wanted, values, strict=True):
            columns[name].append(value)
    arrays = {name: _typed(values, dialect.types.get(name, pa.string())) for name, values in columns.items()}
    table = pa.table(arrays or {"row": pa.nulls(len(lines))})
    return Rows(table, np.array(lines, np.int64), len(lines) + len(bad), bad, block.size)


def _values(
    raw: bytes, wanted: Mapping[str, int], width: int, dialect: Dialect
) -> tuple[list[str | None], str | None]:
    """The wanted values of a line, or what is wrong with it."""
    try:
        parts: Sequence[str | bytes] = split(raw, dialect)
    except UnicodeDecodeError:
        return [], "not UTF-8"
    except csv.Error:
        return [], "not readable as CSV"
    if dialect.ragged:
        parts = [*parts, *[""] * (width - len(parts))]
    elif len(parts) != width and not (len(parts) == width + 1 and not parts[-1]):
        return [], f"{len(parts)} columns instead of {width}"
    if not dialect.quoted and b"\r" in raw:
        return [], "stray carriage return"
    values: list[str | None] = []
    for name, index in wanted.items():
        part = parts[index]
        try:
            value = part if isinstance(part, str) else part.decode()
        except UnicodeDecodeError:
            return [], f"{name} is not UTF-8"
        form = _FORMS.get(dialect.types.get(name, pa.string()))
        if value in dialect.nulls:
            values.append(None)
        elif form is None or form.fullmatch(value):
            values.append(value)
        else:
            return [], f"{name} is not a number"
    return values, None


def split(raw: bytes, dialect: Dialect) -> Sequence[str | bytes]:
    """The values of a line.

    Raises:
        csv.Error, UnicodeDecodeError: the line cannot be read.
    """
    if not dialect.quoted:
        return raw.split(dialect.delimiter.encode())
    lines = csv.reader(
        [raw.decode()], delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.ragged
    )
    return next(lines, [])


def _typed(values: list[str | None], declared: pa.DataType) -> pa.Array:
    array = pa.array(values, pa.string())
    return array.dictionary_encode() if pa.types.is_dictionary(declared) else array.cast(declared)
