"""A case or a ranked window for the terminal: everything the triage page says of it, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from appcadence._quantity import quantity
from appcadence._types import DAY_US
from appcadence.errors import AppcadenceError
from appcadence.findings import UNCHECKED, of_kind
from appcadence.telemetry.listing import listed
from appcadence.triage.cases import subject
from appcadence.triage.next_steps import contact, contain, explained, identity, look
from appcadence.triage.report_data import (
    Intervals,
    Output,
    Row,
    Window,
    as_rows,
    basis,
    behaviours,
    channel,
    shown_value,
    utc_text,
)

_WIDTH = 80
_CELLS = 24
_LANES = {"app_foreground": "foreground", "device_unlocked": "unlocked"}


def explain(out: Path, rank: int) -> Window:
    """The window of a rank in a batch output.

    Raises:
        AppcadenceError: the output has no window of that rank.
        TelemetryError: `out` is no output of 'appcadence score', or one of its files is unreadable.
    """
    output = Output(out)
    # Arrow knows no larger number.
    rows = as_rows(output.scores([("rank", "==", rank)])) if 0 < rank < 1 << 63 else []
    if not rows:
        last = output.run.scored
        have = f"its ranks are 1 to {last}" if last else "no window of it is ranked"
        raise AppcadenceError(f"{out} has no window of rank {rank}; {have}")
    return output.windows(rows)[0]


def case_of(out: Path, number: int) -> tuple[Row, Window | None]:
    """The case of a number in a batch output, and its strongest window, if it has one with a rank.

    Added to its row are `without_alert`, what `Output.without_alert` says of it, or empty, and of a fleet
    event `loud_device_ids`, the devices that alert by themselves.

    Raises:
        AppcadenceError: the output has no such case.
        TelemetryError: `out` is no output of 'appcadence score', or one of its files is unreadable.
    """
    output = Output(out)
    cases = output.cases()
    if not 1 <= number <= len(cases):
        have = f"its cases are 1 to {len(cases):,}" if cases else "it has none"
        raise AppcadenceError(f"{out} has no case {number}; {have}")
    case = cases[number - 1]
    case |= {"without_alert": output.without_alert([case]).get(case["id"], "")}
    if case["kind"].startswith("fleet"):
        rows = output.raising([case])[case["id"]]
        case |= {"loud_device_ids": sorted({row["device_id"] for row in rows if row["alert"]})}
    return case, None if case["rank"] is None else explain(out, case["rank"])


def case_facts(case: Row, window: Window | None) -> dict[str, Any]:
    """For JSON: the row of the cases table, with times as ISO 8601 text and what to do; see `case_lines`."""
    return case | {
        "findings": [finding.as_dict() for finding in case["findings"]],
        **{name: _iso(case[name]) for name in ("first_time", "last_time")},
        "look": look(case),
        "contain": contain(case, {} if window is None else window.context),
    }


def case_lines(case: Row, window: Window | None) -> list[str]:
    """A case in words, in lines of at most 80 characters. Names are not made safe for a terminal.

    `window` is its strongest one; None where it has none with a rank.
    """
    many = len(case["device_ids"])
    where = f"{many:,} devices" if case["kind"].startswith("fleet") else f"device {case['device_ids'][0]}"
    what = case["app_id"] or ("(unknown app)" if case["kind"] == "destination" else subject(case)[2])
    head = f"Case {case['case']}, {case['severity']}, {case['status']}: {what}"
    first, *later = case["alert_days"]
    verb = "Quiet since; it alerted" if case["status"] == "quiet" else "Alerts"
    days = f"{verb} on {len(later) + 1:,} days, {first} to {later[-1]}." if later else f"{verb} on {first}."
    said = [f.text for f in case["findings"][1:] if f.kind != UNCHECKED]
    loud, held = case.get("loud_device_ids", ()), case.get("exception_ids") or ()
    return [
        *_wrapped(f"{head} on {where}"),
        *_wrapped(case["findings"][0].sentence),
        *_wrapped(days),
        *_wrapped(case.get("without_alert", "")),
        *(_wrapped(f"Alerting by themselves: {listed(loud, 10)}.") if loud else ()),
        *(_wrapped(f"Under exceptions: more of its windows ({listed(held, 10)}).") if held else ()),
        *_listed("Why it stands out", said),
        *_listed("Where to look", look(case)),
        *_listed("How to contain it", contain(case, {} if window is None else window.context)),
    ]


def facts(window: Window, case: Row | None = None) -> dict[str, Any]:
    """For JSON: the row of the scores table and what surrounds it, with times as ISO 8601 text; see `lines`.

    Keys beside those of the row: `sessions`, `presence`, `pushes` (null = no push telemetry), `push_lag`
    (null = fewer than three pushes), `app` (what the inventory says) and `ask` (null = no alert).
    """
    lags, context = window.lags, window.context
    app = {
        k: context[k]
        for k in ("app_name", "managed", "approved", "declared_purpose", "declared_by")
        if context
    }
    return window.row | {
        "findings": [finding.as_dict() for finding in window.findings],
        **{name: _iso(window.row[name]) for name in ("window_start", "window_end")},
        "sessions": [[*map(_iso, s)] for s in window.sessions],
        "presence": {kind: [[*map(_iso, span)] for span in of] for kind, of in window.presence.items()},
        "pushes": None if window.pushes is None else [*map(_iso, window.pushes)],
        "push_lag": None if lags is None else lags.facts(),
        "app": app,
        "ask": contact(window, case) if window.row["alert"] else None,
    }


def lines(window: Window, case: Row | None = None) -> list[str]:
    """A window in words, in lines of at most 80 characters. Names are not made safe for a terminal.

    `case` is the one whose strongest window it is, if it is shown as such.
    """
    row = window.row
    p = "" if row["p_value"] is None else f", p {row['p_value']:.2g}"
    app, dest = channel(row)
    start, end = utc_text(row["window_start"]), utc_text(row["window_end"])
    out = [
        *_wrapped(f"Rank {row['rank']}: {app} -> {dest}"),
        *_wrapped(f"Device {row['device_id']}, {start} to {end} UTC"),
        f"Score {row['score']:.2f}{p}{', alert' if row['alert'] else ''}",
        *_wrapped(basis(row)),
    ]
    more = (
        window.silent.text if window.silent else "",
        window.pushed,
        identity(window.context),
        contact(window, case) if row["alert"] else "",
    )
    out += [line for sentence in more for line in _wrapped(sentence)]
    unchecked = of_kind(window.findings, UNCHECKED)
    out += _listed("Shows", behaviours(row))
    out += _listed("Speaks for a benign reading", explained(row))
    out += _listed("Reasons", [f.text for f in window.findings if f not in unchecked])
    out += _listed("Could not be checked", [f.text for f in unchecked])
    return out + _contributions(row) + _raster(window)


def _contributions(row: Row) -> list[str]:
    parts = [c for c in row["contributions"] or () if c and c["contribution"] is not None]
    if not parts:
        return []
    out = ["", f"{'What moved the score most':<40}{'here':>15}{'usual':>15}{'moved':>10}"]
    for c in parts:
        here, usual = (shown_value(c, which) for which in ("value", "expected"))
        name = textwrap.wrap(c["feature"], 38) or [""]
        out += [f"  {part}" for part in name[:-1]]
        out.append(f"  {name[-1]:<38}{here:>15}{usual:>15}{c['contribution']:>+10.2f}")
    if row["device_shift"]:
        out.append(f"  {'device_shift':<68}{row['device_shift']:>+10.2f}")
    return out


def _raster(window: Window) -> list[str]:
    """A line of 24 characters a day (or a window, if that is shorter) and lane."""
    row = window.row
    if not window.sessions:
        return ["", "No sessions are kept of this window."]
    start, end = row["window_start"], row["window_end"]
    day = min(DAY_US, end - start)
    note = (
        f"A character is {quantity(day / _CELLS / 6e7, 'min')}; a digit counts sessions under way or pushes "
        "(+ is 10 or more), = is presence:"
    )
    out = ["", *_wrapped(note)]
    for first in range(start, end, day):
        name = f"  {utc_text(first)}  "
        out.append(f"{name}{_counts(window.sessions, first, day)}  sessions")
        for kind, spans in window.presence.items():
            marks = "".join("." if c == "." else "=" for c in _counts(spans, first, day))
            out.append(f"{'':{len(name)}}{marks}  {_LANES[kind]}")
        if window.pushes is not None:
            pushes = [(t, t) for t in window.pushes]
            out.append(f"{'':{len(name)}}{_counts(pushes, first, day)}  pushes")
    if not window.presence:
        out.append("No activity telemetry of this device.")
    return out


def _counts(spans: Intervals, first: int, day: int) -> str:
    """Spans that touch each of 24 equal parts of [first, first + day), as characters."""
    count = [0] * _CELLS
    for start, end in spans:
        # A span that ends where a part begins does not touch it.
        if start >= first + day or max(end, start + 1) <= first:
            continue
        left = max(start - first, 0) * _CELLS // day
        right = (min(max(end, start + 1), first + day) - first - 1) * _CELLS // day
        for cell in range(left, max(left, right) + 1):
            count[cell] += 1
    return "".join("." if n == 0 else str(n) if n < 10 else "+" for n in count)


def _listed(title: str, items: Sequence[str]) -> list[str]:
    if not items:
        return []
    return ["", f"{title}:"] + [line for item in items for line in _wrapped(item, "  - ", "    ")]


def _wrapped(text: str, first: str = "", later: str = "  ") -> list[str]:
    # A host name that a line end broke at its hyphen could not be copied.
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _iso(micros: int) -> str:
    return utc_text(micros, "%Y-%m-%dT%H:%M:%S.%fZ")
