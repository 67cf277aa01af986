"""explain: one case, or one ranked window, in the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appcadence.cli import terminal
from appcadence.cli.options import Json, Output
from appcadence.errors import AppcadenceError
from appcadence.triage.explain import case_facts, case_lines, case_of, facts, lines
from appcadence.triage.explain import explain as explained


def explain(
    out: Output,
    rank: Annotated[int | None, typer.Option(help="A window's rank in OUT, from 1.")] = None,
    case: Annotated[int | None, typer.Option(help="A case's number in OUT, from 1.")] = None,
    as_json: Json = False,
) -> None:
    """Explain what happened in a case, or why a window has its rank: the card of the report, in 80 columns.

    Times are UTC.

    Example: appcadence explain scored --case 3
    """
    if (rank is None) == (case is None):
        raise AppcadenceError("give --case with the number of a case, or --rank with that of a window")
    if case is not None:
        found, window = case_of(out, case)
        if as_json:
            shown_window = None if window is None else facts(window, found)
            typer.echo(json.dumps(case_facts(found, window) | {"window": shown_window}))
            return
        shown = case_lines(found, window) + ([] if window is None else ["", *lines(window, found)])
    else:
        window = explained(out, rank or 0)
        if as_json:
            typer.echo(json.dumps(facts(window)))
            return
        shown = lines(window)
    for line in shown:
        terminal.line(line)
