"""Tree ensembles as plain arrays, scored and explained by one kernel; no tree library is needed to score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence._types import Mask, Matrix, Vector
from appcadence.errors import BundleError
from appcadence.features._kernels import kernel

_FIELDS = {
    "feature": np.int32,
    "threshold": np.float64,
    "left": np.int32,
    "right": np.int32,
    "default_left": np.bool_,
    "nan_is_zero": np.bool_,
    "expected": np.float64,
    "roots": np.int32,
    "n_features": np.int64,
}
NODES = tuple(_FIELDS)[:7]
"""The fields of a node, in the order of `Trees`."""
_PLACES = ("left", "right", "roots")


@dataclass(frozen=True)
class Trees:
    """An additive ensemble of binary trees; a row goes left when value <= threshold.

    All arrays but `roots` (n_trees,) are (n_nodes,). `feature` is -1 at leaves. NaN goes where `default_left`
    says, or counts as 0 if `nan_is_zero`. `expected` is the value of a leaf, and at an inner node the
    sample-weighted mean of its leaves. Children come after their parent.
    """

    feature: npt.NDArray[np.int32]
    threshold: Matrix
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    default_left: Mask
    nan_is_zero: Mask
    expected: Matrix
    roots: npt.NDArray[np.int32]
    n_features: int

    @property
    def base(self) -> float:
        """Expected raw value of a row about which nothing is known."""
        return float(self.expected[self.roots].sum())

    @cached_property
    def _nodes(self) -> tuple[npt.NDArray[Any], ...]:
        return tuple(getattr(self, name) for name in NODES)

    def raw(self, rows: Matrix) -> Vector:
        """(n,) sum of the leaf values of float64 rows (n, n_features)."""
        return self.contributions(rows)[0]

    def contributions(self, rows: Matrix) -> tuple[Vector, Matrix]:
        """Raw values (n,) and path contributions (n, n_features).

        A split contributes the change of the expected value to the feature it tests:
        raw = base + contributions.sum(axis=1), up to rounding. Path contributions are not Shapley values.

        Raises:
            ValueError: the rows have another width than the ensemble.
        """
        rows = np.ascontiguousarray(rows, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise ValueError(f"rows have shape {rows.shape}, the ensemble takes (n, {self.n_features})")
        raw, out = np.zeros(len(rows)), np.zeros(rows.shape)
        _walk(rows, *self._nodes, self.roots, raw, out)
        return raw, out

    def arrays(self, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
        """Plain arrays by name, for an .npz file."""
        return {prefix + name: np.asarray(getattr(self, name), dtype) for name, dtype in _FIELDS.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], prefix: str = "") -> Trees:
        """Rebuild an ensemble from `arrays`.

        Everything is checked, so that no file can make the kernel leave its arrays, loop, or visit a node
        more than once per row.

        Raises:
            BundleError: an array is missing, of another type or length, not finite, or forms no trees.
        """
        got: dict[str, npt.NDArray[np.generic]] = {}
        for name, dtype in _FIELDS.items():
            array = arrays.get(prefix + name)
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                raise BundleError(f"array {prefix + name!r} is missing or not {np.dtype(dtype)}")
            got[name] = array
        nodes = got["feature"].shape
        shapes = {"roots": (got["roots"].size,), "n_features": ()}
        if len(nodes) != 1 or any(got[name].shape != shapes.get(name, nodes) for name in _FIELDS):
            raise BundleError(f"arrays of {prefix or 'the ensemble'!r} differ in length")
        width = int(got.pop("n_features"))
        trees = cls(**got, n_features=width)  # type: ignore[arg-type]
        index = np.arange(nodes[0])
        inner = trees.feature >= 0
        # A node with two parents is no tree, and lets a small file cost a walk of roots times depth per row.
        ways_in = np.concatenate([trees.left[inner], trees.right[inner], trees.roots])
        sound = (
            bool(((trees.roots >= 0) & (trees.roots < nodes[0])).all())
            and bool((trees.feature < width).all())
            and all(bool(((c > index) & (c < nodes[0]))[inner].all()) for c in (trees.left, trees.right))
            and len(np.unique(ways_in)) == len(ways_in)
            and bool(np.isfinite(trees.expected).all())
            and bool(np.isfinite(trees.threshold[inner]).all())
        )
        if not sound:
            raise BundleError(f"the arrays of {prefix or 'the ensemble'!r} form no trees or hold no numbers")
        return trees


def scaled(trees: Trees, factor: float) -> Trees:
    """The ensemble with all values multiplied by a factor."""
    return replace(trees, expected=trees.expected * factor)


def tree(n_features: int, *nodes: npt.ArrayLike) -> Trees:
    """An ensemble of one tree, given as the columns `NODES`; its root is the first node."""
    columns: dict[str, Any] = {n: np.asarray(of, _FIELDS[n]) for n, of in zip(NODES, nodes, strict=True)}
    return Trees(**columns, roots=np.zeros(1, np.int32), n_features=n_features)


def leaf(value: float, n_features: int) -> Trees:
    """An ensemble that gives every row the same value."""
    return tree(n_features, [-1], [0.0], [0], [0], [False], [False], [value])


def join(parts: list[Trees]) -> Trees:
    """The sum of several ensembles of the same width."""
    shift = np.cumsum([0, *(len(p.feature) for p in parts[:-1])])
    columns: dict[str, Any] = {}
    for name in (*NODES, "roots"):
        arrays = [getattr(p, name) for p in parts]
        if name in _PLACES:
            arrays = [array + s for array, s in zip(arrays, shift, strict=True)]
        columns[name] = np.concatenate(arrays).astype(_FIELDS[name])
    return Trees(**columns, n_features=parts[0].n_features)


_BLOCK = 512
"""So many rows pass one tree after the other: both stay in the processor's cache."""


@kernel
def _walk(rows, feature, threshold, left, right, default_left, nan_is_zero, expected, roots, raw, out):  # type: ignore[no-untyped-def]
    for first in range(0, len(rows), _BLOCK):
        end = min(first + _BLOCK, len(rows))
        for root in roots:
            for i in range(first, end):
                node = root
                f, here = feature[node], expected[node]
                while f >= 0:
                    value = rows[i, f]
                    if np.isnan(value) and nan_is_zero[node]:
                        value = 0.0
                    if value <= threshold[node]:
                        node = left[node]
                    elif value > threshold[node]:
                        node = right[node]
                    else:
                        node = left[node] if default_left[node] else right[node]
                    out[i, f] += expected[node] - here
                    f, here = feature[node], expected[node]
                raw[i] += here
