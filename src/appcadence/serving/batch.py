"""The batch job: a telemetry directory and a bundle in, an output directory out, whole or not at all.

It works block by block (a block is the flows of some devices) and leaves what is done in a scratch directory
beside the output, so that a run that was killed goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence.errors import TelemetryError
from appcadence.features import flows as coded
from appcadence.features.extract import INPUT_TABLES, load, touching
from appcadence.features.history import History
from appcadence.features.partition import BLOCK_FLOWS, Blocks, empty, in_order, scratch_beside
from appcadence.features.windows import APP_LEVEL, build, window_seconds
from appcadence.models.calibration import alert_unit, device_days, discovered
from appcadence.models.detector import SCORES, ranks, settled
from appcadence.models.fleet_events import FleetEvents, fleet_events
from appcadence.serving import bounds, output, pictured
from appcadence.serving.run import FILE as RUN
from appcadence.serving.run import Run, blind_spots, last_run
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory, unify
from appcadence.telemetry.schema import ACTIVITY, DIRECTORY_TABLES

_BESIDE = list(bounds.MEASURES.names[:3])
_SHOWN = {"activity": "whether the user was present", "notifications": "whether pushes started it"}

Progress = Callable[[str, float], None]
Tables = Mapping[str, pa.Table]


def score_directory(
    source: str | Path | Tables,
    scorer: Scorer,
    out: str | Path,
    *,
    alerts_per_device_day: float = 1.0,
    false_discovery_rate: float | None = None,
    history: str | Path | None = None,
    since: pd.Timestamp | None = None,
    until: pd.Timestamp | None = None,
    exceptions: str | Path | None = None,
    block_flows: int = BLOCK_FLOWS,
    progress: Progress = lambda what, share: None,
) -> Run:
    """Score a telemetry directory (or canonical tables) and write into `out`, replacing an earlier output.

    The output: scores.parquet, alerts (alerts.csv, alerts.ecs.jsonl, alerts.ocsf.jsonl),
    fleet_events.parquet, history.parquet, run.json, measures.parquet for exceptions, and sessions.parquet and
    activity.parquet for pictures. Only windows that begin from `since` on and before `until` are scored. An
    output that was made from the same telemetry, model and settings is left as it is, or only put under other
    exceptions; a run that was killed or failed is gone on with.

    Memory: a block of flows (about 80 MB) a core, 120 bytes a channel and 60 bytes a window of the whole
    fleet. Scratch beside `out`: about 60 bytes a flow and 1 kB a window.

    Raises:
        TelemetryError: the telemetry cannot be read, `out` is something else than an output directory, or
            `since` or `until` lies inside a window.
        AppcadenceError: another run is writing into `out`.
    """
    out = Path(out)
    if out.exists() and not (out / RUN).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise TelemetryError(f"{out} exists and is no output of 'appcadence score'; choose another --out")
    seconds = window_seconds(scorer.detector.window)
    span_us = _span(since, until, seconds)
    past = scorer.detector.history if history is None else read_history(history)
    settings = (alerts_per_device_day, false_discovery_rate, span_us, block_flows)
    inputs = "" if isinstance(source, Mapping) else _fingerprint(Path(source), scorer, history, settings)
    entries = output.entries_of(exceptions)
    if inputs and (done := last_run(out)) is not None and done.inputs == inputs:
        same = done.exceptions_sha256 == output.digest(exceptions)
        return done if same else output.reapply(out, exceptions)[0]
    with scratch_beside(out, keep=True) as scratch:
        key = scratch / "inputs"
        if not inputs or not key.exists() or key.read_text() != inputs:
            empty(scratch)
            key.write_text(inputs)
        blocks = Blocks.of(
            source,
            seconds,
            past,
            scratch,
            block_flows=block_flows,
            span_us=span_us,
            beside=bounds.of_windows,
            progress=progress,
        )
        if not len(blocks):
            raise TelemetryError("there are no flows to score" + (" in that span" if span_us else ""))
        after = blocks.history()
        keys = pd.concat([blocks.keys(i) for i in range(len(blocks))], ignore_index=True)
        found = fleet_events(after, scorer.detector.reference.end_us, keys)
        budget = {
            "alerts_per_device_day": alerts_per_device_day,
            "false_discovery_rate": false_discovery_rate,
        }
        files = _measured(blocks, scorer, found, budget, span_us, scratch, progress)
        progress("writing", 0.0)
        with output.replaced(out, scratch) as staging:
            rank, alert = _places(files, false_discovery_rate)
            measures = [pq.read_table(file, columns=_BESIDE) for file in files]
            values = {name: pa.concat_tables(measures)[name].to_numpy() for name in _BESIDE}
            alerting = pa.table({"alert": alert})
            top, _ = output.write(
                partial(_settled, files, rank, alert),
                bounds.measures_of(values, alerting),
                entries,
                found.events,
                staging,
            )
            _write_pictures(source, top, seconds, span_us, staging)
            pq.write_table(after.to_arrow(), staging / "history.parquet", compression="zstd")
            run = _facts(staging, source, scorer, found, budget)
            run = replace(run, inputs=inputs, exceptions_sha256=output.digest(exceptions))
            run.write(staging)
    progress("writing", 1.0)
    return run


def read_history(path: str | Path) -> History:
    """The history that an earlier run left in its output.

    Raises:
        TelemetryError: the file cannot be read.
        SchemaError: it is no history.
    """
    try:
        return History.from_arrow(pq.read_table(path))
    except (OSError, pa.ArrowInvalid) as error:
        raise TelemetryError(
            f"{path} is not a readable history ({error}); expected OUT/history.parquet"
        ) from None


def _span(since: pd.Timestamp | None, until: pd.Timestamp | None, seconds: int) -> tuple[int, int] | None:
    if since is None and until is None:
        return None
    ends = []
    for name, moment, default in (("since", since, -(2**62)), ("until", until, 2**62)):
        at = default if moment is None else int(moment.to_numpy().astype("datetime64[us]").astype(np.int64))
        if moment is not None and at % (seconds * 1_000_000):
            raise TelemetryError(f"--{name} {moment} lies inside a window; give a moment at which one begins")
        ends.append(at)
    if ends[0] >= ends[1]:
        raise TelemetryError("--since must lie before --until")
    return ends[0], ends[1]


def _fingerprint(source: Path, scorer: Scorer, history: str | Path | None, settings: object) -> str:
    directory = TelemetryDirectory(source)
    files = [file for name in INPUT_TABLES for file in directory.files(name)]
    digest = hashlib.sha256(repr((scorer.version, settings)).encode())
    for file in [*files, *([] if history is None else [Path(history)])]:
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{file.name}\0{content}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _measured(
    blocks: Blocks,
    scorer: Scorer,
    found: FleetEvents,
    budget: dict[str, Any],
    span_us: tuple[int, int] | None,
    scratch: Path,
    progress: Progress,
) -> list[Path]:
    """The scores table without ranks in files, in order; measures and `unit_p` are more columns."""
    sizes = [len(blocks.keys(i)) for i in range(len(blocks))]
    ends = np.cumsum([0, *sizes])
    files = [scratch / f"scores-{i:06d}.parquet" for i in range(len(blocks))]

    def work(number: int) -> None:
        if files[number].exists():
            return
        frame, beside = blocks.frame(number), blocks.beside(number)
        event = found.windows[ends[number] : ends[number + 1]]
        if span_us is not None:
            start = frame["window_start"].dt.as_unit("us").astype("int64").to_numpy()
            inside = (start >= span_us[0]) & (start < span_us[1])
            frame, event = frame[inside].reset_index(drop=True), event[inside]
            beside = {name: values[inside] for name, values in beside.items()}
        rows = scorer.measure(frame, event, **budget)
        written = files[number].with_suffix(".tmp")
        table = rows.table
        for name, values in (beside | {"unit_p": rows.unit_p}).items():
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, written, compression="zstd", compression_level=1)
        written.replace(files[number])

    for number, _ in enumerate(in_order(work, len(blocks)), start=1):
        progress("scoring", number / len(blocks))
    return files


def _settled(files: list[Path], rank: np.ndarray, alert: np.ndarray) -> Iterator[pa.Table]:
    at = 0
    for file in files:
        table = pq.read_table(file, columns=SCORES.names)
        here = slice(at, at := at + len(table))
        yield settled(table, rank[here], alert[here])


def _places(parts: list[Path], false_discovery_rate: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Rank (0 = none) and alert of all windows."""
    columns = ["status", "score", "alert"]
    if false_discovery_rate is not None:
        columns += ["unit_p", "device_id", "app_id", "dest", "window_start"]
    whole = pa.concat_tables([pq.read_table(part, columns=columns) for part in parts])
    alert = whole["alert"].to_numpy()
    if false_discovery_rate is not None:
        unit = alert_unit(whole.select(columns[4:]).to_pandas())
        alert = discovered(whole["unit_p"].to_numpy(), unit, false_discovery_rate)
    return ranks(whole), alert


