"""report: the triage page of a batch output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.log import logged
from appcadence.cli.options import Log, Output, check_files
from appcadence.cli.terminal import say
from appcadence.triage.report.page import MAX_CASES, write_report


def report(
    out: Output,
    html: Annotated[Path, typer.Option(help="The HTML file to write.")],
    top: Annotated[
        int, typer.Option(help="Number of cases with a card, most urgent first; at most 200.")
    ] = MAX_CASES,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="A verdicts file, to show earlier decisions beside a case."),
    ] = None,
    log: Log = None,
) -> None:
    """Write the triage page: one HTML file with all cases, what happened, charts and reasons.

    The page is self-contained, so it can be mailed and opened anywhere. It can be read without its script,
    which filters, sorts, copies and saves the list as CSV.

    Example: appcadence report scored --html report.html
    """
    check_files(html=html)
    with logged(log):
        write_report(out, html, top, verdicts)
    say(f"Report written to {html}")
