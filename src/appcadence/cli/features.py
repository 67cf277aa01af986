"""features: the feature table, or the list of its features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from appcadence.cli.log import logged
from appcadence.cli.options import Log, Window, check_files
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import say
from appcadence.errors import AppcadenceError
from appcadence.features import History, describe
from appcadence.features.partition import write_features
from appcadence.nightly import read_history


def features(
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="A telemetry directory.")] = None,
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    window: Window = "24h",
    history: Annotated[
        Path | None, typer.Option(help="The history before, such as OUT/history.parquet of a scoring run.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Compute only these features or families, such as size,beats_per_hour."),
    ] = None,
    log: Log = None,
    describe_only: Annotated[bool, typer.Option("--describe", help="List the features and exit.")] = False,
) -> None:
    """Compute the feature table of flow windows, or list its features.

    With --columns, only those features are computed, and inputs that only other features need are not read.
    Without --history, novelty is relative to earlier windows: a device's first window has no novelty values.
    Telemetry may be larger than memory: it takes about 1 GB, plus scratch files beside FILE of 60 bytes per
    flow and 400 per window. A killed run leaves no table, and the next run cleans up.

    Example: appcadence features telemetry --out features.parquet --window 6h
    """
    if describe_only:
        for row in describe().itertuples():
            say(f"{row.feature} ({row.family}, {row.unit}, suspicious: {row.suspicious})")
            say(row.meaning, "    ")
        return
    if directory is None or out is None:
        raise AppcadenceError("give a telemetry directory and --out FILE.parquet, or --describe")
    check_files(out=out)
    wanted = None if columns is None else [name.strip() for name in columns.split(",")]
    with logged(log), progress_bar() as progress:
        past = History.empty() if history is None else read_history(history)
        rows = write_features(directory, out, window, past, wanted, progress=progress)
    say(f"{rows:,} windows of {window} written to {out}")
