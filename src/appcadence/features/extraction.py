"""Canonical tables -> the feature table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._cpus import usable_cpus
from appcadence._types import FeatureMatrix, Progress, silent
from appcadence.errors import SchemaError, TelemetryError
from appcadence.features import flows as coded
from appcadence.features.blocks import Piece
from appcadence.features.build import windows_of
from appcadence.features.catalog import SCHEMA_ID
from appcadence.features.columns import code_of, micros
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.context import Contexts, Fleetwide
from appcadence.features.families import novelty
from appcadence.features.flows import ATTRIBUTIONS, Flows
from appcadence.features.given import check_tables, conformed
from appcadence.features.history import Contacts, History
from appcadence.features.selection import WHOLE, Selection
from appcadence.features.windows import (
    APP_LEVEL,
    MAX_DURATION_SECONDS,
    Windows,
    window_seconds,
    with_app_level,
)
from appcadence.telemetry import passive_names
from appcadence.telemetry.directory import TelemetryDirectory, read_tables

INPUT_TABLES = ("flows", *CONTEXT_COLUMNS, "inventory")
KEYS = (
    "device_id",
    "app_id",
    "dest",
    "window_start",
    "window_end",
    "observed_seconds",
    "n_flows",
    "n_sessions",
    "n_beats",
    "app_attribution",
    "category",
    "destination_known",
)

Tables = Mapping[str, pa.Table]
Source = str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame]


def load(source: Source) -> dict[str, pa.Table]:
    """The input tables of a telemetry directory, or of frames by name, conforming to their declarations.

    Flows that lack a host name are named as `telemetry.passive_names` states.

    Raises:
        TelemetryError: there is no flows table.
        SchemaError: a table is unknown or does not fit its declaration.
    """
    if isinstance(source, str | Path):
        source = TelemetryDirectory(source)
    if isinstance(source, TelemetryDirectory):
        tables = read_tables(source, INPUT_TABLES)
        where = str(source.path)
    else:
        where = "the given tables"
        if not isinstance(source, Mapping):
            raise SchemaError(
                f"telemetry is of type {type(source).__name__}; give the path of a telemetry directory, or "
                'tables by name: {"flows": frame}'
            )
        check_tables(source)
        tables = {name: _completed(name, source[name]) for name in INPUT_TABLES if name in source}
    if "flows" not in tables:
        raise TelemetryError(f"there are no flows in {where}, and features need them")
    return tables


def _completed(name: str, data: pa.Table | pd.DataFrame) -> pa.Table:
    table = conformed(name, data)
    if isinstance(data, pa.Table) and passive_names.completed(data):
        return table.replace_schema_metadata(data.schema.metadata)
    return passive_names.complete(table) if name == "flows" else table


class Part(NamedTuple):
    """Some rows of the feature table, (n,) each: keys in codes, and values."""

    device: np.ndarray
    app: np.ndarray
    dest: np.ndarray
    start_us: np.ndarray
    observed_seconds: np.ndarray
    n_flows: np.ndarray
    n_sessions: np.ndarray
    n_beats: np.ndarray
    attribution: np.ndarray
    values: FeatureMatrix
    """(n, k), the features that a selection holds."""

    @classmethod
    def empty(cls, selection: Selection = WHOLE) -> Part:
        types = ("i4", "i4", "i4", "i8", "f8", "i8", "i8", "i8", "u1")
        width = np.count_nonzero(selection.held)
        return cls._make([*(np.empty(0, t) for t in types), np.empty((0, width), np.float32)])

    @classmethod
    def of(cls, windows: Windows, selection: Selection = WHOLE) -> Part:
        """The rows of windows in their own order; novelty features that need the whole fleet are still
        NaN."""
        return cls(
            windows.device,
            windows.app,
            windows.dest,
            windows.start_us,
            windows.observed_seconds,
            np.diff(np.concatenate([[0], np.cumsum(windows.fresh)])[windows.offsets]),
            np.diff(windows.sessions.offsets),
            np.diff(windows.beats[0]),
            windows.attribution,
            selection.compute(windows),
        )

    @classmethod
    def halves_of(cls, windows: Windows, selection: Selection = WHOLE) -> tuple[Part, Part]:
        """The same, channels and apps apart."""
        whole, n = cls.of(windows, selection), windows.n_channels
        return cls(*(column[:n] for column in whole)), cls(*(column[n:] for column in whole))


class Named(Protocol):
    """Whatever has the names behind the codes: flows, or windows."""

    @property
    def devices(self) -> pd.Index[Any]: ...
    @property
    def apps(self) -> pd.Index[Any]: ...
    @property
    def dests(self) -> pd.Index[Any]: ...


def extract(
    source: Source,
    window: str = "24h",
    history: History | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The feature table: one row per window; channels by device, app, destination and time, then apps (`*`).

    Columns are `KEYS` (window_start, window_end in UTC; observed_seconds in s) and then every feature of the
    catalogue as float32, NaN = unknown. With `columns`, only those features or families are computed, and
    only the inputs they need are read; their order is always that of the catalogue. Without `history`, the
    novelty family is NaN. Everything is in memory, about 200 bytes per flow at the peak; for larger
    telemetry, use `appcadence.features.partition`.

    Raises:
        TelemetryError, SchemaError: see `load`.
        AppcadenceError: `window` is not of the form 1h, 6h, 24h, 7d, or a feature name is unknown.
    """
    seconds, selection = window_seconds(window), Selection.of(columns)
    history = selection.past(history)
    flows, contexts = prepare(source, history, around=selection.tables(history))

    def work(block: int) -> tuple[tuple[Part, Part], Contacts | None]:
        windows = windows_of(flows, contexts, seconds, block=block)
        return Part.halves_of(windows, selection), windows.contacts if selection.fleetwide else None

    with ThreadPoolExecutor(usable_cpus()) as pool:
        done = list(pool.map(work, range(flows.n_blocks)))
        flows = replace(flows, _chunks=())  # no longer needed, and as large as the table
        # All channel windows, then all app windows, as one `Windows` has them.
        part = _joined([halves[half] for half in (0, 1) for halves, _ in done], pool, selection)
    if selection.fleetwide:
        fill_novelty(part, novelty.Fleet.of(contexts, [contacts for _, contacts in done]), seconds)
    return frame(part, flows, contexts, seconds, selection)


