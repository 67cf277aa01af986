"""The context of flows: use of devices and apps, pushes, what apps declare, and the past."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._cpus import usable_cpus
from appcadence._types import Mask
from appcadence.features._kernels import bisect_right, kernel
from appcadence.features.blocks import Chunk, Piece, block_rows
from appcadence.features.columns import codes, micros
from appcadence.features.declarations import Declarations, categories_of
from appcadence.features.flows import Flows
from appcadence.features.grouping import scatter
from appcadence.features.history import History, Past

COLUMNS = {
    "activity": ("device_id", "app_id", "kind", "start", "end"),
    "notifications": (
        "device_id",
        "app_id",
        "time",
        "kind",
        "priority",
        "content_available",
        "time_resolution_seconds",
    ),
    "usage": ("device_id", "app_id", "start", "end", "bytes_out", "bytes_in"),
    "tasks": ("device_id", "app_id", "start", "end"),
    "coverage": ("device_id", "start", "end"),
}
"""The columns that are read."""
SPAN = np.dtype(
    [("start_us", "i8"), ("end_us", "i8"), ("device", "i4"), ("app", "i4"), ("kind", "u1")], align=True
)
PUSH = np.dtype(
    [("time_us", "i8"), ("resolution_seconds", "f8"), ("device", "i4"), ("app", "i4"), ("silent", "?")],
    align=True,
)
USAGE = np.dtype(
    [
        *(("first_us", "i8"), ("last_us", "i8"), ("sent", "f8"), ("received", "f8")),
        *(("device", "i4"), ("app", "i4")),
    ],
    align=True,
)
_COUNTED = ("first_us", "last_us", "sent", "received")
_KINDS = pd.Index(["device_unlocked", "screen_on", "app_foreground", "low_power", "charging"])
"""Those behind the first three only show that there is a log."""
_UNLOCKED, _LIT, _FRONT = range(3)
LIT_US = 5_000_000
"""A notification lights a locked screen within this time (and the grid of the push log)."""
_TRANSFER_US = 30_000_000
"""A background transfer is known by its first record alone: what starts so soon after belongs to it."""
_OPEN = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Runs:
    """Rows sorted by a key: those of one key lie together."""

    key: np.ndarray

    def of(self, key: np.ndarray) -> tuple[np.ndarray, ...]:
        """First row of each key, the one after its last, and all columns but the key: for a kernel."""
        ends = np.searchsorted(self.key, key), np.searchsorted(self.key, key, side="right")
        return *ends, *(getattr(self, column.name) for column in fields(self)[1:])


@dataclass(frozen=True)
class Spans(Runs):
    """Disjoint intervals by key, microseconds since the epoch."""

    first: np.ndarray
    last: np.ndarray

    def earlier(self, us: int) -> Spans:
        """The same on a clock whose zero lies `us` microseconds later."""
        return Spans(self.key, self.first - us, self.last - us)


@dataclass(frozen=True)
class Usage(Runs):
    """Bytes over intervals, by (device, app) and time."""

    first: np.ndarray
    last: np.ndarray
    sent: np.ndarray
    received: np.ndarray


@dataclass(frozen=True)
class Pushes(Runs):
    """Pushes received, by (device, app) and time."""

    time_us: np.ndarray
    silent: np.ndarray


@dataclass(frozen=True)
class Fleetwide:
    """What does not differ from block to block."""

    n_apps: int
    declarations: Declarations | None
    """None = no inventory."""
    categories: pd.Index[Any]
    category: np.ndarray
    """(n_apps + 1,) App Store category of each app, codes into `categories`; -1 = unknown."""
    first_us: int
    """When the first of all flows started."""
    past: Past | None
    """None = novelty is not asked for."""


@dataclass(frozen=True)
class Context(Fleetwide):
    """Everything but flows of some devices, coded like them. What was not observed is empty."""

    use: Spans
    """By device: unlocked, or the screen on for another reason than a push."""
    logged: Spans
    """By device: whatever the activity log says, a screen that only a push lit included."""
    front: Spans
    """By (device, app): the app in the foreground."""
    fronted: np.ndarray
    """(n_devices,) whether the device reports apps in the foreground."""
    tasks: Spans
    """By (device, app): background work that iOS had scheduled."""
    tasked: np.ndarray
    """(n_devices,) whether the device reports such work."""
    observed: Spans
    """By device: when every flow would have been recorded; a device without any says nothing of it."""
    pushes: Pushes
    push_grid: np.ndarray
    """(n_devices,) seconds, the grid of the device's push log; NaN = the device has none."""
    usage: Usage

    def pair(self, device: np.ndarray, app: np.ndarray) -> np.ndarray:
        """Key of a known (device, app); -1 where the app is unknown."""
        return np.where(app >= 0, device.astype(np.int64) * self.n_apps + app, -1)


