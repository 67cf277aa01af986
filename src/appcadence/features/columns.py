"""Arrow columns -> NumPy arrays and dense codes."""

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


def micros(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as int64 microseconds since the epoch."""
    return np.asarray(one_array(column).cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def code_of(name: str, names: pd.Index[Any]) -> int:
    """The code of one name; -1 = not found."""
    return cast(int, names.get_loc(name)) if name in names else -1  # names are unique
