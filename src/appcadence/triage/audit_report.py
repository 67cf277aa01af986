"""What evidence says: the facts of a scoring run, and the summary by week that an auditor asks for."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._inputs import sha256
from appcadence._types import Progress, silent
from appcadence.config import ATTACK_NAMES, SHOWN_P
from appcadence.errors import EvidenceError, TelemetryError
from appcadence.findings import Finding
from appcadence.serving.run import Run, limit, read_table
from appcadence.telemetry.verdicts import CHOICES
from appcadence.triage.audit_log import EMPTY, lines

MAX_ALERTS = 1000
"""Alerting windows that a run's line names, by rank; their number is that of all."""

_NAMES = ["device_id", "app_id", "dest", "status", "exception_id", "model_name", "model_version"]
_COLUMNS = [*_NAMES, "window_start", "observed_seconds", "rank", "alert"]


def run_facts(
    out: str | Path,
    *,
    model: str,
    exceptions: Sequence[str] = (),
    exceptions_file: str | Path | None = None,
) -> dict[str, Any]:
    """The facts of a run for its line of evidence, from its output directory.

    `days` maps a UTC day to devices, and a device to [observed hours, windows, alerting windows]; a window
    counts for the day that it begins on. Memory: about 60 bytes a window.

    Args:
        out: the output, or the staging directory that will be it.
        model: the model as it was asked for, such as models:/appcadence@champion.
        exceptions: ids of the exceptions in force.
        exceptions_file: the file that they stand in.

    Raises:
        TelemetryError: a file is missing or unreadable.
    """
    out = Path(out)
    run = Run.read(out)
    scores = read_table(out / "scores.parquet", _COLUMNS, read_dictionary=_NAMES)
    return {
        "model": {
            "given": model,
            "name": _only(scores["model_name"]),
            "version": _only(scores["model_version"]),
            "bundle": run.model_version,
            "signer": run.signer,
        },
        "window": run.window,
        "devices": run.devices,
        "device_days": run.device_days,
        "apps": sorted(pc.drop_null(pc.unique(scores["app_id"].cast(pa.string()))).to_pylist()),
        "days": _days(scores),
        "windows": len(scores),
        "status": _counts(scores["status"]),
        "thresholds": {
            "alerts_per_device_day": run.alerts_per_device_day,
            "false_discovery_rate": run.false_discovery_rate,
            "tunables": {
                name: {"p_value": run.tunables.get(name, SHOWN_P), "set": name in run.tunables}
                for name in ATTACK_NAMES.values()
            },
        },
        "alerts": int(pc.sum(scores["alert"]).as_py() or 0),
        "alerting": _alerting(scores),
        "exceptions": {
            "file_sha256": None if exceptions_file is None else _sha256(Path(exceptions_file)),
            "in_force": sorted(exceptions),
            "windows": _counts(scores["exception_id"]),
        },
        "blind_spots": [finding.as_dict() for finding in run.blind_spots],
        "fleet_events": [finding.as_dict() for finding in run.fleet_events],
        "inputs": {"digest": run.inputs, "files": {}},
        "scores_sha256": _sha256(out / "scores.parquet"),
    }


def recorded(evidence: str | Path, out: str | Path) -> bool:
    """Whether the last line on this output's telemetry, model and settings stands for the run that made it.

    Raises:
        EvidenceError: the file was tampered with, or cannot be read.
    """
    if not Path(evidence).exists():
        return False
    same = f'"digest":"{Run.read(Path(out)).inputs}"'.encode()
    last = b""
    for _, raw in lines(evidence):
        last = raw if same in raw else last
    return f'"scores_sha256":"{_sha256(Path(out) / "scores.parquet")}"'.encode() in last


@dataclass
class Week:
    """One ISO week (Monday to Sunday, UTC), or the part of it that was asked for."""

    week: str
    runs: int = 0
    """Runs that scored a day of the week."""
    days: int = 0
    """Days on which any device was observed."""
    devices: int = 0
    device_days: float = 0.0
    """Observed hours, over all devices, in days."""
    hours: float = 0.0
    """The same in hours."""
    alerts: int = 0
    """Alerting windows; where a day was scored again, those of the last run."""
    decisions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHOICES, 0))
    """Decisions taken in the week, by verdict."""
    models: dict[str, int] = field(default_factory=dict)
    """Runs by model: its name and the id of its bundle."""
    limits: dict[str, int] = field(default_factory=dict)
    """Runs by what alerts kept to: budget or rate, and the thresholds that were set."""
    exceptions: dict[str, int] = field(default_factory=dict)
    """Exceptions in force, and the most windows that one run held back by each."""
    blind_spots: list[tuple[Finding, int]] = field(default_factory=list)
    """With the runs that found it; its numbers are those of the last."""