@dataclass(frozen=True)
class Contexts(Fleetwide):
    """The context of all blocks: intervals and pushes are kept like the flows."""

    n_devices: int
    spans: tuple[Chunk, ...]
    received: tuple[Chunk, ...]
    scheduled: tuple[Chunk, ...]
    covered: tuple[Chunk, ...]
    counted: tuple[Chunk, ...]

    @classmethod
    def of(
        cls,
        around: Mapping[str, Sequence[Piece]],
        inventory: pa.Table | None,
        flows: Flows,
        history: History | None = None,
        spill: Path | None = None,
    ) -> Contexts:
        """The tables of `COLUMNS` in pieces; an absent one has none.

        `flows` give the codes and the blocks; with `spill`, a directory, records go to files there.
        """
        return cls(
            max(len(flows.apps), 1),
            Declarations.of(inventory, flows.devices, flows.apps),
            *categories_of(inventory, flows.apps),
            flows.first_us,
            None if history is None else Past.of(history, flows.devices, flows.apps, flows.dests),
            len(flows.devices),
            _chunks(around.get("activity", ()), _spans, flows, spill, "activity"),
            _chunks(around.get("notifications", ()), _pushes, flows, spill, "notifications"),
            _chunks(around.get("tasks", ()), _intervals, flows, spill, "tasks")
            + _chunks(around.get("notifications", ()), _transfers, flows, spill, "transfers"),
            _chunks(around.get("coverage", ()), _intervals, flows, spill, "coverage"),
            _chunks(around.get("usage", ()), _usage, flows, spill, "usage"),
        )

    def block(self, block: int | None = None) -> Context:
        """The context of one block's devices, or of all."""
        spans, pushes = block_rows(self.spans, block, SPAN), block_rows(self.received, block, PUSH)
        kind, named = spans["kind"], spans["app"] >= 0
        front = spans[(kind == _FRONT) & named]
        tasks, observed = block_rows(self.scheduled, block, SPAN), block_rows(self.covered, block, SPAN)
        mine = tasks[tasks["app"] >= 0]  # an app without flows has no code
        usage = block_rows(self.counted, block, USAGE)
        usage = usage[usage["app"] >= 0]
        usage = usage[np.lexsort((*(usage[name] for name in _COUNTED[::-1]), self._pair(usage)))]
        grid = np.full(self.n_devices, np.nan)
        grid[pushes["device"]] = 0.0
        np.maximum.at(grid, pushes["device"], pushes["resolution_seconds"])
        use = spans[(kind < _FRONT) & ~_lit_by_push(spans, pushes, grid)]
        pushes = pushes[pushes["app"] >= 0]
        key = self._pair(pushes)
        order = np.lexsort((pushes["silent"], pushes["time_us"], key))
        shared = {field.name: getattr(self, field.name) for field in fields(Fleetwide)}
        return Context(
            **shared,
            use=_merged(use["device"].astype(np.int64), use),
            logged=_merged(spans["device"].astype(np.int64), spans),
            front=_merged(self._pair(front), front),
            fronted=self._with(spans[kind == _FRONT]),
            tasks=_merged(self._pair(mine), mine),
            tasked=self._with(tasks),
            observed=_merged(observed["device"].astype(np.int64), observed),
            pushes=Pushes(key[order], pushes["time_us"][order], pushes["silent"][order]),
            push_grid=grid,
            usage=Usage(self._pair(usage), *(usage[name].copy() for name in _COUNTED)),
        )

    def _pair(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows["device"].astype(np.int64) * self.n_apps + rows["app"])

    def _with(self, rows: np.ndarray) -> np.ndarray:
        """(n_devices,) whether there is a row of each."""
        out = np.zeros(self.n_devices, np.bool_)
        out[rows["device"]] = True
        return out


def _chunks(
    pieces: Sequence[Piece],
    records: Callable[[pa.Table, Flows], np.ndarray],
    flows: Flows,
    spill: Path | None,
    name: str,
) -> tuple[Chunk, ...]:
    def work(item: tuple[int, Piece]) -> Chunk:
        number, piece = item
        rows = records(piece(), flows)
        order, offsets = scatter(flows.block_of[rows["device"]].astype(np.int64), flows.n_blocks)
        return Chunk.of(offsets, rows[order], None if spill is None else spill / f"{name}-{number:06d}")

    with ThreadPoolExecutor(usable_cpus()) as pool:
        return tuple(pool.map(work, enumerate(pieces)))


