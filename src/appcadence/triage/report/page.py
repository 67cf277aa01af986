"""The triage page: one HTML file that runs one script, loads nothing and trusts no name in the telemetry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from appcadence.errors import AppcadenceError
from appcadence.finding_guide import guides
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.models.scores import SCORES
from appcadence.serving.run import Run
from appcadence.telemetry.schema import VERDICTS
from appcadence.telemetry.sheet import read_named
from appcadence.triage.cases import SEVERITIES, STATUSES
from appcadence.triage.report.case_card import card, line
from appcadence.triage.report.html import write_page
from appcadence.triage.report_data import Output, Row, as_rows, channel, no_alert, undamaged, utc_text
from appcadence.triage.verdicts import verdicts_for

MAX_CASES = 200
"""Cases with a card, by default."""
MAX_LINES = 1500
"""Cases in the list, which filters search."""
MAX_DEVICES, MAX_SILENT = 50, 20
"""Devices with the most cases, and windows of the highest rank among those without alert, that are listed."""


def write_report(out_dir: Path, html: Path, top: int = MAX_CASES, verdicts: Path | None = None) -> None:
    """Write the triage page of a batch output: facts, the list of all cases, cards of the first `top`.

    Times on the page are UTC, with the reader's own beside them. The page is replaced whole or not at all. It
    says how many of all cases it shows; its facts include what the telemetry could not show. A card lists the
    decisions of all analysts in the file `verdicts` about the case's channels, on any day.

    Raises:
        AppcadenceError: `top` is not in 1 to 200, or `html` is no regular file.
        TelemetryError: `out_dir` is no output of 'appcadence score', or a file is unreadable.
        SchemaError: `verdicts` is another table.
    """
    if not 1 <= top <= MAX_CASES:
        raise AppcadenceError(f"top must be between 1 and {MAX_CASES}, got {top}", "top")
    output = Output(out_dir)
    with undamaged(out_dir):
        values = _values(output, top, verdicts)
        output.check_unchanged()
    write_page("report.html", html, **values)


def _values(output: Output, top: int, verdicts: Path | None) -> dict[str, Any]:
    """The values of the template."""
    cases = output.cases()
    alerting = output.raising(cases[:top])
    strongest = [case["rank"] for case in cases[:top] if case["rank"] is not None]
    windows = {w.row["rank"]: w for w in output.windows(as_rows(output.scores([("rank", "in", strongest)])))}
    said, silent = _verdicts(alerting, verdicts), output.without_alert(cases[:top])
    cards = [
        card(case, windows.get(case["rank"]), alerting[case["id"]], said.get(case["id"], []), output.path)
        | {"without_alert": silent.get(case["id"], "")}
        for case in cases[:top]
    ]
    judged = {one["id"]: one["judged"] for one in cards}
    suppressed = _suppressed(output)
    used = {key for one in cards for _, key in (*one["reasons"], *one["unchecked"])}
    return {
        "run": output.run,
        "facts": _facts(output.run, len(cases), output.alerts(cases)),
        "behaviours": list(BEHAVIOURS),
        "severities": SEVERITIES[::-1],
        "statuses": STATUSES,
        "lines": [line(case) | {"judged": judged.get(case["id"], "")} for case in cases[:MAX_LINES]],
        "cards": cards,
        "total": len(cases),
        "devices": _devices(cases),
        "silent": _without_alert(output),
        "suppressed": suppressed[:MAX_CASES],
        "suppressed_more": max(output.run.excepted - MAX_CASES, 0),
        "guides": {key: guide for key, guide in guides().items() if key in used},
    }


def _verdicts(alerting: Mapping[str, Sequence[Row]], file: Path | None) -> Mapping[str, list[Row]]:
    """By id of a case, what analysts said of its channels before, the latest first."""
    said: dict[str, list[Row]] = defaultdict(list)
    if file is not None:
        owner = [(case, row) for case, rows in alerting.items() for row in rows]
        names = ["device_id", "app_id", "dest", "window_start", "window_end"]
        columns = [pa.array([row[n] for _, row in owner], SCORES.field(n).type) for n in names]
        windows = pa.table(columns, names)
        decisions = verdicts_for(windows, read_named(file, VERDICTS))
        decisions["row"] = [owner[row][0] for row in decisions["row"]]
        for decision in decisions.drop_duplicates().to_dict("records"):
            said[decision["row"]].append({str(k): v for k, v in decision.items()})
    return said


def _suppressed(output: Output) -> list[dict[str, Any]]:
    """Windows under exceptions, the highest scores first."""
    columns = ["device_id", "app_id", "dest", "window_start", "score", "exception_id"]
    under = output.scores([("status", "==", "excepted")], columns).sort_by([("score", "descending")])
    owners = output.owners()
    return [
        _window(row) | {"exception": row["exception_id"], "owner": owners.get(row["exception_id"] or "")}
        for row in as_rows(under.slice(0, MAX_CASES))
    ]


def _without_alert(output: Output) -> list[dict[str, Any]]:
    """Windows of the highest rank among those without alert, and why there is none."""
    columns = [
        *("device_id", "app_id", "dest", "window_start", "score", "rank", "status", "alert", "n_beats"),
        *("behaviours", *BEHAVIOURS, "reasons"),
    ]
    rows = output.scores([("status", "==", "scored"), ("alert", "==", False)], columns).sort_by("rank")
    set_here = output.run.tunables
    return [
        _window(row)
        | {
            "rank": row["rank"],
            "reason": next(iter(row["reasons"] or ()), ""),
            "why": no_alert(row, set_here),
        }
        for row in as_rows(rows.slice(0, MAX_SILENT))
    ]


def _window(row: Row) -> dict[str, Any]:
    app, dest = channel(row)
    score = "unknown" if row["score"] is None else f"{row['score']:.2f}"
    return {"app": app, "dest": dest, "device": row["device_id"], "score": score} | {
        "start": utc_text(row["window_start"])
    }


def _devices(cases: Sequence[Row]) -> list[dict[str, Any]]:
    """Devices by their number of cases that alert now, without fleet events."""
    found: dict[str, list[Row]] = defaultdict(list)
    for case in cases:
        if case["status"] != "quiet" and not case["kind"].startswith("fleet"):
            found[case["device_ids"][0]].append(case)
    rows = [
        {
            "device": device,
            "cases": [case["case"] for case in mine],
            "new": sum(case["status"] == "new" for case in mine),
            "severity": mine[0]["severity"],
        }
        for device, mine in found.items()
    ]
    return sorted(rows, key=lambda row: (-len(row["cases"]), row["cases"][0]))[:MAX_DEVICES]


def _facts(run: Run, cases: int, alerts: str) -> list[tuple[str, str, str]]:
    """Name, number and note of each."""
    by_status = ", ".join(f"{run.cases[name]:,} {name}" for name in STATUSES if run.cases.get(name))
    return [
        ("Devices", f"{run.devices:,}", ""),
        ("Device-days", f"{run.device_days:,.1f}", "observed"),
        ("Windows", f"{run.windows:,}", f"of {run.window}"),
        ("Scored", f"{run.scored:,}", "had enough evidence"),
        ("Excepted", f"{run.excepted:,}", "under documented exceptions"),
        ("Cases", f"{cases:,}", "; ".join([*([by_status] if by_status else []), alerts, _budget(run)])),
    ]


def _budget(run: Run) -> str:
    allowed = run.alerts_per_device_day * run.device_days
    limit = (
        f"the budget of {run.alerts_per_device_day:g} a device-day allows {allowed:,.1f} benign ones"
        if run.false_discovery_rate is None
        else f"at most {100 * run.false_discovery_rate:g}% of them should be benign"
    )
    bounded = "".join(f"; {name} {value:g}" for name, value in run.tunables.items())
    return f"{limit}{bounded}"
