"""What the page says about one case."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from appcadence.features.catalog import FEATURES
from appcadence.features.windows import APP_LEVEL
from appcadence.finding_guide import guide_of, key_of
from appcadence.findings import REASON, SUPPRESSION, UNCHECKED, Finding, of_kind
from appcadence.models.eligibility import BEHAVIOURS, PERSISTENT_SECONDS
from appcadence.telemetry.schema import VERDICTS
from appcadence.triage.case_rows import MAX_DESTINATIONS
from appcadence.triage.next_steps import contact, contain, explained, identity, look
from appcadence.triage.report.html import Lane, bar, histogram, lag_curve, raster
from appcadence.triage.report_data import Row, Window, basis, behaviours, channel, shown_value, utc_text
from appcadence.triage.siem import ANALYTIC, REFERENCE, technique_page

MAX_LISTED = 20
"""Windows of a case, and devices of a fleet event, that its card lists."""
_PHRASES = {f.name: f.phrase for f in FEATURES} | {"device_shift": "The whole device is unusual"}
_BANDS = (
    ("app_foreground", "app in foreground", "foreground"),
    ("device_unlocked", "device unlocked", "unlocked"),
)
_TERM = timedelta(days=90)
MAX_ENTRIES = 3
"""Destinations that the template of an exception names."""


def line(case: Row) -> dict[str, Any]:
    """The entry of a case in the list."""
    fleet = case["kind"].startswith("fleet")
    dests = [part["dest"] for part in case["destinations"]]
    app = case["app_id"] or ("" if fleet else "(unknown app)")
    return {
        **{name: case[name] for name in ("case", "status", "severity", "device_ids")},
        "devices": len(case["device_ids"]),
        "device": f"{len(case['device_ids'])} devices" if fleet else case["device_ids"][0],
        "app": app,
        "dest": dests[0] if len(dests) == 1 or (dests and not fleet) else "",
        "more": max(case["n_destinations"] - 1, 0),
        "names": " ".join([app, *dests]),
        "behaviours": case["behaviours"] or [],
        "score": "" if case["score"] is None else f"{case['score']:.1f}",
        "exact_score": "" if case["score"] is None else case["score"],
        "first": case["first_time"],
        "last": case["last_time"],
        "days": len(case["alert_days"]),
        "summary": case["findings"][0].sentence if case["findings"] else case["summary"],
    }


def card(
    case: Row, window: Window | None, raising: Sequence[Row], verdicts: Sequence[Row], out: Path
) -> dict[str, Any]:
    """The card of a case, with its line.

    Args:
        case: a row of the cases table.
        window: its strongest window in this run, which is pictured; None where it has none with a rank.
        raising: its windows, rows of the scores table; see `case_rows.raising`.
        verdicts: earlier decisions on its channels, the latest first.
        out: the output directory.
    """
    said = case["findings"]
    known = {d["analyst"] for d in verdicts}, {d["verdict"] for d in verdicts}
    differ = all(len(names) > 1 for names in known)
    # Decisions are about windows, which quiet cases lack.
    commands = verdict_commands(out, case["case"]) if raising else {}
    reasons = of_kind(said, REASON, SUPPRESSION)
    fleet, loud = case["kind"].startswith("fleet"), [row for row in raising if row["alert"]]
    return line(case) | {
        "id": case["id"],
        "day_list": case["alert_days"],
        "ask": _ask(case, window),
        "look": look(case),
        "contain": contain(case, {} if window is None else window.context),
        "identity": identity(window.context) if window and window.context.get("in_inventory") else "",
        "links": ((ANALYTIC, REFERENCE), technique_page(case)),
        "explained_by": explained(case),
        "wrong": next((guide_of(reason).wrong for reason in reasons if _is_long(reason)), ""),
        "reasons": [(finding.text, key_of(finding)) for finding in reasons],
        "unchecked": [(finding.text, key_of(finding)) for finding in of_kind(said, UNCHECKED)],
        "shown": None if window is None else _shown(window),
        "windows": [
            {"rank": r["rank"], "start": r["window_start"], "dest": channel(r)[1], "score": r["score"]}
            | {"device": r["device_id"] if fleet else ""}
            for r in loud[:MAX_LISTED]
        ],
        "windows_more": max(len(loud) - MAX_LISTED, 0),
        "device_list": case["device_ids"][:MAX_LISTED] if fleet else [],
        "verdicts": verdicts,
        "analysts_differ": differ,
        "judged": _verdict_badge(verdicts, differ),
        "actions": [
            *(("v", f"verdict: {word}", [text]) for word, text in commands.items()),
            ("x", "exception entry", exception_entry(case, raising).split("\n")),
        ],
    }


def _verdict_badge(verdicts: Sequence[Row], differ: bool) -> str:
    """What earlier verdicts say, in two words; empty without any."""
    if differ:
        return "verdicts differ"
    return f"judged {verdicts[0]['verdict']}" if verdicts else ""


def _is_long(reason: Finding) -> bool:
    """Whether the guide's words on long sessions fit: for a new destination a short one may count as long."""
    told = reason.parameters
    short = told.get("feature") == "longest_session_seconds" and told["value"] < PERSISTENT_SECONDS
    return not (reason.code == "expert" and short)


