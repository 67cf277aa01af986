"""The command that makes a simulated fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appcadence.cli.progress import progress_bar
from appcadence.telemetry.simulate.fleet import write

_WIDTH = 80


def simulate(
    out: Annotated[Path, typer.Option(help="Telemetry directory to make; must not exist or be empty.")],
    devices: Annotated[int, typer.Option(min=1, help="How many devices.")] = 100,
    days: Annotated[int, typer.Option(min=1, help="How many days; implants live in the second half.")] = 14,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds give equal bytes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make the telemetry of a simulated fleet, with known implants in the second half of the days.

    The truth about the implants goes to OUT.labels.parquet beside the directory, for 'appcadence evaluate'.

    Example: appcadence simulate --out telemetry --devices 100 --days 14 --seed 1
    """
    with progress_bar() as progress:
        summary = write(out, devices, days, seed, progress=progress)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    console = Console(width=_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for name, rows in summary["rows"].items():
        table.add_row(name, f"{rows:,} rows")
    total = sum(summary["implants"].values())
    table.add_row("implants", f"{total:,}")
    console.print(f"A simulated fleet: {summary['devices']:,} devices, {summary['days']:,} days.")
    console.print(table)
    console.print(f"Telemetry: {summary['out']}", soft_wrap=True, markup=False)
    console.print(f"Labels:    {summary['labels']}", soft_wrap=True, markup=False)
