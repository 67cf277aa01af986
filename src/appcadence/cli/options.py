"""Arguments and options that several commands share, and what errors call them.

Every command imports this: nothing here is slow to import.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from appcadence._files import check_output
from appcadence.errors import AppcadenceError

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A telemetry directory.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="An output directory of 'appcadence score'.")]
Model = Annotated[
    str, typer.Option(help="A bundle directory, or an MLflow URI such as models:/appcadence@champion.")
]
ExpectModel = Annotated[
    str | None, typer.Option(metavar="ID", help="Refuse any model with another id (64 hexadecimal digits).")
]
AnchorOption = Annotated[
    Path | None,
    typer.Option(
        "--anchor", metavar="FILE", help="Append the head of the evidence to a file on other storage."
    ),
]
MapOption = Annotated[
    Path | None, typer.Option("--map", help="TOML file that maps columns, for --format table.")
]
Window = Annotated[str, typer.Option(help="Window length: hours that divide a day, or whole days.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append stages, counts and any error to this log file.")
]

_OPTIONS = {
    "exclude_families": "--exclude-family",
    "keyfile": "--pseudonymise",
    "local_nets": "--local-net",
    "mapping": "--map",
}
"""Options by argument of a library function, if the names differ."""


def group(help: str) -> typer.Typer:
    """A group of commands, even if it has only one."""
    made = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)
    made.callback()(lambda: None)
    return made


def sentence(error: Exception) -> str:
    """The text of an error, with the file or option that it concerns."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; provide more, or pass fewer or smaller files at once"
    if not isinstance(error, AppcadenceError | OSError):
        said_of = AppcadenceError(f"{type(error).__name__}: {error}")
        return (
            f"an input cannot be used ({said_of}); run 'appcadence --verbose' with the command to see where"
        )
    if isinstance(error, OSError):
        what = error.strerror or " ".join(str(error).split())
        return what if error.filename is None else f"{error.filename}: {what}"
    return said(str(error), error.argument)


def said(text: str, argument: str | None) -> str:
    """A text about an argument, with the option that sets it."""
    return text if argument is None else f"{text} ({option_of(argument)})"


def option_of(argument: str) -> str:
    """The option that sets an argument of a library function."""
    return _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")


def check_files(**files: Path | None) -> None:
    """Refuse files that cannot be written, given by argument name.

    Raises:
        AppcadenceError: the path is not a regular file, or no file can be created beside it.
    """
    for argument, file in _places(files):
        check_output(file, partial(AppcadenceError, argument=argument))
        if file.exists() and not os.access(file, os.W_OK):
            raise AppcadenceError(f"{file} is not writable; name another file", argument)


def check_directories(**directories: Path | None) -> None:
    """Refuse directories that cannot be written, given by argument name.

    Raises:
        AppcadenceError: the path is not a directory, or nothing can be created beside it.
    """
    for argument, directory in _places(directories):
        if directory.exists() and not directory.is_dir():
            raise AppcadenceError(f"{directory} is not a directory; name a directory or a new path", argument)


def _places(paths: Mapping[str, Path | None]) -> Iterator[tuple[str, Path]]:
    """The paths that are given, once the place of each has been checked."""
    for argument, path in paths.items():
        if path is not None:
            _check_place(path, argument)
            yield argument, path


def _check_place(path: Path, argument: str) -> None:
    """Try to create a file where a scratch file beside `path` would be."""
    place = Path(os.path.realpath(path)).parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise AppcadenceError(
            f"{path} cannot be created: {place} is not a directory; choose another path", argument
        )
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise AppcadenceError(
            f"{path} cannot be written: {place} takes no files ({error.strerror}); choose another place",
            argument,
        ) from None