def _joined(parts: Sequence[Part], pool: ThreadPoolExecutor, selection: Selection) -> Part:
    ends = np.cumsum([0, *(len(part.device) for part in parts)])
    whole = Part(*(np.empty((ends[-1], *c.shape[1:]), c.dtype) for c in Part.empty(selection)))

    def copy(number: int) -> None:
        for to, column in zip(whole, parts[number], strict=True):
            to[ends[number] : ends[number + 1]] = column

    list(pool.map(copy, range(len(parts))))
    return whole


def prepare(
    source: Source,
    history: History | None,
    *,
    block_flows: int = coded.BLOCK_FLOWS,
    spill: Path | None = None,
    span_us: tuple[int, int] | None = None,
    around: Collection[str] = tuple(CONTEXT_COLUMNS),
    progress: Progress = silent,
) -> tuple[Flows, Contexts]:
    """Coded flows and their context (spilled to files in `spill`, where given), of which tables not named in
    `around` are not read; with a span, in microseconds since the epoch, only flows that touch it."""
    if isinstance(source, str | Path):
        source = TelemetryDirectory(source)
    columns: dict[str, tuple[str, ...]] = {"flows": coded.COLUMNS}
    columns |= {name: wanted for name, wanted in CONTEXT_COLUMNS.items() if name in around}
    if isinstance(source, TelemetryDirectory) and source.files("flows"):
        inventory = source.read("inventory")
        pieces = {name: source.pieces(name, wanted) for name, wanted in columns.items()}
        devices = source.pieces("flows", ["device_id"])
    else:
        tables = load(source)
        inventory = tables.get("inventory")
        pieces = {name: [partial(tables.__getitem__, name)] if name in tables else [] for name in columns}
        devices = pieces["flows"]
    if span_us is not None:
        pieces["flows"] = [_within(piece, span_us) for piece in pieces["flows"]]
        devices = pieces["flows"]
    flows = coded.code(pieces["flows"], devices, block_flows=block_flows, spill=spill, progress=progress)
    return flows, Contexts.of(pieces, inventory, flows, history, spill)


