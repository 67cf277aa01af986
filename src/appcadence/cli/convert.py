"""The command that turns native logs into a telemetry directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appcadence.cli.inventory import plain
from appcadence.cli.progress import progress_bar
from appcadence.telemetry.ingest import convert as conversion
from appcadence.telemetry.ingest.conversion_report import ConversionReport
from appcadence.telemetry.ingest.late_records import ChangedDay

_WIDTH = 80
_MAX_DAYS = 10


def convert(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Log files, plain or gzip.")],
    out: Annotated[Path, typer.Option(help="Telemetry directory to make or to add to.")],
    format: Annotated[str | None, typer.Option(help="Format of the files [default: found out].")] = None,
    device_id: Annotated[str | None, typer.Option(help="The device that all rows belong to.")] = None,
    devices: Annotated[
        Path | None, typer.Option(help="CSV: address, device_id, from, to (who had which address when).")
    ] = None,
    local_net: Annotated[
        list[str] | None, typer.Option(help="Network of your devices (CIDR); may be given several times.")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option("--map", help="TOML: which column is which, for --format table.")
    ] = None,
    app_map: Annotated[
        Path | None, typer.Option(help="CSV: app_name, app_id, for apps known by display name.")
    ] = None,
    pseudonymise: Annotated[
        Path | None,
        typer.Option(metavar="KEYFILE", help="Replace device ids and local host names by keyed hashes."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Turn native logs into a telemetry directory, or add them to one.

    Files that were converted before are skipped; files that cannot be used are passed over and named, and
    only where none can the command fails. Give logs that belong together in one call, such as Zeek's conn,
    ssl, quic, http and dns logs. Rows that cannot be used are counted, and listed in the table 'rejected'.

    Example: appcadence convert conn.log ssl.log dns.log --out telemetry --local-net 10.0.0.0/8
    """
    with progress_bar() as progress:
        report = conversion.convert(
            paths,
            out,
            format=format,
            local_nets=local_net or (),
            devices=devices,
            device_id=device_id,
            mapping=mapping,
            app_map=app_map,
            keyfile=pseudonymise,
            progress=lambda done, total: progress("Converting", done / max(total, 1)),
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        _print(report)


def _print(report: ConversionReport) -> None:
    console = Console(width=_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("file, format", overflow="fold", ratio=1)
    for name in ("read", "kept", "rejected", "devices", "apps"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first, last UTC", no_wrap=True)
    for file in report.files:
        if file.skipped or file.unusable:
            what = "skipped" if file.skipped else "passed over"
            table.add_row(f"{escape(file.name)}\n  {what}", *("-" for _ in range(6)))
            continue
        numbers = (file.read, file.rows, file.rejected, file.devices, file.apps)
        counts = (f"{number:,}" for number in numbers)
        span = "-" if not (file.first and file.last) else f"{_minute(file.first)}\n{_minute(file.last)}"
        table.add_row(f"{escape(file.name)}\n  {file.format}", *counts, span)
    console.print(table)
    passed_over = dict.fromkeys(file.unusable for file in report.files if file.unusable)
    for note in (*(f"Passed over: {reason}" for reason in passed_over), *report.notes):
        console.print(plain(note), markup=False)
    if report.rejected:
        rows = "1 row" if report.rejected == 1 else f"{report.rejected:,} rows"
        console.print(f"{rows} rejected: see file, line and reason in the table 'rejected'.")
    if not report.changed:
        console.print(f"Nothing new: {report.out} is unchanged.", markup=False)
        return
    added = ", ".join(f"{rows:,} {name}" for name, rows in report.tables.items())
    console.print(f"Added to {report.out}: {added}.", markup=False)
    if report.changed_days:
        _print_changed(console, report.changed_days)


def _print_changed(console: Console, days: Sequence[ChangedDay]) -> None:
    """The first days, one a line."""
    console.print("Late records changed days that were there before; score these days again:")
    table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    for day in days[:_MAX_DAYS]:
        rows = "1 row" if day.rows == 1 else f"{day.rows:,} rows"
        table.add_row(escape(plain(day.device_id)), day.day, rows)
    console.print(table)
    if len(days) > _MAX_DAYS:
        console.print(f"  and {len(days) - _MAX_DAYS:,} more (--json lists all)")


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")
