"""Arrow columns -> NumPy arrays and dense codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pd.Index[Any]]:
    """Dense codes (-1 = null) and the sorted names that occur, independent of row order."""
    array = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.chunked_array(array.chunks or [pa.array([], array.type)]).chunk(0)
    raw = array.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    names = np.asarray(array.dictionary.to_pylist(), dtype=object)
    used = (
        np.flatnonzero(np.bincount(raw[raw >= 0], minlength=len(names))) if len(names) else np.empty(0, int)
    )
    used = used[np.argsort(names[used].astype(str), kind="stable")] if len(used) else used
    rank = np.full(len(names) + 1, -1, np.int64)
    rank[used] = np.arange(len(used))
    return rank[raw], pd.Index(names[used] if len(used) else [], dtype="object")


def destinations(flows: pa.Table) -> tuple[np.ndarray, pd.Index[Any]]:
    host, hosts = codes(flows["dest_host"])
    address, addresses = codes(flows["dest_ip"])
    names = pd.Index(["unknown"], dtype="object").union(hosts.union(addresses), sort=True)
    by_host, by_address = names.get_indexer(hosts), names.get_indexer(addresses)
    unknown = int(names.get_loc("unknown"))  # type: ignore[arg-type]
    by_host, by_address = np.append(by_host, unknown), np.append(by_address, unknown)
    return np.where(host >= 0, by_host[host], by_address[address]), names


def micros(column: pa.ChunkedArray) -> np.ndarray:
    """Timestamps as int64 microseconds since the epoch."""
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """float64 with NaN for null; negative values are unknown too."""
    values = np.array(column.cast(pa.float64()).to_numpy(), np.float64)
    values[~(values >= 0) | ~np.isfinite(values)] = np.nan
    return values
