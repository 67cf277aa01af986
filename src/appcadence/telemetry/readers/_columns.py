"""The columns of a log of which one record is one flow, each read as what it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import choice, translate
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _hosts, _json, _text
from appcadence.telemetry.readers._json_layout import Fits, fits
from appcadence.telemetry.readers._lines import Rows

_IOS = r"(?i)^i(pad)?_?os"


class Columns:
    """Some rows by column, a field of a struct under its path ("event.time"); collects what is wrong.

    An absent column is all null, and so is a text of nothing but blanks, or of a word in `nothing` (lower
    case) by which the log says so.
    """

    def __init__(self, rows: Rows, nothing: Collection[str] = ()) -> None:
        self.table, self.lines = rows.table, rows.lines
        while any(pa.types.is_struct(field.type) for field in self.table.schema):
            self.table = self.table.flatten()
        self.faults: list[tuple[Mask, str]] = []
        self.left_out: Counter[str] = Counter()
        self._nothing = {"", *nothing}

    def keep(self, mine: pa.Array, reason: str = "other_kind") -> None:
        """Go on with some of the rows only; the others are left out for this reason."""
        before = len(self.lines)
        self.table, self.lines = self.table.filter(mine), self.lines[np.asarray(mine)]
        self.left_out[reason] += before - len(self.lines)

    def keep_ios(self, system: str) -> None:
        """Go on without the rows of devices that are stated to run something else than iOS or iPadOS."""
        stated = self.text(system).cast(pa.string())
        self.keep(pc.fill_null(pc.match_substring_regex(stated, _IOS), True), "other_system")

    def raw(self, name: str) -> pa.Array:
        """As it stands."""
        if name in self.table.column_names:
            return one_array(self.table[name])
        return pa.nulls(len(self.table), pa.string())

    def text(self, *names: str) -> pa.DictionaryArray:
        """As texts without blanks around them, from the first column that says anything."""
        present = [name for name in names if name in self.table.column_names] or names[:1]
        said = [self._said(name) for name in present]
        if len(said) == 1:
            return said[0]
        return pc.coalesce(*(column.cast(pa.string()) for column in said)).dictionary_encode()

    def _said(self, name: str) -> pa.DictionaryArray:
        return translate(self.raw(name), lambda t: None if t.strip().lower() in self._nothing else t.strip())

    def word(self, name: str, allowed: Sequence[str]) -> pa.Array:
        """As texts in lower case, of which only some are allowed."""
        words = translate(self.text(name), str.lower).cast(pa.string())
        known = pc.is_in(words, pa.array([*allowed, None], pa.string()))
        self.fault(pc.invert(known), f"{name} is not one of {', '.join(allowed)}")
        return words

    def time(self, *names: str) -> pa.Array:
        """As microseconds since 1970, from the first column that holds anything."""
        micros, bad = _text.times(pc.coalesce(*map(self.raw, names)))
        self.fault(bad, f"{names[0]} is not a time")
        return micros

    def whole(self, name: str, where: Mask | None = None) -> pa.Array:
        """As whole numbers, null in rows where it says nothing."""
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
        """The columns that say where a flow went; `hosts` may also be URLs or addresses."""
        names, literal = _hosts.parts(hosts)
        found = literal.cast(pa.string())
        if addresses is not None:
            given = translate(addresses, lambda text: canonical(text.strip("[]")))
            found = pc.coalesce(given.cast(pa.string()), found)
        source = choice(("observed",), -np.asarray(names.is_null()).astype(int))
        return {"dest_host": names, "dest_host_source": source, "dest_ip": found}

    def app(self, apps: pa.DictionaryArray, attribution: str) -> dict[str, pa.Array]:
        """The columns that say which app it was; no attribution where there is none."""
        how = choice((attribution, "none"), np.asarray(apps.is_null()).astype(int))
        return {"app_id": apps, "app_attribution": how}

    def fault(self, bad: Any, what: str) -> None:
        self.faults.append((np.asarray(bad), what))

    def flows(
        self, columns: dict[str, Any], options: ReadOptions, source: str, resolution: float, **screening: Any
    ) -> _flows.Finished:
        """The flows of these columns; the rest as for `_flows.screen`."""
        how: dict[str, Any] = {"addresses": False, "also": self.faults} | screening
        found = _flows.finished(columns, self.lines, options, source, resolution, **how)
        return found._replace(left_out=self.left_out + Counter(found.left_out))


@dataclass(frozen=True)
class JsonFlows:
    """The reader of a format of phones that keeps one flow in one JSON object."""

    expected: str
    """What a file should be, for errors."""
    wanted: _json.Fields
    fits: Fits
    """Whether an object is a record of this format."""
    finish: Callable[[Rows, ReadOptions], _flows.Finished]
    adapt: _json.Adapt | None = None

    def sniff(self, path: Path, start: bytes) -> bool:
        """Whether one of the first objects is a record of this format; never raises."""
        return fits(start, self.fits)

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Batches:
        """Yield flows, and rejected records.

        Raises:
            UnusableFile: a file is missing, empty, damaged, older than any iPhone, or holds no such record.
        """
        for path in paths:
            parsed = _json.rows(path, self.expected, self.wanted, self.fits, self.adapt)
            yield from _flows.flows_of(
                path, parsed, lambda rows: self.finish(rows, options), first=_flows.FIRST_IPHONE
            )


def seconds_between(start: pa.Array, end: pa.Array) -> pa.Array:
    """How long from one time to another, both in microseconds."""
    return pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6)
