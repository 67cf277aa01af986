"""Analysts' decisions on windows: from words to the verdicts table, and each analyst's last word."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

import pandas as pd
import pyarrow as pa

from appcadence._files import open_input
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import VERDICTS, conform

WINDOW = ("device_id", "app_id", "dest", "window_start", "window_end")
CHOICES = VERDICTS.column("verdict").values

_TIMES = ("window_start", "window_end")


@dataclass(frozen=True)
class Draft:
    """One decision in words: a window, `verdict`, `analyst` and `justification`."""

    values: Mapping[str, str | None]
    origin: str = ""
    """Begins what is said about it, such as "FILE, line 3: "."""


def decisions(drafts: Sequence[Draft], decided_at: datetime) -> pa.Table:
    """The verdicts table of decisions in words.

    Times are ISO 8601, UTC where they carry no offset; an empty `app_id` is an unknown app.

    Raises:
        TelemetryError: a value is missing, no verdict, no time or no text, or a window ends before it begins.
    """
    rows = [_row(draft.values, draft.origin) for draft in drafts]
    columns = {c.name: [row.get(c.name) for row in rows] for c in VERDICTS.columns}
    columns["decided_at"] = [decided_at] * len(rows)
    arrays = {c.name: pa.array(columns[c.name], _plain_type(c.type)) for c in VERDICTS.columns}
    return conform(VERDICTS, pa.table(arrays))


def from_csv(path: str | Path, needed: Sequence[str]) -> tuple[list[Draft], int]:
    """The decisions in a CSV file, and how many of its lines hold none: lines without a verdict are no error.

    Raises:
        TelemetryError: the file is unreadable, or `verdict` or one of the `needed` columns is absent.
    """
    path = Path(path)
    try:
        with TextIOWrapper(open_input(path), encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
            missing = [name for name in (*needed, "verdict") if name not in reader.fieldnames]
            if missing:
                raise TelemetryError(f"{path}, line 1: the column {missing[0]} is missing")
            drafts = [Draft(row, f"{path}, line {reader.line_num}: ") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise TelemetryError(f"{path} cannot be read ({reason}); expected CSV with a header") from None
    decided = [draft for draft in drafts if (draft.values["verdict"] or "").strip()]
    return decided, len(drafts) - len(decided)


def latest_decisions(verdicts: pa.Table) -> pd.DataFrame:
    """The verdicts table as a frame of plain objects, without what the same analyst said later otherwise.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    frame = conform(VERDICTS, verdicts, "verdicts").to_pandas()
    names = {c.name: object for c in VERDICTS.columns if c.name not in (*_TIMES, "decided_at")}
    frame = frame.astype(names).sort_values("decided_at", kind="stable")
    frame = frame.drop_duplicates([*WINDOW, "analyst"], keep="last").sort_index()
    return pd.DataFrame(frame.reset_index(drop=True))


def _row(row: Mapping[str, str | None], origin: str) -> dict[str, str | datetime | None]:
    out: dict[str, str | datetime | None] = {}
    for column in VERDICTS.columns:
        name = column.name
        if name == "decided_at":
            continue
        text = (row.get(name) or "").strip()
        if not text and not column.nullable:
            raise TelemetryError(f"{origin}{name} is missing")
        if not _encodable(text):
            raise TelemetryError(f"{origin}{name} is no valid text: {text!r}")
        out[name] = _time(text, name, origin) if name in _TIMES else text or None
    if out["verdict"] not in CHOICES:
        raise TelemetryError(f"{origin}verdict is {out['verdict']!r}; expected {', '.join(CHOICES)}")
    start, end = out["window_start"], out["window_end"]
    if isinstance(start, datetime) and isinstance(end, datetime) and end <= start:
        raise TelemetryError(f"{origin}window_end must be later than window_start")
    return out


def _time(text: str, name: str, origin: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise TelemetryError(
            f"{origin}{name} is {text!r}; expected an ISO time such as 2026-11-24T08:00:00Z"
        ) from None


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_type(declared: pa.DataType) -> pa.DataType:
    return declared.value_type if pa.types.is_dictionary(declared) else declared
