"""What a command checks of its destinations before it works, said with the option that names each.

Directories above a destination that are not there yet are made when it is written.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from appcadence._files import check_output
from appcadence.errors import AppcadenceError


def check_files(**files: Path | None) -> None:
    """Refuse files that could not be written, given by the argument that names each.

    Raises:
        AppcadenceError: something else than a file stands there, or nothing can be made beside it.
    """
    for argument, file in _places(files):
        check_output(file, partial(AppcadenceError, argument=argument))
        if file.exists() and not os.access(file, os.W_OK):
            raise AppcadenceError(f"{file} may not be written to; name another file", argument)


def check_directories(**directories: Path | None) -> None:
    """Refuse directories that could not be written, given by the argument that names each.

    Raises:
        AppcadenceError: something else than a directory stands there, or nothing can be made beside it.
    """
    for argument, directory in _places(directories):
        if directory.exists() and not directory.is_dir():
            raise AppcadenceError(
                f"{directory} is no directory; name one, or one that is not there yet", argument
            )


def _places(paths: Mapping[str, Path | None]) -> Iterator[tuple[str, Path]]:
    """Those that are given, each after a look at where it lies."""
    for argument, path in paths.items():
        if path is not None:
            _check_place(path, argument)
            yield argument, path


def _check_place(path: Path, argument: str) -> None:
    """Try to make a file where a scratch file beside `path` would be."""
    place = Path(os.path.realpath(path)).parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise AppcadenceError(f"{path} cannot be made: {place} is no directory; choose another", argument)
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise AppcadenceError(
            f"{path} cannot be written: {place} takes no files ({error.strerror}); choose another place",
            argument,
        ) from None
