"""evidence verify and evidence report."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appcadence.cli.detect import Json
from appcadence.cli.inventory import plain
from appcadence.cli.progress import progress_bar
from appcadence.telemetry.verdicts import CHOICES
from appcadence.triage import audit_log as chain
from appcadence.triage import audit_report

_WIDTH = 80
_DAY = ["%Y-%m-%d"]

evidence = typer.Typer(
    help="What was scored, with which model and exceptions, and what analysts decided.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
File = Annotated[Path, typer.Argument(metavar="FILE", help="An evidence file.")]


@evidence.command()
def verify(
    file: File,
    head: Annotated[str | None, typer.Option(help="The hash of its last line, noted elsewhere.")] = None,
    as_json: Json = False,
) -> None:
    """Check that no line was edited, removed, put in, repeated or moved.

    That lines were cut off the end, or that the whole file was written anew, shows only with --head: note the
    head that this command prints where the file's keeper cannot change it. Exit code 2 when broken.

    Example: appcadence evidence verify evidence.jsonl --head 5c0e...
    """
    with progress_bar() as progress:
        found = chain.verify(file, head, progress)
    if as_json:
        typer.echo(json.dumps(found._asdict()))
        return
    console = Console(width=_WIDTH, highlight=False)
    console.print(f"{_many(found.lines, 'line')}, each as it was written and in its place. Head:")
    console.print(found.head)
    if found.anchored is None:
        console.print(
            "The chain alone cannot show that lines were cut off the end or that the whole file was written "
            "anew: note the head elsewhere, and give it with --head."
        )
        return
    after = found.lines - found.anchored
    said = f" For the {_many(after, 'line')} after it there is only the chain." if after else ""
    console.print(f"Nothing was cut off or rewritten up to line {found.anchored:,}, the head given.{said}")


@evidence.command()
def report(
    file: File,
    first: Annotated[datetime, typer.Option("--from", formats=_DAY, metavar="D", help="First day (UTC).")],
    last: Annotated[datetime, typer.Option("--to", formats=_DAY, metavar="D", help="Last day (UTC).")],
    as_json: Json = False,
) -> None:
    """Sum up by ISO week: coverage, alerts, decisions, models, thresholds, exceptions in force, blind spots.

    Runs count for the days that they scored, decisions for the day on which they were taken. Where a day was
    scored twice, the later run counts. The file is verified on the way.

    Example: appcadence evidence report evidence.jsonl --from 2026-10-01 --to 2026-12-31
    """
    with progress_bar() as progress:
        found = audit_report.report(file, first.date(), last.date(), progress)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    console = Console(width=_WIDTH, highlight=False)
    console.print(
        f"{found.first} to {found.last}; {_many(found.lines, 'line')} verified, up to the head\n{found.head}"
    )
    _print(console, found.weeks)


def _print(console: Console, weeks: list[audit_report.Week]) -> None:
    console.print("\nCoverage:")
    rows = ((w.week, w.runs, w.days, w.devices, w.device_days, f"{w.hours:,.0f}") for w in weeks)
    console.print(_table(("week", "runs", "days", "devices", "device-days", "observed hours"), rows))
    console.print("\nAlerting windows, and decisions:")
    decided = ((w.week, w.alerts, *(w.decisions[name] for name in CHOICES)) for w in weeks)
    console.print(_table(("week", "alerts", *CHOICES), decided))
    parts = (
        ("Models and their bundles (runs):", [_short(w.models) for w in weeks]),
        ("What alerts kept to (runs):", [w.limits for w in weeks]),
        ("Exceptions in force (most windows held back by a run):", [w.exceptions for w in weeks]),
        (
            "Blind spots (runs that said so; numbers of the last):",
            [_said(w) for w in weeks],
        ),
    )
    for title, each in parts:
        console.print(f"\n{title}" if any(each) else f"\n{title} none")
        listed = (
            (week.week, plain(name), count)
            for week, counts in zip(weeks, each, strict=True)
            for name, count in counts.items()
        )
        if any(each):
            console.print(_table(("week", "", "number"), listed))


def _said(week: audit_report.Week) -> dict[str, int]:
    return {finding.text: runs for finding, runs in week.blind_spots}


def _short(models: dict[str, int]) -> dict[str, int]:
    """Ids as other commands show them; --json has them whole."""
    return {re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1", name): runs for name, runs in models.items()}


def _table(names: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    for name in names:
        left = name in ("week", "")
        table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=name == "week")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) else escape(str(v)) for v in row))
    return table


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