def _write_pictures(
    source: str | Path | Tables, top: pa.Table, seconds: int, span_us: tuple[int, int] | None, staging: Path
) -> None:
    """Write what the pictures of the top windows show: sessions, and what their users did."""
    wanted = top.select(["device_id", "app_id", "dest", "window_start"]).to_pandas()
    devices = pa.array(sorted(set(wanted["device_id"])), pa.string())
    flows = _rows_of(source, "flows", coded.COLUMNS, devices)
    if span_us is not None:
        flows = touching(flows, span_us)
    sessions = pictured.sessions(build({"flows": flows}, seconds), wanted)
    pq.write_table(sessions, staging / "sessions.parquet", compression="zstd")
    activity = _rows_of(source, "activity", [c.name for c in ACTIVITY.columns], devices)
    if len(activity):
        pq.write_table(activity, staging / "activity.parquet", compression="zstd")


def _pieces(source: str | Path | Tables, name: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    if isinstance(source, Mapping):
        if name in source:
            yield load(source)[name].select(list(columns))
    else:
        yield from (piece() for piece in TelemetryDirectory(source).pieces(name, columns))


def _rows_of(source: str | Path | Tables, name: str, columns: Sequence[str], devices: pa.Array) -> pa.Table:
    """Some columns of a table's rows of some devices."""
    found = [DIRECTORY_TABLES[name].empty().select(list(columns))]
    for piece in _pieces(source, name, columns):
        found.append(piece.filter(pc.is_in(piece["device_id"].cast(pa.string()), devices)))
    return unify(found)


def _facts(
    staging: Path,
    source: str | Path | Tables,
    scorer: Scorer,
    found: FleetEvents,
    budget: dict[str, Any],
) -> Run:
    columns = ["device_id", "app_id", "dest", "window_start", "observed_seconds", "status", "alert"]
    scores = pq.read_table(staging / output.SCORES_FILE, columns=columns)
    channel = pc.not_equal(scores["dest"], APP_LEVEL)
    unknown = pc.and_(channel, pc.is_null(scores["app_id"]))
    devices = pc.unique(scores["device_id"])
    shown = [
        (what, len(pc.unique(_rows_of(source, name, ["device_id"], devices)["device_id"])))
        for name, what in _SHOWN.items()
    ]
    return Run(
        model_version=scorer.version,
        window=scorer.detector.window,
        devices=len(devices),
        device_days=round(device_days(scores.select(columns[:1] + columns[3:5]).to_pandas()), 4),
        windows=len(scores),
        **output.Counts.of(scores)._asdict(),
        **budget,
        blind_spots=blind_spots(_count(channel), _count(unknown), len(devices), shown),
        fleet_events=[_sentence(event) for event in found.events.itertuples()],
    )


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _sentence(event: Any) -> str:
    what = "destination" if event.kind == "destination" else "app"
    return (
        f"Fleet event: {event.devices} devices met the {what} {event.name} for the first time together, from "
        f"{event.first_seen:%Y-%m-%d %H:%M} UTC on; its windows are in no ranking."
    )
