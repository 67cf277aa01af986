"""evidence verify and evidence report."""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.options import Json, group
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text, word
from appcadence.telemetry.listing import many
from appcadence.telemetry.times import stated_day
from appcadence.telemetry.verdicts import CHOICES
from appcadence.triage import audit_log as chain
from appcadence.triage import audit_report

evidence = group("What was scored, with which model and exceptions, and what analysts decided.")
File = Annotated[Path, typer.Argument(metavar="FILE", help="An evidence file.")]


def anchored(file: Path | None, evidence: Path, head: str) -> None:
    """Log the head of an evidence file, and append it to the anchor file, if there is one."""
    logging.getLogger(__name__).info("evidence head %s of %s", head, evidence)
    if file is not None:
        chain.anchor(file, evidence, head, datetime.now(UTC))


@evidence.command()
def verify(
    file: File,
    head: Annotated[str | None, typer.Option(help="The hash of the last line, as noted elsewhere.")] = None,
    anchor: Annotated[
        Path | None,
        typer.Option(metavar="ANCHORS", help="Heads noted elsewhere, all of which must be in the file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check that no line was edited, removed, inserted, repeated or moved.

    Without --head or --anchor, this does not protect against someone who can write the file: they may have
    cut off or rewritten everything from some line on. Note the head that this command prints, or have
    'appcadence score' and 'appcadence verdict add' note each head with --anchor, where that person cannot
    change it. The exit code is 2 if the chain is broken.

    Example: appcadence evidence verify evidence.jsonl --head 5c0e...
    """
    with progress_bar() as progress:
        found = chain.verify(file, head, progress, anchor)
    if as_json:
        typer.echo(json.dumps(found._asdict()))
        return
    say(f"{many(found.lines, 'line')}, all unchanged and in place. Head:")
    say(found.head)
    if found.anchored is None:
        say(
            "Without a head, this does not protect against someone who can write the file: they may have cut "
            "off or rewritten everything from some line on. Note the head elsewhere, and give it with --head."
        )
        return
    after = found.lines - found.anchored
    more = f" The {many(after, 'line')} after it are checked only by the chain." if after else ""
    say(f"Nothing was cut off or rewritten up to line {found.anchored:,}, the last head given.{more}")


@evidence.command()
def report(
    file: File,
    first: Annotated[str, typer.Option("--from", metavar="D", help="First day (UTC), as 2026-10-01.")],
    last: Annotated[str, typer.Option("--to", metavar="D", help="Last day (UTC).")],
    as_json: Json = False,
) -> None:
    """Summarise by ISO week: coverage, alerts, decisions, models, thresholds, exceptions, blind spots.

    Runs count for the days that they scored, decisions for the day on which they were made. If a day was
    scored twice, the later run counts. The file is also verified.

    Example: appcadence evidence report evidence.jsonl --from 2026-10-01 --to 2026-12-31
    """
    days = stated_day(first, "--from"), stated_day(last, "--to")
    with progress_bar() as progress:
        found = audit_report.report(file, *days, progress)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    say(f"{found.first} to {found.last}; {many(found.lines, 'line')} verified, up to the head")
    say(found.head)
    _print(found.weeks)


def _print(weeks: list[audit_report.Week]) -> None:
    say()
    say("Coverage:")
    names = ("runs", "days", "devices", "device-days", "observed hours")
    rows = ((w.week, w.runs, w.days, w.devices, f"{w.device_days:,.1f}", f"{w.hours:,.0f}") for w in weeks)
    print_table([word("week"), *map(number, names)], rows)
    say()
    say("Alerting windows, and decisions:")
    decided = ((w.week, w.alerts, *(w.decisions[name] for name in CHOICES)) for w in weeks)
    print_table([word("week"), *map(number, ("alerts", *CHOICES))], decided)
    _print_counts("Models and their bundles (runs)", {w.week: _short(w.models) for w in weeks})
    _print_counts("Alert limits (runs)", {w.week: w.limits for w in weeks})
    _print_counts(
        "Exceptions in force (most windows suppressed by one run)", {w.week: w.exceptions for w in weeks}
    )
    spots = {w.week: {finding.text: runs for finding, runs in w.blind_spots} for w in weeks}
    _print_counts("Blind spots (runs that reported them; numbers of the last)", spots)


def _print_counts(title: str, by_week: dict[str, dict[str, int]]) -> None:
    rows = [(week, *item) for week, counts in by_week.items() for item in counts.items()]
    say()
    say(f"{title}:" if rows else f"{title}: none")
    if rows:
        print_table([word("week"), text(), number("number")], rows)


def _short(models: dict[str, int]) -> dict[str, int]:
    """Ids as other commands show them; --json has the full ids."""
    return {re.sub("([0-9a-f]{12})[0-9a-f]{52}", r"\1", name): runs for name, runs in models.items()}
