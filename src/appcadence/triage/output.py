"""Writes what follows from scored windows: exceptions, ranks, alerts, cases and the facts of the run."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._files import replacing_directory, scratch
from appcadence._inputs import sha256
from appcadence._parquet import open_parquet, read_file
from appcadence.findings import Finding
from appcadence.models.calibration import KEYS, alert_units
from appcadence.models.fleet_events import alerting_devices
from appcadence.models.scores import SCORES
from appcadence.serving.measures import MEASURES, MEASURES_FILE
from appcadence.serving.run import FILE as RUN
from appcadence.serving.run import Run, read_table
from appcadence.telemetry.schema import TIME
from appcadence.triage import siem, suppression
from appcadence.triage.case_rows import cases_in, event_windows
from appcadence.triage.case_state import CASES_FILE, continued, read_cases, under_exceptions
from appcadence.triage.case_summary import fleet_summary
from appcadence.triage.cases import window_days
from appcadence.triage.exceptions import Entry
from appcadence.triage.exceptions import read as read_exceptions
from appcadence.triage.report_data import undamaged

REPORTED = 200
"""Windows up to this rank are pictured, besides those that alert."""
SCORES_FILE = "scores.parquet"
EVENTS_FILE = "fleet_events.parquet"
FACTS_FILE = "window_facts.parquet"
EARLIER_FILE = "earlier_cases.parquet"
"""The cases of the run that this one continues."""
OWNERS_FILE = "exceptions.parquet"
"""The ids and owners of the exceptions that the scores are under."""
EVENTS = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("devices", pa.int64()),
        ("alerting_devices", pa.int64()),
        ("first_seen", TIME),
        ("device_ids", pa.list_(pa.string())),
    ]
)
OWNERS = pa.schema([("id", pa.string()), ("owner", pa.string())])

JUDGED = (*suppression.JUDGED, "score")
"""Columns of the scores table that exceptions and ranks are judged by."""
_JUDGED = pa.schema([SCORES.field(name) for name in JUDGED])
_TEXTS = [
    *(field.name for field in SCORES if pa.types.is_string(field.type)),
    *(f"{name}.list.element" for name in ("behaviours", "explained_by", "reasons")),
    "contributions.list.element.feature",
]
"""Columns that repeat: a dictionary of floats costs time and space."""

Uses = tuple[suppression.Use, ...]


def write(
    judged: pa.Table,
    parts: Iterable[pa.Table],
    measures: pa.Table,
    entries: Sequence[Entry],
    events: pd.DataFrame,
    staging: Path,
) -> tuple[pa.Table, Uses]:
    """Write scores, measures, fleet events and owners under exceptions; nothing else is touched.

    Args:
        judged: the columns `JUDGED` of all windows.
        parts: the detector's scores table, in pieces.
        measures: `MEASURES` of all windows.
        entries: the exceptions.
        events: the fleet events.
        staging: the directory to write into.

    Returns:
        Keys of the windows whose surroundings are kept, those of fleet events among them, and what became of
        each exception.
    """
    ruling = suppression.judge(judged, measures, entries)
    rank = suppression.ranks_under(ruling, judged)
    top, at = [SCORES.empty_table().select(KEYS)], 0
    with pq.ParquetWriter(staging / SCORES_FILE, SCORES, compression="zstd", use_dictionary=_TEXTS) as writer:
        for part in parts:
            table = suppression.marked(part, measures.slice(at, len(part)), entries, ruling, rank, at)
            at += len(part)
            writer.write_table(table)
            # Exceptions may be taken back: what is kept without them stays kept.
            shown = [pc.fill_null(pc.less_equal(t["rank"], REPORTED), False) for t in (part, table)]
            met = pa.array(event_windows(part, events))
            top.append(table.select(KEYS).filter(pc.or_(pc.or_(*shown), pc.or_(part["alert"], met))))
    pq.write_table(measures, staging / MEASURES_FILE, compression="zstd")
    columns = ["device_id", "app_id", "dest", "status", "alert"]
    scores = pq.read_table(staging / SCORES_FILE, columns=columns, filters=[("alert", "=", True)])
    events = events.assign(alerting_devices=alerting_devices(events, scores))
    table = pa.Table.from_pandas(events, EVENTS, preserve_index=False).replace_schema_metadata()
    pq.write_table(table, staging / EVENTS_FILE, compression="zstd")
    owners = {"id": [entry.id for entry in entries], "owner": [entry.owner for entry in entries]}
    pq.write_table(pa.table(owners, OWNERS), staging / OWNERS_FILE, compression="zstd")
    return pa.concat_tables(top), ruling.uses


def write_cases(staging: Path, made_at: datetime) -> dict[str, int]:
    """Write the cases, and the alerts they are, of what `write` wrote there.

    Returns:
        How many cases there are by status.
    """
    facts, earlier = pq.read_table(staging / FACTS_FILE), staging / EARLIER_FILE
    cases = cases_in(staging / SCORES_FILE, fleet_events(staging), facts)
    if earlier.exists():
        scores = pq.read_table(staging / SCORES_FILE, columns=[*KEYS, "window_end", "exception_id"])
        last = alert_units(scores.select(KEYS))["day"] if len(scores) else pa.chunked_array([], pa.date32())
        known = read_cases(earlier)
        held = under_exceptions(known, scores)
        cases = continued(cases, known, str(pc.max(last).as_py()), held, window_days(scores))
    pq.write_table(cases, staging / CASES_FILE, compression="zstd")
    siem.write(cases, staging, made_at)
    return dict(Counter(cases["status"].to_pylist()))


def fleet_events(out: Path) -> pd.DataFrame:
    """The fleet events in an output directory, `EVENTS`."""
    return pd.DataFrame(read_file(out / EVENTS_FILE, schema=EVENTS).to_pandas())


def event_findings(out: Path) -> list[Finding]:
    """A finding for each of them."""
    return [*map(fleet_summary, fleet_events(out).itertuples())]


def reapply(out: Path, exceptions: str | Path | None) -> tuple[Run, Uses]:
    """Apply other exceptions (None = none) to an output, as if it had been scored with them.

    Raises:
        TelemetryError: `out` is no output, or a file of it is damaged.
        AppcadenceError: the exceptions are wrong, or another run is writing into `out`.
    """
    entries = entries_of(exceptions)
    with scratch(out) as place, replacing_directory(out, place) as staging:
        run = Run.read(out)
        with undamaged(out):
            measures = read_file(out / MEASURES_FILE, schema=MEASURES)
            events = fleet_events(out)
            whole = open_parquet(out / SCORES_FILE)
            judged = whole.read(list(JUDGED)).cast(_JUDGED)
            if len(judged) != len(measures):
                raise ValueError(f"{len(measures):,} measures for {len(judged):,} scores")
            groups = (whole.read_row_group(i).cast(SCORES) for i in range(whole.num_row_groups))
            _, uses = write(judged, groups, measures, entries, events, staging)
            for name in (FACTS_FILE, EARLIER_FILE):
                if (out / name).exists():
                    shutil.copy2(out / name, staging / name)
            cases = write_cases(staging, datetime.fromisoformat(run.made_at))
        for file in out.iterdir():
            if not (staging / file.name).exists() and file.name != RUN:
                shutil.copy2(file, staging / file.name)
        scores = pq.read_table(staging / SCORES_FILE, columns=["status", "alert"])
        run = replace(
            run,
            **counts(scores),
            fleet_events=event_findings(staging),
            exceptions_sha256=digest(exceptions),
            cases=cases,
        )
        run.write(staging)
    return run, uses


def counts(scores: pa.Table) -> dict[str, Any]:
    """Windows that were scored, are excepted, and raise an alert, from the columns status and alert."""
    masks = {name: pc.equal(scores["status"], name) for name in ("scored", "excepted")}
    masks["alerts"] = scores["alert"]
    return {name: int(pc.sum(mask).as_py() or 0) for name, mask in masks.items()}


def in_force(out: Path, exceptions: str | Path | None) -> list[str]:
    """Ids of the exceptions of a file that hold on a day of an output's windows."""
    entries = entries_of(exceptions)
    windows = read_table(out / SCORES_FILE, ["window_start", "window_end"])
    if not len(windows):
        return []
    first, end = pc.min(windows["window_start"]).as_py(), pc.max(windows["window_end"]).as_py()
    last = end - timedelta(microseconds=1)
    return [entry.id for entry in entries if entry.in_force(first.date(), last.date())]


def entries_of(exceptions: str | Path | None) -> tuple[Entry, ...]:
    """The exceptions of a file; none without one."""
    return () if exceptions is None else read_exceptions(exceptions)


def digest(exceptions: str | Path | None) -> str:
    """SHA-256 of the file of exceptions; empty without one."""
    return "" if exceptions is None else sha256(exceptions)
