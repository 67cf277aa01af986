"""The triage page: one HTML file that runs one script, loads nothing and trusts no name in the telemetry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from appcadence._quantity import quantity
from appcadence.errors import AppcadenceError
from appcadence.features.catalog import FEATURES
from appcadence.findings import sentences
from appcadence.models.alert_units import alert_unit
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.serving.run import Run
from appcadence.triage.contact import contact, identity
from appcadence.triage.report.actions import exception_entry, verdict_command
from appcadence.triage.report.drawing import Lane, bar, raster
from appcadence.triage.report.histogram import histogram
from appcadence.triage.report.html import write_page
from appcadence.triage.report.lag_curve import lag_curve
from appcadence.triage.report_data import (
    Output,
    Row,
    Window,
    as_rows,
    basis,
    behaviours,
    channel,
    no_alert,
    utc_text,
)
from appcadence.triage.verdicts import read as read_verdicts
from appcadence.triage.verdicts import verdicts_for

MAX_WINDOWS = 200
"""As many windows as the batch job keeps sessions for."""

_FEATURE = {f.name: f for f in FEATURES}
_PHRASES = {f.name: f.phrase for f in FEATURES} | {"device_shift": "The whole device is unusual"}
_BANDS = (
    ("app_foreground", "app in foreground", "foreground"),
    ("device_unlocked", "device unlocked", "unlocked"),
)


def write_report(out_dir: Path, html: Path, top: int = MAX_WINDOWS, verdicts: Path | None = None) -> None:
    """Write the triage page of a batch output: facts, the ranked table, a card for each of `top` windows.

    Times on the page are UTC. The page is replaced whole or not at all. It says how many of all ranked and of
    all alerting windows it shows; what the telemetry could not show stands among the facts. Beside a window
    stand the decisions in the file `verdicts` on its device, app and destination, on whatever day, of all
    analysts.

    Raises:
        AppcadenceError: `top` is not in 1 to 200, or `html` is no regular file.
        TelemetryError: `out_dir` is no output of 'appcadence score', or a file is unreadable.
        SchemaError: `verdicts` is another table.
    """
    if not 1 <= top <= MAX_WINDOWS:
        raise AppcadenceError(f"top must be between 1 and {MAX_WINDOWS}, got {top}")
    output = Output(out_dir)
    ranked = output.scores([("rank", "<=", top)]).sort_by("rank")
    windows = output.windows(as_rows(ranked))
    said = _verdicts(ranked, verdicts)
    suppressed = _suppressed(output, top)
    write_page(
        "report.html",
        html,
        run=output.run,
        facts=_facts(output),
        behaviours=list(BEHAVIOURS),
        cards=[_card(window, said.get(i, []), output.path) for i, window in enumerate(windows)],
        alerting=sum(window.row["alert"] for window in windows),
        alerting_ranked=output.run.alerts
        - len(output.scores([("alert", "==", True), ("status", "==", "fleet_event")], ["alert"])),
        suppressed=suppressed,
        suppressed_more=output.run.excepted - len(suppressed),
    )


def _verdicts(ranked: pa.Table, file: Path | None) -> dict[int, list[Row]]:
    """By row, what analysts said of its channel before, the latest first."""
    said: dict[int, list[Row]] = {}
    if file is not None:
        for decision in verdicts_for(ranked, read_verdicts(file)).to_dict("records"):
            said.setdefault(decision["row"], []).append({str(k): v for k, v in decision.items()})
    return said


def _suppressed(output: Output, top: int) -> list[dict[str, Any]]:
    """The highest scores under exceptions."""
    columns = ["device_id", "app_id", "dest", "window_start", "score", "exception_id", "alert"]
    under = output.scores([("status", "==", "excepted")], columns).sort_by([("score", "descending")])
    owners = output.owners()
    return [
        _shared(row) | {"exception": row["exception_id"], "owner": owners.get(row["exception_id"] or "")}
        for row in as_rows(under.slice(0, top))
    ]


def _facts(output: Output) -> list[tuple[str, str, str]]:
    """Name, number and note of each."""
    run = output.run
    alerts = output.scores(
        [("alert", "==", True), ("status", "==", "scored")], ["device_id", "app_id", "dest", "window_start"]
    )
    units = len(np.unique(alert_unit(alerts.to_pandas()))) if len(alerts) else 0
    units += sum(event.parameters["alerting_devices"] > 0 for event in run.fleet_events)
    return [
        ("Devices", f"{run.devices:,}", ""),
        ("Device-days", f"{run.device_days:,.1f}", "observed"),
        ("Windows", f"{run.windows:,}", f"of {run.window}"),
        ("Scored", f"{run.scored:,}", "had enough evidence"),
        ("Excepted", f"{run.excepted:,}", "under documented exceptions"),
        ("Alerts", f"{units:,}", _budget(run)),
    ]


def _budget(run: Run) -> str:
    allowed = run.alerts_per_device_day * run.device_days
    limit = (
        f"the budget of {run.alerts_per_device_day:g} a device-day allows {allowed:,.1f} benign ones"
        if run.false_discovery_rate is None
        else f"at most {100 * run.false_discovery_rate:g}% of them should be benign"
    )
    bounded = "".join(f"; {name} {value:g}" for name, value in run.tunables.items())
    return f"apps or destinations on a day, or fleet events ({run.alerts:,} windows); {limit}{bounded}"


def _shared(row: Row) -> dict[str, Any]:
    """What every list of windows says of one."""
    app, dest = channel(row)
    score = "unknown" if row["score"] is None else f"{row['score']:.2f}"
    start = utc_text(row["window_start"])
    return {"app": app, "dest": dest, "device": row["device_id"], "score": score, "start": start} | {
        "alert": row["alert"]
    }


def _card(window: Window, verdicts: list[Row], out: Path) -> dict[str, Any]:
    """All that a window's row and card say."""
    row, lanes, lags = window.row, _lanes(window), window.lags
    end = utc_text(row["window_end"])
    span = f"{utc_text(row['window_start'])} to {end} UTC"
    label = f"{len(window.sessions)} sessions from {span}"
    known = {d["analyst"] for d in verdicts}, {d["verdict"] for d in verdicts}
    return _shared(row) | {
        "rank": row["rank"],
        "exact_score": "" if row["score"] is None else row["score"],
        "p_value": "" if row["p_value"] is None else f", p {row['p_value']:.2g}",
        "dest_id": row["dest"],
        "behaviours": row["behaviours"] or [],
        "end": end,
        "ask": contact(window) if row["alert"] else "",
        "no_alert": no_alert(row),
        "basis": basis(row),
        "shows": behaviours(row),
        "raster": raster(row["window_start"], row["window_end"], lanes, label),
        "presence": bool(window.presence),
        "verdicts": verdicts,
        "analysts_differ": all(len(names) > 1 for names in known),
        "findings": window.findings,
        "identity": identity(window.context) if window.context.get("in_inventory") else None,
        "explained_by": sentences(row["explained_by"] or ()),
        "gaps": histogram(window.starts, _usual_gap(row)),
        "push_lags": None if lags is None else lag_curve(lags),
        "pushed": window.pushed,
        "contributions": _contributions(row),
        "actions": (
            ("x", "exception entry", exception_entry(row).split("\n")),
            ("v", "verdict command", [verdict_command(out, row["rank"])]),
        ),
    }


