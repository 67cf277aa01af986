"""The triage page: one HTML file that runs one script, loads nothing and trusts no name in the telemetry."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from appcadence._files import check_output, write_text
from appcadence.errors import AppcadenceError
from appcadence.features.catalog import FEATURES
from appcadence.models.calibration import alert_unit
from appcadence.models.reasons import quantity
from appcadence.serving.run import Run
from appcadence.triage.contact import contact, identity
from appcadence.triage.report.actions import SCRIPT, attributes, controls, decide
from appcadence.triage.report.data import (
    UNSEEN,
    Output,
    Row,
    Window,
    as_rows,
    basis,
    behaviours,
    channel,
    unalerted,
)
from appcadence.triage.report.drawing import STYLE, Lane, bar, moment, raster, text
from appcadence.triage.report.histogram import histogram
from appcadence.triage.report.push_lags import figure
from appcadence.triage.verdicts import read as read_verdicts
from appcadence.triage.verdicts import verdicts_for

MAX_WINDOWS = 200
"""As many windows as the batch job keeps sessions for."""

_FEATURE = {f.name: f for f in FEATURES}
_BANDS = (
    ("app_foreground", "app in foreground", "foreground"),
    ("device_unlocked", "device unlocked", "unlocked"),
)


def write_report(out_dir: Path, html: Path, top: int = 20, verdicts: Path | None = None) -> None:
    """Write the triage page of a batch output: facts, the ranked table, a card for each of `top` windows.

    Times on the page are UTC. The page is replaced whole or not at all. It shows at most 200 windows; what
    the telemetry could not show stands among the facts. Beside a window stand the decisions in the file
    `verdicts` on its device, app and destination, on whatever day, of all analysts.

    Raises:
        AppcadenceError: `top` is not in 1 to 200, or `html` is no regular file.
        TelemetryError: `out_dir` is no output of 'appcadence score', or a file is unreadable.
        SchemaError: `verdicts` is another table.
    """
    check_output(html)
    if not 1 <= top <= MAX_WINDOWS:
        raise AppcadenceError(f"top must be between 1 and {MAX_WINDOWS}, got {top}")
    write_text(html, _page(_content(Output(out_dir), top, verdicts)))


class _Card(NamedTuple):
    """A ranked window and what is shown beside it."""

    window: Window
    said: list[Row]
    """What analysts said of its channel before, the latest first."""


class _Content(NamedTuple):
    """What the page shows of a batch output."""

    path: Path
    run: Run
    alert_units: int
    cards: list[_Card]
    excepted: list[Row]
    """The highest scores under exceptions."""
    owners: dict[str, str]
    """Of the exceptions, by id."""


def _content(output: Output, top: int, verdicts: Path | None) -> _Content:
    alerts = output.scores([("alert", "==", True)], ["device_id", "app_id", "dest", "window_start"])
    units = len(np.unique(alert_unit(alerts.to_pandas()))) if len(alerts) else 0
    ranked = output.scores([("rank", "<=", top)]).sort_by("rank")
    rows = as_rows(ranked)
    said: list[list[Row]] = [[] for _ in rows]
    if verdicts is not None:
        for decision in verdicts_for(ranked, read_verdicts(verdicts)).to_dict("records"):
            said[decision["row"]].append(decision)
    cards = [_Card(*parts) for parts in zip(output.windows(rows), said, strict=True)]
    columns = ["device_id", "app_id", "dest", "window_start", "score", "exception_id"]
    under = output.scores([("status", "==", "excepted")], columns).sort_by([("score", "descending")])
    excepted = as_rows(under.slice(0, top))
    return _Content(output.path, output.run, units, cards, excepted, output.owners())


def _page(content: _Content) -> str:
    # Style and script are known by their hashes; nothing else may load or run, whatever a name smuggles in.
    policy = (
        f"default-src 'none'; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    cards = f"<div>{''.join(_card(card, content.path) for card in content.cards)}</div>"
    none = "<p>No window had enough evidence to be scored.</p>"
    ranked = (
        controls() + _ranked([card.window.row for card in content.cards]) + cards if content.cards else none
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>App cadence triage</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>App cadence triage</h1><p>Windows of {text(content.run.window)}, ranked by how little "
        "the user or the app's purpose explains their rhythm. Times are UTC. Model "
        f"{text(content.run.model_version[:12])}.</p></header>\n<main>\n{_facts(content)}\n"
        f'<section aria-labelledby="ranking"><h2 id="ranking">Ranked windows</h2>\n{ranked}\n</section>\n'
        f"{_excepted(content)}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _facts(content: _Content) -> str:
    run = content.run
    allowed = run.alerts_per_device_day * run.device_days
    limit = (
        f"the budget of {run.alerts_per_device_day:g} a device-day allows {allowed:,.1f} benign ones"
        if run.false_discovery_rate is None
        else f"at most {100 * run.false_discovery_rate:g}% of them should be benign"
    )
    bounded = "".join(f"; {name} {value:g}" for name, value in run.tunables.items())
    alerts = f"apps or destinations on a day ({run.alerts:,} windows); {limit}{bounded}"
    facts = [
        ("Devices", f"{run.devices:,}", ""),
        ("Device-days", f"{run.device_days:,.1f}", "observed"),
        ("Windows", f"{run.windows:,}", f"of {run.window}"),
        ("Scored", f"{run.scored:,}", "had enough evidence"),
        ("Excepted", f"{run.excepted:,}", "under documented exceptions"),
        ("Alerts", f"{content.alert_units:,}", alerts),
    ]
    cells = "".join(
        f"<div><dt>{name}</dt><dd><strong>{value}</strong> {text(note)}</dd></div>"
        for name, value, note in facts
    )
    spots = "".join(f"<li>{text(_sentence(spot))}</li>" for spot in run.blind_spots)
    blind = f'<h3>Blind spots</h3><ul class="dim">{spots}</ul>' if spots else ""
    together = "".join(f"<li>{text(_sentence(event))}</li>" for event in run.fleet_events)
    ask = '<p class="dim">Ask release management whether these were rolled out.</p>'
    common = f'<h3>Fleet events</h3>{ask}<ul class="dim">{together}</ul>' if together else ""
    body = f'<h2 id="facts">Facts</h2><dl class="facts">{cells}</dl>{common}{blind}'
    return f'<section aria-labelledby="facts">{body}</section>'


def _ranked(rows: Sequence[Row]) -> str:
    names = ("Rank", "Score", "Device", "App and destination", "Window (UTC)", "First reason")
    body = [
        (
            attributes(row),
            (
                f'<a href="#w{row["rank"]}">{row["rank"]}</a>',
                f"{_number(row['score'])}{_flag(row)}",
                f"<bdi>{text(row['device_id'])}</bdi>",
                _what(row),
                moment(row["window_start"]),
                text(next(iter(row["reasons"] or ()), "")),
            ),
        )
        for row in rows
    ]
    return _table("rows ranked", "ranking", names, body)


def _table(style: str, label: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table of rows, each its attributes and its cells in HTML.

    Roles are spelled out because narrow screens lay the rows out as blocks, which drops a table's meaning.
    """
    head = "".join(f'<th role="columnheader" scope="col">{name}</th>' for name in names)
    body = "".join(
        f'<tr role="row"{attrs}>'
        + "".join(
            f'<td role="cell" data-label="{name}"><div>{cell}</div></td>'
            for name, cell in zip(names, cells, strict=True)
        )
        + "</tr>"
        for attrs, cells in rows
    )
    return (
        f'<table class="{style}" role="table" aria-labelledby="{label}"><thead role="rowgroup">'
        f'<tr role="row">{head}</tr></thead><tbody role="rowgroup">{body}</tbody></table>'
    )


