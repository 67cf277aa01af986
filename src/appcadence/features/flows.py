"""Flows as coded arrays in blocks of whole devices: the form in which features are computed.

Each piece of the input (a row group) is coded and put in block order by itself, in threads, and then kept in
memory or spilled to a file; a block is the sum of its slices of all pieces. Names get their final codes,
sorted, when a block is read, so that neither the order of rows nor of threads ever shows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features import apns
from appcadence.features.columns import floats, micros
from appcadence.features.grouping import scatter
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.schema import FLOWS

COLUMNS = (
    "start",
    "duration_seconds",
    "device_id",
    "app_id",
    "app_attribution",
    "dest_host",
    "dest_ip",
    "dest_port",
    "service",
    "outcome",
    "bytes_out",
    "bytes_in",
)
BLOCK_FLOWS = 250_000
"""Flows of one block: few enough that a block's arrays stay in the processor's cache."""
FAILED, DNS, PROVIDER, FOREIGN_PUSH = 1, 2, 4, 8
"""Bits of `Rows.flags`: the flow failed; is a DNS look-up; goes to the provider side of the push service;
goes to the push port of an address that is not Apple's."""
ATTRIBUTIONS = FLOWS.column("app_attribution").values

Piece = Callable[[], pa.Table]


class Rows(NamedTuple):
    """Flows of some devices, (n,) each."""

    device: np.ndarray
    app: np.ndarray
    """-1 = unknown."""
    dest: np.ndarray
    start_us: np.ndarray
    duration: np.ndarray
    """Seconds; NaN = unknown, likewise bytes `sent` and `received`."""
    sent: np.ndarray
    received: np.ndarray
    port: np.ndarray
    """-1 = unknown."""
    flags: np.ndarray
    attribution: np.ndarray
    """Codes into `ATTRIBUTIONS`."""


DTYPES = Rows(
    *(np.dtype(t) for t in ("i4", "i4", "i4", "i8", "f8", "f8", "f8", "i4", "u1", "u1"))  # type: ignore[arg-type]
)


