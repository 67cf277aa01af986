"""The fields of some records as our columns, by a declaration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.errors import TelemetryError
from appcadence.telemetry.names import by_name, choice, constant, either, translate, value_of
from appcadence.telemetry.readers import _flows, _hosts, _iso_times, _plain_text, _text
from appcadence.telemetry.readers._columns import Columns, seconds_between
from appcadence.telemetry.readers._declaration import BY_SIZE, EPOCH_UNITS, EPOCHS, Declaration, Skip
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.schema import FLOWS

_NO_NAMES = {"", "-", "n/a", "none", "null", "(null)"}
_NAMED = ("device_id", "app_id", "dest_host", "dest_ip", "service")
_LARGEST = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""If the unit of an epoch is deduced from size: numbers from here on have this unit (in seconds)."""
_TIMES = ("start", "end", "logged")
_MAX_RESOLUTION = 2**31 - 1


class Mapped(Columns):
    """The columns of some records under our names; the log's own names work, too."""

    def __init__(self, rows: Rows, declared: Declaration, own_names: bool) -> None:
        super().__init__(rows, declared.nothing)
        self.declared = declared
        self._own_names = own_names
        self._fields: dict[str, pa.Array] = {}
        for skip in declared.skips:
            self.keep(pa.array(~self._fits(skip)), skip.reason)

    def has(self, ours: str) -> bool:
        return ours in self.declared.columns or ours in self.declared.constants

    def label(self, *ours: str) -> str:
        """What a fault calls some columns of equal meaning: the log's names, or the first of ours."""
        if not self._own_names:
            return ours[0]
        names = [name for one in ours for name in self._present(one)]
        names = names or [*self.declared.columns.get(ours[0], ours)[:1]]
        saying = [name for name in names if any(map(self._says, name.split("+")))]
        return " or ".join(saying[:3] or names[:1])

    def field(self, ours: str) -> pa.Array:
        """The unchanged values, from the first name with a value in each row; null where none has one."""
        if ours not in self._fields:
            self._fields[ours] = self._field(ours)
        return self._fields[ours]

    def _field(self, ours: str) -> pa.Array:
        names = [name for name in self._present(ours) if "+" in name or self._says(name)]
        # For a single column, whoever reads it treats blanks as null.
        alone = len(names) == 1 and "+" not in names[0] and not self.declared.nothing
        found = [self.raw(name) if alone else self._said_raw(name) for name in names]
        if ours in _TIMES and "cocoa" not in self.declared.time_forms:
            found = [*map(self._timed, found)]
        found = [column for column in found if column.null_count < len(column)]
        if not found:
            known = self.declared.constants.get(ours)
            nulls = pa.nulls(len(self.table), pa.string())
            return nulls if known is None else constant(len(self.table), known)
        if len({column.type for column in found}) > 1:
            found = [self._as_text(ours, column) for column in found]
        coded = pa.types.is_dictionary(found[0].type)
        column = found[0] if len(found) == 1 else reduce(either, found) if coded else pc.coalesce(*found)
        if ours in self.declared.constants and column.null_count:
            column = pc.coalesce(self._as_text(ours, column), pa.scalar(self.declared.constants[ours]))
        if pattern := self.declared.drop.get(ours):
            column = self._dropped(ours, pattern)
        return column

    def _timed(self, column: pa.Array) -> pa.Array:
        """The column without counts of 0, which exporters write for an unknown time."""
        text = pa.types.is_string(column.type)
        if not text and not _is_number(column.type):
            return column
        never = pc.starts_with(column, "0") if text else pc.equal(column, 0)
        if not pc.any(never).as_py():
            return column
        return pc.if_else(pc.match_substring_regex(column, r"^0+(\.0*)?$") if text else never, None, column)

    def plain(self, ours: str) -> pa.Array:
        """Stripped text, for columns whose values are all different."""
        text = pc.utf8_trim_whitespace(self._as_text(ours, self.field(ours)))
        return pc.if_else(pc.equal(text, ""), None, text)

    def words(self, ours: str) -> pa.DictionaryArray:
        """Stripped text, extracted from its field and translated as declared."""
        declared = self.declared
        field = self.field(ours)
        if not pa.types.is_dictionary(field.type):
            field = self._as_text(ours, field)
        nothing = _NO_NAMES if ours in _NAMED else {""}
        texts = translate(self.coded(field), lambda t: None if t.strip().lower() in nothing else t.strip())
        if pattern := declared.extract.get(ours):
            texts = translate(texts, lambda text: _group(pattern.search(text)))
        known = declared.values.get(ours)
        if not known:
            return texts
        return translate(texts, lambda text: known.get(text.lower(), text if declared.all_words else None))

    def mine(self, ours: str) -> pa.Array:
        """Words that our column allows; any other is a fault if all words must be known."""
        allowed = FLOWS.column(ours).values
        words = translate(self.words(ours), lambda text: text.lower())
        known = translate(words, lambda text: text if text in allowed else None)
        if self.declared.all_words:
            wrong = np.asarray(known.is_null()) & ~np.asarray(words.is_null())
            self.fault(wrong, f"{self.label(ours)} is not one of {', '.join(allowed)}")
        return known

    def outcome(self) -> pa.Array:
        """The outcome from the first column whose word is translated, otherwise from the answer."""
        declared = self.declared
        names = list(self._present("outcome"))
        if declared.all_words or len(names) < 2:
            found = self.mine("outcome")
        else:
            known = declared.values.get("outcome", {})
            said = (self.coded(self._as_text("outcome", self._said_raw(name))) for name in names)
            each = (translate(column, lambda text: known.get(text.strip().lower())) for column in said)
            found = reduce(either, each)
        if declared.otherwise and names and found.null_count:
            said_last = np.asarray(self._said_raw(names[-1]).is_valid())
            found = either(found, choice((declared.otherwise,), said_last - 1))
        if declared.answered and self.has("bytes_in") and found.null_count:
            back = np.asarray(pc.fill_null(pc.greater(self.count("bytes_in"), 0), False))
            found = either(found, choice(("established",), back - 1))
        return either(found, constant(len(found), "unknown"))

    def number(self, ours: str) -> pa.Array:
        column = self.field(ours)
        if _is_number(column.type):
            return column.cast(pa.float64(), safe=False)
        numbers, bad = _text.number(self._as_text(ours, column))
        self.fault(bad, f"{self.label(ours)} is not a number")
        return numbers

    def count(self, ours: str, unit: float = 1) -> pa.Array:
        """Whole numbers times the unit."""
        column = self.field(ours)
        if unit == 1:
            if pa.types.is_integer(column.type):
                return column
            if pa.types.is_string(column.type):
                whole, bad = _text.whole(column)
                if not bad.any():
                    return whole
        numbers = self.number(ours)
        values = np.asarray(numbers.fill_null(0).to_numpy(zero_copy_only=False)) * unit
        if unit == 1:
            doubtful = values % 1 != 0
            if pa.types.is_string(column.type):
                doubtful |= _text.in_thousands(column)
            self.fault(doubtful, f"{self.label(ours)} is not a whole number")
        fits = np.isfinite(values) & (np.abs(values) < 2**62)
        self.fault(~fits, f"{self.label(ours)} is out of range")
        whole = np.rint(np.where(fits, values, 0)).astype(np.int64)
        return pa.array(whole, mask=np.asarray(numbers.is_null()))

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
            micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
            return _text.in_range(
                micros if column.type.tz else pc.subtract(micros, declared.offset_seconds * 1_000_000)
            )
        if _is_number(column.type):
            return self._counted(column.cast(pa.float64(), safe=False))
        if declared.time_forms[0] in EPOCHS and len(declared.time_forms) == 1:
            return self._counted(self.number(ours))
        text = self._as_text(ours, column)
        offsets = self._offsets(text)
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
        said = self._as_text(zone, self._said_raw(zone))
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
        fields = map(self.field, _TIMES)
        column = next((one for one in fields if one.null_count < len(one)), self.field("start"))
        if pa.types.is_timestamp(column.type):
            known = known or max(EPOCH_UNITS[column.type.unit], 1e-6)
        elif known is None and set(declared.time_forms) & set(EPOCHS):
            numbers = column
            if not _is_number(column.type):
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
        found = np.zeros(len(self.table), bool)
        for swap in self.declared.swaps:
            found |= self._fits(swap)
        return found

    def protocol(self) -> tuple[pa.DictionaryArray, Mask, Mask]:
        """The transport, which rows are TCP, and which are UDP."""
        strict = self.declared.all_words and self._own_names
        return _flows.transports(self.mine("transport") if strict else self.words("transport"))

    def _present(self, ours: str) -> Iterator[str]:
        """The names of a column that the records have."""
        for name in self.declared.columns.get(ours, ()):
            if all(part in self.table.column_names for part in name.split("+")):
                yield name

    def _says(self, name: str) -> bool:
        return name in self.table.column_names and self.table[name].null_count < len(self.table)

    def _said_raw(self, name: str) -> pa.Array:
        """A field unchanged, null where it has no value; "a+b" joins two fields."""
        if name not in self.table.column_names and "+" in name:
            parts = [self._as_text(part, self._said_raw(part)) for part in name.split("+")]
            return pc.binary_join_element_wise(*parts, " ")
        column = self.raw(name)
        if pa.types.is_string(column.type):
            if _plain_text.says_all(column, self._nothing):
                return column
            stripped = pc.utf8_trim_whitespace(column)
            return pc.if_else(
                pc.is_in(pc.utf8_lower(stripped), pa.array(sorted(self._nothing))), None, stripped
            )
        if pa.types.is_dictionary(column.type):
            return self._said(name)
        return column

    def _dropped(self, ours: str, pattern: re.Pattern[str]) -> pa.Array:
        """As `field`, without values that match the pattern."""
        said = (self.coded(self._as_text(ours, self._said_raw(name))) for name in self._present(ours))
        return reduce(either, (translate(text, lambda t: None if pattern.search(t) else t) for text in said))

    def _fits(self, skip: Skip) -> Mask:
        names = [name for name in skip.columns if name in self.table.column_names]
        pattern = skip.matches or skip.unless
        if pattern is None:
            lacks = np.ones(len(self.table), bool)
            for name in names:
                lacks &= np.asarray(self._said_raw(name).is_null())
            return lacks
        if not names:
            return np.zeros(len(self.table), bool)
        text = self.coded(self._as_text(names[0], self._said_raw(names[0])))
        search, wanted = pattern.search, skip.matches is not None
        return np.asarray(value_of(text, lambda said: bool(search(said)) == wanted, False), bool)

    def _as_text(self, ours: str, column: pa.Array) -> pa.Array:
        try:
            return column if pa.types.is_string(column.type) else column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TelemetryError(
                f"the column mapped to {ours} has the type {column.type}, which is not text"
            ) from None


def _group(match: re.Match[str] | None) -> str | None:
    return str(match[match.lastindex]) if match and match.lastindex else None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
