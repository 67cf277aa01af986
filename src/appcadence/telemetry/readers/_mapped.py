"""The fields of some records as our columns, by a declaration."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.names import by_name, choice, constant, either, translate, value_of
from appcadence.telemetry.readers import _flows, _hosts, _iso_times, _text
from appcadence.telemetry.readers._columns import seconds_between
from appcadence.telemetry.readers._declaration import BY_SIZE, EPOCH_UNITS, EPOCHS, TIMES
from appcadence.telemetry.readers._fields import Fields, is_number

_LARGEST = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""If the unit of an epoch is deduced from size: numbers from here on have this unit (in seconds)."""
_MAX_RESOLUTION = 2**31 - 1
_TIME_OF_DAY = r"^\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?"


class Mapped(Fields):
    """The columns of some records under our names."""

    def outcome(self) -> pa.Array:
        """The outcome from the first column whose word is translated, otherwise from the answer."""
        declared, found = self.declared, self.mine("outcome")
        names = list(self._present("outcome"))
        if declared.otherwise and names and found.null_count:
            said_last = np.asarray(self._said_raw(names[-1]).is_valid())
            found = either(found, choice((declared.otherwise,), said_last - 1))
        if declared.answered and self.has("bytes_in") and found.null_count:
            back = np.asarray(pc.fill_null(pc.greater(self.count("bytes_in"), 0), False))
            found = either(found, choice(("established",), back - 1))
        return either(found, constant(len(found), "unknown"))

    def port(self, ours: str, where: Mask | None = None) -> pa.Array:
        """A port, also in hexadecimal, in a URL, or at the end of an address."""
        column = self.field(ours)
        if not pa.types.is_integer(column.type):
            if pa.types.is_floating(column.type):
                return self.count(ours)
            texts = translate(self.words(ours), _hosts.port)
            numbers, wrong = _text.whole(texts.dictionary)
            column = numbers.take(texts.indices)
            bad = by_name(texts, wrong, False)
            self.fault(bad if where is None else bad & where, f"{self.label(ours)} is not a number")
        return column if where is None else pc.if_else(pa.array(where), column, None)

    def start(self) -> pa.Array:
        return self._start[0]

    def duration(self) -> pa.Array | None:
        return self._start[1]

    @cached_property
    def _start(self) -> tuple[pa.Array, pa.Array | None]:
        """When flows began, and their duration where that is known."""
        nothing = pa.nulls(len(self.table), pa.int64())
        start, end = (self.time(ours) if self.has(ours) else nothing for ours in ("start", "end"))
        lasted = None
        if self.has("duration_seconds"):
            lasted = pc.multiply(self.number("duration_seconds"), self.declared.duration_unit)
        if lasted is not None and self.declared.ended:
            late = pa.array(self._any_fits(self.declared.ended) & np.asarray(lasted.is_valid()))
            start, end = pc.if_else(late, None, start), pc.if_else(late, pc.coalesce(end, start), end)
        if end.null_count < len(end):
            known = np.zeros(len(end)) if lasted is None else np.asarray(lasted.fill_null(0.0))
            back = np.where((known >= 0) & (known < _flows.LAST_SECOND), known, 0)
            moved = pc.subtract(end, pa.array(np.rint(back * 1e6).astype(np.int64)))
            if self.declared.clock == "start":
                until = seconds_between(start, end)
                moved = (
                    pa.nulls(len(end), pa.int64())
                    if lasted is None
                    else pc.if_else(lasted.is_valid(), moved, None)
                )
                lasted = until if lasted is None else pc.coalesce(lasted, until)
            start = pc.coalesce(start, pc.if_else(pc.greater_equal(end, 0), moved, end))
        if self.has("logged") and start.null_count:
            start = pc.coalesce(start, self.time("logged"))
        return start, lasted

    def time(self, *names: str) -> pa.Array:
        """Microseconds since 1970."""
        (ours,) = names
        column, declared = self.field(ours), self.declared
        if pa.types.is_timestamp(column.type):
            self.local_times |= not (column.type.tz or declared.offset_stated)
            micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
            return _text.in_range(
                micros if column.type.tz else pc.subtract(micros, declared.offset_seconds * 1_000_000)
            )
        if is_number(column.type):
            return self._counted(column.cast(pa.float64(), safe=False))
        if declared.time_forms[0] in EPOCHS and len(declared.time_forms) == 1:
            return self._counted(self.number(ours))
        text = self._as_text(ours, column)
        offsets = self._offsets(text)
        self.local_times |= offsets is None and not declared.offset_stated and _text.is_local(text)
        if offsets is None and "iso" in declared.time_forms:
            plain = _text.iso_times(text, declared.offset_seconds)
            if plain is not None:
                return plain
        micros = pa.nulls(len(text), pa.int64())
        if "epoch" in declared.time_forms:
            # A count that a spreadsheet rewrote ("1.732E+12") has lost the time.
            epoch, _ = _text.number(text, exponents=False)
            micros = self._counted(epoch)
        left = pc.if_else(micros.is_null(), text, None)
        if left.null_count < len(left):
            micros = pc.coalesce(micros, self._written(left, offsets))
        bad = np.asarray(text.is_valid()) & np.asarray(micros.is_null())
        self.fault(bad, f"{self.label(ours)} is not a time")
        return micros

    def _written(self, text: pa.Array, offsets: npt.NDArray[np.int64] | None) -> pa.Array:
        """Times as text, by the first form that fits."""
        found = pa.nulls(len(text), pa.int64())
        ahead = self.declared.offset_seconds if offsets is None else 0
        for form in self.declared.time_forms:
            left = pc.if_else(found.is_null(), text, None)
            if form in EPOCHS or left.null_count == len(left):
                continue
            if form == "iso":
                times = _text.times(left, ahead)
            else:
                plain = pc.replace_substring_regex(left, r" +(GMT|UTC|Z)$", "")
                times = _text.named_times(plain, form, ahead)
            found = pc.coalesce(found, times[0])
        if offsets is not None:
            own = np.asarray(pc.fill_null(_text.has_zone(text), False))
            moved = pc.subtract(found, pa.array(np.where(own, 0, offsets) * 1_000_000))
            found = pc.if_else(pc.greater_equal(found, 0), moved, found)
        return found

    def _offsets(self, text: pa.Array) -> npt.NDArray[np.int64] | None:
        """How far ahead of UTC the clock of each row is; None if no column says so."""
        zone = self.declared.zone
        if not zone or zone not in self.table.column_names:
            return None
        # A whole time may stand there, of which the offset counts.
        said = pc.replace_substring_regex(self._as_text(zone, self._said_raw(zone)), _TIME_OF_DAY, "")
        never = np.iinfo(np.int64).max
        offsets = value_of(
            said, lambda name: _iso_times.seconds_ahead(name, never), self.declared.offset_seconds
        )
        unknown = offsets == never
        counts = np.asarray(pc.fill_null(pc.match_substring_regex(text, r"^[0-9.]+$"), True))
        self.fault(unknown & ~counts, f"{zone} is neither UTC nor an offset from it")
        return np.where(unknown, 0, offsets)

    def _counted(self, numbers: pa.Array) -> pa.Array:
        first = next((EPOCHS[form] for form in self.declared.time_forms if form in EPOCHS), 0)
        seconds = pc.multiply(numbers, pa.array(self._units(numbers)))
        return _flows.micros(pc.add(seconds, float(first)))

    def _units(self, numbers: pa.Array) -> npt.NDArray[np.float64]:
        """(n,) the unit, in seconds, of each number that counts from an epoch."""
        if self.declared.time_unit != BY_SIZE:
            return np.full(len(numbers), EPOCH_UNITS[self.declared.time_unit])
        size = np.asarray(numbers.cast(pa.float64(), safe=False).fill_null(0.0))
        if not len(size) or size.max() < _LARGEST[-1][0]:
            return np.ones(len(size))
        return np.select([size >= least for least, _ in _LARGEST], [unit for _, unit in _LARGEST], 1.0)

    def resolution(self) -> pa.Array:
        """The resolution of the starts, in seconds."""
        found, start = self._resolution(), self.field("start")
        if self.declared.resolution_seconds or not self.has("duration_seconds") or not start.null_count:
            return found
        # A start that was computed as a duration before an end.
        moved = np.asarray(start.is_null()) & np.asarray(self.field("duration_seconds").is_valid())
        coarse = np.where(moved, min(self.declared.duration_unit, 1.0), 0)
        return pa.array(np.maximum(np.asarray(found), coarse))

    def _resolution(self) -> pa.Array:
        declared, known = self.declared, self.declared.resolution_seconds
        if "time_resolution_seconds" in declared.columns:
            seconds = self.number("time_resolution_seconds")
            filled = np.asarray(seconds.fill_null(0.0).to_numpy(zero_copy_only=False))
            wrong = ~((filled >= 0) & (filled <= _MAX_RESOLUTION))
            self.fault(wrong, f"{self.label('time_resolution_seconds')} is out of range")
            return pa.array(np.maximum(np.where(wrong, 0, filled), known or 1.0))
        fields = map(self.field, TIMES)
        column = next((one for one in fields if one.null_count < len(one)), self.field("start"))
        if pa.types.is_timestamp(column.type):
            known = known or max(EPOCH_UNITS[column.type.unit], 1e-6)
        elif known is None and set(declared.time_forms) & set(EPOCHS):
            numbers = column
            if not is_number(column.type):
                numbers = _text.number(self._as_text(declared.clock, column))[0]
            units = np.where(np.asarray(numbers.is_null()), 1.0, self._units(numbers))
            if (units < 1).any():
                written = np.asarray(_text.resolution(self._as_text(declared.clock, column), 1e-6))
                return pa.array(np.where(units < 1, np.maximum(units, 1e-6), written))
        if known is not None:
            return pa.array(np.full(len(column), known))
        return _text.resolution(self._as_text(declared.clock, column), 1e-6)

    def swapped(self) -> Mask:
        """The records whose byte counts are swapped."""
        return self._any_fits(self.declared.swaps)

    def protocol(self) -> tuple[pa.DictionaryArray, Mask, Mask]:
        """The transport, which rows are TCP, and which are UDP."""
        strict = self.declared.all_words and self._own_names
        return _flows.transports(self.mine("transport") if strict else self.words("transport"))
