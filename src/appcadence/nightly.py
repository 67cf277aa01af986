"""The batch job: scores a telemetry directory with a bundle, and writes an output directory or nothing.

It works block by block (a block has the flows of some devices) and keeps finished blocks in a scratch
directory beside the output. A killed run therefore resumes where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from appcadence._files import clear, recover, replacing_directory, scratch
from appcadence._inputs import open_input, sha256
from appcadence._parquet import read_parquet
from appcadence._run_facts import pieces_of, rows_of, run_facts
from appcadence._types import Progress, logged_stages, silent
from appcadence._version import VERSION
from appcadence.config import UNSET, Alerts, Config, Ranking, Tunables
from appcadence.errors import AppcadenceError, SchemaError, TelemetryError
from appcadence.features import flows as coded
from appcadence.features.build import build
from appcadence.features.columns import micros
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.extraction import INPUT_TABLES, touching
from appcadence.features.given import moment_us
from appcadence.features.history import History
from appcadence.features.partition import BLOCK_FLOWS
from appcadence.features.vetting import decided
from appcadence.features.windows import window_seconds
from appcadence.models.calibration import alert_unit, discovered
from appcadence.models.scores import SCORES, finalized, ranks
from appcadence.serving import measures
from appcadence.serving.batch import Engine, Job, Measured, Telemetry, local
from appcadence.serving.run import FILE as RUN
from appcadence.serving.run import (
    Run,
    last_run,
)
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.schema import ACTIVITY, VERDICTS
from appcadence.telemetry.sheet import read_named
from appcadence.triage import output, window_facts
from appcadence.triage.case_state import CASES_FILE, read_cases
from appcadence.triage.exceptions import Entry

_log = logging.getLogger(__name__)
_FOREVER, _MAX_EPOCH_DIGITS = 2**62, 11


def score_directory(
    source: str | Path | Mapping[str, pa.Table],
    scorer: Scorer,
    out: str | Path,
    *,
    alerts_per_device_day: float = 1.0,
    false_discovery_rate: float | None = None,
    tunables: Tunables = UNSET,
    local_destinations: bool = False,
    history: str | Path | None = None,
    verdicts: str | Path | None = None,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    exceptions: str | Path | None = None,
    block_flows: int = BLOCK_FLOWS,
    engine: Engine = local,
    progress: Progress = silent,
) -> Run:
    """Score a telemetry directory (or canonical tables) and write to `out`, replacing an earlier output.

    The output has scores.parquet, cases.parquet and their alerts (alerts.csv, alerts.ecs.jsonl,
    alerts.ocsf.jsonl), fleet_events.parquet, history.parquet, run.json, measures.parquet and
    exceptions.parquet for exceptions, and window_facts.parquet, sessions.parquet, context.parquet and
    activity.parquet for the report. Only windows that begin at or after `since` and before `until` are
    scored. Windows to local destinations are ranked only with `local_destinations`. `history` is an earlier
    output or its history.parquet, from which contacts and cases continue. Channels that `verdicts`, a file,
    calls benign count as known. An output made from the same telemetry, model and settings is left unchanged,
    except that other exceptions are applied. A killed or failed run is resumed.

    Memory: a block of flows (about 80 MB) per core, 140 bytes per channel and 60 per window of the whole
    fleet. Scratch beside `out`: about 60 bytes per flow and 1 kB per window.

    Stages and counts are logged under `appcadence.nightly`, at level INFO.

    Raises:
        TelemetryError: the telemetry cannot be read, `out` exists and is not an output directory, `since` or
            `until` is inside a window, or the history extends beyond the start of the first window.
        AppcadenceError: another run is writing to `out`, or a moment names no time zone.
    """
    out = _output_place(out)
    seconds = window_seconds(scorer.detector.window)
    span_us = _span(since, until, seconds)
    history, earlier = _earlier(history)
    _now()  # checks SOURCE_DATE_EPOCH before the work
    past = scorer.detector.history if history is None else read_history(history)
    past = past if verdicts is None else decided(past, read_named(Path(verdicts), VERDICTS))
    asked = Config(Alerts(alerts_per_device_day, false_discovery_rate), tunables, Ranking(local_destinations))
    settings = (asked, span_us, block_flows)
    telemetry: Telemetry
    if isinstance(source, Mapping):
        telemetry, inputs = source, ""
    else:
        telemetry = TelemetryDirectory(source)
        inputs = _fingerprint(telemetry, scorer, (history, earlier, verdicts), settings)
    if history is not None:
        past.require_before(_begin(telemetry, seconds, span_us), "history")
    entries = output.entries_of(exceptions)
    _log.info("into %s: model %s, windows of %s", out, scorer.version[:12], scorer.detector.window)
    progress = logged_stages(_log, progress)
    if inputs and (done := _done_before(out, inputs, exceptions)) is not None:
        return done
    with scratch(out, resume=True) as place:
        key = place / "inputs"
        if not inputs or not key.exists() or key.read_text() != inputs:
            clear(place)
            key.write_text(inputs)
        else:
            _log.info("resuming an interrupted run")
        job = Job(telemetry, scorer, past, seconds, span_us, block_flows, asked)
        scored = engine(job, place, progress)
        progress("writing", 0.0)
        with replacing_directory(out, place) as staging:
            run = replace(
                _write(job, scored, entries, earlier, staging),
                inputs=inputs,
                exceptions_sha256=output.digest(exceptions),
            )
            run.write(staging)
    progress("writing", 1.0)
    _log_end(run, "done")
    return run


def _output_place(out: str | Path) -> Path:
    """Where the output goes: what a killed run left is completed or undone, anything else is refused."""
    out = Path(out)
    recover(out)
    if out.exists() and not (out / RUN).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise TelemetryError(f"{out} exists and is no output of 'appcadence score'; choose another", "out")
    return out


def _done_before(out: Path, inputs: str, exceptions: str | Path | None) -> Run | None:
    """The run that made the output, put under other exceptions if need be; None if it had other inputs."""
    done = last_run(out)
    if done is None or done.inputs != inputs:
        return None
    if done.exceptions_sha256 != output.digest(exceptions):
        done = output.reapply(out, exceptions)[0]
        _log_end(done, "put under other exceptions")
        return done
    with scratch(out):  # removes what a run left that was killed at its end
        _log_end(done, "nothing to do")
    return done


def _write(job: Job, scored: Measured, entries: Sequence[Entry], earlier: Path | None, staging: Path) -> Run:
    """Write all of an output but run.json, and return what that says, but for what the run was made from."""
    files, after, found = scored
    columns = [*output.JUDGED, "alert", "unit_p", *measures.COLUMNS]
    judged = pa.concat_tables([feather.read_table(file, columns=columns) for file in files])
    alert, rate = judged["alert"].to_numpy(), job.settings.alerts.false_discovery_rate
    if rate is not None:
        alert = discovered(judged["unit_p"].to_numpy(), alert_unit(judged), rate)
    values = {name: judged[name].to_numpy() for name in measures.COLUMNS}
    top, _ = output.write(
        judged,
        _finalized(files, ranks(judged), alert),
        measures.measures_of(values, pa.table({"alert": alert})),
        entries,
        found.events,
        staging,
    )
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(pq.write_table, after.to_arrow(), staging / "history.parquet", compression="zstd")
        _write_report_data(job, top, after, staging)
        kept.result()
    if earlier is not None:
        shutil.copy2(earlier, staging / output.EARLIER_FILE)
    made_at = _now()
    facts = run_facts(staging, job, found.identity, after)
    return replace(facts, made_at=made_at.isoformat(), cases=output.write_cases(staging, made_at))


def _log_end(run: Run, what: str) -> None:
    counts = run.windows, run.devices, run.scored, run.alerts, run.excepted
    _log.info("%s: %d windows of %d devices, %d scored, %d alerting, %d under exceptions", what, *counts)


def _earlier(history: str | Path | None) -> tuple[Path | None, Path | None]:
    """The files of the history and, if there is one, of the cases of the previous run.

    Raises:
        TelemetryError: the file of the cases is damaged or not such a file.
    """
    if history is None:
        return None, None
    place = Path(history)
    recover(place if place.is_dir() else place.parent)
    file = place / "history.parquet" if place.is_dir() else place
    cases = file.with_name(CASES_FILE)
    if not os.path.lexists(cases):
        return file, None
    read_cases(cases)
    return file, cases


def _now() -> datetime:
    """The time at which alerts are made; `SOURCE_DATE_EPOCH` (seconds) overrides it, for reproducible bytes.

    Raises:
        AppcadenceError: the variable is not such a number.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not epoch:
        return datetime.now(UTC)
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) <= _MAX_EPOCH_DIGITS):
        raise AppcadenceError(
            f"SOURCE_DATE_EPOCH is {epoch!r}; expected whole seconds since 1970, at most "
            f"{_MAX_EPOCH_DIGITS} digits, or unset it"
        )
    return datetime.fromtimestamp(int(epoch), UTC)