def _excepted(content: _Content) -> str:
    if not content.excepted:
        return ""
    names = ("Score", "Device", "App and destination", "Window (UTC)", "Exception")
    rows = (
        (
            "",
            (
                _number(row["score"]),
                f"<bdi>{text(row['device_id'])}</bdi>",
                _what(row),
                moment(row["window_start"]),
                text(_under(row["exception_id"], content.owners)),
            ),
        )
        for row in content.excepted
    )
    more = content.run.excepted - len(content.excepted)
    rest = f"<p>{more:,} more, of lower score, are not shown.</p>" if more > 0 else ""
    return (
        '<section aria-labelledby="excepted"><h2 id="excepted">Windows under exceptions</h2>'
        "<p>Documented exceptions cover these; they have no rank and raise no alert.</p>"
        f"{_table('rows', 'excepted', names, rows)}{rest}</section>\n"
    )


def _under(exception: str | None, owners: dict[str, str]) -> str:
    owner = owners.get(exception or "")
    return f"{exception}" if owner is None else f"{exception} ({owner})"


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


def _card(card: _Card, out: Path) -> str:
    window = card.window
    row, lanes = window.row, _lanes(window)
    rank = row["rank"]
    span = f"{moment(row['window_start'])} to {moment(row['window_end'])} UTC"
    p = "" if row["p_value"] is None else f", p {row['p_value']:.2g}"
    said = behaviours(row)
    shows = f"<p>Shows {text(', '.join(said))}.</p>" if said else ""
    benign = text(", ".join(row["explained_by"] or ()))
    explained = f"<p>Speaks for a benign reading: {benign}.</p>" if benign else ""
    bands = "" if window.presence else '<p class="dim">No activity telemetry of this device.</p>'
    ask = f'<p class="ask">{text(contact(window))}</p>' if row["alert"] else _dim(unalerted(row))
    lags = window.lags
    pushes = _dim(window.pushed) if lags is None else figure(lags)
    app = f"<p>{text(identity(window.context))}</p>" if window.context.get("in_inventory") else ""
    label = f"{len(lanes[0].intervals)} sessions from {span}"
    picture = raster(row["window_start"], row["window_end"], lanes, label)
    return (
        f'\n<article class="card" id="w{rank}" aria-labelledby="h{rank}">'
        f'<h3 id="h{rank}"><span class="rank">{rank}</span> {_what(row)}</h3>'
        f'<p class="meta">Score <strong>{_number(row["score"])}</strong>{p}{_flag(row)} · device '
        f"<bdi>{text(row['device_id'])}</bdi> · {span}</p>{ask}<p>{text(basis(row))}</p>{shows}"
        f"<figure>{picture}{bands}</figure>{_said(card.said)}{_reasons(row)}{app}{explained}"
        f'<div class="pair">{histogram(window.starts, _usual_gap(row))}{pushes}</div>'
        f"{_contributions(row)}{decide(row, out)}</article>"
    )


