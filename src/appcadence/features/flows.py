"""Flows as coded arrays in blocks of whole devices: the form in which features are computed.

Threads code each piece of the input (a row group) and put it in block order; it is then kept in memory or
spilled to a file. A block consists of its slices of all pieces. Names get their final, sorted codes when a
block is read, so the order of rows and threads does not affect results.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._cpus import usable_cpus
from appcadence._types import Progress, silent
from appcadence.features._kernels import kernel
from appcadence.features.blocks import Chunk, Piece, block_rows
from appcadence.features.columns import code_of, micros
from appcadence.telemetry import apns
from appcadence.telemetry.addresses import is_local
from appcadence.telemetry.arrays import one_array, places, sorted_places
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
    "device_port",
    "service",
    "outcome",
    "bytes_out",
    "bytes_in",
)
BLOCK_FLOWS = 80_000
"""Flows of one block: few enough that a block's arrays stay in the processor's cache."""
FAILED, DNS, PROVIDER, FOREIGN_PUSH = 1, 2, 4, 8
"""Bits of `FLOW.flags`: the flow failed; is a DNS lookup; goes to the provider side of the push service;
goes to the push port, or by the name of a push server, to an address that is not Apple's."""
ATTRIBUTIONS = FLOWS.column("app_attribution").values

FLOW = np.dtype(
    [
        ("start_us", "i8"),
        ("duration", "f8"),  # seconds; NaN = unknown, likewise bytes
        ("sent", "f8"),
        ("received", "f8"),
        ("device", "i4"),
        ("app", "i4"),  # -1 = unknown
        ("dest", "i4"),
        ("port", "i4"),  # of the destination; -1 = unknown
        ("device_port", "i4"),  # -1 = unknown
        ("flags", "u1"),
        ("attribution", "u1"),  # code into ATTRIBUTIONS
    ],
    align=True,
)
"""One coded flow. Records are used instead of columns, so that moving a flow is one memory access."""


class Names:
    """Codes of names in order of first appearance; threads may share it."""

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
        order = sorted_places(names)
        rank = np.full(len(names) + 1, -1, np.int32)
        rank[order] = np.arange(len(names))
        return pd.Index(names[order], dtype="object"), rank


@dataclass(frozen=True)
class Flows:
    """All flows, coded, in blocks of whole devices ordered by name."""

    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    block_rows: np.ndarray
    """(n_blocks,) flows of each block."""
    first_us: int
    """The start of the first flow."""
    block_of: np.ndarray
    """(n_devices,) the block of each device."""
    _chunks: tuple[Chunk, ...]
    _app_rank: np.ndarray
    _dest_rank: np.ndarray

    @property
    def n_blocks(self) -> int:
        return len(self.block_rows)

    @property
    def nameless(self) -> int:
        """Code of the destination that stands for all traffic of an app; -1 = there is none."""
        return code_of("*", self.dests)

    @cached_property
    def local(self) -> np.ndarray:
        """(n_dests,) whether each destination is on the device's own network."""
        return np.fromiter(map(is_local, self.dests), np.bool_, len(self.dests))

    def block(self, block: int | None = None) -> np.ndarray:
        """The flows (`FLOW`) of one block, or of all."""
        rows = block_rows(self._chunks, block, FLOW)
        rows["app"] = self._app_rank[rows["app"]]
        rows["dest"] = self._dest_rank[rows["dest"]]
        return rows


