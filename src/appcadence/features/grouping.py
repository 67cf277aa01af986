"""Rows grouped by integer keys, in linear time."""

from __future__ import annotations

import numpy as np

from appcadence.features._kernels import kernel

_DIGIT = 11


def group(key: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows in order of `key` (0 <= key < size), stable, and CSR offsets of the groups that occur."""
    if not len(key):
        return np.empty(0, np.int64), np.zeros(1, np.int64)
    order, ordered = _radix(key.astype(np.int64, copy=False), max(int(size - 1).bit_length(), 1))
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return order, np.concatenate([[0], starts, [len(key)]])


@kernel
def _radix(key, bits):  # type: ignore[no-untyped-def]
    """Stable order of the keys and the keys in that order, 11 bits per pass."""
    n = len(key)
    order, other = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        order[i] = i
    key, other_key = key.copy(), np.empty(n, np.int64)
    passes = (bits + _DIGIT - 1) // _DIGIT
    for p in range(passes):
        shift = p * _DIGIT
        position = np.zeros((1 << _DIGIT) + 1, np.int64)
        for i in range(n):
            position[((key[i] >> shift) & ((1 << _DIGIT) - 1)) + 1] += 1
        for d in range(1 << _DIGIT):
            position[d + 1] += position[d]
        for i in range(n):
            d = (key[i] >> shift) & ((1 << _DIGIT) - 1)
            other[position[d]] = order[i]
            other_key[position[d]] = key[i]
            position[d] += 1
        order, other = other, order
        key, other_key = other_key, key
    return order, key


@kernel
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
