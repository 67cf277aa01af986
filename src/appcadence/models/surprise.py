"""Tail surprise: how far out a window lies in each feature's suspicious direction; needs no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appcadence.features.catalog import FEATURES

Matrix = npt.NDArray[np.float64]

DIRECTIONS = np.array([f.direction for f in FEATURES])
_POINTS = 512


@dataclass(frozen=True)
class TailSurprise:
    """Mean of -log(benign tail share) over the features that have a suspicious direction, less one.

    One is its expectation for benign windows, so 0 is ordinary, whatever is missing. `tails` is
    (n_features, 512): evenly spaced benign quantiles of direction * value; `sizes` (n_features,) the benign
    sample sizes, which bound the surprise.
    """

    tails: Matrix
    sizes: Matrix

    @classmethod
    def fit(cls, values: Matrix) -> TailSurprise:
        """Learn from benign windows: (n, n_features), NaN where unknown."""
        tails = np.zeros((values.shape[1], _POINTS))
        sizes = np.zeros(values.shape[1])
        for f in np.flatnonzero(DIRECTIONS):
            column = DIRECTIONS[f] * values[:, f]
            column = column[~np.isnan(column)]
            sizes[f] = len(column)
            if len(column):
                tails[f] = np.quantile(column, np.linspace(0, 1, _POINTS))
        return cls(tails, sizes)

    def contributions(self, values: Matrix) -> Matrix:
        """(n, n_features); their sum is the surprise of each window."""
        out = np.zeros_like(values)
        for f in np.flatnonzero((DIRECTIONS != 0) & (self.sizes > 0)):
            column = DIRECTIONS[f] * values[:, f]
            # The middle of the two ranks, so that a tie with most benign windows is no surprise.
            below = np.searchsorted(self.tails[f], column, "left") + np.searchsorted(
                self.tails[f], column, "right"
            )
            share = np.maximum(1.0 - below / (2.0 * _POINTS), 1.0 / (min(self.sizes[f], 2.0 * _POINTS) + 1.0))
            out[:, f] = np.where(np.isnan(column), 0.0, -np.log(share) - 1.0)
        judged = np.maximum((~np.isnan(values[:, DIRECTIONS != 0])).sum(axis=1), 1)
        return np.asarray(out / judged[:, None])
