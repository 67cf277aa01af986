"""Arrow columns -> NumPy arrays and dense codes, and columns of a DataFrame -> Arrow."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes
from appcadence.telemetry.arrays import one_array


def codes(column: pa.ChunkedArray, index: pd.Index[Any]) -> np.ndarray:
    """(n,) codes of a name column in an index; -1 = null or not in it."""
    array = one_array(column if pa.types.is_dictionary(column.type) else column.dictionary_encode())
    lookup = np.append(index.get_indexer(array.dictionary.to_pylist()), -1)
    return np.asarray(lookup[pc.fill_null(array.indices, -1).to_numpy()])


def codes_of(column: pd.Series, index: pd.Index[Any]) -> Codes:
    """The same for a column of a DataFrame."""
    values = column.astype("category").cat
    lookup = np.append(index.get_indexer(pd.Index(values.categories, dtype=object)), -1)
    return np.asarray(lookup[values.codes.to_numpy()], np.int64)


def arrow(column: pd.Series) -> pa.Array | pa.ChunkedArray:
    """A column of a DataFrame; times with a zone are in UTC.

    Arrow reads times with a zone in a way that pandas deprecates, so they are given to it without.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        times = pa.array(column.dt.tz_convert(None).to_numpy(), from_pandas=True)
        return times.cast(pa.timestamp(times.type.unit, "UTC"))
    return pa.array(column, from_pandas=True)


def micros(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as int64 microseconds since the epoch."""
    return np.asarray(one_array(column).cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def code_of(name: str, names: pd.Index[Any]) -> int:
    """The code of one name; -1 = not found."""
    return cast(int, names.get_loc(name)) if name in names else -1  # names are unique