def _lanes(window: Window) -> list[Lane]:
    lanes = [Lane("sessions", "session", window.sessions, 34)]
    for kind, label, style in _BANDS:
        if kind in window.presence:
            spans = window.presence[kind]
            lanes.append(Lane(label if spans else f"{label}: never in this window", style, spans, 12))
    if window.pushes is not None:
        label = "pushes to the app" if window.pushes else "pushes to the app: none in this window"
        lanes.append(Lane(label, "push", [(t, t) for t in window.pushes], 12))
    return lanes


def _usual_gap(row: Row) -> float | None:
    """The expected median gap between sessions, in seconds, where a contribution carries it."""
    of = {c["feature"]: c["expected"] for c in row["contributions"] or () if c}
    return of.get("session_median_interval_seconds")


def _contributions(row: Row) -> Sequence[dict[str, Any]]:
    parts = [c for c in row["contributions"] or () if c and c["contribution"] is not None]
    if parts and row["device_shift"]:
        shift = {"feature": "device_shift", "value": None, "expected": None}
        parts.append(shift | {"contribution": row["device_shift"]})
    values = [c["contribution"] for c in parts]
    return [
        {
            "feature": c["feature"],
            "phrase": _PHRASES.get(c["feature"], ""),
            "here": _quantity(c, "value"),
            "usual": _quantity(c, "expected"),
            "bar": bar(c["contribution"], min(values), max(values)),
            "moved": f"{c['contribution']:+.2f}",
        }
        for c in parts
    ]


def _quantity(contribution: dict[str, Any], which: str) -> str:
    feature, value = _FEATURE.get(contribution["feature"]), contribution[which]
    return quantity(math.nan if value is None else value, feature.unit if feature else "count")
