"""explain: one ranked window in the terminal."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.detect import Json
from appcadence.cli.inventory import plain
from appcadence.triage.explain import explain as explained
from appcadence.triage.explain import facts, lines


def explain(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An output directory of 'appcadence score'.")],
    rank: Annotated[int, typer.Option(help="The window's rank in OUT, from 1.")],
    json: Json = False,
) -> None:
    """Say why one window is ranked where it is: the report's card of it, in 80 columns.

    Times are UTC.

    Example: appcadence explain scored --rank 3
    """
    window = explained(out, rank)
    if json:
        typer.echo(jsonlib.dumps(facts(window)))
        return
    for line in lines(window):
        typer.echo(plain(line))
