"""CSV files that people keep: a header line, then rows of which each must be right."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from appcadence._inputs import read_bytes
from appcadence.errors import TelemetryError

MAX_BYTES = 64 << 20


def read_sheet(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line of each row, and its values by the names in the header, without blanks around them.

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
            raise TelemetryError(f"{path}, line {line}: more values than columns")
    return [(line, {name: (value or "").strip() for name, value in row.items()}) for line, row in rows]
