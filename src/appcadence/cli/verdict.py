"""verdict add: record an analyst's decision on scored windows."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from appcadence._files import scratch
from appcadence.cli.evidence import anchored
from appcadence.cli.options import AnchorOption, Json, check_files, group
from appcadence.cli.terminal import say
from appcadence.errors import AppcadenceError
from appcadence.telemetry.verdicts import WINDOW, Draft, decisions, from_csv
from appcadence.triage.verdicts import Recorded, placed, record

_MAX_LINES = 10

verdict = group("Analysts' decisions on windows, for --verdicts of 'appcadence score' and 'train'.")


@verdict.command()
def add(
    out: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT", help="An output directory of 'appcadence score', for --case and --rank."
        ),
    ] = None,
    case: Annotated[int | None, typer.Option(help="Number of a case in OUT: all its windows.")] = None,
    rank: Annotated[int | None, typer.Option(help="Instead of a case: a window's rank in OUT.")] = None,
    device: Annotated[str | None, typer.Option(help="Instead of a rank: the window's device,")] = None,
    app: Annotated[str | None, typer.Option(help="app (leave out if unknown),")] = None,
    dest: Annotated[str | None, typer.Option(help="destination (* = all of the app),")] = None,
    start: Annotated[str | None, typer.Option(metavar="T", help="start, and")] = None,
    end: Annotated[str | None, typer.Option(metavar="T", help="end (ISO times, UTC).")] = None,
    decision: Annotated[
        str | None, typer.Option("--verdict", help="malicious, benign or unexplained.")
    ] = None,
    analyst: Annotated[str | None, typer.Option(metavar="NAME", help="Who decided.")] = None,
    justification: Annotated[str | None, typer.Option(metavar="TEXT", help="Why.")] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="A CSV file with many decisions.")] = None,
    into: Annotated[
        Path, typer.Option(metavar="FILE", help="The verdicts file to add to; created if missing.")
    ] = Path("verdicts.parquet"),
    evidence: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An evidence file to add each decision to.")
    ] = None,
    anchor: AnchorOption = None,
    as_json: Json = False,
) -> None:
    """Record an analyst's decision on a case or a window, and show who decided differently.

    Nothing is overwritten: analysts who disagree keep their rows, and an analyst's last decision on a window
    counts. 'appcadence train --verdicts verdicts.parquet' learns from the file, and 'appcadence score
    --verdicts' treats what it calls benign as known.

    A CSV file has the columns verdict, justification and, without --analyst, analyst. With OUT, a column case
    or rank names the windows, so a copy of OUT/alerts.csv with added verdicts works. Without OUT, the columns
    device_id, app_id, dest, window_start and window_end name them. Lines without a verdict are skipped. If
    any line is invalid, none is added.

    Example: appcadence verdict add scored --case 3 --verdict benign --analyst ana --justification "VPN probe"
    """
    one: dict[str, Any] = dict(zip(WINDOW, (device, app, dest, start, end), strict=True))
    said = {"verdict": decision, "justification": justification}
    if csv is not None:
        if rank is not None or case is not None or any((one | said).values()):
            raise AppcadenceError(
                "the file of --csv names windows, verdicts and justifications; leave out the other options"
            )
        who = {} if analyst is None else {"analyst": analyst}
        needed = [*(WINDOW if out is None else ()), "justification", "analyst"]
        drafts, undecided = from_csv(csv, [name for name in needed if name not in who])
        drafts = [Draft({**draft.values, **who}, draft.origin) for draft in drafts]
    else:
        numbers = {"case": case, "rank": rank}
        given = {name: str(number) for name, number in numbers.items() if number is not None}
        if (out is None) == bool(given) or len(given) > 1 or (given and any(one.values())):
            raise AppcadenceError(
                "name a case by OUT and --case, or a window by OUT and --rank or by --device, --dest, "
                "--start and --end"
            )
        named = given or one
        window = {} if given else {"--device": device, "--dest": dest, "--start": start, "--end": end}
        why = {"--verdict": decision, "--analyst": analyst, "--justification": justification}
        if missing := [option for option, value in (window | why).items() if not value]:
            raise AppcadenceError(
                f"{missing[0]} is missing; give the window, --verdict, --analyst and --justification"
            )
        drafts, undecided = [Draft(named | said | {"analyst": analyst})], 0
    check_files(into=into, evidence=evidence, anchor=anchor)
    if out is not None:
        drafts = placed(out, drafts)
    now = datetime.now(UTC)
    decided = decisions(drafts, now)
    # Heads are noted in the order of their lines.
    with nullcontext() if evidence is None else scratch(evidence, wait=True):
        recorded = record(decided, into, evidence, now)
        if evidence is not None and recorded.head is not None:
            anchored(anchor, evidence, recorded.head)
    if as_json:
        found = json.loads(recorded.disagreements.to_json(orient="records", date_format="iso"))
        answer = {"added": len(decided), "total": recorded.total, "undecided": undecided}
        typer.echo(json.dumps(answer | {"disagreements": found, "head": recorded.head}))
        return
    _print(decided.to_pylist(), recorded, undecided, into)


def _print(decided: list[dict[str, Any]], recorded: Recorded, undecided: int, into: Path) -> None:
    for row in decided[:_MAX_LINES]:
        say(f"{row['verdict']}: {_what(row)}")
    if len(decided) > _MAX_LINES:
        say(f"and {len(decided) - _MAX_LINES:,} more")
    for other in recorded.disagreements.head(_MAX_LINES).to_dict("records"):
        row = decided[other["row"]]
        say(
            f"{row['analyst']}'s {row['verdict']} on {_what(row)} disagrees with {other['analyst']}: "
            f"{other['verdict']} on {other['decided_at']:%Y-%m-%d} ({other['justification']})"
        )
    if len(recorded.disagreements) > _MAX_LINES:
        say(f"and {len(recorded.disagreements) - _MAX_LINES:,} more disagreements; --json lists all")
    passed = f"; {undecided:,} lines without a verdict skipped" if undecided else ""
    say(f"{len(decided):,} added to {into}, which now has {recorded.total:,}{passed}.")
    if recorded.head is not None:
        say(f"Evidence head: {recorded.head}")


def _what(row: dict[str, Any]) -> str:
    app = "(unknown app)" if row["app_id"] is None else row["app_id"]
    return f"{row['device_id']} {app} -> {row['dest']}, from {row['window_start']:%Y-%m-%d %H:%M} UTC"