def _within(piece: Piece, span_us: tuple[int, int]) -> Piece:
    return lambda: touching(piece(), span_us)


def touching(table: pa.Table, span_us: tuple[int, int]) -> pa.Table:
    """Flows that start before the end of the span and end after its beginning, or start in it."""
    first_us, end_us = span_us
    start = micros(table["start"])
    seconds = pc.fill_null(table["duration_seconds"], 0.0).to_numpy()
    # Hostile durations: nan and infinity touch nothing more than their start.
    lasts = np.where(np.isfinite(seconds), np.clip(seconds, 0.0, MAX_DURATION_SECONDS), 0.0)
    touches = (start < end_us) & ((start >= first_us) | (start + lasts * 1e6 > first_us))
    return table if touches.all() else table.filter(pa.array(touches))


def fill_novelty(part: Part, fleet: novelty.Fleet | None, seconds: int) -> None:
    """Fill in the novelty features that need the whole fleet, in place."""
    if fleet is not None:
        rows = np.flatnonzero((part.dest >= 0) & (part.dest != fleet.nameless))
        device, app, dest, start_us = (key[rows] for key in part[:4])
        fleet.fill(part.values, rows, device, app, dest, start_us, seconds * 1_000_000)


def table_of(windows: Windows) -> pd.DataFrame:
    """The feature table of windows, in their order."""
    part, seconds = Part.of(windows), int(windows.seconds)
    fill_novelty(part, novelty.Fleet.of(windows.context, [windows.contacts]), seconds)
    return frame(part, windows, windows.context, seconds)


def frame(
    part: Part, names: Named, context: Fleetwide, seconds: int, selection: Selection = WHOLE
) -> pd.DataFrame:
    """Keys by name, and values, as the feature table; its `attrs` name the schema."""
    values = pd.DataFrame(selection.shown(part.values), columns=selection.names, copy=False)
    table = pd.concat([keys_of(part, names, context, seconds), values], axis=1)
    table.attrs["feature_schema"] = SCHEMA_ID
    return table


def keys_of(part: Part, names: Named, context: Fleetwide, seconds: int) -> pd.DataFrame:
    """Keys by name alone; the values of the part may be missing."""
    keys = coded_keys(part, names, context, seconds)
    columns: dict[str, Any] = {}
    for name, values in keys.items():
        if isinstance(values, tuple):
            columns[name] = pd.Categorical.from_codes(*values)
        elif name.startswith("window_"):
            columns[name] = pd.to_datetime(values, unit="us", utc=True).as_unit("us")
        else:
            columns[name] = values
    return pd.DataFrame(columns)


def coded_keys(
    part: Part, names: Named, context: Fleetwide, seconds: int
) -> dict[str, np.ndarray | tuple[np.ndarray, pd.Index[Any]]]:
    """`KEYS`, names as codes (-1 = null) and what they stand for, times in microseconds since the epoch."""
    nowhere = code_of(APP_LEVEL, names.dests)
    dests, dest = with_app_level(names.dests, part.dest)
    return {
        "device_id": (part.device, names.devices),
        "app_id": (part.app, names.apps),
        "dest": (dest, dests),
        "window_start": part.start_us,
        "window_end": part.start_us + seconds * 1_000_000,
        "observed_seconds": part.observed_seconds,
        "n_flows": part.n_flows,
        "n_sessions": part.n_sessions,
        "n_beats": part.n_beats,
        "app_attribution": (part.attribution, pd.Index(ATTRIBUTIONS)),
        "category": (context.category[part.app], context.categories),
        "destination_known": (part.dest < 0) | (part.dest != nowhere),
    }
