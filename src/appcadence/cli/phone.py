"""phone: one person's phone, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.loading import load_scorer, trusted_keys
from appcadence.cli.options import ExpectModel, Json, check_directories, check_files
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import say
from appcadence.phone import examine
from appcadence.telemetry.listing import many
from appcadence.triage.phone.assess import Phone, PhoneApp
from appcadence.triage.report.plain_pages import write_phone


def phone(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Sysdiagnoses, PowerLogs, App Privacy Reports of one phone."),
    ],
    html: Annotated[Path | None, typer.Option(help="Also write a page with charts.")] = None,
    device_id: Annotated[str | None, typer.Option(help="Name of the phone.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A bundle directory or an MLflow URI.  [default: the reference model]")
    ] = None,
    expect_model: ExpectModel = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the converted telemetry in this new directory.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which apps of one phone use the network in a way that neither use nor an approved rhythm explains.

    Pass everything that was collected from one person's phone (sysdiagnoses as they are, PowerLogs, App
    Privacy Reports), or a telemetry directory. No fleet and no training are needed. The converted telemetry
    is deleted unless --keep names a directory for it.

    Example: appcadence phone sysdiagnose_*.tar.gz App_Privacy_Report_v4_*.ndjson --html phone.html
    """
    check_files(html=html)
    check_directories(keep=keep)
    with progress_bar() as progress:
        scorer = None
        if model is not None or expect_model is not None:
            scorer = load_scorer(model, expect_model, trusted_keys(*paths))
        found = examine(paths, device_id=device_id, scorer=scorer, keep=keep, progress=progress)
    if html is not None:
        write_phone(found, html)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=1))
        return
    _print(found)
    if html is not None:
        say(f"Page with charts written to {html}")


def _print(found: Phone) -> None:
    say(found.status)
    say(found.caveat)
    say()
    _list("What was looked at", found.seen)
    for number, app in enumerate(found.apps, 1):
        _print_app(f"{number}. {app.name}", app)
    if found.more_apps:
        say(f"{many(found.more_apps, 'more app')}, which stand out less, are not listed.")
        say()
    if found.system:
        total = len(found.system) + found.more_system
        say(f"PARTS OF iOS THAT STAND OUT: {total:,}")
        say()
    for number, app in enumerate(found.system, 1):
        _print_app(f"iOS {number}. {app.name}", app)
    _list("What could not be checked on this phone", found.unchecked)
    _list("What to collect next", found.collect)


def _print_app(title: str, app: PhoneApp) -> None:
    say(title if app.name == app.app_id else f"{title} ({app.app_id})")
    for sentence in (*app.why, app.confidence):
        say(sentence, "   ")
    for name, sentences in app.lists:
        _list(name, sentences, "   ", end=False)
    say()


def _list(title: str, sentences: tuple[str, ...], indent: str = "", end: bool = True) -> None:
    if sentences:
        say(f"{title}:", indent)
    for sentence in sentences:
        say(sentence, f"{indent}- ")
    if end and sentences:
        say()