@dataclass(frozen=True)
class Report:
    """The summary of an evidence file between two days."""

    first: date
    last: date
    lines: int
    head: str
    weeks: list[Week]
    """Every week of the span, those without a run included."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        weeks = [
            asdict(week)
            | {"blind_spots": [spot.as_dict() | {"runs": runs} for spot, runs in week.blind_spots]}
            for week in self.weeks
        ]
        span = {"first": self.first.isoformat(), "last": self.last.isoformat()}
        return asdict(self) | span | {"weeks": weeks}


def report(
    path: str | Path,
    first: date,
    last: date,
    progress: Progress = silent,
) -> Report:
    """Sum up an evidence file by ISO week, from `first` to `last`, both included.

    Runs count for the days that they scored, decisions for the day on which they were taken. The file is
    verified on the way. Memory: about 300 bytes for each pair of a device and a day in the span.

    Raises:
        EvidenceError: the file is broken (see `appcadence.triage.audit_log.verify`), a line does not hold the
            facts of its kind, or `last` is before `first`.
    """
    if last < first:
        raise EvidenceError(f"the last day, {last}, is before the first, {first}")
    monday = first - timedelta(days=first.weekday())
    every = [_week(monday + timedelta(weeks=k)) for k in range((last - monday).days // 7 + 1)]
    weeks = {name: Week(name) for name in every}
    seen: dict[str, dict[str, tuple[float, int]]] = defaultdict(dict)
    spots: dict[str, dict[tuple[str, ...], tuple[Finding, int]]] = defaultdict(dict)
    count, head, _ = EMPTY
    for state, raw in lines(path, progress):
        count, head = state.lines, state.head
        try:
            _count(json.loads(raw), (first, last), weeks, seen, spots)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise EvidenceError(f"{path}, line {count} does not hold the facts of its kind") from None
    for day, devices in seen.items():
        week = weeks[_week(date.fromisoformat(day))]
        week.days += 1
        week.hours += sum(hours for hours, _ in devices.values())
        week.alerts += sum(alerts for _, alerts in devices.values())
    for name, week in weeks.items():
        days = [devices for day, devices in seen.items() if _week(date.fromisoformat(day)) == name]
        week.devices = len(set().union(*days))
        week.device_days, week.hours = round(week.hours / 24, 2), round(week.hours, 2)
        week.blind_spots = list(spots[name].values())
    return Report(first, last, count, head, list(weeks.values()))


def _count(
    line: dict[str, Any],
    span: tuple[date, date],
    weeks: dict[str, Week],
    seen: dict[str, dict[str, tuple[float, int]]],
    spots: dict[str, dict[tuple[str, ...], tuple[Finding, int]]],
) -> None:
    facts = line["facts"]
    if line["kind"] == "decision":
        day = date.fromisoformat(line["at"][:10])
        if span[0] <= day <= span[1]:
            weeks[_week(day)].decisions[facts["verdict"]] += 1
    if line["kind"] != "run":
        return
    touched = set()
    for text, devices in facts["days"].items():
        day = date.fromisoformat(text)
        if span[0] <= day <= span[1]:
            touched.add(_week(day))
            # Adding zero fails here on what is no number.
            counts = {name: (0.0 + hours, 0 + alerts) for name, (hours, _, alerts) in devices.items()}
            seen[text].update(counts)
    model = f"{facts['model']['name'] or facts['model']['given']} {facts['model']['bundle']}"
    held_back = facts["exceptions"]["windows"]
    thresholds = facts["thresholds"]
    chosen = {name: t["p_value"] for name, t in thresholds.get("tunables", {}).items() if t["set"]}
    kept_to = limit(thresholds["alerts_per_device_day"], thresholds["false_discovery_rate"], chosen)
    for name in touched:
        week = weeks[name]
        week.runs += 1
        week.models[model] = week.models.get(model, 0) + 1
        week.limits[kept_to] = week.limits.get(kept_to, 0) + 1
        for exception in facts["exceptions"]["in_force"]:
            week.exceptions[exception] = max(week.exceptions.get(exception, 0), held_back.get(exception, 0))
        for spot in facts["blind_spots"]:
            finding = Finding.from_dict(spot)
            spots[name][finding.subject] = (finding, spots[name].get(finding.subject, (finding, 0))[1] + 1)


def _week(day: date) -> str:
    year, week, _ = day.isocalendar()
    return f"{year}-W{week:02d}"


def _days(scores: pa.Table) -> dict[str, dict[str, list[float]]]:
    frame = scores.select(["device_id", "window_start", "observed_seconds", "alert"]).to_pandas()
    keys = ["device_id", "window_start"]
    # A device's windows of one time are observed together, so their seconds count once.
    by_window = frame.groupby(keys, observed=True, sort=True)
    slots = by_window.agg(
        seconds=("observed_seconds", "first"), windows=("alert", "size"), alerts=("alert", "sum")
    ).reset_index()
    slots["day"] = slots["window_start"].dt.floor("D")
    whole = slots.groupby(["day", "device_id"], observed=True)[["seconds", "windows", "alerts"]].sum()
    out: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (day, device), seconds, windows, alerts in zip(
        whole.index, whole["seconds"], whole["windows"], whole["alerts"], strict=True
    ):
        out[day.date().isoformat()][device] = [round(seconds / 3600.0, 4), int(windows), int(alerts)]
    return dict(out)


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    return {
        c["values"]: c["counts"] for c in pc.value_counts(pc.drop_null(values.cast(pa.string()))).to_pylist()
    }


def _alerting(scores: pa.Table) -> list[dict[str, Any]]:
    names = ["rank", "device_id", "app_id", "dest", "window_start"]
    rows = scores.filter(scores["alert"]).select(names).sort_by("rank").slice(0, MAX_ALERTS).to_pylist()
    return [row | {"window_start": pd.Timestamp(row["window_start"]).isoformat()} for row in rows]


def _only(values: pa.ChunkedArray) -> str | None:
    return next(iter(pc.unique(values.cast(pa.string())).to_pylist()), None)


def _sha256(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise TelemetryError(f"{file} cannot be read ({error.strerror})") from None
