"""The fields of some records under our names, by a declaration: text, words and numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.errors import TelemetryError
from appcadence.telemetry.names import constant, either, translate, value_of
from appcadence.telemetry.readers import _hosts, _plain_text, _text
from appcadence.telemetry.readers._columns import Columns
from appcadence.telemetry.readers._declaration import LABELLED, TIMES, Declaration, Skip
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.schema import FLOWS

_NO_NAMES = {"", "-", "n/a", "none", "null", "(null)"}
_NAMED = ("device_id", "app_id", "dest_host", "dest_ip", "service")


class Fields(Columns):
    """The fields of some records under our names; the log's own names work, too."""

    def __init__(self, rows: Rows, declared: Declaration, own_names: bool) -> None:
        super().__init__(rows, declared.nothing)
        self.declared = declared
        self._own_names = own_names
        self._fields: dict[str, pa.Array] = {}
        for skip in declared.skips:
            self.keep(pa.array(~self._fits(skip)), skip.reason)

    def has(self, ours: str) -> bool:
        declared = self.declared
        return ours in declared.columns or ours in declared.constants or ours in declared.labelled

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
        if ours in self.declared.labelled:
            found += self._labelled(self.declared.labelled[ours])
        if ours in TIMES and "cocoa" not in self.declared.time_forms:
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
        if not text and not is_number(column.type):
            return column
        never = pc.starts_with(column, "0") if text else pc.equal(column, 0)
        if not pc.any(never).as_py():
            return column
        return pc.if_else(pc.match_substring_regex(column, r"^0+(\.0*)?$") if text else never, None, column)

    def plain(self, ours: str) -> pa.Array:
        """Stripped text, for columns whose values are all different."""
        text = pc.utf8_trim_whitespace(self._as_text(ours, self.field(ours)))
        return pc.if_else(pc.equal(text, ""), None, text)

    def _labelled(self, pattern: re.Pattern[str]) -> Iterator[pa.Array]:
        """The fields whose label matches, null in other rows."""
        for name in LABELLED:
            if self._says(name) and self._says(label := f"{name}Label"):
                said = self.coded(self._as_text(label, self._said_raw(label)))
                fits = value_of(said, lambda text: bool(pattern.search(text)), False)
                yield pc.if_else(pa.array(np.asarray(fits, bool)), self._said_raw(name), None)

    def words(self, ours: str) -> pa.DictionaryArray:
        """Stripped text, extracted from its field and translated as declared.

        Of several columns, the first whose word is known or that names a host counts, if any does.
        """
        found, names = self._words(ours, self.field(ours)), [*filter(self._says, self._present(ours))]
        translated = ours in self.declared.values and not self.declared.all_words
        if len(names) < 2 or ours in self.declared.drop or not (translated or ours == "dest_host"):
            return found
        each = [self._words(ours, self._said_raw(name)) for name in names]
        if ours == "dest_host":
            each = [translate(one, lambda t: t if _hosts.names_host(t) else None) for one in each]
        return reduce(either, [*each, found])

    def _words(self, ours: str, field: pa.Array) -> pa.DictionaryArray:
        declared = self.declared
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

    def number(self, ours: str) -> pa.Array:
        column = self.field(ours)
        if is_number(column.type):
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

    def _any_fits(self, choices: Sequence[Skip]) -> Mask:
        found = np.zeros(len(self.table), bool)
        for one in choices:
            found |= self._fits(one)
        return found

    def _fits(self, skip: Skip) -> Mask:
        names = [name for name in skip.columns if name in self.table.column_names]
        pattern = skip.matches or skip.unless
        if pattern is None:
            lacks = np.ones(len(self.table), bool)
            for name in names:
                lacks &= np.asarray(self._said_raw(name).is_null())
            return lacks
        search, wanted = pattern.search, skip.matches is not None
        fits = np.zeros(len(self.table), bool)
        for name in names:
            text = self.coded(self._as_text(name, self._said_raw(name)))
            fits |= np.asarray(value_of(text, lambda said: bool(search(said)) == wanted, False), bool)
        return fits

    def _as_text(self, ours: str, column: pa.Array) -> pa.Array:
        try:
            return column if pa.types.is_string(column.type) else column.cast(pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise TelemetryError(
                f"the column mapped to {ours} has the type {column.type}, which is not text"
            ) from None


def _group(match: re.Match[str] | None) -> str | None:
    return str(match[match.lastindex]) if match and match.lastindex else None


def is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
