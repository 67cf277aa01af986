"""Cases from night to night: what is new, what goes on, what has become quiet."""

from __future__ import annotations

from collections.abc import Container
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence._files import recover
from appcadence.errors import TelemetryError
from appcadence.triage.cases import CASES, MAX_QUIET_DAYS, SEVERITIES, numbered, subject

CASES_FILE = "cases.parquet"
MAX_ALERT_DAYS = 366
"""As many of a case's days are remembered."""
_NOTHING = ("rank", "n_windows", "n_flows", "n_sessions")
"""What a quiet case has none of in a run."""


def read_cases(file: Path) -> pa.Table:
    """The cases in an output directory.

    Raises:
        TelemetryError: the file is unreadable, or another table.
    """
    recover(file.parent)
    try:
        return pq.read_table(file).select(CASES.names).cast(CASES)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise TelemetryError(f"{file} is unreadable ({reason}); run 'appcadence score' again") from None


def continued(
    cases: pa.Table, earlier: pa.Table, last_day: str, held: Container[tuple[str, str]]
) -> pa.Table:
    """This run's cases as the sequel of an earlier run's, and that run's that have become quiet.

    A case that goes on keeps its id, its days and the highest severity that it had. One that has not alerted
    is quiet, and forgotten once it was so for more than `MAX_QUIET_DAYS`.

    Args:
        cases: those of this run, all new.
        earlier: those of the run before.
        last_day: the last day of this run, ISO.
        held: (device, app or destination) of what is under exceptions now, which is not quiet.
    """
    before = {subject(row): row for row in earlier.to_pylist()}
    rows = sorted(cases.to_pylist(), key=lambda row: row["alert_days"][0])
    out = [_sequel(row, before) for row in rows]
    for what, row in before.items():
        if what[1:] not in held and _days(row["alert_days"][-1], last_day) <= MAX_QUIET_DAYS:
            out.append(row | {"status": "quiet"} | dict.fromkeys(_NOTHING, 0) | {"rank": None})
    return numbered(pa.Table.from_pylist(out, CASES))


def _sequel(row: dict[str, Any], before: dict[tuple[str, str, str], dict[str, Any]]) -> dict[str, Any]:
    """A case of this run with what an earlier one, which is taken out, knew of it."""
    old = before.get(subject(row))
    if old is None or _days(old["alert_days"][-1], row["alert_days"][0]) > 1 + MAX_QUIET_DAYS:
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
