"""The past, only for novelty: who contacted what, since when and how, before a window began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import HOUR_US, Ints, Structs
from appcadence.errors import SchemaError, TelemetryError
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
"""One row per channel. Times are microseconds since the epoch. Bit i of `days_seen` says that there was
contact i UTC days before the day of `last_seen`. Port -1 = unknown. Port and habits of a vetted channel are
those at the time it was vetted. The counts are of pushes on days with contact, halved after 14 days."""

CHANNEL = np.dtype(
    [
        *((name, "i8") for name in ("device", "app", "dest", "first_us", "last_us", "days")),
        *(("habit", "f4", len(HABITS)), ("pushed", "f4", len(COUNTS)), ("port", "i4"), ("vetted", "?")),
    ],
    align=True,
)
"""A row of `SCHEMA` in codes: app -1 = unknown; `habit` and `pushed` hold `HABITS` and `COUNTS`."""
_KEY = {"device": "device_id", "app": "app_id", "dest": "dest"}
_FACTS = {"first_us": "first_seen", "last_us": "last_seen", "days": "days_seen"} | {
    name: name for name in ("vetted", "port")
}
"""Columns by field of `CHANNEL`."""


@dataclass(frozen=True)
class History:
    """First and last contact of every channel so far, the days with contact, and its latest habits.

    A window judged against a history sees only what came before it: contacts of the history and of earlier
    windows of the same extraction. For prevalence, other devices' contacts in the same window count too.

    Channels in the baseline of a training, or that an analyst called benign, are vetted; channels that joined
    later are not. Only vetted channels count as known, old or a twin, so nothing becomes usual just by
    lasting. Days with contact count either way.
    """

    contacts: pd.DataFrame
    vetting: bool = False
    """Whether joining channels are vetted, as in a baseline; scoring never vets."""

    @classmethod
    def empty(cls) -> History:
        """An empty history, to start a baseline."""
        return cls(SCHEMA.empty_table().to_pandas(), vetting=True)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> History:
        """A history to score with. Raises SchemaError if the columns differ from `SCHEMA`."""
        if table.schema.remove_metadata() != SCHEMA:
            raise SchemaError(
                f"history has columns {table.schema.names}, expected {SCHEMA.names}; "
                "take one that 'appcadence score' of this version wrote"
            )
        return cls(table.to_pandas())

    def require_before(self, begin_us: int, argument: str | None = None) -> None:
        """Raises TelemetryError if a channel that joined by scoring had contact at `begin_us` or later.

        Windows from then on would be judged by their own future. `argument` names the argument to change.
        Contacts of a baseline may be later, since a baseline states what is usual at any time.
        """
        seen = self.contacts["last_seen"].to_numpy()[~self.contacts["vetted"].to_numpy(np.bool_)]
        # An open connection counts at the start of each window that it touches, even after the scored ones.
        last_us = int(seen[seen % HOUR_US != 0].max(initial=begin_us - 1))
        if last_us >= begin_us:
            begin, last = (pd.Timestamp(at, unit="us") for at in (begin_us, last_us))
            raise TelemetryError(
                f"the history knows contacts up to {last:%Y-%m-%d %H:%M} UTC, and the windows to score begin "
                f"at {begin:%Y-%m-%d %H:%M} UTC; give the history of the run before them",
                argument,
            )

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
    """A history in codes: those of the flows' own names first, then those of names it alone knows."""

    devices: pd.Index[Any]
    apps: pd.Index[Any]
    dests: pd.Index[Any]
    rows: Structs
    """(n,) `CHANNEL`, sorted by device, app and dest."""
    vetting: bool
    """See `History`."""

    @classmethod
    def of(cls, history: History, *own: pd.Index[Any]) -> Past:
        """`own`: the devices, apps and destinations of the flows."""
        table = history.contacts
        rows, names = np.empty(len(table), CHANNEL), []
        for index, (field, column) in zip(own, _KEY.items(), strict=True):
            known = table[column].astype(object)
            more = sorted(set(known.dropna()) - set(index))
            names.append(index.append(pd.Index(more, dtype="object")))
            rows[field] = names[-1].get_indexer(pd.Index(known))
        for field, column in _FACTS.items():
            rows[field] = table[column]
        rows["habit"], rows["pushed"] = table[list(HABITS)], table[list(COUNTS)]
        devices, apps, dests = names
        return cls(devices, apps, dests, _in_order(rows), history.vetting)

    @cached_property
    def _begin(self) -> Ints:
        """(n_devices + 1,) where the rows of each device begin."""
        return np.searchsorted(self.rows["device"], np.arange(len(self.devices) + 1))

    def of_devices(self, low: int, high: int) -> Structs:
        """Rows of the devices low <= code < high."""
        return self.rows[self._begin[low] : self._begin[high]]

    def _others(self, devices: Iterable[np.ndarray]) -> Structs:
        """Rows of the devices that are not among these."""
        seen = np.zeros(len(self.devices), np.bool_)
        for some in devices:
            seen[some] = True
        return np.asarray(self.rows[~seen[self.rows["device"]]])

    def with_devices(self, parts: Sequence[Past]) -> Past:
        """The whole fleet: these parts, and the rows of all devices that are in none of them."""
        rows = [part.rows for part in parts]
        rest = self._others(part["device"] for part in rows)
        return replace(self, rows=_in_order(np.concatenate([*rows, rest])))

    def contacts(self) -> Contacts:
        """Who met what first."""
        device, app, dest = (self.rows[field].astype(np.int32) for field in _KEY)
        return Contacts(device, app, dest, self.rows["first_us"].copy(), self.rows["vetted"].copy())

    def all_contacts(self, parts: Sequence[Contacts]) -> Contacts:
        """Who met what first in the whole fleet: these parts, and all devices that are in none of them."""
        rest = replace(self, rows=self._others(part.device for part in parts)).contacts()
        return Contacts._make(np.concatenate(columns) for columns in zip(rest, *parts, strict=True))

    def history(self) -> History:
        """Back to names, in their order."""
        names = dict(zip(_KEY, (self.devices, self.apps, self.dests), strict=True))
        ranks = []
        for field, index in names.items():
            rank = np.append(np.argsort(sorted_places(index.to_numpy())), len(index))
            ranks.append(rank[self.rows[field]])
        rows = self.rows[np.lexsort(ranks[::-1])]
        keys = {_KEY[field]: _named(index, rows[field]) for field, index in names.items()}
        facts = {column: rows[field] for field, column in _FACTS.items()}
        habits = {name: rows["habit"][:, i] for i, name in enumerate(HABITS)}
        counts = {name: rows["pushed"][:, i] for i, name in enumerate(COUNTS)}
        return History(pd.DataFrame(keys | facts | habits | counts), self.vetting)


@dataclass(frozen=True)
class Comparison:
    """Windows compared with the past of their device, and that past with the windows added."""

    values: np.ndarray
    """(n_channels, 5) float32: channel is new, its age in days, destination is new for the device, steady
    days ratio, twin distance; NaN where the device has no vetted past, but for steady days."""
    pushed: np.ndarray
    """(n_channels, 5) float32: `COUNTS` up to the window's end; NaN where it holds no push."""
    channels: Past


def _in_order(rows: Structs) -> Structs:
    return np.asarray(rows[np.lexsort((rows["dest"], rows["app"], rows["device"]))])


def _named(index: pd.Index[Any], codes: np.ndarray) -> np.ndarray:
    names = np.array([*index, None], dtype=object)
    return np.asarray(names[codes], dtype=object)
