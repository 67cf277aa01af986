"""inventory merge and inventory template."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.options import Directory, Json, check_directories, check_files, group
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text, word
from appcadence.telemetry.inventory import merge as inventories
from appcadence.telemetry.inventory.template import write_template
from appcadence.telemetry.listing import listed, many

_MAX_CHANGES = 40
_MAX_NAMES = 10

inventory = group("What apps declare and who approved them.")


@inventory.command()
def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="Lists of apps (MDM, CSV, JSON), IPA files, Info.plist, inventory.toml."
        ),
    ],
    into: Annotated[Path, typer.Option(help="Telemetry directory to add the snapshot to.")],
    device_id: Annotated[
        str | None, typer.Option(help="The device of the list, as named in the flows.  [default: its UDID]")
    ] = None,
    app_map: Annotated[
        Path | None, typer.Option(help="CSV: app_name, app_id, for sources without bundle ids.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge inventories into one snapshot, and print what changed since the last one.

    If sources disagree, a hand-kept inventory.toml comes first, then bundles (IPA, Info.plist), then MDM,
    then Intune. What no source states stays unknown. Names missing from the app map are reported, never
    guessed.

    Example: appcadence inventory merge mdm.plist Chat.ipa inventory.toml --into telemetry
    """
    check_directories(into=into)
    report = inventories.merge(sources, into, device_id=device_id, app_map=app_map)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        _print(report)


@inventory.command()
def template(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="The file to write; must not exist.")] = Path("inventory.toml"),
) -> None:
    """Write a starting point for a hand-kept inventory, with what the telemetry shows about each app.

    Everything observed is commented out, including approval and hosts: merged unchanged, the file approves
    and declares nothing. Remove '# ' from the lines you agree with, then merge it.

    Example: appcadence inventory template telemetry --out inventory.toml
    """
    check_files(out=out)
    with progress_bar() as progress:
        apps = write_template(directory, out, progress)
    say(f"{many(apps, 'app')} written to {out}; nothing in it is approved yet.")


def _print(report: inventories.MergeReport) -> None:
    numbers = map(number, ("rows", "apps", "rejected", "no id"))
    columns = [text("file"), word("kind"), text("device"), *numbers]
    rows = (
        (s.name, s.kind, s.device_id or "fleet", s.rows, s.apps, s.rejected, len(s.unmapped))
        for s in report.sources
    )
    print_table(columns, rows)
    for source in report.sources:
        if source.unmapped:
            say(f"No bundle id, not used (give --app-map): {listed(source.unmapped, _MAX_NAMES)}")
    for note in report.notes:
        say(note)
    if report.first:
        say(f"First snapshot of: {_scopes(report.first)}")
    for change in report.changes[:_MAX_CHANGES]:
        detail = f" ({change.detail})" if change.detail else ""
        say(f"{change.kind.replace('_', ' ')}: {change.app_id}{detail} on {_scopes(change.device_ids)}")
    if len(report.changes) > _MAX_CHANGES:
        say(f"{len(report.changes) - _MAX_CHANGES:,} more changes; --json lists all.")
    if report.snapshot_time is None:
        say(f"Nothing differs from the last snapshot: {report.out} is unchanged.")
        return
    if not report.changes and not report.first:
        say("No app, mode, approval, push entitlement or approved period changed.")
    say(f"Added to {report.out}: a snapshot of {many(report.rows, 'row')}.")


def _scopes(scopes: Iterable[str | None]) -> str:
    return listed(["the fleet" if scope is None else scope for scope in scopes])
