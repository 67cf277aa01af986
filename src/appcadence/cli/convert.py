"""The command that turns native logs into a telemetry directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.log import logged
from appcadence.cli.options import Json, Log, MapOption, check_directories, said
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text, word
from appcadence.telemetry.file_report import LEFT_OUT, FileReport
from appcadence.telemetry.ingest import convert as conversion
from appcadence.telemetry.ingest.collection import Collection
from appcadence.telemetry.ingest.conversion_report import ConversionReport
from appcadence.telemetry.ingest.late_records import ChangedDay
from appcadence.telemetry.listing import many

_MAX_DAYS, _MAX_REASONS = 10, 12
_REJECTED = {"rejected": "were rejected"}


def convert(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Log files, folders, sysdiagnoses, archives; - = stdin."),
    ],
    out: Annotated[Path, typer.Option(help="Telemetry directory to create or extend.")],
    format: Annotated[str | None, typer.Option(help="Format of the files.  [default: detected]")] = None,
    device_id: Annotated[str | None, typer.Option(help="The device of all rows.")] = None,
    devices: Annotated[
        Path | None,
        typer.Option(help="CSV: address, device_id, from, to (which device had which address when)."),
    ] = None,
    local_net: Annotated[
        list[str] | None, typer.Option(help="Network of your devices (CIDR); may be repeated.")
    ] = None,
    mapping: MapOption = None,
    app_map: Annotated[
        Path | None, typer.Option(help="CSV: app_name, app_id, for logs that name apps by display name.")
    ] = None,
    pseudonymise: Annotated[
        Path | None,
        typer.Option(metavar="KEYFILE", help="Replace device ids and local host names with keyed hashes."),
    ] = None,
    strict: Annotated[bool, typer.Option(help="Stop at the first file that cannot be used.")] = False,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Convert native logs into a telemetry directory, or add them to one.

    Files may be compressed (gzip, bzip2, xz, zstd). Folders and archives (tar, zip) are searched, so pass a
    sysdiagnose as it is; its device is named after its model unless --device-id is given. Files that were
    converted before are skipped. Unusable files are listed and skipped; the command fails only if no file is
    usable. Pass logs that belong together in one call, such as Zeek's conn, ssl, quic, http and dns logs.
    Unusable rows are counted and listed in the table 'rejected'.

    Example: appcadence convert conn.log ssl.log dns.log --out telemetry --local-net 10.0.0.0/8
    """
    check_directories(out=out)
    with logged(log), progress_bar() as progress:
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
            strict=strict,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        _print(report)


def _print(report: ConversionReport) -> None:
    numbers = map(number, ("read", "kept", "rejected", "devices", "apps"))
    rows = (row for file in report.files for row in _rows(file))
    print_table([text("file, format"), *numbers, word("first, last UTC")], rows)
    for collection in report.collections:
        _print_collection(collection)
    reasons = dict.fromkeys(said(file.unusable, file.argument) for file in report.files if file.unusable)
    if report.changed:
        say(_row_counts_in_words(report.fates))
    for note in (*(f"Passed over: {reason}" for reason in reasons), *report.notes):
        say(note)
    if report.rejected:
        say("The table 'rejected' lists the rejected rows with file, line and reason.")
    if not report.changed:
        say(f"Nothing new: {report.out} is unchanged.")
        return
    added = ", ".join(f"{rows:,} {name}" for name, rows in report.tables.items())
    say(f"Added to {report.out}: {added}.")
    if report.changed_days:
        _print_changed(report.changed_days)


def _row_counts_in_words(fates: Mapping[str, int]) -> str:
    """What happened to the rows that were read, in words."""
    read, kept = sum(fates.values()), fates.get("kept", 0)
    rest = [f"{fates[name]:,} {words}" for name, words in (LEFT_OUT | _REJECTED).items() if name in fates]
    return "; ".join([f"Of {many(read, 'row')} read, {kept:,} count", *rest]) + "."


def _print_collection(collection: Collection) -> None:
    """What was used of a folder or an archive, one line per reason."""
    what = [collection.system, f"of {_minute(collection.taken)} UTC" if collection.taken else ""]
    about = f" ({' '.join(filter(None, what))})" if any(what) else ""
    say(f"{collection.name}{about}: {many(collection.used, 'file')} used.")
    for group in collection.passed_over[:_MAX_REASONS]:
        say(f"Passed over: {group.summary()}.", "  ")


def _rows(file: FileReport) -> Iterator[tuple[object, ...]]:
    """Two lines per file."""
    if file.skipped or file.unusable:
        yield (file.name, *("-" for _ in range(6)))
        yield ("  skipped" if file.skipped else "  passed over",)
    else:
        yield (file.name, file.read, file.rows, file.rejected, file.devices, file.apps, _minute(file.first))
        yield (f"  {file.format}", *("" for _ in range(5)), _minute(file.last))


def _print_changed(days: Sequence[ChangedDay]) -> None:
    """The first days, one per line."""
    say("Late records changed earlier days; score these days again:")
    rows = ((f"  {day.device_id}", day.day, many(day.rows, "row")) for day in days[:_MAX_DAYS])
    print_table([text(), word(), number("")], rows)
    if len(days) > _MAX_DAYS:
        say(f"and {len(days) - _MAX_DAYS:,} more (--json lists all)", "  ")


def _minute(iso: str | None) -> str:
    return iso[:16].replace("T", " ") if iso else "-"
