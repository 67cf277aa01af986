"""Which formats can be read, what each gives, and why a file is or is not of one of them."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from appcadence.errors import AppcadenceError
from appcadence.telemetry.readers import (
    DECLARATIONS,
    FORMATS,
    ON_DEVICE,
    Reader,
    ReadOptions,
    _declared,
    _lines,
    _not_read,
    reader,
    takers,
)

MAX_ROWS = 1000
"""How many lines of a file are tried."""
_MAX_FAULTS = 10
_GIVEN = {
    "leases": ("devices",),
    "zeek": ("names", "durations", "bytes"),
    "suricata": ("names", "durations", "bytes"),
    "nfdump": ("durations", "bytes"),
    "argus": ("durations", "bytes"),
    "powerlog": ("apps", "bytes", "pushes", "activity"),
    "knowledgec": ("apps", "activity"),
    "biome": ("apps", "activity", "notifications"),
    "unified_log": ("apps", "pushes", "activity"),
    "app_privacy_report": ("apps", "names"),
    "table": ("as mapped",),
}
"""What the coded formats give."""


@dataclass(frozen=True)
class Format:
    """A format that can be read."""

    name: str
    title: str
    gives: tuple[str, ...]
    """What its rows contain, such as "apps", "names", "durations" and "bytes"."""
    documentation: str = ""
    """Where its layout is described; empty for coded formats, which cover several layouts."""


@dataclass(frozen=True)
class Examination:
    """The format of a file, and how its first lines are read."""

    path: Path
    taken_as: tuple[str, ...]
    """Names of the formats that it fits; if there are several, `format` must choose one."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Declared format = why the file is not of it."""
    known_as: str = ""
    """What the file is and what to do, if it is recognised but not read."""
    read: int = 0
    kept: int = 0
    rejected: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    faults: tuple[tuple[int, str], ...] = ()
    """Line and reason for the first rejected rows."""
    unusable: str = ""
    """Why the file is refused although a format fits."""

    def as_dict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return asdict(self) | {"path": str(self.path)}


def formats() -> tuple[Format, ...]:
    """All formats, by name."""
    return tuple(_format(name) for name in sorted(FORMATS))


def _format(name: str) -> Format:
    declared = DECLARATIONS.get(name)
    if declared is None:
        module = import_module(f"{reader.__module__}.{name}")
        said = " ".join((module.__doc__ or "").split("\n\n")[0].split())
        return Format(name, said.split(": ")[0].rstrip(":."), _GIVEN[name])
    given = {*declared.columns, *declared.constants}
    gives = {
        "apps": "app_id",
        "names": "dest_host",
        "durations": "duration_seconds end",
        "bytes": "bytes_out bytes_in",
    }
    known = tuple(what for what, columns in gives.items() if given & set(columns.split()))
    return Format(name, declared.title, known, declared.documentation)


def examine(path: str | Path, *, format: str | None = None, mapping: str | Path | None = None) -> Examination:
    """The format of a file, and how its first MAX_ROWS lines are read (for a database, all of it).

    Args:
        path: a file, plain or gzip.
        format: the format it should have; None = detected.
        mapping: the mapping file of the format `table`.

    Raises:
        UnusableFile: the file is missing, empty or unreadable.
        TelemetryError: there is no such format, or the mapping is faulty.
    """
    path = Path(path)
    start = _lines.head(path, "a log")
    found = [reader(format)] if format else takers(path, start)
    names = tuple(taker.NAME for taker in found)
    reasons = {
        name: "; or ".join(dict.fromkeys(_declared.why_not(layout, start) for layout in declared.layouts))
        for name, declared in DECLARATIONS.items()
        if name not in names
    }
    known = "" if found else _not_read.named(start, path) or ""
    if len(found) != 1:
        return Examination(path, names, reasons, known)
    device = "device" if found[0].NAME in ON_DEVICE else None
    options = ReadOptions(device_id=device, mapping=None if mapping is None else Path(mapping))
    with tempfile.TemporaryDirectory(prefix="appcadence-") as folder:
        tried = path
        if found[0].NAME not in ON_DEVICE and not start.startswith(b"PAR1"):
            tried = Path(folder) / path.name
            first = (line for block in _lines.blocks(path, "a log") for line in block.data.splitlines(True))
            tried.write_bytes(b"".join(islice(first, MAX_ROWS)))
        try:
            return Examination(path, names, reasons, **_tried(tried, found[0], options))
        except AppcadenceError as error:
            said = str(error).replace(str(tried), str(path))
            return Examination(path, names, reasons, unusable=said)


def _tried(path: Path, found: Reader, options: ReadOptions) -> dict[str, Any]:
    """How the rows of a file were read, as fields of an examination."""
    read, rejected = 0, 0
    left_out: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    for table, batch in found.read([path], options):
        marks = batch.schema.metadata
        read += int(marks[b"read"])
        left_out.update(json.loads(marks[b"left_out"]))
        if table == "rejected":
            rejected += len(batch) - int(marks[b"counting"])
            faults += zip(batch["line"].to_pylist(), batch["reason"].to_pylist(), strict=True)
    kept = read - rejected - sum(left_out.values())
    counts = {"read": read, "kept": kept, "rejected": rejected, "left_out": dict(left_out)}
    return counts | {"faults": tuple(sorted(faults)[:_MAX_FAULTS])}
