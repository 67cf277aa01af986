"""explain: one ranked window in the terminal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from appcadence.cli import terminal
from appcadence.cli.options import Json, Output
from appcadence.triage.explain import explain as explained
from appcadence.triage.explain import facts, lines


def explain(
    out: Output,
    rank: Annotated[int, typer.Option(help="The window's rank in OUT, from 1.")],
    as_json: Json = False,
) -> None:
    """Say why one window is ranked where it is: the report's card of it, in 80 columns.

    Times are UTC.

    Example: appcadence explain scored --rank 3
    """
    window = explained(out, rank)
    if as_json:
        typer.echo(json.dumps(facts(window)))
        return
    for line in lines(window):
        terminal.line(line)
