"""The triage page: one HTML file that runs no code, loads nothing and trusts no name in the telemetry."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features.catalog import FEATURES
from appcadence.models.calibration import alert_unit
from appcadence.models.detector import SCORES
from appcadence.models.evidence import BEHAVIOURS
from appcadence.models.reasons import quantity
from appcadence.serving.plots import STYLE, Lane, bar, moment, raster, text
from appcadence.serving.run import FILE as RUN
from appcadence.serving.run import Run

MOST = 200
"""As many windows as the batch job keeps sessions for."""

Row = dict[str, Any]
Key = tuple[str, str | None, str, int]

_FEATURE = {f.name: f for f in FEATURES}
_BANDS = (
    ("app_foreground", "app in foreground", "foreground"),
    ("device_unlocked", "device unlocked", "unlocked"),
)


def write_report(out_dir: Path, html: Path, top: int = 20) -> None:
    """Write the triage page of a batch output: facts, the ranked table, a card for each of `top` windows.

    Times on the page are UTC. The page is replaced whole or not at all. It shows at most 200 windows; what
    the telemetry could not show stands among the facts.

    Raises:
        AppcadenceError: `top` is not in 1 to 200, or `html` is a directory.
        TelemetryError: `out_dir` is no output of 'appcadence score', or one of its files is unreadable.
    """
    if html.is_dir():
        raise AppcadenceError(f"{html} is a directory; name the HTML file to write, such as report.html")
    if not 1 <= top <= MOST:
        raise AppcadenceError(f"top must be between 1 and {MOST}, got {top}")
    page = _page(_Output(out_dir, top))
    html.parent.mkdir(parents=True, exist_ok=True)
    temporary = html.with_name(f".{html.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(html)
    finally:
        temporary.unlink(missing_ok=True)


class _Output:
    """What the page needs of a batch output."""

    def __init__(self, path: Path, top: int) -> None:
        if not (path / RUN).is_file():
            raise TelemetryError(f"{path} holds no {RUN}; run 'appcadence score' into it first")
        self.run = Run.read(path)
        columns = ["device_id", "app_id", "dest", "window_start"]
        alerts = _read(path / "scores.parquet", SCORES, [("alert", "==", True)], columns)
        self.alert_units = len(np.unique(alert_unit(alerts.to_pandas()))) if len(alerts) else 0
        rows = _read(path / "scores.parquet", SCORES, [("rank", "<=", top)])
        self.rows: list[Row] = _micros(rows.sort_by("rank")).to_pylist()
        self.sessions: dict[Key, list[tuple[int, int]]] = defaultdict(list)
        for row in _micros(_read(path / "sessions.parquet")).to_pylist():
            self.sessions[_key(row)].append((row["start"], row["end"]))
        self.activity: dict[tuple[str, str], list[Row]] = defaultdict(list)
        if (path / "activity.parquet").exists():
            for row in _micros(_read(path / "activity.parquet")).to_pylist():
                self.activity[row["device_id"], row["kind"]].append(row)

    def lanes(self, row: Row) -> list[Lane]:
        """The window's sessions, and its user's presence where the device's telemetry knows it."""
        lanes = [Lane("sessions", "session", self.sessions[_key(row)], 34)]
        for kind, label, style in _BANDS:
            known = self.activity.get((row["device_id"], kind))
            if not known or (kind == "app_foreground" and row["app_id"] is None):
                continue
            mine = [a for a in known if kind != "app_foreground" or a["app_id"] == row["app_id"]]
            spans = [(a["start"], row["window_end"] if a["end"] is None else a["end"]) for a in mine]
            inside = any(s < row["window_end"] and e >= row["window_start"] for s, e in spans)
            lanes.append(Lane(label if inside else f"{label}: never in this window", style, spans, 12))
        return lanes


def _read(
    file: Path,
    schema: pa.Schema | None = None,
    filters: list[tuple[str, str, Any]] | None = None,
    columns: list[str] | None = None,
) -> pa.Table:
    try:
        table = pq.read_table(file, filters=filters, columns=columns)
        if schema is None:
            return table
        part = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return table.select(part.names).cast(part)
    except (OSError, pa.ArrowException, KeyError) as error:
        reason = " ".join(str(error).split())
        raise TelemetryError(f"{file} is unreadable ({reason}); run 'appcadence score' again") from None