class Names:
    """Codes of names in the order in which they turn up; safe for threads."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._lock = threading.Lock()

    def codes(self, names: Sequence[str]) -> np.ndarray:
        """(n + 1,) codes of the names; the last is -1, for null."""
        with self._lock:
            known = self._codes
            return np.array([*(known.setdefault(name, len(known)) for name in names), -1], np.int32)

    def sorted(self) -> tuple[pd.Index[Any], np.ndarray]:
        """All names, sorted, and the rank of each code (the last, for null, is -1)."""
        names = np.array(list(self._codes), dtype=object)
        order = np.argsort(names.astype(str), kind="stable") if len(names) else np.empty(0, np.int64)
        rank = np.full(len(names) + 1, -1, np.int32)
        rank[order] = np.arange(len(names))
        return pd.Index(names[order], dtype="object"), rank


@dataclass(frozen=True)
class Chunk:
    """One coded piece in block order, in memory or in a file of its columns one after another."""

    offsets: np.ndarray
    rows: Rows | None
    file: Path | None = None

    def slice(self, block: int) -> Rows:
        lo, hi = self.offsets[block], self.offsets[block + 1]
        if self.rows is not None:
            return Rows(*(column[lo:hi] for column in self.rows))
        columns, at, total = [], 0, int(self.offsets[-1])
        for dtype in DTYPES:
            offset = at + int(lo) * dtype.itemsize
            columns.append(np.fromfile(str(self.file), dtype, int(hi - lo), offset=offset))
            at += total * dtype.itemsize
        return Rows(*columns)

    def spilled(self, file: Path) -> Chunk:
        if self.rows is None:
            return self
        with file.open("wb") as handle:
            for column in self.rows:
                column.tofile(handle)
        return Chunk(self.offsets, None, file)


@dataclass(frozen=True)
class Flows:
    """All flows, coded, in blocks of whole devices in the order of their names."""

    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    block_rows: np.ndarray
    """(n_blocks,) flows of each block."""
    _chunks: tuple[Chunk, ...]
    _app_rank: np.ndarray
    _dest_rank: np.ndarray

    @property
    def n_blocks(self) -> int:
        return len(self.block_rows)

    def block(self, block: int | None = None) -> Rows:
        """The flows of one block, or of all."""
        blocks = range(self.n_blocks) if block is None else (block,)
        parts = [chunk.slice(b) for b in blocks for chunk in self._chunks]
        empty = Rows(*(np.empty(0, dtype) for dtype in DTYPES))
        rows = Rows(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))
        return rows._replace(app=self._app_rank[rows.app], dest=self._dest_rank[rows.dest])


def code(
    pieces: Sequence[Piece],
    devices: Sequence[Piece],
    *,
    block_flows: int = BLOCK_FLOWS,
    spill: Path | None = None,
    done: Callable[[int], None] = lambda rows: None,
) -> Flows:
    """Code all pieces (tables of `COLUMNS`); `devices` are the same with the column `device_id` at least.

    With `spill`, a directory, coded pieces go to files there instead of to memory. `done` hears the rows of
    each piece as it is finished.
    """
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        names, counts = _devices(pool.map(_count, devices))
        block_of = np.minimum(np.cumsum(counts) - counts, max(counts.sum() - 1, 0)) // block_flows
        block_of = np.unique(block_of, return_inverse=True)[1].astype(np.int32)
        coder = _Coder({name: i for i, name in enumerate(names)}, block_of, Names(), Names())

        def work(item: tuple[int, Piece]) -> Chunk:
            number, piece = item
            chunk = coder.chunk(piece())
            done(int(chunk.offsets[-1]))
            return chunk if spill is None else chunk.spilled(spill / f"chunk-{number:06d}")

        chunks = tuple(pool.map(work, enumerate(pieces)))
    n_blocks = coder.n_blocks
    apps, app_rank = coder.apps.sorted()
    dests, dest_rank = coder.dests.sorted()
    block_rows = np.sum([np.diff(c.offsets) for c in chunks], axis=0) if chunks else np.zeros(n_blocks, int)
    return Flows(names, apps, dests, block_rows, chunks, app_rank, dest_rank)


def _count(piece: Piece) -> dict[str, int]:
    column = one_array(piece()["device_id"])
    counts = np.bincount(column.indices.to_numpy(), minlength=len(column.dictionary))
    return dict(zip(column.dictionary.to_pylist(), counts.tolist(), strict=True))


def _devices(counted: Any) -> tuple[pd.Index[Any], np.ndarray]:
    totals: dict[str, int] = {}
    for counts in counted:
        for name, count in counts.items():
            if count:
                totals[name] = totals.get(name, 0) + count
    names = sorted(totals)
    return pd.Index(names, dtype="object"), np.array([totals[name] for name in names], np.int64)


@dataclass(frozen=True)
class _Coder:
    devices: dict[str, int]
    block_of: np.ndarray
    apps: Names
    dests: Names

    @property
    def n_blocks(self) -> int:
        return int(self.block_of.max()) + 1 if len(self.block_of) else 0

    def chunk(self, table: pa.Table) -> Chunk:
        rows = self._rows(table)
        order, offsets = scatter(self.block_of[rows.device], self.n_blocks)
        if self.n_blocks > 1:
            rows = Rows(*(column[order] for column in rows))
        return Chunk(offsets, rows)

    def _rows(self, table: pa.Table) -> Rows:
        host, host_names = _indices(table["dest_host"])
        address, address_names = _indices(table["dest_ip"])
        port = pc.fill_null(one_array(table["dest_port"]), -1).to_numpy()
        flags = _is(table["outcome"], "failed") * np.uint8(FAILED)
        flags |= _is(table["service"], "dns") * np.uint8(DNS)
        flags |= _provider(host, host_names, port) * np.uint8(PROVIDER)
        flags |= _foreign(host, host_names, address, address_names, port) * np.uint8(FOREIGN_PUSH)
        device, device_names = _indices(table["device_id"])
        lookup = np.array([self.devices.get(name, -1) for name in device_names], np.int32)
        attribution, kinds = _indices(table["app_attribution"])
        return Rows(
            lookup[device],
            _coded(table["app_id"], self.apps),
            self._dest(host, host_names, address, address_names),
            micros(table["start"]),
            floats(table["duration_seconds"]),
            floats(table["bytes_out"]),
            floats(table["bytes_in"]),
            port,
            flags,
            np.array([ATTRIBUTIONS.index(kind) if kind in ATTRIBUTIONS else 0 for kind in kinds], np.uint8)[
                attribution
            ],
        )

    def _dest(
        self, host: np.ndarray, host_names: list[str], address: np.ndarray, address_names: list[str]
    ) -> np.ndarray:
        """Codes of the host name where known, else of the address, else of `unknown`."""
        used = np.bincount(host + 1, minlength=len(host_names) + 1)[1:] > 0
        dest = _codes_of(host_names, used, self.dests)[host]
        nameless = np.flatnonzero(host < 0)
        if len(nameless):
            bare = address[nameless]
            used = np.bincount(bare + 1, minlength=len(address_names) + 1)[1:] > 0
            codes = _codes_of(address_names, used, self.dests)
            if (bare < 0).any():
                codes[-1] = self.dests.codes(["unknown"])[0]
            dest[nameless] = codes[bare]
        return np.asarray(dest)


def _indices(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes into the column's own dictionary (-1 = null) and that dictionary."""
    array = one_array(column)
    return np.asarray(pc.fill_null(array.indices, -1).to_numpy()), array.dictionary.to_pylist()


def _codes_of(names: list[str], used: np.ndarray, registry: Names) -> np.ndarray:
    """(n + 1,) codes of the names that rows use; -1 for the others and, last, for null."""
    codes = np.full(len(names) + 1, -1, np.int32)
    at = np.flatnonzero(used)
    codes[at] = registry.codes([names[i] for i in at])[:-1]
    return codes


def _coded(column: pa.ChunkedArray, registry: Names) -> np.ndarray:
    index, names = _indices(column)
    used = np.bincount(index + 1, minlength=len(names) + 1)[1:] > 0
    return np.asarray(_codes_of(names, used, registry)[index])


def _is(column: pa.ChunkedArray, value: str) -> np.ndarray:
    index, names = _indices(column)
    return np.asarray(np.append(np.array([name == value for name in names], np.bool_), False)[index])


def _provider(host: np.ndarray, names: list[str], port: np.ndarray) -> np.ndarray:
    named = np.append(np.array([name in apns.PROVIDER_HOSTS for name in names], np.bool_), False)
    low, high = min(apns.PROVIDER_PORTS), max(apns.PROVIDER_PORTS)
    return np.asarray(named[host] | ((port >= low) & (port <= high)))


def _foreign(
    host: np.ndarray, names: list[str], address: np.ndarray, addresses: list[str], port: np.ndarray
) -> np.ndarray:
    foreign = np.zeros(len(host), np.bool_)
    rows = np.flatnonzero(port == apns.DEVICE_PORT)
    if len(rows):
        pairs, inverse = np.unique(np.stack([host[rows], address[rows]], 1), axis=0, return_inverse=True)
        known = [
            apns.is_apple(names[h] if h >= 0 else None, addresses[a] if a >= 0 else None) is False
            for h, a in pairs
        ]
        foreign[rows] = np.array(known, np.bool_)[inverse.ravel()]
    return foreign
