"""Columns of names: few distinct values in many rows, so that each distinct value is processed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.schema import NAME

Column: TypeAlias = pa.Array | pa.ChunkedArray


def encode(column: Column) -> pa.DictionaryArray:
    """The column as one dictionary array."""
    array = one_array(column)
    return array if pa.types.is_dictionary(array.type) else array.cast(pa.string()).dictionary_encode()


def choice(values: Sequence[str], codes: npt.NDArray[np.integer]) -> pa.DictionaryArray:
    """One name per row: values[code], null where the code is -1."""
    null = codes < 0
    indices = pa.array(codes.astype(np.int32), mask=null if null.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(NAME)


def constant(count: int, value: str) -> pa.DictionaryArray:
    """The same name in every row."""
    return choice((value,), np.zeros(count, np.int32))


def by_name(column: pa.DictionaryArray, values: npt.NDArray[Any], null: Any) -> npt.NDArray[Any]:
    """(n,) the value of each row's name, given the dictionary's values; `null` where there is no name."""
    if len(values) and (values == values[0]).all() and (values[0] == null or not column.null_count):
        return np.full(len(column), values[0])
    whole = np.append(values, np.array([null], values.dtype))
    result: npt.NDArray[Any] = whole.take(np.asarray(column.indices.fill_null(len(values))))
    return result


def value_of(column: Column, value: Callable[[str], Any], null: Any) -> npt.NDArray[Any]:
    """(n,) the value of each row's name; the function sees each distinct name once."""
    names = encode(column)
    found = [null if name is None else value(name) for name in names.dictionary.to_pylist()]
    return by_name(names, np.array(found, np.array([null]).dtype), null)


def translate(column: Column, translation: Callable[[str], str | None]) -> pa.DictionaryArray:
    """Each name replaced by its translation; the function sees each distinct name once."""
    names = encode(column)
    new = [None if name is None else translation(name) for name in names.dictionary.to_pylist()]
    kept = list(dict.fromkeys(name for name in new if name is not None))
    if len(kept) == len(new):
        # No two names became one: the codes stay.
        return pa.DictionaryArray.from_arrays(names.indices, pa.array(kept, pa.string())).cast(NAME)
    if not kept:
        return pa.DictionaryArray.from_arrays(pa.nulls(len(names), pa.int32()), pa.array([], pa.string()))
    place = {name: code for code, name in enumerate(kept)}
    codes = np.array([-1 if name is None else place[name] for name in new], np.int32)
    return choice(kept, by_name(names, codes, -1))


def either(first: Column, second: Column) -> pa.DictionaryArray:
    """The first column; where it has no name, the second."""
    if not first.null_count:
        return encode(first)
    if first.null_count == len(first):
        return encode(second)
    return encode(pc.coalesce(*(column.cast(pa.string()) for column in (first, second))))


def of_rows(table: pa.Table) -> pa.Table:
    """The table without dictionary entries that no row uses, such as those of rows that were left out."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field, _of_rows(one_array(table.column(place))))
    return table


def _of_rows(column: pa.DictionaryArray) -> pa.DictionaryArray:
    codes = np.asarray(column.indices.fill_null(-1))
    used = np.bincount(codes + 1, minlength=len(column.dictionary) + 1)[1:] > 0
    if used.all():
        return column
    place = np.append(np.cumsum(used) - 1, -1)[codes].astype(np.int32)
    return pa.DictionaryArray.from_arrays(
        pa.array(place, mask=codes < 0), column.dictionary.filter(pa.array(used))
    ).cast(column.type)


class Codes:
    """Numbers names in order of first sight; equal names get equal numbers in every piece of a table."""

    def __init__(self) -> None:
        self._code: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._code)

    @property
    def names(self) -> list[str]:
        return list(self._code)

    def of(self, column: Column) -> Ints:
        """(n,) the number of each name, -1 = null."""
        return value_of(column, lambda name: self._code.setdefault(name, len(self._code)), -1)
