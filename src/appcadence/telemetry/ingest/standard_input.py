"""Standard input as a file: a log is read more than once, and only a file can be."""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import detect
from appcadence.telemetry.readers._packed import MAX_UNPACKED_BYTES
from appcadence.telemetry.readers._spill import room

MAX_WAIT_SECONDS = 60.0
"""Without a byte."""
_PIECE, _HEAD_BYTES = 1 << 20, 1 << 17


def standard_input(target: Path, handle: int | None = None) -> Path:
    """Copy what is written to standard input, or to another handle, into a file.

    Raises:
        UnusableFile: nothing comes for MAX_WAIT_SECONDS or at all, what comes first is in no known format,
            or there is too much of it.
        TelemetryError: there is no room for it.
    """
    handle = sys.stdin.fileno() if handle is None else handle
    size = known = 0
    with room(), target.open("wb") as out:
        while True:
            if not select.select([handle], [], [], MAX_WAIT_SECONDS)[0]:
                raise UnusableFile(f"standard input gave nothing for {MAX_WAIT_SECONDS:.0f} s", target)
            data = os.read(handle, _PIECE)
            if not data:
                break
            size += len(data)
            if size > MAX_UNPACKED_BYTES:
                raise UnusableFile(f"standard input is larger than {MAX_UNPACKED_BYTES >> 30} GB", target)
            out.write(data)
            if not known and size > _HEAD_BYTES:
                # What nobody knows is not waited for: it may never end.
                out.flush()
                detect(target)
                known = size
    if not size:
        raise UnusableFile("standard input is empty; expected a log", target)
    return target
