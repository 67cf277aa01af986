"""The columns of a log whose records are flows, each read with the type it should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import choice, either, encode, translate
from appcadence.telemetry.readers import ReadOptions, _flows, _hosts, _text
from appcadence.telemetry.readers._lines import Rows


class Columns:
    """Some rows by column, with fields of structs under their paths ("event.time"); collects faults.

    An absent column is all null. Blank text is null, and so is a word in `nothing` (lower case), which the
    log uses for "no value".
    """

    def __init__(self, rows: Rows, nothing: Collection[str] = ()) -> None:
        self.table, self.lines = rows.table, rows.lines
        while any(pa.types.is_struct(field.type) for field in self.table.schema):
            self.table = self.table.flatten()
        self.faults: list[tuple[Mask, str]] = []
        self.left_out: Counter[str] = Counter()
        self.local_times = False
        """Whether there are times without a UTC offset, which were read as UTC."""
        self._nothing = {"", *nothing}
        self._raw: dict[str, pa.Array] = {}
        self._coded: dict[int, tuple[pa.Array, pa.DictionaryArray]] = {}

    def keep(self, mine: pa.Array, reason: str = "other_kind") -> None:
        """Keep only some of the rows; the others are left out for this reason."""
        kept = np.asarray(mine)
        if kept.all():
            return
        self.left_out[reason] += int((~kept).sum())
        self.table, self.lines = self.table.filter(pa.array(kept)), self.lines[kept]
        self._raw.clear()
        self._coded.clear()

    def raw(self, name: str) -> pa.Array:
        """The column unchanged."""
        if name not in self._raw:
            present = name in self.table.column_names
            found = one_array(self.table[name]) if present else pa.nulls(len(self.table), pa.string())
            self._raw[name] = found
        return self._raw[name]

    def coded(self, column: pa.Array) -> pa.DictionaryArray:
        """A column as names, encoded only once."""
        if id(column) not in self._coded:
            # Kept with its column, so that no other column can get its id.
            self._coded[id(column)] = column, encode(column)
        return self._coded[id(column)][1]

    def text(self, *names: str) -> pa.DictionaryArray:
        """Stripped text, from the first column with a value in each row."""
        present = [name for name in names if name in self.table.column_names] or names[:1]
        return reduce(either, map(self._said, present))

    def _said(self, name: str) -> pa.DictionaryArray:
        return translate(
            self.coded(self.raw(name)), lambda t: None if t.strip().lower() in self._nothing else t.strip()
        )

    def time(self, *names: str) -> pa.Array:
        """Microseconds since 1970, from the first column with a value in each row."""
        columns = [*map(self.raw, names)]
        micros, bad = _text.times(columns[0] if len(columns) == 1 else pc.coalesce(*columns))
        self.fault(bad, f"{names[0]} is not a time")
        return micros

    def whole(self, name: str, where: Mask | None = None) -> pa.Array:
        """Whole numbers, null in rows without a value."""
        column = self.raw(name)
        column = column if where is None else pc.if_else(pa.array(where), column, None)
        if pa.types.is_integer(column.type):
            return column
        numbers, bad = _text.whole(column)
        self.fault(bad, f"{name} is not a whole number")
        return numbers

    def number(self, name: str) -> pa.Array:
        numbers, bad = _text.number(self.raw(name))
        self.fault(bad, f"{name} is not a number")
        return numbers

    def destination(self, hosts: pa.Array, addresses: pa.Array | None = None) -> dict[str, pa.Array]:
        """The columns of a flow's destination; `hosts` may also be URLs or addresses."""
        names, literal = _hosts.parts(hosts)
        found = literal
        if addresses is not None:
            found = either(translate(addresses, _hosts.address), literal)
        source = choice(("observed",), -np.asarray(names.is_null()).astype(int))
        return {"dest_host": names, "dest_host_source": source, "dest_ip": found}

    def fault(self, bad: Any, what: str) -> None:
        self.faults.append((np.asarray(bad), what))

    def flows(
        self, columns: dict[str, Any], options: ReadOptions, source: str, resolution: float, **screening: Any
    ) -> _flows.Finished:
        """The flows of these columns; other arguments as for `_flows.screen`."""
        how: dict[str, Any] = {"addresses": False, "also": self.faults} | screening
        found = _flows.finished(columns, self.lines, options, source, resolution, **how)
        left_out = self.left_out + Counter(found.left_out)
        return found._replace(left_out=left_out, local_times=self.local_times)


def seconds_between(start: pa.Array, end: pa.Array) -> pa.Array:
    """Seconds from one time to another, both in microseconds."""
    return pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6)