def _records(
    table: pa.Table, flows: Flows, dtype: np.dtype[np.void], kept: Any = True, **columns: Any
) -> np.ndarray:
    """Columns (n,) of the rows that are kept, as records, those on devices that have flows."""
    columns["device"] = codes(table["device_id"], flows.devices)
    if "app_id" in table.column_names:
        columns["app"] = codes(table["app_id"], flows.apps)
    at = np.flatnonzero((columns["device"] >= 0) & kept)
    rows = np.zeros(len(at), dtype)
    for name, values in columns.items():
        rows[name] = values[at]
    return rows


def _intervals(table: pa.Table, flows: Flows, kept: Any = True, **columns: Any) -> np.ndarray:
    start, end = micros(table["start"]), micros(pc.fill_null(table["end"].cast(pa.int64()), _OPEN))
    return _records(table, flows, SPAN, kept, start_us=start, end_us=end, **columns)


def _spans(table: pa.Table, flows: Flows) -> np.ndarray:
    """Intervals of the activity log."""
    kind = codes(table["kind"], _KINDS)
    return _intervals(table, flows, kind >= 0, kind=kind)


def _transfers(table: pa.Table, flows: Flows) -> np.ndarray:
    """Background transfers, as work that iOS had scheduled."""
    start, kept = micros(table["time"]), codes(table["kind"], pd.Index(["background_transfer"])) == 0
    return _records(table, flows, SPAN, kept, start_us=start, end_us=start + _TRANSFER_US)


def _usage(table: pa.Table, flows: Flows) -> np.ndarray:
    """Byte counts, over intervals that are not empty."""
    first, last = micros(table["start"]), micros(table["end"])
    sent, received = (np.maximum(table[name].to_numpy(), 0) for name in ("bytes_out", "bytes_in"))
    ends = {"first_us": first, "last_us": last}
    return _records(table, flows, USAGE, last > first, **ends, sent=sent, received=received)


def _pushes(table: pa.Table, flows: Flows) -> np.ndarray:
    """Pushes received."""
    silent = pc.fill_null(table["content_available"], False).to_numpy() | (
        pc.fill_null(table["priority"], 0).to_numpy() == 5
    )
    kept = codes(table["kind"], pd.Index(["push_received"])) == 0
    times = {
        "time_us": micros(table["time"]),
        "resolution_seconds": table["time_resolution_seconds"].to_numpy(),
    }
    return _records(table, flows, PUSH, kept, silent=silent, **times)


def _lit_by_push(spans: np.ndarray, pushes: np.ndarray, grid: np.ndarray) -> Mask:
    """(n,) spans of a lit screen that a push began and no unlock overlaps, on devices that report unlocks:
    perhaps nobody looked."""
    unlocked, loud = spans[spans["kind"] == _UNLOCKED], pushes[~pushes["silent"]]
    order = np.lexsort((loud["time_us"], loud["device"]))
    met, device = _merged(unlocked["device"].astype(np.int64), unlocked), spans["device"].astype(np.int64)
    reach = LIT_US + np.rint(np.nan_to_num(grid[device]) * 1e6).astype(np.int64)
    rows = Runs(loud["device"][order].astype(np.int64))
    found = (spans["kind"] == _LIT, spans["start_us"], spans["end_us"], *met.of(device))
    return np.asarray(_woken(*found, *rows.of(device), loud["time_us"][order], reach))


@kernel
def _woken(lit, start, end, lo, hi, first, last, push_lo, push_hi, push_us, reach):  # type: ignore[no-untyped-def]
    out = np.zeros(len(lit), np.bool_)
    for i in range(len(lit)):
        at = bisect_right(first, lo[i], hi[i], max(start[i], end[i])) - 1
        push = bisect_right(push_us, push_lo[i], push_hi[i], start[i]) - 1
        alone = lit[i] and hi[i] > lo[i] and (at < lo[i] or last[at] < start[i])
        out[i] = alone and push >= push_lo[i] and start[i] - push_us[push] <= reach[i]
    return out


def _merged(key: np.ndarray, spans: np.ndarray) -> Spans:
    start, end = spans["start_us"], np.maximum(spans["start_us"], spans["end_us"])
    order = np.lexsort((spans["end_us"], start, key))
    return Spans(*_merge(key[order], start[order], end[order]))


@kernel
def _merge(key, start, end):  # type: ignore[no-untyped-def]
    """Overlapping intervals of a key made one."""
    keys, first, last = key.copy(), start.copy(), end.copy()
    k = 0
    for i in range(len(key)):
        if i and key[i] == key[i - 1] and start[i] <= last[k - 1]:
            last[k - 1] = max(last[k - 1], end[i])
        else:
            keys[k], first[k], last[k] = key[i], start[i], end[i]
            k += 1
    return keys[:k].copy(), first[:k].copy(), last[:k].copy()
