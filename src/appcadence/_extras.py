"""Optional packages: code that needs one checks for it first, so that nothing fails half-way."""

import json
import os
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from appcadence.errors import MissingExtraError


def require(extra: str, *packages: str) -> None:
    """Raises MissingExtraError, which says what to install, if a package of an extra is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"{' and '.join(missing)} not found; install with: {install_command(extra)}")


def require_java() -> None:
    """Raises MissingExtraError if there is no Java for Spark to start on this machine."""
    home = os.environ.get("JAVA_HOME")
    if shutil.which(f"{home}/bin/java" if home else "java") is None:
        raise MissingExtraError(
            "Java not found, which Spark needs; install Java 17 or later, or set JAVA_HOME to its directory"
        )


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation, from the checkout or wheel it came from.

    If that is unknown or gone, the command names the packages of the extra instead.
    """
    pip = [_near(Path(sys.executable)), "-m", "pip", "install"]
    try:
        installed = distribution("appcadence")
    except PackageNotFoundError:  # run from its sources
        return shlex.join([*pip, "-e", f"{_near(Path(__file__).resolve().parents[2])}[{extra}]"])
    record = json.loads(installed.read_text("direct_url.json") or "{}")
    origin = Path(unquote(urlsplit(record.get("url", "")).path))
    if origin.is_absolute() and origin.exists():
        editable = ["-e"] if record.get("dir_info", {}).get("editable") else []
        return shlex.join([*pip, *editable, f"{_near(origin)}[{extra}]"])
    needed = (line.partition(";") for line in installed.requires or ())
    return shlex.join([*pip, *(name for name, _, when in needed if f'"{extra}"' in when.replace("'", '"'))])


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
