"""The log file of unattended jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appcadence._files import check_output
from appcadence.cli.options import check_files, sentence
from appcadence.cli.terminal import plain


class _Line(logging.Formatter):
    """One line per record, in UTC; control characters in quoted names are replaced."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


@contextmanager
def logged(file: Path | None) -> Iterator[None]:
    """Append what the package logs inside the block, and any error that ends it, to a file; None = nowhere.

    Raises:
        AppcadenceError: the file is a directory, a pipe or a device, or no file can be created beside it.
        OSError: it cannot be written.
    """
    if file is None:
        yield
        return
    check_files(log=file)
    handler = logging.FileHandler(check_output(file), encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(_Line())
    with told("appcadence", handler) as log:
        try:
            yield
        except Exception as error:
            log.error("%s", sentence(error))
            raise


@contextmanager
def aloud() -> Iterator[None]:
    """Print what the package logs inside the block to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    with told("appcadence", handler):
        yield


@contextmanager
def told(name: str, handler: logging.Handler) -> Iterator[logging.Logger]:
    """Send what a logger gets inside the block, at INFO and above, to a handler as well."""
    log = logging.getLogger(name)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield log
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()
