"""Rows grouped by integer keys, in linear time."""

from __future__ import annotations

import numba
import numpy as np
import pandas as pd


def pack(*parts: tuple[np.ndarray, int]) -> np.ndarray:
    """One int64 key ordered as the tuple of several codes; each part is (codes, number of codes)."""
    key, size = np.zeros(len(parts[0][0]), np.int64), 1
    for codes, count in parts:
        if size * max(count, 1) > 1 << 62:
            unique, key = np.unique(key, return_inverse=True)
            size = len(unique)
        key = key * max(count, 1) + codes
        size *= max(count, 1)
    return key


def group(key: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in key order, CSR offsets, and the first row of each group."""
    codes, unique = pd.factorize(key)
    rank = np.empty(len(unique), np.int64)
    rank[np.argsort(unique, kind="stable")] = np.arange(len(unique))
    order, offsets = scatter(rank[codes], len(unique))
    return order, offsets, order[offsets[:-1]]


@numba.njit(cache=True, nogil=True)
def scatter(group, n_groups):  # type: ignore[no-untyped-def]
    """Rows in order of their group codes, stable, and CSR offsets (n_groups + 1,)."""
    offsets = np.zeros(n_groups + 1, np.int64)
    for g in group:
        offsets[g + 1] += 1
    for g in range(n_groups):
        offsets[g + 1] += offsets[g]
    position = offsets[:-1].copy()
    order = np.empty(len(group), np.int64)
    for row in range(len(group)):
        g = group[row]
        order[position[g]] = row
        position[g] += 1
    return order, offsets
