"""The command that makes a simulated fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from appcadence.cli.options import Json, check_directories
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text
from appcadence.telemetry.listing import many
from appcadence.telemetry.simulate.fleet import write


def simulate(
    out: Annotated[Path, typer.Option(help="Telemetry directory to create; must be missing or empty.")],
    devices: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 100,
    days: Annotated[
        int, typer.Option(min=1, help="Number of days; implants are active in the second half.")
    ] = 14,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    as_json: Json = False,
) -> None:
    """Create the telemetry of a simulated fleet, with known implants in the second half of the days.

    Labels of the implants are written to OUT.labels.parquet beside the directory, for 'appcadence evaluate'.

    Example: appcadence simulate --out telemetry --devices 100 --days 14 --seed 1
    """
    check_directories(out=out)
    with progress_bar() as progress:
        summary = write(out, devices, days, seed, progress=progress)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    say(f"A simulated fleet: {many(summary['devices'], 'device')}, {many(summary['days'], 'day')}.")
    rows = [(name, f"{rows:,} rows") for name, rows in summary["rows"].items()]
    print_table([text(), number("")], [*rows, ("implants", sum(summary["implants"].values()))])
    say(f"Telemetry: {summary['out']}")
    say(f"Labels:    {summary['labels']}")
