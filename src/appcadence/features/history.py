"""The past, for novelty alone: who had contacted what, since when and how, before a window began."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.errors import SchemaError
from appcadence.features.pushes import COUNTS
from appcadence.telemetry.arrays import sorted_places

HABITS = ("log2_bytes_out", "log2_bytes_in", "log2_duration", "log2_gap")
"""log2(1 + mean over the flows of a channel's latest window): bytes, seconds, seconds between beats."""
SCHEMA = pa.schema(
    [
        ("device_id", pa.string()),
        ("app_id", pa.string()),
        ("dest", pa.string()),
        ("first_seen", pa.int64()),
        ("last_seen", pa.int64()),
        ("days_seen", pa.int64()),
        ("vetted", pa.bool_()),
        ("port", pa.int32()),
        *((name, pa.float32()) for name in (*HABITS, *COUNTS)),
    ]
)
"""One row a channel. Times are microseconds since the epoch; bit i of `days_seen` says that there was contact
i UTC days before the day of `last_seen`; port -1 = unknown. Port and habits of a vetted channel are those it
had when it was vetted. The counts are those of pushes over the days with contact, each half after 14 days."""

_KEY = ["device_id", "app_id", "dest"]
_COLUMNS = ("device", "app", "dest", "first_us", "last_us", "days", "vetted", "port", "habit", "pushed")


@dataclass(frozen=True)
class History:
    """First and last contact of every channel so far, the days between, and its latest habits.

    A window judged against a history sees only what came before the window: contacts of the history and
    of earlier windows of the same extraction. Other devices' contacts of the same window count for
    prevalence.

    There are two pasts: what a training's baseline held or an analyst called benign is vetted, what joined
    since is not. Only the vetted past makes a channel known, old or a twin: nothing becomes usual by staying.
    Days with contact count all the same.
    """

    contacts: pd.DataFrame
    vetting: bool = False
    """What joins is vetted, as in a baseline; whoever scores does not vet."""

    @classmethod
    def empty(cls) -> History:
        """The start of a baseline."""
        return cls(SCHEMA.empty_table().to_pandas(), vetting=True)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> History:
        """A history to score with. Raises SchemaError when the columns are not those of `SCHEMA`."""
        if table.schema.remove_metadata() != SCHEMA:
            raise SchemaError(
                f"history has columns {table.schema.names}, expected {SCHEMA.names}; "
                "take one that 'appcadence score' of this version wrote"
            )
        return cls(table.to_pandas())

    def to_arrow(self) -> pa.Table:
        return pa.Table.from_pandas(self.contacts, SCHEMA, preserve_index=False).replace_schema_metadata()


class Contacts(NamedTuple):
    """When each channel was first seen, in codes, (n,) each; app -1 = unknown."""

    device: np.ndarray
    app: np.ndarray
    dest: np.ndarray
    first_us: np.ndarray
    vetted: np.ndarray


@dataclass(frozen=True)
class Past:
    """A history in codes: those of the flows' own names first, then those of names it alone knows.

    Rows are sorted by (device, app, dest).
    """

    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    device: np.ndarray
    app: np.ndarray
    """-1 = unknown."""
    dest: np.ndarray
    first_us: np.ndarray
    last_us: np.ndarray
    days: np.ndarray
    vetted: np.ndarray
    port: np.ndarray
    habit: np.ndarray
    """(n, 4) float32, `HABITS`."""
    pushed: np.ndarray
    """(n, 5) float32, `COUNTS`."""
    vetting: bool
    """See `History`."""

    @classmethod
    def of(cls, history: History, *own: pd.Index[Any]) -> Past:
        """`own`: the devices, apps and destinations of the flows."""
        rows = history.contacts
        columns = [rows[name].astype(object) for name in _KEY]
        names = [
            index.append(pd.Index(sorted(set(column.dropna()) - set(index)), dtype="object"))
            for index, column in zip(own, columns, strict=True)
        ]
        device, app, dest = (
            index.get_indexer(pd.Index(column)) for index, column in zip(names, columns, strict=True)
        )
        order = np.lexsort((dest, app, device))
        return cls(
            devices=names[0],
            apps=names[1],
            dests=names[2],
            device=device[order],
            app=app[order],
            dest=dest[order],
            first_us=rows["first_seen"].to_numpy(np.int64)[order],
            last_us=rows["last_seen"].to_numpy(np.int64)[order],
            days=rows["days_seen"].to_numpy(np.int64)[order],
            vetted=rows["vetted"].to_numpy(np.bool_)[order],
            port=rows["port"].to_numpy(np.int32)[order],
            habit=rows[list(HABITS)].to_numpy(np.float32)[order],
            pushed=rows[list(COUNTS)].to_numpy(np.float32)[order],
            vetting=history.vetting,
        )

    def columns(self) -> dict[str, np.ndarray]:
        """The rows, column by column."""
        return {name: getattr(self, name) for name in _COLUMNS}

    def replaced(self, columns: dict[str, np.ndarray]) -> Past:
        """Other rows in the same codes."""
        return replace(self, **cast(Any, columns))

    def _take(self, rows: np.ndarray | slice) -> Past:
        return self.replaced({name: column[rows] for name, column in self.columns().items()})

    def _others(self, parts: Sequence[Past] | Sequence[Contacts]) -> Past:
        """Rows of the devices that are in none of the parts."""
        seen = np.zeros(len(self.devices), np.bool_)
        for part in parts:
            seen[part.device] = True
        return self._take(~seen[self.device])

    def of_devices(self, low: int, high: int) -> Past:
        """Rows of the devices low <= code < high."""
        lo, hi = np.searchsorted(self.device, (low, high))
        return self._take(slice(lo, hi))

    def with_devices(self, parts: list[Past]) -> Past:
        """The whole fleet: these parts, and the rows of all devices that are in none of them."""
        columns = [part.columns() for part in (*parts, self._others(parts))]
        joined = self.replaced({name: np.concatenate([c[name] for c in columns]) for name in _COLUMNS})
        return joined._take(np.lexsort((joined.dest, joined.app, joined.device)))

    def contacts(self) -> Contacts:
        """Who met what first."""
        device, app, dest = (x.astype(np.int32) for x in (self.device, self.app, self.dest))
        return Contacts(device, app, dest, self.first_us, self.vetted)

    def all_contacts(self, parts: Sequence[Contacts]) -> Contacts:
        """Who met what first in the whole fleet: these parts, and all devices that are in none of them."""
        rest = self._others(parts).contacts()
        return Contacts._make(np.concatenate(columns) for columns in zip(rest, *parts, strict=True))

    def history(self) -> History:
        """Back to names, in their order."""

        def rank(index: pd.Index[Any], codes: np.ndarray) -> np.ndarray:
            ranks = np.append(np.argsort(sorted_places(index.to_numpy())), len(index))
            return np.asarray(ranks[codes])

        order = np.lexsort(
            (rank(self.dests, self.dest), rank(self.apps, self.app), rank(self.devices, self.device))
        )
        rows = self._take(order)
        frame = pd.DataFrame(
            {
                "device_id": _named(self.devices, rows.device),
                "app_id": _named(self.apps, rows.app),
                "dest": _named(self.dests, rows.dest),
                "first_seen": rows.first_us,
                "last_seen": rows.last_us,
                "days_seen": rows.days,
                "vetted": rows.vetted,
                "port": rows.port,
            }
        )
        habits = {name: rows.habit[:, i] for i, name in enumerate(HABITS)}
        counts = {name: rows.pushed[:, i] for i, name in enumerate(COUNTS)}
        return History(frame.assign(**habits, **counts), self.vetting)


@dataclass(frozen=True)
class Comparison:
    """Windows compared with the past of their device, and that past with the windows added."""

    values: np.ndarray
    """(n_channels, 5) float32: channel is new, its age in days, destination is new for the device, steady
    days ratio, twin distance; NaN where the device has no vetted past, but for steady days."""
    pushed: np.ndarray
    """(n_channels, 5) float32: `COUNTS` up to the window's end; NaN where it holds no push."""
    channels: Past


def _named(index: pd.Index[Any], codes: np.ndarray) -> np.ndarray:
    names = np.array([*index, None], dtype=object)
    return np.asarray(names[codes], dtype=object)
