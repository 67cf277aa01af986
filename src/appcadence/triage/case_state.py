"""Cases from night to night: new, continuing, raised and quiet."""

from __future__ import annotations

from collections.abc import Container
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import recover
from appcadence._inputs import open_input
from appcadence._parquet import read_parquet
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding
from appcadence.models.calibration import alert_units
from appcadence.serving.run import unreadable
from appcadence.triage.cases import (
    CASES,
    KINDS,
    MAX_QUIET_DAYS,
    SEVERITIES,
    STATUSES,
    STRONGEST,
    numbered,
    subject,
)
from appcadence.triage.siem import suspects

CASES_FILE = "cases.parquet"
MAX_ALERT_DAYS = 366
"""How many of a case's days are remembered."""
_MAY_BE_NULL = {*STRONGEST, "exception_ids"}
_FILLED = ("alert_days", "device_ids", "findings")
_WORDS = {"kind": KINDS, "severity": SEVERITIES, "status": STATUSES}
_NOTHING = ("rank", "n_windows", "n_flows", "n_sessions")
"""Counts that are 0 (or null) for a quiet case."""


def read_cases(file: Path) -> pa.Table:
    """The cases in an output directory.

    Raises:
        TelemetryError: the file is unreadable, or another table.
    """
    recover(file.parent)
    try:
        with open_input(file) as stream:
            cases = read_parquet(stream).select(CASES.names).cast(CASES)
        _check(cases)
        return cases
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise unreadable(file, error) from None


def _check(cases: pa.Table) -> None:
    """Check that the values are such as a run writes.

    Raises:
        ValueError: they are not. Arrow exceptions pass through.
    """
    for name in CASES.names:
        column = cases[name]
        nulls = column.null_count
        if pa.types.is_list(column.type):
            nulls += pc.list_flatten(column).null_count
        if nulls and name not in _MAY_BE_NULL:
            raise ValueError(f"{name} has nulls")
        if name in _FILLED and not pc.all(pc.greater(pc.list_value_length(column), 0), min_count=0).as_py():
            raise ValueError(f"{name} is empty somewhere")
        if name in _WORDS and not pc.all(pc.is_in(column, pa.array(_WORDS[name])), min_count=0).as_py():
            raise ValueError(f"{name} is none of {', '.join(_WORDS[name])} somewhere")
    pc.list_flatten(cases["alert_days"]).cast(pa.date32())
    app = pc.is_in(cases["kind"], pa.array(["app", "fleet_app"]))
    dest = pc.greater(pc.list_value_length(cases["destinations"]), 0)
    if not pc.all(pc.if_else(app, pc.is_valid(cases["app_id"]), dest), min_count=0).as_py():
        raise ValueError("a case has neither app nor destination")
    for finding in pc.list_flatten(cases["findings"]).to_pylist():
        Finding.from_dict(finding)


def under_exceptions(cases: pa.Table, scores: pa.Table) -> set[str]:
    """Ids of the cases that the exceptions of a later run hold back: the app's own window (`*`) is under one,
    or those of all destinations that raised the case are; of a fleet event, every window of this run.

    `scores` has the columns of `calibration.KEYS` and `exception_id`.
    """
    held = scores.filter(pc.is_valid(scores["exception_id"]))
    if not len(held):
        return set()
    units = alert_units(held)
    under = {*zip(*(c.to_pylist() for c in (units["device_id"], units["name"], held["dest"])), strict=True)}
    out = set()
    for row in cases.select(["id", "kind", "device_ids", "app_id", "destinations"]).to_pylist():
        kind, device, name = subject(row)
        if kind.startswith("fleet"):
            column = scores["app_id" if kind == "fleet_app" else "dest"]
            met = scores["exception_id"].filter(pc.equal(column, name))
            whole = len(met) > 0 and met.null_count == 0
        else:
            raised = [(device, name, part["dest"]) for part in suspects(row)]
            whole = (device, name, APP_LEVEL) in under or (bool(raised) and under.issuperset(raised))
        if whole:
            out.add(row["id"])
    return out


def continued(
    cases: pa.Table, earlier: pa.Table, last_day: str, held: Container[str], days: int = 1
) -> pa.Table:
    """This run's cases as the continuation of an earlier run's, and that run's that have become quiet.

    A case that goes on keeps its id, its days and its highest severity. One that did not alert is quiet, and
    is forgotten after more than `MAX_QUIET_DAYS` of that.

    Args:
        cases: those of this run, all new.
        earlier: those of the run before.
        last_day: the last day of this run, ISO.
        held: ids of those of the run before that are under exceptions now, and therefore not quiet.
        days: how long a window lasts.
    """
    # Of several cases of a subject the latest may go on; those before it have been quiet for too long.
    before = {subject(row): row for row in sorted(earlier.to_pylist(), key=lambda row: row["alert_days"][-1])}
    rows = sorted(cases.to_pylist(), key=lambda row: row["alert_days"][0])
    out = [_sequel(row, before, days) for row in rows]
    for row in before.values():
        if row["id"] not in held and _days(row["alert_days"][-1], last_day) < days + MAX_QUIET_DAYS:
            out.append(row | {"status": "quiet"} | dict.fromkeys(_NOTHING, 0) | {"rank": None})
    return numbered(pa.Table.from_pylist(out, CASES))


def _sequel(
    row: dict[str, Any], before: dict[tuple[str, str, str], dict[str, Any]], days: int
) -> dict[str, Any]:
    """A case of this run, continued from its earlier one if there is one, which is removed from `before`."""
    old = before.get(subject(row))
    if old is None or _days(old["alert_days"][-1], row["alert_days"][0]) > days + MAX_QUIET_DAYS:
        return row
    del before[subject(row)]
    worse = SEVERITIES.index(row["severity"]) > SEVERITIES.index(old["severity"])
    return row | {
        "id": old["id"],
        "status": "raised" if worse else "continuing",
        "severity": row["severity"] if worse else old["severity"],
        "alert_days": sorted({*old["alert_days"], *row["alert_days"]})[-MAX_ALERT_DAYS:],
        "first_time": min(old["first_time"], row["first_time"]),
        "last_time": max(old["last_time"], row["last_time"]),
    }


def _days(earlier: str, later: str) -> int:
    return (date.fromisoformat(later) - date.fromisoformat(earlier)).days
