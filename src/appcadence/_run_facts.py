"""What a run says of itself: counts, settings, blind spots; and the rows of the telemetry that this takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._types import DAY_US
from appcadence.features.columns import micros
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.extraction import load
from appcadence.features.history import History
from appcadence.features.partition import in_order
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding
from appcadence.models.calibration import device_days
from appcadence.serving.batch import Job, Telemetry
from appcadence.serving.run import COLUMNS as LOOKUP_COLUMNS
from appcadence.serving.run import (
    Run,
    blind_spots,
    lookup_findings,
    made_up_names,
    out_of_reach,
    relayed,
    unranked,
)
from appcadence.telemetry.directory import unify
from appcadence.telemetry.schema import DIRECTORY_TABLES
from appcadence.triage import output

_FOREVER = 2**62


def pieces_of(source: Telemetry, name: str, columns: Sequence[str]) -> Sequence[Callable[[], pa.Table]]:
    """Reads of some columns of a table, in pieces."""
    if not isinstance(source, Mapping):
        return source.pieces(name, columns)
    return [lambda: load(source)[name].select(list(columns))] if name in source else []


def rows_of(
    source: Telemetry,
    name: str,
    columns: Sequence[str],
    devices: pa.Array,
    of: Callable[[pa.Table], pa.Table] = lambda piece: piece,
) -> pa.Table:
    """Some columns of a table for some devices, each piece filtered by `of`."""
    pieces = pieces_of(source, name, columns)

    def wanted(number: int) -> pa.Table:
        piece = pieces[number]()
        return of(piece.filter(pc.is_in(piece["device_id"].cast(pa.string()), devices)))

    none = DIRECTORY_TABLES[name].empty().select(list(columns))
    return unify([none, *in_order(wanted, len(pieces))])


def run_facts(staging: Path, job: Job, identity: Finding | None, after: History) -> Run:
    """What run.json says of a run whose scores stand in `staging`."""
    source, scorer, asked = job.telemetry, job.scorer, job.settings
    observed = ["device_id", "window_start", "observed_seconds"]
    columns = [*observed, "app_id", "dest", "window_end", "status", "alert"]
    scores = pq.read_table(staging / output.SCORES_FILE, columns=columns)
    channel = pc.not_equal(scores["dest"], APP_LEVEL)
    unknown = pc.and_(channel, pc.is_null(scores["app_id"]))
    devices, status = pc.unique(scores["device_id"]), scores["status"]
    known = (_with_log(source, name, devices, scores) for name in ("activity", "notifications"))
    return Run(
        model_version=scorer.version,
        signer=scorer.signer,
        window=scorer.detector.window,
        devices=len(devices),
        device_days=round(device_days(scores.select(observed).to_pandas()), 4),
        windows=len(scores),
        **output.counts(scores),
        alerts_per_device_day=asked.alerts.alerts_per_device_day,
        false_discovery_rate=asked.alerts.false_discovery_rate,
        tunables=asked.tunables.chosen,
        blind_spots=[
            *([] if identity is None else [identity]),
            *blind_spots(_count(channel), _count(unknown), len(devices), *known),
            *relayed(scores),
            *unranked("local_destinations", _count(pc.equal(status, "local_destination")), _count(channel)),
            *unranked("shared_processes", _count(pc.equal(status, "shared_process")), len(scores)),
            *unranked("push_connections", _count(pc.equal(status, "push_connection")), len(scores)),
            *lookup_findings(pieces_of(source, "flows", LOOKUP_COLUMNS)),
            *made_up_names(after, pc.min(scores["window_start"].cast(pa.int64())).as_py() or 0),
            *out_of_reach(asked.tunables, scorer.detector.behaviours),
        ],
        fleet_events=output.event_findings(staging),
    )


def _with_log(source: Telemetry, name: str, devices: pa.Array, scores: pa.Table) -> int:
    """How many of the devices have something in a log that reaches into the windows, or the day up to their
    end."""
    if not len(scores):
        return 0
    begin, end = (micros(scores[f"window_{border}"]) for border in ("start", "end"))
    begin_us, end_us = min(begin.min(), end.max() - DAY_US), end.max()
    columns = [c for c in CONTEXT_COLUMNS[name] if c in ("device_id", "start", "end", "time")]
    rows = rows_of(source, name, columns, devices)
    first = last = micros(rows[DIRECTORY_TABLES[name].when])
    if "end" in columns:
        last = micros(pc.fill_null(rows["end"].cast(pa.int64()), _FOREVER))
    inside = pa.array((first < end_us) & (last >= begin_us))
    return len(pc.unique(rows["device_id"].filter(inside)))


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
