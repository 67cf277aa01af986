"""The command `appcadence`, also `python -m appcadence`."""

from __future__ import annotations

import sys

from appcadence._extras import require
from appcadence.errors import MissingExtraError


def main() -> None:
    """Run the command line, or say in one sentence what to install for it."""
    try:
        require("cli", "typer", "rich", "jinja2")
    except MissingExtraError as error:
        print(f"appcadence: {error}", file=sys.stderr)
        sys.exit(2)
    from appcadence.cli import main as run

    run()


if __name__ == "__main__":
    main()