def _ask(case: Row, window: Window | None) -> str:
    if case["kind"].startswith("fleet"):
        return "Ask release management whether this was rolled out."
    return "" if window is None else contact(window, case)


def _shown(window: Window) -> dict[str, Any]:
    """The pictures and numbers of a case's strongest window."""
    row, lags = window.row, window.lags
    start, end = utc_text(row["window_start"]), utc_text(row["window_end"])
    p = "" if row["p_value"] is None else f", p {row['p_value']:.2g}"
    return {
        "title": f"{channel(row)[1]}, {start} to {end} UTC: rank {row['rank']}, score {row['score']:.2f}{p}",
        "basis": basis(row),
        "shows": behaviours(row),
        "raster": raster(
            row["window_start"],
            row["window_end"],
            _lanes(window),
            f"{len(window.sessions)} sessions from {start} to {end} UTC",
        ),
        "presence": bool(window.presence),
        "gaps": histogram(window.starts, _usual_gap(row)),
        "push_lags": None if lags is None else lag_curve(lags),
        "pushed": window.pushed,
        "contributions": _contributions(row),
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
            "here": shown_value(c, "value"),
            "usual": shown_value(c, "expected"),
            "bar": bar(c["contribution"], min(values), max(values)),
            "moved": f"{c['contribution']:+.2f}",
        }
        for c in parts
    ]


def exception_entry(case: Row, raising: Sequence[Row]) -> str:
    """Entries of `exceptions.toml` for a case, with texts for its owner to fill in: one for each destination
    that alerts, with the behaviours that it shows there.

    They hold from the case's first alert until 90 days after its last. They are not checked: what is no valid
    exception, such as a name that is no host, is refused where the file is read.

    Args:
        case: a row of the cases table.
        raising: its windows, rows of the scores table; empty = what the case shows alone is known.
    """
    fleet = case["kind"].startswith("fleet")
    alone = [part["dest"] for part in case["destinations"] if part["alert"]]
    # A fleet event is one of an app, or of one destination; an app may alert over all destinations alone.
    dests: list[str | None] = [*alone[:MAX_ENTRIES]] if alone and (not fleet or len(alone) == 1) else [None]
    shown: dict[str, set[str]] = defaultdict(set)
    for row in raising:
        shown["" if fleet else row["dest"]] |= {*(row["behaviours"] or ())}
    texts = []
    for number, dest in enumerate(dests, 1):
        mine = shown.get("" if fleet else dest or APP_LEVEL, set(case["behaviours"] or ()))
        name = f"case-{case['id'][:12]}{'' if len(dests) == 1 else f'-{number}'}"
        texts.append(_entry(case, name, dest, [name for name in BEHAVIOURS if name in mine]))
    if (more := case["n_destinations"] if len(alone) == MAX_DESTINATIONS else len(alone)) > len(dests) > 1:
        texts.append(f"# {more - len(dests):,} more destinations alert; each takes an entry of its own.")
    if APP_LEVEL in shown and alone and not fleet:
        texts.append(
            "# All destinations together alert, too: that takes an entry without destination, which covers "
            "whatever the app contacts."
        )
    return "\n".join(texts)


def _entry(case: Row, name: str, dest: str | None, shown: Sequence[str]) -> str:
    created, last = (date.fromisoformat(case["alert_days"][at]) for at in (0, -1))
    fields = [
        ("id", _quoted(name)),
        ("owner", _quoted("WHO ANSWERS FOR IT")),
        ("reason", _quoted("WHY THE APP DOES THIS")),
        ("business_justification", _quoted("WHY IT IS WANTED")),
        ("created", created.isoformat()),
        ("expires", (last + _TERM).isoformat()),
    ]
    if not case["kind"].startswith("fleet"):
        fields.append(("device_id", _quoted(case["device_ids"][0])))
    if case["app_id"] is not None:
        fields.append(("app_id", _quoted(case["app_id"])))
    if dest is not None:
        fields.append(("destination", _quoted(dest)))
    named = ", ".join(map(_quoted, shown))
    fields.append(("behaviours", f"[{named}]  # of {', '.join(BEHAVIOURS)}"))
    return "\n".join(["[[exception]]", *(f"{name} = {value}" for name, value in fields)])


def verdict_commands(out: Path, case: int) -> dict[str, str]:
    """By verdict, the command that records it for a case's windows."""
    return {
        word: (
            f"appcadence verdict add {shlex.quote(str(out))} --case {case} --verdict {word} --analyst NAME "
            '--justification "WHY"'
        )
        for word in VERDICTS.column("verdict").values
    }


def _quoted(value: str) -> str:
    """A TOML basic string; what does not print is spelled out."""
    spelled = "".join(f"\\{c}" if c in '"\\' else c if c.isprintable() else f"\\U{ord(c):08x}" for c in value)
    return f'"{spelled}"'
