"""Readers of native logs: one module per format, all with the same interface, found through this registry.

A reader yields `(table name, batch)`. The schema metadata of a batch names the file it comes from (see
`tagged`), so that a conversion can report per file. Rows that cannot be used are yielded as batches of the
table `rejected`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.addresses import Network
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.readers import _sqlite
from appcadence.telemetry.readers._declaration import Declaration
from appcadence.telemetry.readers._lines import Fault, head
from appcadence.telemetry.readers._not_read import described, named
from appcadence.telemetry.readers._strangers import Strangers

_CODED = {
    "leases": "leases",
    "zeek": "connections",
    "suricata": "flow events",
    "nfdump": "flow records",
    "argus": "flows",
    "powerlog": "records",
    "knowledgec": "records",
    "biome": "records",
    "unified_log": "records",
    "app_privacy_report": "records",
    "table": "rows",
}
"""Formats that are a module of this package, and what a row of each is called."""

DECLARATIONS = {
    path.stem: Declaration.read(path) for path in sorted((Path(__file__).parent / "declared").glob("*.toml"))
}
"""Formats whose records are flows, or directions of flows: files of the folder `declared`."""

FORMATS = _CODED | {name: declared.counts for name, declared in DECLARATIONS.items()}
"""The formats that can be read, and what a row of each is called."""

ON_DEVICE = frozenset({"powerlog", "knowledgec", "unified_log", "biome", "app_privacy_report"})
"""Logs that a device keeps about itself: none names the device, and successive exports overlap."""

INVENTORIES = frozenset({"powerlog"})
"""Formats that also name the installed apps."""

Batches = Iterator[tuple[str, pa.Table]]
"""Names of canonical tables, each with some of its rows."""


@dataclass(frozen=True)
class ReadOptions:
    """What a reader must know beyond the files themselves."""

    local_nets: tuple[Network, ...] = ()
    """Networks of the monitored devices; empty = let the log or the address decide."""
    devices: Devices | None = None
    """Which device had which address when; None = the address is the device."""
    device_id: str | None = None
    """The device of every row, for logs of one device."""
    mapping: Path | None = None
    """The mapping file of the format `table`; no other format needs one."""
    strangers: Strangers = field(default_factory=Strangers, compare=False)
    """Filled by the readers: who opened the flows that are left out because they belong to other devices."""
    said: dict[tuple[Path, str], None] = field(default_factory=dict, compare=False)
    """Filled by the readers: what the user should know about a file, even though its rows count."""


class Reader(Protocol):
    """The interface of a reader module."""

    NAME: str

    def sniff(self, path: Path, start: bytes) -> bool:
        """Whether the file is of this format; `start` is its first 64 kB, unpacked. Never raises."""

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Batches:
        """Yield (canonical table name, batch).

        Raises:
            UnusableFile: a file cannot be read, or holds nothing of this format.
            TelemetryError: the options do not fit the format.
        """


@cache
def reader(name: str) -> Reader:
    """The reader of a format.

    Raises:
        TelemetryError: there is no such format.
    """
    if name not in FORMATS:
        raise TelemetryError(f"unknown format {name!r}; expected one of {', '.join(FORMATS)}")
    if name in DECLARATIONS:
        return cast(Reader, import_module(f"{__name__}._declared").Declared(DECLARATIONS[name]))
    return cast(Reader, import_module(f"{__name__}.{name}"))


def detect(path: Path) -> Reader:
    """The reader whose format the file has.

    Raises:
        UnusableFile: it cannot be read, or no reader knows it.
    """
    start = head(path, "a log")
    found = takers(path, start)
    if len(found) == 1:
        return found[0]
    if found:
        names = " or ".join(taker.NAME for taker in found)
        raise UnusableFile(f"{path} may be in the format {names}; say which", path, argument="format")
    if what := named(start, path):
        raise UnusableFile(f"{path} is {what}", path)
    if fault := _sqlite.fault(path, start, "a PowerLog (.PLSQL) or a knowledgeC.db"):
        raise fault
    looks = f"; {what}" if (what := described(start)) else ""
    said = f"{path} is in no known format{looks}; the known formats are {', '.join(FORMATS)}"
    raise UnusableFile(said, path, argument="format")


def sniffed(path: Path, start: bytes) -> Reader | None:
    """The only reader that takes a file with this start; None if none or several do.

    Of an SQLite file, the whole file is checked.
    """
    found = takers(path, start)
    return found[0] if len(found) == 1 else None


def takers(path: Path, start: bytes) -> list[Reader]:
    """The readers that would take a file: one coded reader, or else all declarations that fit."""
    coded = next((known for known in map(reader, _CODED) if known.sniff(path, start)), None)
    # A line with a time and a process name is from a unified log, unless it holds a record of another log.
    if coded is not None and coded.NAME != "unified_log":
        return [coded]
    declared = [known for known in map(reader, DECLARATIONS) if known.sniff(path, start)]
    return declared or ([] if coded is None else [coded])


def tagged(
    batch: pa.Table, path: Path, read: int = 0, size: int = 0, left_out: Mapping[str, int] | None = None
) -> pa.Table:
    """Mark a batch with its file, the data rows read for it (kept or not), the bytes read, and the number of
    valid rows that are left out, by reason (see `LEFT_OUT`)."""
    marks = {"read": str(read), "size": str(size), "left_out": json.dumps(left_out or {})}
    return batch.replace_schema_metadata({"file": os.fsencode(path), **marks})


def rejected(path: Path, bad: Sequence[Fault], counting: int = 0) -> Batches:
    """Lines of a file that could not be used, in the order of the file; nothing if there are none.

    The rows of `counting` of these lines are kept, without their names.
    """
    if not bad:
        return
    lines, reasons = zip(*sorted(bad, key=itemgetter(0)), strict=True)
    columns = {
        # A file name need not be text.
        "file": pa.array([path.name.encode("utf-8", "replace").decode()] * len(lines)).dictionary_encode(),
        "line": pa.array(lines, pa.int64()),
        "reason": pa.array(reasons, pa.string()).dictionary_encode(),
    }
    batch = tagged(pa.table(columns), path)
    yield "rejected", batch.replace_schema_metadata({**batch.schema.metadata, "counting": str(counting)})