def read_history(path: str | Path) -> History:
    """The history in the output of an earlier run.

    Raises:
        TelemetryError: the file cannot be read.
        SchemaError: the file is not a history.
    """
    recover(Path(path).parent)
    try:
        with open_input(path) as stream:
            return History.from_arrow(read_parquet(stream))
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from None
    except (OSError, pa.ArrowException) as error:
        raise TelemetryError(
            f"{path} is not a readable history ({error}); expected OUT/history.parquet"
        ) from None


def _begin(source: Telemetry, seconds: int, span_us: tuple[int, int] | None) -> int:
    """When the first window to score begins, microseconds since the epoch."""
    if span_us is not None and span_us[0] != -_FOREVER:
        return span_us[0]
    starts = (micros(piece()["start"]) for piece in pieces_of(source, "flows", ["start"]))
    first_us = min((int(start.min(initial=_FOREVER)) for start in starts), default=_FOREVER)
    return first_us // (seconds * 1_000_000) * seconds * 1_000_000


def _span(since: datetime | str | None, until: datetime | str | None, seconds: int) -> tuple[int, int] | None:
    if since is None and until is None:
        return None
    ends = []
    for name, moment, default in (("since", since, -_FOREVER), ("until", until, _FOREVER)):
        at = default if moment is None else moment_us(moment, name)
        if moment is not None and at % (seconds * 1_000_000):
            begins = pd.Timestamp(at - at % (seconds * 1_000_000), unit="us", tz="UTC")
            raise TelemetryError(
                f"{moment} lies inside a window of {seconds // 3600} h; give a moment at which one begins, "
                f"such as {begins:%Y-%m-%dT%H:%M}",
                name,
            )
        ends.append(at)
    if ends[0] >= ends[1]:
        raise TelemetryError(f"{since} does not lie before {until}; give an earlier start", "since")
    return ends[0], ends[1]


