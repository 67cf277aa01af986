"""What a command checks of its destinations before it works, said with the option that names them."""

from __future__ import annotations

from pathlib import Path

from appcadence._files import check_directory_target, check_file_target


def check_files(**files: Path | None) -> None:
    """Refuse files that could not be written, given by the argument that names each.

    Raises:
        AppcadenceError: as `check_file_target`.
    """
    for argument, file in files.items():
        if file is not None:
            check_file_target(file, argument)


def check_directories(**directories: Path | None) -> None:
    """Refuse directories that could not be written, given by the argument that names each.

    Raises:
        AppcadenceError: as `check_directory_target`.
    """
    for argument, directory in directories.items():
        if directory is not None:
            check_directory_target(directory, argument)
