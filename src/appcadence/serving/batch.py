"""The batch job: a telemetry directory and a bundle in, an output directory out, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from appcadence.errors import TelemetryError
from appcadence.features.extract import load
from appcadence.features.history import History
from appcadence.features.windows import Windows
from appcadence.models.calibration import device_days
from appcadence.serving.scorer import Scorer

RUN = "run.json"
_PICTURED = 200
"""Windows whose sessions are kept for the report."""
_ALERT_COLUMNS = (
    "rank",
    "score",
    "p_value",
    "device_id",
    "app_id",
    "dest",
    "window_start",
    "window_end",
    "n_flows",
    "n_sessions",
    "model_name",
    "model_version",
)
_EVENTS = pa.schema(
    [
        ("kind", pa.string()),
        ("name", pa.string()),
        ("devices", pa.int64()),
        ("first_seen", pa.timestamp("us", tz="UTC")),
        ("device_ids", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Run:
    """Facts of one batch run; `run.json` of the output."""

    model_version: str
    window: str
    devices: int
    device_days: float
    windows: int
    scored: int
    alerts: int
    alerts_per_device_day: float
    false_discovery_rate: float | None
    """What alerts keep to instead of the budget, if anything."""
    blind_spots: list[str]
    fleet_events: list[str]
    """What the fleet met for the first time together, as sentences."""


def score_directory(
    source: str | Path | Mapping[str, pa.Table],
    scorer: Scorer,
    out: str | Path,
    *,
    alerts_per_device_day: float = 1.0,
    false_discovery_rate: float | None = None,
    history: str | Path | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Run:
    """Score a telemetry directory (or canonical tables) and write into `out`, replacing an earlier output.

    The output: scores.parquet, alerts.csv, sessions.parquet, activity.parquet, history.parquet,
    fleet_events.parquet, run.json.

    Memory: about 400 bytes a flow and 2 kB a window.

    Raises:
        TelemetryError: the telemetry cannot be read, or `out` is something else than an output directory.
    """
    out = Path(out)
    if out.exists() and not (out / RUN).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise TelemetryError(f"{out} exists and is no output of 'appcadence score'; choose another --out")
    progress("reading", 0.0)
    tables = load(source)
    progress("reading", 1.0)
    progress("scoring", 0.0)
    past = None if history is None else read_history(history)
    result = scorer.run(
        tables,
        alerts_per_device_day=alerts_per_device_day,
        false_discovery_rate=false_discovery_rate,
        history=past,
    )
    scores = result.scores
    progress("scoring", 1.0)
    progress("writing", 0.0)
    frame = scores.select(["device_id", "window_start", "observed_seconds"]).to_pandas()
    run = Run(
        model_version=scorer.version,
        window=scorer.detector.window,
        devices=len(result.windows.devices),
        device_days=round(device_days(frame), 4),
        windows=len(scores),
        scored=int(pc.sum(pc.equal(scores["status"], "scored")).as_py() or 0),
        alerts=int(pc.sum(scores["alert"]).as_py() or 0),
        alerts_per_device_day=alerts_per_device_day,
        false_discovery_rate=false_discovery_rate,
        blind_spots=blind_spots(result.windows, tables),
        fleet_events=[_sentence(event) for event in result.events.itertuples()],
    )
    staging = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        top = _pictured(scores)
        pq.write_table(scores, staging / "scores.parquet", compression="zstd")
        alerts = scores.filter(scores["alert"]).sort_by("rank")
        pacsv.write_csv(_alerts(alerts), staging / "alerts.csv")
        pq.write_table(
            _sessions(result.windows, scores, top), staging / "sessions.parquet", compression="zstd"
        )
        if "activity" in tables:
            shown = pc.unique(scores["device_id"].take(pa.array(top)))
            mine = pc.is_in(tables["activity"]["device_id"].cast(pa.string()), shown)
            pq.write_table(tables["activity"].filter(mine), staging / "activity.parquet", compression="zstd")
        events = pa.Table.from_pandas(result.events, _EVENTS, preserve_index=False).replace_schema_metadata()
        pq.write_table(events, staging / "fleet_events.parquet", compression="zstd")
        pq.write_table(result.history.to_arrow(), staging / "history.parquet", compression="zstd")
        (staging / RUN).write_text(json.dumps(asdict(run), indent=1, sort_keys=True) + "\n")
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(old)
        staging.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
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


def blind_spots(windows: Windows, tables: Mapping[str, pa.Table]) -> list[str]:
    """What this telemetry cannot show, as sentences."""
    n = windows.n_channels
    total = max(n, 1)
    spots = []
    unknown = int((windows.app[:n] < 0).sum())
    if unknown:
        spots.append(
            f"Blind spot: {unknown} of {n} channel windows ({100 * unknown / total:.0f}%) cannot be "
            "attributed to an app."
        )
    for table, what in (
        ("activity", "whether the user was present"),
        ("notifications", "whether pushes started it"),
    ):
        rows = tables.get(table)
        known = len(pc.unique(rows["device_id"])) if rows is not None else 0
        if known < len(windows.devices):
            spots.append(
                f"Blind spot: {len(windows.devices) - known} of {len(windows.devices)} devices do not show "
                f"{what}."
            )
    spots.append(
        "Blind spot: requests inside one HTTP/2 or QUIC connection cannot be told apart in flow records."
    )
    return spots


def _sentence(event: Any) -> str:
    what = "destination" if event.kind == "destination" else "app"
    return (
        f"Fleet event: {event.devices} devices met the {what} {event.name} for the first time together, from "
        f"{event.first_seen:%Y-%m-%d %H:%M} UTC on; its windows are in no ranking."
    )


def _pictured(scores: pa.Table) -> np.ndarray:
    rank = scores["rank"].fill_null(np.iinfo(np.int64).max).to_numpy()
    order = np.argsort(rank, kind="stable")[:_PICTURED]
    return np.asarray(order[rank[order] <= _PICTURED])


def _sessions(windows: Windows, scores: pa.Table, rows: np.ndarray) -> pa.Table:
    """Sessions of some windows, for the report's pictures; bytes are summed over the session's flows."""
    s = windows.sessions
    count = np.diff(s.offsets)[rows]
    index = np.concatenate(
        [np.arange(s.offsets[r], s.offsets[r + 1]) for r in rows] or [np.empty(0, np.int64)]
    )
    owner = np.repeat(rows, count)
    base = windows.start_us[owner]

    def at(seconds: np.ndarray) -> pa.Array:
        return pa.array(base + np.rint(seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))

    sent, received = _session_bytes(windows, rows)
    keys = {
        name: scores[name].take(pa.array(owner)) for name in ("device_id", "app_id", "dest", "window_start")
    }
    return pa.table(
        keys | {"start": at(s.start[index]), "end": at(s.end[index]), "bytes_out": sent, "bytes_in": received}
    )


def _session_bytes(windows: Windows, rows: np.ndarray) -> tuple[pa.Array, pa.Array]:
    sent: list[np.ndarray] = []
    received: list[np.ndarray] = []
    s = windows.sessions
    for r in rows:
        flows = slice(windows.offsets[r], windows.offsets[r + 1])
        starts = s.start[s.offsets[r] : s.offsets[r + 1]]
        owner = np.searchsorted(starts, windows.flow_start[flows], "right") - 1
        for values, out in ((windows.bytes_out, sent), (windows.bytes_in, received)):
            known = ~np.isnan(values[flows])
            total = np.bincount(owner, np.where(known, values[flows], 0.0), len(starts))
            seen = np.bincount(owner, known, len(starts)) > 0
            out.append(np.where(seen, total, np.nan))
    empty = [np.empty(0)]

    def column(parts: list[np.ndarray]) -> pa.Array:
        values = np.concatenate(parts or empty)
        return pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))

    return column(sent), column(received)


def _alerts(alerts: pa.Table) -> pa.Table:
    def text(name: str, separator: str) -> pa.ChunkedArray:
        return pc.binary_join(alerts[name], separator)

    columns = {name: alerts[name] for name in _ALERT_COLUMNS}
    return pa.table(columns | {"behaviours": text("behaviours", " "), "reasons": text("reasons", " ")})