def _fingerprint(
    directory: TelemetryDirectory, scorer: Scorer, known: Sequence[str | Path | None], settings: object
) -> str:
    files = [file for name in INPUT_TABLES for file in directory.files(name)]
    digest = hashlib.sha256(repr((VERSION, scorer.version, settings)).encode())
    for file in [*files, *(Path(path) for path in known if path is not None)]:
        digest.update(f"{file.name}\0{sha256(file)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _finalized(files: list[Path], rank: np.ndarray, alert: np.ndarray) -> Iterator[pa.Table]:
    at = 0
    for file in files:
        table = feather.read_table(file, columns=SCORES.names)
        here = slice(at, at := at + len(table))
        yield finalized(table, rank[here], alert[here])


def _write_report_data(job: Job, top: pa.Table, after: History, staging: Path) -> None:
    """Write what the report shows about some windows: facts, sessions, pushes, apps and user activity."""
    source = job.telemetry
    wanted = top.to_pandas()
    devices = pa.array(sorted(set(wanted["device_id"])), pa.string())
    columns = [*coded.COLUMNS, *window_facts.FLOW_COLUMNS]
    flows = rows_of(source, "flows", columns, devices, lambda piece: window_facts.touched(piece, wanted))
    if job.span_us is not None:
        flows = touching(flows, job.span_us)
    around = {
        name: rows_of(source, name, CONTEXT_COLUMNS[name], devices) for name in ("notifications", "activity")
    }
    windows = build({"flows": flows} | around, job.seconds)
    facts = window_facts.facts(windows, flows, wanted, after)
    pq.write_table(facts, staging / output.FACTS_FILE, compression="zstd")
    pq.write_table(window_facts.sessions(windows, wanted), staging / "sessions.parquet", compression="zstd")
    scopes = pa.concat_arrays([devices, pa.nulls(1, pa.string())])
    inventory = rows_of(source, "inventory", window_facts.INVENTORY_COLUMNS, scopes)
    context = window_facts.context(windows, inventory, wanted)
    pq.write_table(context, staging / "context.parquet", compression="zstd")
    activity = rows_of(source, "activity", [c.name for c in ACTIVITY.columns], devices)
    if len(activity):
        pq.write_table(activity, staging / "activity.parquet", compression="zstd")
