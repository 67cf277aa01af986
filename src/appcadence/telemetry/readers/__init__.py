"""Readers of native logs: one module a format, all of one shape, found through this registry.

A reader yields `(table name, batch)`; a batch carries in its schema metadata which file it comes from
(see `tagged`), so that a conversion can report per file. Rows that cannot be used are yielded as
batches of the table `rejected`.
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
"""Formats that are a module of this package each, and what counts in a file of each."""

DECLARATIONS = {
    path.stem: Declaration.read(path) for path in sorted((Path(__file__).parent / "declared").glob("*.toml"))
}
"""Formats of which one record is one flow, or one direction of one: files of the folder `declared`."""

FORMATS = _CODED | {name: declared.counts for name, declared in DECLARATIONS.items()}
"""The formats that can be read, and what counts in a file of each."""

ON_DEVICE = frozenset({"powerlog", "knowledgec", "unified_log", "biome", "app_privacy_report"})
"""Formats that a device keeps of itself: none names it, and successive exports overlap."""

INVENTORIES = frozenset({"powerlog"})
"""Formats that also name the installed apps."""

Batches = Iterator[tuple[str, pa.Table]]
"""Names of canonical tables, each with some rows of it."""


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
    """The mapping file of the format `table`, which no other format needs."""
    strangers: Strangers = field(default_factory=Strangers, compare=False)
    """Filled by the readers: whose flows are left out as those of others."""
    said: dict[tuple[Path, str], None] = field(default_factory=dict, compare=False)
    """Filled by the readers: what the user should know of a file, though its rows count."""


class Reader(Protocol):
    """The shape of a reader module."""

    NAME: str

    def sniff(self, path: Path, start: bytes) -> bool:
        """Whether the file is of this format, of which `start` is the first 64 kB, unpacked; never raises."""

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Batches:
        """Yield (canonical table name, batch).

        Raises:
            UnusableFile: a file cannot be read, or holds nothing of this format.
            TelemetryError: the options do not do.
        """


@cache
def reader(name: str) -> Reader:
    """The reader of a format.

    Raises:
        TelemetryError: there is no such format.
    """
    if name not in FORMATS:
        raise TelemetryError(f"unknown format {name!r}; known are {', '.join(FORMATS)}")
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
    known = ", ".join(FORMATS)
    looks = "".join(f"; {what}" for what in [described(start)] if what)
    raise UnusableFile(f"{path} is in no known format{looks}; known are {known}", path, argument="format")


def sniffed(path: Path, start: bytes) -> Reader | None:
    """The reader whose format a file has that starts so, if it is but one; of an SQLite file the whole is
    looked at."""
    found = takers(path, start)
    return found[0] if len(found) == 1 else None


def takers(path: Path, start: bytes) -> list[Reader]:
    """The readers that would take a file: one that is code, or else all declarations that fit."""
    coded = next((known for known in map(reader, _CODED) if known.sniff(path, start)), None)
    # A line with a time and the name of a process is a unified log's unless it holds a record of another log.
    if coded is not None and coded.NAME != "unified_log":
        return [coded]
    declared = [known for known in map(reader, DECLARATIONS) if known.sniff(path, start)]
    return declared or ([] if coded is None else [coded])


def tagged(
    batch: pa.Table, path: Path, read: int = 0, size: int = 0, left_out: Mapping[str, int] | None = None
) -> pa.Table:
    """Mark a batch with its file, the data rows read for it (kept or not), the bytes got through, and the
    number of rows that are left out without a fault of theirs, by reason (see `LEFT_OUT`)."""
    marks = {"read": str(read), "size": str(size), "left_out": json.dumps(left_out or {})}
    return batch.replace_schema_metadata({"file": os.fsencode(path), **marks})


def rejected(path: Path, bad: Sequence[Fault], counting: int = 0) -> Batches:
    """Lines of a file that could not be used, in the order of the file; nothing if there are none. The rows
    of `counting` of them count all the same, without a name."""
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
