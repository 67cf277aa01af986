"""Analysts' decisions on windows: from text to the verdicts table, and each analyst's latest decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import VERDICTS, conform
from appcadence.telemetry.sheet import read_sheet
from appcadence.telemetry.times import stated

WINDOW = ("device_id", "app_id", "dest", "window_start", "window_end")
CHOICES = VERDICTS.column("verdict").values

_TIMES = ("window_start", "window_end")


@dataclass(frozen=True)
class Draft:
    """One decision in words: a window, `verdict`, `analyst` and `justification`."""

    values: Mapping[str, str | None]
    origin: str = ""
    """The prefix of error messages about it, such as "FILE, line 3: "."""


def decisions(drafts: Sequence[Draft], decided_at: datetime) -> pa.Table:
    """The verdicts table of decisions given as text.

    Times are ISO 8601, in UTC if they carry no offset; an empty `app_id` is an unknown app.

    Raises:
        TelemetryError: a value is missing or is no valid verdict, time or text, or a window ends before it
            begins.
    """
    rows = [_row(draft.values, draft.origin) | {"decided_at": decided_at} for draft in drafts]
    return VERDICTS.of_rows(rows)


def from_csv(path: str | Path, needed: Sequence[str]) -> tuple[list[Draft], int]:
    """The decisions in a CSV file, and how many of its lines have no verdict, which is no error.

    Raises:
        TelemetryError: the file is unreadable, or `verdict` or one of the `needed` columns is absent.
    """
    path = Path(path)
    rows = read_sheet(path, (*needed, "verdict"))
    decided = [Draft(row, f"{path}, line {line}: ") for line, row in rows if row["verdict"]]
    return decided, len(rows) - len(decided)


def latest_decisions(verdicts: pa.Table) -> pd.DataFrame:
    """The verdicts table as a frame of plain objects, with each analyst's latest decision on each window.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    frame = conform(VERDICTS, verdicts, "verdicts").to_pandas()
    names = {c.name: object for c in VERDICTS.columns if c.name not in (*_TIMES, "decided_at")}
    frame = frame.astype(names).sort_values("decided_at", kind="stable")
    frame = frame.drop_duplicates([*WINDOW, "analyst"], keep="last").sort_index()
    return pd.DataFrame(frame.reset_index(drop=True))


def _row(row: Mapping[str, str | None], origin: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for column in VERDICTS.columns:
        name = column.name
        if name == "decided_at":
            continue
        text = (row.get(name) or "").strip()
        if not text and not column.nullable:
            raise TelemetryError(f"{origin}{name} is missing")
        # A command-line argument need not be valid text.
        if text != text.encode("utf-8", "replace").decode():
            raise TelemetryError(f"{origin}{name} is no valid text: {text!r}")
        out[name] = stated(text, f"{origin}{name}") if name in _TIMES else text or None
    if out["verdict"] not in CHOICES:
        raise TelemetryError(f"{origin}verdict is {out['verdict']!r}; expected one of {', '.join(CHOICES)}")
    if out["window_end"] <= out["window_start"]:
        raise TelemetryError(f"{origin}window_end must be later than window_start")
    return out
