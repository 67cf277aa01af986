"""The past, for novelty alone: who had contacted what, and since when, before a window began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.errors import SchemaError
from appcadence.features.windows import Windows

SCHEMA = pa.schema(
    [
        ("device_id", pa.string()),
        ("app_id", pa.string()),
        ("dest", pa.string()),
        ("first_seen", pa.int64()),
        ("last_seen", pa.int64()),
    ]
)
"""One row a channel; times in microseconds since the epoch."""

_KEY = ["device_id", "app_id", "dest"]


@dataclass(frozen=True)
class History:
    """First and last contact of every channel so far.

    A window judged against a history sees only what came before the window: contacts of the history and
    of earlier windows of the same extraction. Other devices' contacts of the same window count for
    prevalence.
    """

    contacts: pd.DataFrame

    @classmethod
    def empty(cls) -> History:
        return cls(SCHEMA.empty_table().to_pandas())

    @classmethod
    def from_arrow(cls, table: pa.Table) -> History:
        """Raises SchemaError when the columns are not those of `SCHEMA`."""
        if table.schema.remove_metadata() != SCHEMA:
            raise SchemaError(f"history has columns {table.schema.names}, expected {SCHEMA.names}")
        return cls(table.to_pandas())

    def to_arrow(self) -> pa.Table:
        return pa.Table.from_pandas(self.contacts, SCHEMA, preserve_index=False).replace_schema_metadata()

    def update(self, windows: Windows) -> History:
        """This history with the contacts of these windows added; the order of updates does not matter."""
        new = contacts_of(windows)
        both = pd.concat([self.contacts, new], ignore_index=True) if len(self.contacts) else new
        grouped = both.groupby(_KEY, dropna=False, sort=True, observed=True)
        merged = grouped.agg(
            first_seen=("first_seen", "min"),
            last_seen=("last_seen", "max"),
        ).reset_index()
        return History(merged)


def contacts_of(windows: Windows) -> pd.DataFrame:
    """The history rows of some windows: one a channel."""
    n = windows.n_channels
    begin, stop = windows.offsets[:n], windows.offsets[1 : n + 1]
    times = np.rint(windows.flow_start * 1e6).astype(np.int64)
    frame = pd.DataFrame(
        {
            "device_id": windows.device[:n],
            "app_id": windows.app[:n],
            "dest": windows.dest[:n],
            "first_seen": windows.start_us[:n] + times[begin] if n else np.empty(0, np.int64),
            "last_seen": windows.start_us[:n] + times[stop - 1] if n else np.empty(0, np.int64),
        }
    )
    grouped = frame.groupby(_KEY, sort=True)
    rows = grouped.agg(
        first_seen=("first_seen", "min"),
        last_seen=("last_seen", "max"),
    ).reset_index()
    rows["device_id"] = _named(windows.devices, rows["device_id"].to_numpy())
    rows["app_id"] = _named(windows.apps, rows["app_id"].to_numpy())
    rows["dest"] = _named(windows.dests, rows["dest"].to_numpy())
    return rows


def _named(index: pd.Index[Any], codes: np.ndarray) -> np.ndarray:
    names = np.array([*index, None], dtype=object)
    return np.asarray(names[codes], dtype=object)
