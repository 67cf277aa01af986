"""Checks for input files: regular files only, bounded in size, UTF-8, and private if secret."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tomllib
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

from appcadence.errors import AppcadenceError

MAX_SETTINGS_BYTES = 16 << 20
"""Most bytes of a file of settings, exceptions or keys."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_input(path: str | Path) -> BufferedReader:
    """Open a regular file for reading, without blocking on a pipe that has no writer.

    Raises:
        OSError: the file cannot be opened, or is not a regular file; `strerror` says what it is.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
            raise OSError(code, f"it is {kind_of(mode)}, not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_private(path: str | Path, stream: BufferedReader, error: Callable[[str], AppcadenceError]) -> None:
    """Refuse an open secret file that anyone but its owner may read or change.

    Raises:
        AppcadenceError: `error`, if others may.
    """
    mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    if mode & 0o077:
        raise error(f"{path} is accessible to others (mode {mode:o}); make it private: chmod 600")


def why_unreadable(error: OSError, expected: str) -> str:
    """The rest of a sentence about a file that could not be opened or read, after its name."""
    if isinstance(error, IsADirectoryError):
        if str(error.filename).endswith(".logarchive"):
            return (
                "is a unified log archive; convert it to text on a Mac with log show --archive --style ndjson"
            )
        return "is a directory; give the files themselves"
    if isinstance(error, FileNotFoundError):
        return f"does not exist; expected {expected}"
    return f"cannot be read ({error.strerror or error}); expected {expected}"


def read_bytes(path: str | Path, max_bytes: int = MAX_SETTINGS_BYTES) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        OSError: as `open_input`, or the file is larger.
    """
    with open_input(path) as stream:
        # read() allocates the requested size at once, so request no more than there is.
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(min(size, max_bytes) + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes >> 20} MB", str(path))
    return content


def read_json(path: str | Path, max_bytes: int = MAX_SETTINGS_BYTES) -> Any:
    """The content of a JSON file in UTF-8.

    Raises:
        OSError: as `read_bytes`.
        ValueError: the content is not JSON, or is nested too deeply.
    """
    return parsed_json(read_bytes(path, max_bytes))


def parsed_json(content: bytes) -> Any:
    """The value of JSON in UTF-8; ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: str | Path, expected: str, error: Callable[[str], AppcadenceError]) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        AppcadenceError: `error`, if it cannot be read or is not TOML; `expected` says what it should contain.
    """
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8-sig"))
    except OSError as fault:
        raise error(f"{path} cannot be read ({fault.strerror}); expected {expected}") from None
    except (ValueError, RecursionError) as fault:
        raise error(f"{path} is not readable TOML ({fault}); expected {expected}") from None


def sha256(path: str | Path) -> str:
    """SHA-256 of a regular file, as 64 hexadecimal digits.

    Raises:
        OSError: as `open_input`.
    """
    with open_input(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def kind_of(mode: int) -> str:
    """The kind of a path that is not a regular file, with its article."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")
