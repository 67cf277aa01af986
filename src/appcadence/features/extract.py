"""Canonical tables -> the feature table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.errors import TelemetryError
from appcadence.features import novelty
from appcadence.features.catalog import FAMILIES, NAMES
from appcadence.features.feature import Matrix
from appcadence.features.history import History
from appcadence.features.windows import APP_LEVEL, Windows, build, window_seconds
from appcadence.telemetry.directory import TelemetryDirectory, read_tables
from appcadence.telemetry.schema import DIRECTORY_TABLES, conform

INPUT_TABLES = ("flows", "activity", "notifications", "inventory")
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
)

Tables = Mapping[str, pa.Table]


def load(
    source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
) -> dict[str, pa.Table]:
    """The input tables of a telemetry directory or of frames, conforming to their declarations.

    Raises:
        TelemetryError: there is no flows table.
        SchemaError: a table does not fit its declaration.
    """
    if isinstance(source, str | Path):
        source = TelemetryDirectory(source)
    if isinstance(source, TelemetryDirectory):
        tables = read_tables(source, INPUT_TABLES)
        where = str(source.path)
    else:
        where = "the given tables"
        tables = {
            name: conform(
                DIRECTORY_TABLES[name],
                pa.Table.from_pandas(source[name], preserve_index=False)
                if isinstance(source[name], pd.DataFrame)
                else source[name],
            )
            for name in INPUT_TABLES
            if name in source
        }
    if "flows" not in tables:
        raise TelemetryError(f"{where} holds no flows, which features need")
    return tables


def extract(
    source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
    window: str = "24h",
    history: History | None = None,
) -> pd.DataFrame:
    """The feature table: one row a window, ordered by device, app, destination and time.

    Columns are `KEYS` (window_start, window_end in UTC; observed_seconds in s) and then every feature of
    the catalogue as float64, NaN where unknown. Without `history` the novelty family is NaN.

    Raises:
        TelemetryError, SchemaError: see `load`.
        AppcadenceError: `window` is not of the form 1h, 6h, 24h, 7d.
    """
    windows = build(load(source), window_seconds(window))
    return frame(windows, matrix(windows, history))


def matrix(windows: Windows, history: History | None) -> Matrix:
    """(n_windows, n_features) float64 in catalogue order."""
    blocks = [family.compute(windows) for family in FAMILIES]
    return np.hstack([*blocks, novelty.compute(windows, history)])


def frame(windows: Windows, values: Matrix) -> pd.DataFrame:
    """The feature table of windows and their matrix."""
    return pd.concat([keys(windows), pd.DataFrame(values, columns=list(NAMES))], axis=1)


def keys(windows: Windows) -> pd.DataFrame:
    """The key columns of the feature table (`KEYS`)."""
    dests = pd.Index([*windows.dests, APP_LEVEL], dtype="object")
    start = pd.to_datetime(windows.start_us, unit="us", utc=True).as_unit("us")
    return pd.DataFrame(
        {
            "device_id": pd.Categorical.from_codes(windows.device, windows.devices),
            "app_id": pd.Categorical.from_codes(windows.app, windows.apps),
            "dest": pd.Categorical.from_codes(
                np.where(windows.dest < 0, len(dests) - 1, windows.dest), dests
            ),
            "window_start": start,
            "window_end": start + pd.Timedelta(seconds=windows.seconds).as_unit("us"),
            "observed_seconds": windows.observed_seconds,
            "n_flows": np.add.reduceat(windows.fresh, windows.offsets[:-1], dtype=np.int64)
            if windows.n
            else np.empty(0, np.int64),
            "n_sessions": np.diff(windows.sessions.offsets),
            "n_beats": np.diff(windows.beats[0]),
            "app_attribution": pd.Categorical(windows.attribution),
            "category": _category(windows),
        }
    )


def _category(windows: Windows) -> pd.Categorical[str]:
    """The app's App Store category by the newest snapshot that names one; null where unknown."""
    inventory = windows.tables.get("inventory")
    names: dict[str, str] = {}
    if inventory is not None and len(inventory):
        rows = inventory.select(["app_id", "category", "snapshot_time"]).to_pandas().dropna()
        rows = rows.sort_values(["snapshot_time", "category"])
        names = dict(zip(rows["app_id"].astype(str), rows["category"].astype(str), strict=True))
    categories = sorted(set(names.values()))
    code = {name: i for i, name in enumerate(categories)}
    by_app = np.array([code.get(names.get(app, ""), -1) for app in windows.apps] + [-1])
    return pd.Categorical.from_codes(by_app[windows.app], pd.Index(categories, dtype="object"))
