"""A progress bar for work that takes over two seconds, on terminals only."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console

from appcadence._types import Progress, silent
from appcadence.cli.log import told
from appcadence.cli.terminal import is_quiet

_PATIENCE_SECONDS = 2.0


class _Above(logging.Handler):
    """Prints log records above the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO:  # warnings are printed elsewhere
            self._console.print(record.getMessage(), style="dim", markup=False, highlight=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yields `report(what, share)`, share in [0, 1] of the stage; the bar appears after two seconds."""
    console = Console(stderr=True)
    if is_quiet() or not console.is_terminal:
        yield silent
        return
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.percentage:>3.0f}%"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    patience = threading.Timer(_PATIENCE_SECONDS, bar.start)
    patience.daemon = True
    task = bar.add_task("", total=1.0)

    def report(what: str, share: float) -> None:
        bar.update(task, description=what, completed=share)

    patience.start()
    try:
        with told("appcadence._compiled", _Above(console)):
            yield report
    finally:
        patience.cancel()
        bar.stop()
