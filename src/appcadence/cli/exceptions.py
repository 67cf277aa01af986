"""exceptions check: are the documented exceptions sound, still in force, and still of use?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appcadence._files import recover
from appcadence.cli.inventory import plain
from appcadence.errors import TelemetryError
from appcadence.models.detector import SCORES
from appcadence.serving.measures import MEASURES, MEASURES_FILE
from appcadence.triage import suppression
from appcadence.triage.exceptions import read

_WIDTH = 80

exceptions = typer.Typer(
    help="Documented exceptions to what is reported.", no_args_is_help=True, rich_markup_mode=None
)


@exceptions.callback()
def _group() -> None:
    """Documented exceptions to what is reported."""


@exceptions.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The exceptions, as TOML.")],
    scores: Annotated[
        Path | None, typer.Option(help="An output directory of 'appcadence score', to try them on.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Check a file of exceptions: what is wrong with it, and which have expired or soon will.

    With --scores also: how many windows each covers, which match none, which break their bounds, and which
    overlap. Nothing is written. A file that is wrong ends in exit code 2.

    Example: appcadence exceptions check exceptions.toml --scores scored
    """
    entries = read(file)
    uses = suppression.unused(entries)
    if scores is not None:
        recover(scores)
        judged = [SCORES.field(name) for name in suppression.JUDGED]
        table = _read(scores / "scores.parquet", pa.schema(judged))
        uses = suppression.judge(table, _read(scores / MEASURES_FILE, MEASURES), entries).uses
    if as_json:
        typer.echo(json.dumps({"file": str(file), "exceptions": [use.as_dict() for use in uses]}, indent=1))
    else:
        _print(file, uses)


def _read(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(file, columns=schema.names).select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise TelemetryError(f"{file} cannot be read ({reason}); run 'appcadence score' again") from None


def _print(file: Path, uses: Sequence[suppression.Use]) -> None:
    console = Console(width=_WIDTH, highlight=False)
    many = "1 exception" if len(uses) == 1 else f"{len(uses):,} exceptions"
    console.print(f"{plain(file)}: {many}, nothing wrong with the file.", markup=False, soft_wrap=True)
    if not uses:
        return
    tried = uses[0].covered is not None
    table = Table(box=None, width=_WIDTH, pad_edge=False, header_style="")
    table.add_column("exception", overflow="fold", ratio=3)
    table.add_column("owner", overflow="fold", ratio=3)
    table.add_column("expires", no_wrap=True)
    if tried:
        table.add_column("covers", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold", ratio=4)
    for use in uses:
        covers = [f"{use.covered:,}"] if tried else []
        table.add_row(
            use.id, escape(plain(use.owner)), use.expires.isoformat(), *covers, "; ".join(use.notes)
        )
    console.print(table)
