"""Cases as files for other programs: a table for people, and JSON lines for a SIEM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from appcadence.findings import of_row
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.triage import ecs, ocsf, siem
from appcadence.triage.cases import CASES, TEXTS

_UNSEEN = "\\s\u0000-\u001f\u00ad\ufeff\u200b-\u200f\u2028-\u202e\u2060-\u2069"
_FORMULA = f"^([{_UNSEEN}]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])"
"""What a spreadsheet takes for a formula, full-width forms included, whatever unseen stands before it."""


def write(cases: pa.Table, directory: Path, made_at: datetime) -> None:
    """Write alerts.csv, of all cases, and alerts.ecs.jsonl and alerts.ocsf.jsonl, of those new or raised.

    Equal cases that were made at the same time give equal bytes. In the CSV a text that a spreadsheet would
    take for a formula begins with an apostrophe.
    """
    cases = cases.combine_chunks()
    pacsv.write_csv(_spreadsheet(cases), directory / "alerts.csv")
    alerts = cases.filter(pc.is_in(cases["status"], pa.array(["new", "raised"])))
    for name, document in (("ecs", ecs.document), ("ocsf", ocsf.document)):
        # ASCII alone: a hostile name can neither end the line nor turn the direction of the text.
        with (directory / f"alerts.{name}.jsonl").open("w", encoding="ascii", newline="\n") as file:
            for alert in _dicts(alerts):
                line = json.dumps(document(alert, made_at), separators=(",", ":"), allow_nan=False)
                file.write(line + "\n")


def _dicts(cases: pa.Table) -> Iterator[siem.Alert]:
    for batch in cases.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row | {"findings": of_row(row)}


def _spreadsheet(cases: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name in CASES.names:
        values = cases[name].combine_chunks()
        if name in BEHAVIOURS:
            columns[f"{name}_score"], columns[f"{name}_p_value"] = values.flatten()
            continue
        if name == "destinations":
            values = pa.array([[part["dest"] for part in siem.suspects(row)] for row in _dicts(cases)], TEXTS)
        if name == "findings":
            values = pa.array([[":".join(f.subject) for f in row[name]] for row in _dicts(cases)], TEXTS)
        if pa.types.is_list(values.type):
            values = pc.binary_join(values.cast(TEXTS), " ")
        if pa.types.is_string(values.type):
            values = pc.replace_substring_regex(values, _FORMULA, "'\\1")
        columns[name] = values
    return pa.table(columns)
