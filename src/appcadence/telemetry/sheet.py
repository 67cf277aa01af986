"""Tables that users keep in files: Parquet, or CSV with a header line, whose rows must all be valid."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from appcadence._inputs import open_input, read_bytes
from appcadence._parquet import read_parquet
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import Table, conform

MAX_BYTES = 64 << 20


def read_sheet(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The line number of each row, and its values by header name, stripped of blanks.

    An absent value is "".

    Raises:
        TelemetryError: the file is unreadable, lacks a needed column, or a row has more values than columns.
    """
    wanted = ", ".join(needed)
    try:
        text = read_bytes(path, MAX_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = names
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TelemetryError(
            f"{path} cannot be read ({reason}); expected CSV with the columns {wanted}"
        ) from None
    if not set(needed) <= set(names):
        found = ", ".join(names) or "nothing"
        raise TelemetryError(f"{path}, line 1: the columns must be {wanted}; found {found}")
    for line, row in rows:
        if None in row:
            raise TelemetryError(f"{path}, line {line} has more values than columns")
    return [(line, {name: (value or "").strip() for name, value in row.items()}) for line, row in rows]


def read_named(file: Path, table: Table) -> pa.Table:
    """A Parquet file that holds one canonical table.

    Raises:
        TelemetryError: it cannot be read.
        SchemaError: it does not fit the declaration.
    """
    try:
        with open_input(file) as stream:
            found = read_parquet(stream)
    except (OSError, pa.ArrowException) as error:
        raise TelemetryError(f"{file} is not a readable {table.name} file ({error})") from None
    return conform(table, found, str(file))