def code(
    pieces: Sequence[Piece],
    devices: Sequence[Piece],
    *,
    block_flows: int = BLOCK_FLOWS,
    spill: Path | None = None,
    progress: Progress = silent,
) -> Flows:
    """Code all pieces (tables of `COLUMNS`); `devices` are the same pieces with at least `device_id`.

    With `spill`, coded pieces go to files in that directory instead of memory.
    """
    workers = usable_cpus()
    with ThreadPoolExecutor(workers) as pool:
        names, counts = _devices(pool.map(_count, devices))
        block_of = blocks_of(counts, block_flows)
        coder = _Coder({name: i for i, name in enumerate(names)}, block_of, Names(), Names())

        def work(item: tuple[int, Piece]) -> tuple[Chunk, int]:
            number, piece = item
            return coder.chunk(piece(), None if spill is None else spill / f"flows-{number:06d}")

        chunks = []
        for chunk in pool.map(work, enumerate(pieces)):
            chunks.append(chunk)
            progress("reading", len(chunks) / len(pieces))
    n_blocks = coder.n_blocks
    apps, app_rank = coder.apps.sorted()
    dests, dest_rank = coder.dests.sorted()
    count = sum((np.diff(chunk.offsets) for chunk, _ in chunks), np.zeros(n_blocks, np.int64))
    first_us = min((first for _, first in chunks), default=0)
    kept = tuple(chunk for chunk, _ in chunks)
    return Flows(names, apps, dests, count, first_us, block_of, kept, app_rank, dest_rank)


def blocks_of(counts: np.ndarray, block_flows: int) -> np.ndarray:
    """(n_devices,) the block of each device, by name; `counts` (n_devices,) their flows."""
    block_of = np.minimum(np.cumsum(counts) - counts, max(counts.sum() - 1, 0)) // block_flows
    return np.unique(block_of, return_inverse=True)[1].astype(np.int32)


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

    def chunk(self, table: pa.Table, spill: Path | None) -> tuple[Chunk, int]:
        """The piece in block order, and the start of its first flow."""
        device, device_names = _indices(table["device_id"])
        devices = np.array([self.devices.get(name, -1) for name in device_names], np.int32)
        app, app_names = _indices(table["app_id"])
        host, host_names = _indices(table["dest_host"])
        address, address_names = _indices(table["dest_ip"])
        outcome, outcomes = _indices(table["outcome"])
        service, services = _indices(table["service"])
        attribution, kinds = _indices(table["app_attribution"])
        port, device_port = (
            pc.fill_null(one_array(table[name]), -1).to_numpy() for name in ("dest_port", "device_port")
        )
        bare = np.where(host < 0, address, -1) if (host < 0).any() else host[:0]
        addresses = _codes_of(address_names, _used(bare, address_names), self.dests)
        # A flow without a destination is one of its app, or of nobody.
        neither, lost = np.full(2, -1, np.int32), bare[host < 0] < 0 if len(bare) else np.empty(0, np.bool_)
        for place, name in enumerate(("unknown", "*") if lost.any() else ()):
            if ((app[host < 0] >= 0)[lost] == bool(place)).any():
                neither[place] = self.dests.codes([name])[0]
        of_each = np.bincount(device)
        seen = np.flatnonzero(of_each)
        count = np.bincount(self.block_of[devices[seen]], of_each[seen], self.n_blocks).astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(count)])
        rows, start_us = np.empty(len(table), FLOW), micros(table["start"])
        _fill(
            rows,
            offsets[:-1].copy(),
            self.block_of,
            device,
            devices,
            app,
            _codes_of(app_names, _used(app, app_names), self.apps),
            host,
            _codes_of(host_names, _used(host, host_names), self.dests),
            address,
            addresses,
            neither,
            port,
            device_port,
            outcome,
            _table(outcomes, lambda name: FAILED * (name == "failed")),
            service,
            _table(services, lambda name: DNS * (name == "dns")),
            _table(host_names, lambda name: PROVIDER * (name in apns.PROVIDER_HOSTS)),
            (min(apns.PROVIDER_PORTS), max(apns.PROVIDER_PORTS)),
            _foreign(host, host_names, address, address_names, port),
            attribution,
            _table(kinds, lambda name: ATTRIBUTIONS.index(name) if name in ATTRIBUTIONS else 0),
            start_us,
            _numbers(table["duration_seconds"]),
            _numbers(table["bytes_out"]),
            _numbers(table["bytes_in"]),
        )
        first_us = int(start_us.min(initial=np.iinfo(np.int64).max))
        return Chunk.of(offsets, rows, spill), first_us


