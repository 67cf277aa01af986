"""inventory merge and inventory template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appcadence.cli.progress import progress_bar
from appcadence.telemetry.inventory import merge as inventories
from appcadence.telemetry.inventory.template import write_template

_WIDTH = 80
_MAX_CHANGES = 40
_MAX_NAMES = 10
_WORDS = {
    "new_app": "new app",
    "vanished_app": "vanished app",
    "new_background_modes": "new background modes",
    "approval_lost": "approval lost",
    "push_entitlement_gained": "push entitlement gained",
    "approved_period_changed": "approved period changed",
}

inventory = typer.Typer(
    help="What apps declare and who approved them.", no_args_is_help=True, rich_markup_mode=None
)


@inventory.command()
def merge(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...", help="MDM lists, Intune detectedApps, IPA files, Info.plist, inventory.toml."
        ),
    ],
    into: Annotated[Path, typer.Option(help="Telemetry directory to add the snapshot to.")],
    device_id: Annotated[
        str | None, typer.Option(help="The device of the MDM list, as flows call it [default: its UDID].")
    ] = None,
    app_map: Annotated[
        Path | None, typer.Option(help="CSV: app_name, app_id, for sources without bundle ids.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Merge inventories into one snapshot, and print what changed since the last one.

    A hand-kept inventory.toml is believed before a bundle (IPA, Info.plist), that before MDM, and that
    before Intune. What no source says stays unknown. Names without a line in the app map are reported, never
    guessed.

    Example: appcadence inventory merge mdm.plist Chat.ipa inventory.toml --into telemetry
    """
    report = inventories.merge(sources, into, device_id=device_id, app_map=app_map)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=1))
    else:
        _print(report)


@inventory.command()
def template(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A telemetry directory.")],
    out: Annotated[Path, typer.Option(help="The file to write; must not exist.")] = Path("inventory.toml"),
) -> None:
    """Write a hand-kept inventory to start from, filled with what the telemetry shows of each app.

    All that was observed is a comment, approval and hosts included: merged unchanged, the file approves and
    declares nothing. Remove '# ' from the lines you agree with, then merge it.

    Example: appcadence inventory template telemetry --out inventory.toml
    """
    with progress_bar() as progress:
        apps = write_template(directory, out, progress)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{_many(apps, 'app')} written to {plain(out)}; nothing in it is approved yet.", markup=False
    )


def _print(report: inventories.MergeReport) -> None:
    console = Console(width=_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("file", overflow="fold", ratio=1)
    table.add_column("kind", no_wrap=True)
    table.add_column("device", overflow="fold", max_width=26)
    for name in ("rows", "apps", "rejected", "no id"):
        table.add_column(name, justify="right", no_wrap=True)
    for source in report.sources:
        counts = (source.rows, source.apps, source.rejected, len(source.unmapped))
        device = plain(source.device_id) if source.device_id else "fleet"
        table.add_row(plain(source.name), source.kind, device, *(f"{n:,}" for n in counts))
    console.print(table, markup=False)
    for source in report.sources:
        if source.unmapped:
            few = ", ".join(plain(name) for name in source.unmapped[:_MAX_NAMES])
            rest = " ..." if len(source.unmapped) > _MAX_NAMES else ""
            console.print(f"No bundle id, not used (give --app-map): {few}{rest}", markup=False)
    for note in report.notes:
        console.print(plain(note), markup=False)
    if report.first:
        few = ", ".join(_scope(scope) for scope in report.first[:3]) + (
            " ..." if len(report.first) > 3 else ""
        )
        console.print(f"First snapshot of: {few}", markup=False)
    for change in report.changes[:_MAX_CHANGES]:
        few = ", ".join(_scope(scope) for scope in change.device_ids[:3])
        rest = f" and {len(change.device_ids) - 3:,} more" if len(change.device_ids) > 3 else ""
        detail = f" ({plain(change.detail)})" if change.detail else ""
        console.print(f"{_WORDS[change.kind]}: {plain(change.app_id)}{detail} on {few}{rest}", markup=False)
    if len(report.changes) > _MAX_CHANGES:
        console.print(f"{len(report.changes) - _MAX_CHANGES:,} more changes; --json lists all.")
    if report.snapshot_time is None:
        console.print(
            f"Nothing differs from the last snapshot: {plain(report.out)} is unchanged.", markup=False
        )
        return
    if not report.changes and not report.first:
        console.print("No app, mode, approval, push entitlement or approved period changed.")
    console.print(f"Added to {plain(report.out)}: a snapshot of {_many(report.rows, 'row')}.", markup=False)


def _scope(scope: str | None) -> str:
    return "the fleet" if scope is None else plain(scope)


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def plain(value: object) -> str:
    """Names are hostile: no control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(value))
