"""Readers of native logs: one module a format, all of one shape, found through this registry.

A reader yields `(table name, batch)`; a batch carries in its schema metadata which file it comes from
(see `tagged`), so that a conversion can report per file. Rows that cannot be used are yielded as
batches of the table `rejected`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa

from appcadence.errors import TelemetryError
from appcadence.telemetry.ingest.identity import Devices

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FORMATS = (
    "zeek",
    "suricata",
    "content_filter",
    "zscaler",
    "jamf",
    "nfdump",
    "argus",
    "powerlog",
    "knowledgec",
    "unified_log",
    "app_privacy_report",
    "table",
)
"""Names of the formats that can be read; each is a module of this package."""


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


class Reader(Protocol):
    """The shape of a reader module."""

    NAME: str

    def sniff(self, path: Path) -> bool:
        """Whether the file looks like this format; reads its first bytes only and never raises."""

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Iterator[tuple[str, pa.Table]]:
        """Yield (canonical table name, batch); raise TelemetryError for a file that cannot be read."""


def reader(name: str) -> Reader:
    """The reader of a format.

    Raises:
        TelemetryError: there is no such format.
    """
    if name not in FORMATS:
        raise TelemetryError(f"unknown format {name!r}; known are {', '.join(FORMATS)}")
    return cast(Reader, import_module(f"{__name__}.{name}"))


def detect(path: Path) -> Reader:
    """The reader whose format the file has.

    Raises:
        TelemetryError: no reader knows the file.
    """
    for name in FORMATS:
        candidate = reader(name)
        if candidate.sniff(path):
            return candidate
    raise TelemetryError(f"{path} is in no known format; known are {', '.join(FORMATS)}", "format")


def tagged(batch: pa.Table, path: Path, read: int = 0, size: int = 0) -> pa.Table:
    """Mark a batch with its file, the data rows read for it (kept or not), and the bytes got through."""
    return batch.replace_schema_metadata({"file": os.fsencode(path), "read": str(read), "size": str(size)})


def rejected(path: Path, lines: Sequence[int], reasons: Sequence[str]) -> pa.Table:
    """A batch of the table `rejected`: 1-based lines of one file and what is wrong with them."""
    # A file name need not be text.
    name = path.name.encode("utf-8", "replace").decode()
    columns = {
        "file": pa.array([name] * len(lines), pa.string()).dictionary_encode(),
        "line": pa.array(lines, pa.int64()),
        "reason": pa.array(reasons, pa.string()).dictionary_encode(),
    }
    return tagged(pa.table(columns), path)
