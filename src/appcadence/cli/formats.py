"""formats, formats test: what can be read, and why a file is or is not recognised."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.options import Json, MapOption
from appcadence.cli.terminal import print_table, say, text
from appcadence.telemetry import formats as catalogue
from appcadence.telemetry.file_report import LEFT_OUT
from appcadence.telemetry.listing import many

formats = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@formats.callback()
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List the formats that 'appcadence convert' reads, and what each provides.

    Other formats can be declared in a mapping file: appcadence convert --format table --map FILE.toml.

    Example: appcadence formats
    """
    if context.invoked_subcommand:
        return
    known = catalogue.formats()
    if as_json:
        typer.echo(json.dumps([asdict(format) for format in known], indent=1))
        return
    rows = ((format.name, format.title, ", ".join(format.gives)) for format in known)
    print_table([text("format"), text("what it is", ratio=3), text("gives", ratio=2)], rows)


@formats.command()
def test(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A log, plain or gzip.")],
    format: Annotated[str | None, typer.Option(help="Format of the file.  [default: detected]")] = None,
    mapping: MapOption = None,
    as_json: Json = False,
) -> None:
    """Show which format a file has and what is read from its first 1,000 lines, or why no format fits.

    Example: appcadence formats test access.log
    """
    found = catalogue.examine(file, format=format, mapping=mapping)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
        return
    if len(found.taken_as) != 1:
        _print_reasons(found)
        return
    say(f"{file.name} is read as {found.taken_as[0]}.")
    if found.unusable:
        say(f"It is refused: {found.unusable}.")
        return
    rest = {LEFT_OUT[reason]: rows for reason, rows in found.left_out.items() if rows}
    rest |= {"were rejected": found.rejected} if found.rejected else {}
    fates = "".join(f"; {rows:,} {said}" for said, rows in rest.items())
    say(f"Of {many(found.read, 'row')} among its first lines, {found.kept:,} count{fates}.")
    for line, reason in found.faults:
        say(f"line {line:,}: {reason}", "  ")


def _print_reasons(found: catalogue.Examination) -> None:
    name = found.path.name
    if found.taken_as:
        say(f"{name} may be {' or '.join(found.taken_as)}; choose one with --format.")
        return
    if found.known_as:
        say(f"{name} is {found.known_as}.")
        return
    say(f"{name} is in no known format. Formats that are recognised by their fields:")
    print_table([text("format"), text("why not", ratio=1)], found.reasons.items())
    say("If each record is one flow, declare its fields: --format table --map FILE.toml.")
