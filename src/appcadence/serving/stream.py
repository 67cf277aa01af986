"""Micro-batches: take records as they arrive, and score windows when they close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US
from appcadence.features.columns import micros
from appcadence.features.extraction import touching
from appcadence.features.given import check_tables, conformed, moment_us
from appcadence.features.history import History
from appcadence.telemetry.directory import unify
from appcadence.telemetry.passive_names import HORIZON_SECONDS, PassiveNames, records
from appcadence.telemetry.schema import DIRECTORY_TABLES

_AROUND = ("activity", "notifications", "usage", "tasks", "coverage")
TABLES = ("flows", *_AROUND, "inventory")
_HORIZON_US = HORIZON_SECONDS * 1_000_000
_MIN_LOOK_BACK_US = HOUR_US
"""Features look back on the user for an hour before the window, or its length where that is more."""
_NEVER = -(2**62)


class Live:
    """The records of open windows, and the history before them. Threads may share it.

    Memory: the flows of open windows as given (some 100 bytes each), the history, and one row for each
    (address, host) of the last 24 hours if flows lack names.
    """

    def __init__(self, history: History, seconds: int, border_us: int = _NEVER) -> None:
        self.history = history
        """The history when the last window closed."""
        self.late_flows = 0
        """Number of flows that arrived after a window they touch had closed. They are in no score of such a
        window, only in those of later ones that they reach into."""
        self._width = seconds * 1_000_000
        self._lock = threading.Lock()
        self._open: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
        self._names: list[pa.Table] = []
        self._border_us = border_us
        self._latest_us = _NEVER

    @property
    def closed_until(self) -> pd.Timestamp | None:
        """The end of the last closed window (UTC); None = no window has closed."""
        return None if self._border_us == _NEVER else pd.Timestamp(self._border_us, unit="us", tz="UTC")

    def advance(
        self,
        given: Mapping[str, pa.Table | pd.DataFrame],
        until: datetime | str | None,
        score: Callable[[dict[str, pa.Table], tuple[int, int]], tuple[pa.Table, History]],
    ) -> pa.Table | None:
        """Take records, and `score` the windows closed by `until` (None = the start of the latest flow).

        `score` takes tables and a span, and returns scores and the advanced history. The result is None if no
        window closed. If the call fails, nothing of it is kept, and it may be repeated.

        Raises:
            SchemaError: a table is unknown or does not fit its declaration; nothing of the call is kept.
            AppcadenceError: `until` is no moment, or names no time zone.
        """
        check_tables(given, TABLES)
        tables = {name: _owned(conformed(name, rows)) for name, rows in given.items()}
        until_us = None if until is None else moment_us(until, "until")
        with self._lock, self._rolled_back_on_error():
            if len(flows := tables.get("flows", ())):
                start = micros(flows["start"])
                self._latest_us = max(self._latest_us, int(start.max()))
                self.late_flows += int(np.count_nonzero(start < self._border_us))
                kept = touching(flows, (self._border_us, -_NEVER))
                if len(kept) < len(flows):
                    self._names = [*self._names, records(flows)]  # late flows still name addresses
                tables["flows"] = kept
            for name, table in tables.items():
                self._open[name].append(table)
            now_us = self._latest_us if until_us is None else until_us
            border_us = now_us // self._width * self._width
            if border_us <= self._border_us:
                return None
            flows = self._joined("flows")
            span_us = (self._border_us, border_us)
            closed = {name: self._joined(name) for name in TABLES if self._open[name]}
            # Flows that are still open name addresses too; later records cannot change that.
            named = PassiveNames(lambda: [part.slice for part in (*self._names, flows)])
            closed["flows"] = touching(named.fill(flows), span_us)
            scores = None
            if len(closed["flows"]):
                scores, self.history = score(closed, span_us)
            self._keep(flows, border_us)
            return scores

    @contextmanager
    def _rolled_back_on_error(self) -> Iterator[None]:
        """Restore the state if the block fails; tables are never modified, only lists of them."""
        before = vars(self) | {"_open": {name: list(parts) for name, parts in self._open.items()}}
        try:
            yield
        except BaseException:
            vars(self).update(before)
            raise

    def _joined(self, name: str) -> pa.Table:
        """All open records of a table, stored as one part from now on."""
        if len(self._open[name]) != 1:
            self._open[name] = [unify([DIRECTORY_TABLES[name].empty(), *self._open[name]])]
        return self._open[name][0]

    def _keep(self, flows: pa.Table, border_us: int) -> None:
        """Drop what the windows after the border do not need."""
        kept = touching(flows, (border_us, -_NEVER))
        self._open["flows"] = [kept]
        past = flows.filter(pa.array(micros(flows["start"]) < border_us))
        names = pa.concat_tables([*self._names, records(past)])
        # Flows that are still open are named again later.
        since_us = int(micros(kept["start"]).min(initial=border_us)) - _HORIZON_US
        self._names = [records(names.filter(pa.array(micros(names["start"]) >= since_us)))]
        for name in _AROUND:
            if len(rows := self._joined(name)):
                last = micros(rows[DIRECTORY_TABLES[name].when])
                if "end" in rows.column_names:
                    last = np.maximum(last, micros(pc.fill_null(rows["end"].cast(pa.int64()), -_NEVER)))
                needed = last >= border_us - max(self._width, _MIN_LOOK_BACK_US)
                # Keep the last of each kind before: since when the user is away, and that there is a log.
                before = np.flatnonzero(last < border_us)
                before = before[np.argsort(last[before], kind="stable")]
                names = [name for name in ("device_id", "kind") if name in rows.column_names]
                who = rows.select(names).take(before).to_pandas()
                needed[before[~who.duplicated(keep="last").to_numpy()]] = True
                self._open[name] = [rows.filter(pa.array(needed))]
        self._border_us = border_us


def _owned(table: pa.Table) -> pa.Table:
    """A copy that shares no memory with the caller's, who may change it between calls."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()