@kernel
def _known(value):  # type: ignore[no-untyped-def]
    return value if 0.0 <= value < np.inf else np.nan


@kernel
def _fill(  # type: ignore[no-untyped-def]
    rows,
    position,
    block_of,
    device,
    devices,
    app,
    apps,
    host,
    hosts,
    address,
    addresses,
    neither,
    port,
    device_port,
    outcome,
    outcomes,
    service,
    services,
    providers,
    provider_ports,
    foreign,
    attribution,
    attributions,
    start_us,
    duration,
    sent,
    received,
):
    """Code each flow and put it in its block; lookup tables end with the code of null."""
    for i in range(len(start_us)):
        owner = devices[device[i]]
        b = block_of[owner]
        to = position[b]
        position[b] += 1
        row = rows[to]
        row.start_us, row.duration = start_us[i], _known(duration[i])
        row.sent, row.received = _known(sent[i]), _known(received[i])
        row.device, row.app = owner, apps[app[i]]
        if host[i] >= 0:
            row.dest = hosts[host[i]]
        elif address[i] >= 0:
            row.dest = addresses[address[i]]
        else:
            row.dest = neither[1 if row.app >= 0 else 0]
        row.port, row.device_port = port[i], device_port[i]
        flags = np.int64(outcomes[outcome[i]] | services[service[i]] | providers[host[i]])
        if provider_ports[0] <= port[i] <= provider_ports[1]:
            flags |= PROVIDER
        if len(foreign) and foreign[i]:
            flags |= FOREIGN_PUSH
        row.flags, row.attribution = flags, attributions[attribution[i]]


def _indices(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes into the column's own dictionary (-1 = null) and that dictionary."""
    array = one_array(column)
    return places(array), array.dictionary.to_pylist()


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    array = one_array(column).cast(pa.float64(), safe=False)
    return np.asarray(pc.fill_null(array, np.nan).to_numpy() if array.null_count else array.to_numpy())


def _used(index: np.ndarray, names: list[str]) -> np.ndarray:
    used = np.zeros(len(names) + 1, np.bool_)
    used[index] = True
    return used[:-1]


def _codes_of(names: list[str], used: np.ndarray, registry: Names) -> np.ndarray:
    """(n + 1,) codes of the names that rows use; -1 for the others and, last, for null."""
    codes = np.full(len(names) + 1, -1, np.int32)
    at = np.flatnonzero(used)
    # No destination may have the name that stands for all of them.
    codes[at] = registry.codes([names[i] if names[i] != "*" else "unknown" for i in at])[:-1]
    return codes


def _table(names: list[str], of: Callable[[str], int]) -> np.ndarray:
    """(n + 1,) a byte for each name, and 0 for null."""
    return np.array([*(of(name) for name in names), 0], np.uint8)


def _foreign(
    host: np.ndarray, names: list[str], address: np.ndarray, addresses: list[str], port: np.ndarray
) -> np.ndarray:
    """(n,) whether a flow goes to the push port, or by the name of a push server, of an address that is not
    Apple's; empty if no flow goes to that port or such a name."""
    asked = port == apns.DEVICE_PORT
    if (named := _table(names, apns.is_courier)).any():
        asked |= named[host] != 0
    rows = np.flatnonzero(asked)
    foreign = np.zeros(len(host) if len(rows) else 0, np.bool_)
    if len(rows):
        pairs, inverse = np.unique(np.stack([host[rows], address[rows]], 1), axis=0, return_inverse=True)
        known = [
            apns.is_apple(names[h] if h >= 0 else None, addresses[a] if a >= 0 else None) is False
            for h, a in pairs
        ]
        foreign[rows] = np.array(known, np.bool_)[inverse.ravel()]
    return foreign