def _micros(table: pa.Table) -> pa.Table:
    """Timestamps as int64 microseconds, which need no time zone library and compare fast."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            values = table[field.name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            table = table.set_column(i, field.name, values)
    return table


def _key(row: Row) -> Key:
    return row["device_id"], row["app_id"], row["dest"], row["window_start"]


def _page(output: _Output) -> str:
    # The style may be applied by its hash alone; nothing else may load or run, whatever a name smuggles in.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    cards = "".join(_card(row, output.lanes(row)) for row in output.rows)
    none = "<p>No window had enough evidence to be scored.</p>"
    ranked = _ranked(output.rows) + cards if output.rows else none
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>App cadence triage</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>App cadence triage</h1><p>Windows of {text(output.run.window)}, ranked by how little "
        "the user or the app's purpose explains their rhythm. Times are UTC. Model "
        f"{text(output.run.model_version[:12])}.</p></header>\n<main>\n{_facts(output)}\n"
        f'<section aria-labelledby="ranking"><h2 id="ranking">Ranked windows</h2>\n{ranked}\n</section>\n'
        "</main>\n</body>\n</html>\n"
    )


def _facts(output: _Output) -> str:
    run = output.run
    allowed = run.alerts_per_device_day * run.device_days
    limit = (
        f"the budget of {run.alerts_per_device_day:g} a device-day allows {allowed:,.1f} benign ones"
        if run.false_discovery_rate is None
        else f"at most {100 * run.false_discovery_rate:g}% of them should be benign"
    )
    alerts = f"apps or destinations on a day ({run.alerts:,} windows); {limit}"
    facts = [
        ("Devices", f"{run.devices:,}", ""),
        ("Device-days", f"{run.device_days:,.1f}", "observed"),
        ("Windows", f"{run.windows:,}", f"of {run.window}"),
        ("Scored", f"{run.scored:,}", "had enough evidence"),
        ("Alerts", f"{output.alert_units:,}", alerts),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd><strong>{value}</strong> {text(note)}</dd></div>"
        for name, value, note in facts
    )
    spots = "".join(f"<li>{text(_sentence(spot))}</li>" for spot in run.blind_spots)
    blind = f'<h3>Blind spots</h3><ul class="dim">{spots}</ul>' if spots else ""
    together = "".join(f"<li>{text(_sentence(event))}</li>" for event in run.fleet_events)
    common = f'<h3>Fleet events</h3><ul class="dim">{together}</ul>' if together else ""
    body = f'<h2 id="facts">Facts</h2><dl class="facts">{cells}</dl>{common}{blind}'
    return f'<section aria-labelledby="facts">{body}</section>'


def _ranked(rows: Sequence[Row]) -> str:
    names = ("Rank", "Score", "Device", "App and destination", "Window (UTC)", "First reason")
    head = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in names)
    body = []
    for row in rows:
        cells = (
            f'<a href="#w{row["rank"]}">{row["rank"]}</a>',
            f"{_number(row['score'])}{_flag(row)}",
            f"<bdi>{text(row['device_id'])}</bdi>",
            _what(row),
            moment(row["window_start"]),
            text(next(iter(row["reasons"] or ()), "")),
        )
        body.append(
            '<tr role="row">'
            + "".join(
                f'<td role="cell" data-label="{name}"><div>{cell}</div></td>'
                for name, cell in zip(names, cells, strict=True)
            )
            + "</tr>"
        )
    # Roles are spelled out because narrow screens lay the rows out as blocks, which drops a table's meaning.
    return (
        '<table class="ranked" role="table" aria-labelledby="ranking"><thead role="rowgroup"><tr role="row">'
        f'{head}</tr></thead><tbody role="rowgroup">{"".join(body)}</tbody></table>'
    )


def _card(row: Row, lanes: list[Lane]) -> str:
    rank = row["rank"]
    span = f"{moment(row['window_start'])} to {moment(row['window_end'])} UTC"
    p = "" if row["p_value"] is None else f", p {row['p_value']:.2g}"
    facts = (
        f"{row['n_flows']} flows in {row['n_sessions']} sessions; observed for "
        f"{quantity(row['observed_seconds'], 's')}; app known from: {row['app_attribution']}."
    )
    said = [
        f"{name.replace('_', ' ')} (p {row[name]['p_value']:.2g})"
        for name in BEHAVIOURS
        if name in (row["behaviours"] or ()) and row[name] and row[name]["p_value"] is not None
    ]
    shows = f"<p>Shows {text(', '.join(said))}.</p>" if said else ""
    benign = text(", ".join(row["explained_by"] or ()))
    explained = f"<p>Speaks for a benign reading: {benign}.</p>" if benign else ""
    excepted = f"<p>Under exception {text(row['exception_id'])}.</p>" if row["exception_id"] else ""
    bands = "" if len(lanes) > 1 else '<p class="dim">No activity telemetry of this device.</p>'
    label = f"{len(lanes[0].intervals)} sessions from {span}"
    picture = raster(row["window_start"], row["window_end"], lanes, label)
    return (
        f'\n<article class="card" id="w{rank}" aria-labelledby="h{rank}">'
        f'<h3 id="h{rank}"><span class="rank">{rank}</span> {_what(row)}</h3>'
        f'<p class="meta">Score <strong>{_number(row["score"])}</strong>{p}{_flag(row)} · device '
        f"<bdi>{text(row['device_id'])}</bdi> · {span}</p><p>{text(facts)}</p>{shows}"
        f"<figure>{picture}{bands}</figure>{_reasons(row)}{explained}{excepted}{_contributions(row)}</article>"
    )


def _reasons(row: Row) -> str:
    def item(sentence: str) -> str:
        unseen = sentence.startswith(("Blind spot:", "Not checked:"))
        return ('<li class="dim">' if unseen else "<li>") + text(sentence) + "</li>"

    items = "".join(item(sentence) for sentence in row["reasons"] or ())
    return f"<h4>Reasons</h4><ul>{items}</ul>" if items else ""


def _contributions(row: Row) -> str:
    parts = [c for c in row["contributions"] or () if c and c["contribution"] is not None]
    if not parts:
        return ""
    values = [c["contribution"] for c in parts]
    low, high = min(values), max(values)
    rows = []
    for c in parts:
        feature = _FEATURE.get(c["feature"])
        unit = feature.unit if feature else "count"
        phrase = feature.phrase if feature else ""
        name, moved = text(c["feature"]).replace("_", "_<wbr>"), c["contribution"]
        rows.append(
            f'<tr><th scope="row">{text(phrase)} <code>{name}</code></th>'
            f"<td>{_quantity(c['value'], unit)}</td><td>{_quantity(c['expected'], unit)}</td>"
            f'<td class="drawn"><div>{bar(moved, low, high)}<span>{moved:+.2f}</span></div></td></tr>'
        )
    return (
        '<table class="why"><caption>What moved the score most</caption><thead><tr>'
        '<th scope="col">Feature</th><th scope="col">Here</th><th scope="col">Usual</th>'
        '<th scope="col">Contribution</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _what(row: Row) -> str:
    app = "(unknown app)" if row["app_id"] is None else row["app_id"]
    dest = "all destinations" if row["dest"] == "*" else row["dest"]
    return f'<bdi>{text(app)}</bdi> <span aria-label="to">&#8594;</span> <bdi>{text(dest)}</bdi>'


def _flag(row: Row) -> str:
    return ' <span class="alert">alert</span>' if row["alert"] else ""


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _quantity(value: float | None, unit: str) -> str:
    return text(quantity(math.nan if value is None else value, unit))


def _sentence(spot: str) -> str:
    """A blind spot without the prefix, which the heading already says."""
    spot = str(spot).removeprefix("Blind spot: ")
    return spot[:1].upper() + spot[1:]
