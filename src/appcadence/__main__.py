"""The command `appcadence`, also `python -m appcadence`."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import NoReturn

from appcadence._extras import require
from appcadence.errors import MissingExtraError


def main() -> NoReturn:
    """Run the command line, or say in one sentence what to install for it."""
    try:
        require("cli", "typer", "rich", "jinja2")
    except MissingExtraError as error:
        print(f"appcadence: {error}", file=sys.stderr)
        sys.exit(2)
    from appcadence.cli import main as run

    try:
        run()
    except SystemExit as ended:
        _leave(ended.code if isinstance(ended.code, int) else 0)


def _leave(code: int) -> NoReturn:
    """End the process with its exit handlers run and its output written, but Python not taken down.

    Before Python 3.14 a thread of Arrow that gives memory of Python's back while Python is taken down aborts
    the process (https://github.com/apache/arrow/issues/34314), which a nightly job would take for a failure.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # there is none, it is full, or it is closed
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
