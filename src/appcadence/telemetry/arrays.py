"""Array helpers: one array from many chunks, and the latest record per key at or before a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints


class AsOf:
    """Looks up the latest of some (key, time) records at or before a time.

    `keys` and `times` are any comparable numbers. Among equal records, the last one given wins.
    """

    def __init__(self, keys: npt.NDArray[Any], times: npt.NDArray[Any]) -> None:
        self._keys, groups = np.unique(keys, return_inverse=True)
        self._times = np.unique(times)
        # A (group, rank of the time) pair as one integer, so that one binary search answers both.
        self._width = len(self._times) + 1
        joint = groups.astype(np.int64) * self._width + np.searchsorted(self._times, times) + 1
        self._order = np.argsort(joint, kind="stable")
        self._joint = joint[self._order]

    def find(self, keys: npt.NDArray[Any], times: npt.NDArray[Any]) -> Ints:
        """Index of the record for each (key, time), -1 where there is none."""
        found = np.full(len(keys), -1, np.int64)
        if not len(self._joint):
            return found
        group = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rank = np.searchsorted(self._times, times, "right")
        at = np.searchsorted(self._joint, group * self._width + rank, "right") - 1
        hit = (self._keys[group] == keys) & (at >= 0)
        # The record before may belong to another key.
        hit[hit] = self._joint[at[hit]] // self._width == group[hit]
        found[hit] = self._order[at[hit]]
        return found


def row_and_place(count: Ints) -> tuple[Ints, Ints]:
    """Row and position within the row, for `count[i]` items of each row i."""
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)


def sorted_places(names: npt.NDArray[np.object_]) -> Ints:
    """(n,) the places of the names in sorted order.

    Memory follows the length of each name; in an array of fixed width, the longest would set it for all.
    """
    return np.asarray(pc.sort_indices(pa.array(names, pa.large_string()))).astype(np.int64)


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as a single array (with one dictionary, if any); it may have no, one or many chunks."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if not column.num_chunks:
        return pa.array([], column.type)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.unify_dictionaries().chunks)


def places(column: pa.DictionaryArray) -> npt.NDArray[np.int32]:
    """(n,) the place of each value in the dictionary; -1 = null."""
    indices = column.indices
    return np.asarray(pc.fill_null(indices, -1) if indices.null_count else indices)
