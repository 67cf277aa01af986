"""exceptions check: are the documented exceptions valid, in force, and still used?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from appcadence._files import recover
from appcadence.cli.options import Json, group
from appcadence.cli.terminal import number, print_table, say, text, word
from appcadence.models.scores import SCORES
from appcadence.serving.measures import MEASURES, MEASURES_FILE
from appcadence.serving.run import read_table, unreadable
from appcadence.telemetry.listing import many
from appcadence.triage import suppression
from appcadence.triage.exceptions import read

exceptions = group("Documented exceptions to what is reported.")


@exceptions.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The exceptions, as TOML.")],
    scores: Annotated[
        Path | None, typer.Option(help="An output directory of 'appcadence score' to test them on.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a file of exceptions: whether it is valid, and which have expired or soon will.

    With --scores, also show how many windows each covers, which match none, which exceed their bounds, and
    which overlap. Nothing is written. An invalid file ends in exit code 2.

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
        return read_table(file, schema.names).cast(schema)
    except pa.ArrowException as error:
        raise unreadable(file, error) from None


def _print(file: Path, uses: Sequence[suppression.Use]) -> None:
    say(f"{file}: {many(len(uses), 'exception')}, the file is valid.")
    if not uses:
        return
    tried = uses[0].covered is not None
    columns = [text("exception", ratio=3), text("owner", ratio=3), word("expires")]
    columns += [number("covers")] if tried else []
    rows = (
        (use.id, use.owner, use.expires, *((use.covered,) if tried else ()), "; ".join(use.notes))
        for use in uses
    )
    print_table([*columns, text("note", ratio=4)], rows)