def _dim(sentence: str) -> str:
    return f'<p class="dim">{text(sentence)}</p>' if sentence else ""


def _usual_gap(row: Row) -> float | None:
    """The expected median gap between sessions, in seconds, where a contribution carries it."""
    of = {c["feature"]: c["expected"] for c in row["contributions"] or () if c}
    return of.get("session_median_interval_seconds")


def _said(decisions: list[Row]) -> str:
    """Every analyst's word on the window's channel; disagreement is shown, not settled."""
    if not decisions:
        return ""
    items = "".join(
        f"<li><strong>{text(d['verdict'])}</strong>, {text(d['analyst'])} on {d['decided_at']:%Y-%m-%d}, of "
        f"the window from {d['window_start']:%Y-%m-%d %H:%M}: {text(d['justification'])}</li>"
        for d in decisions
    )
    several = len({d["verdict"] for d in decisions}) > 1 and len({d["analyst"] for d in decisions}) > 1
    note = "; analysts differ" if several else ""
    return f"<h4>Earlier verdicts on this channel{note}</h4><ul>{items}</ul>"


def _reasons(row: Row) -> str:
    def item(sentence: str) -> str:
        unseen = sentence.startswith(UNSEEN)
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
    app, dest = channel(row)
    return f'<bdi>{text(app)}</bdi> <span aria-label="to">&#8594;</span> <bdi>{text(dest)}</bdi>'


def _flag(row: Row) -> str:
    return ' <span class="alert">alert</span>' if row["alert"] else ""


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"


def _quantity(value: float | None, unit: str) -> str:
    return text(quantity(math.nan if value is None else value, unit))


def _sentence(said: str) -> str:
    """A blind spot or fleet event without the prefix, which the heading already says."""
    said = str(said).removeprefix("Blind spot: ").removeprefix("Fleet event: ")
    return said[:1].upper() + said[1:]
