"""Tail surprise: how far out a window lies in each feature's suspicious direction; needs no labels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from appcadence._types import Matrix
from appcadence.features._kernels import kernel
from appcadence.features.catalog import FEATURES

DIRECTIONS = np.array([f.direction for f in FEATURES])
POINTS = 512


@dataclass(frozen=True)
class TailSurprise:
    """Mean of -log(benign tail share) over the features that have a suspicious direction, less one.

    One is its expectation for benign windows, so 0 is ordinary, whatever is missing. `tails` is
    (n_features, 512): evenly spaced benign quantiles of direction * value; `sizes` (n_features,) the benign
    sample sizes, which bound the surprise.
    """

    tails: Matrix
    sizes: Matrix
    worth: Matrix = field(init=False, repr=False)
    """(n_features, 1025) the surprise at each sum of the two ranks that a value takes among the quantiles."""

    def __post_init__(self) -> None:
        # The middle of the two ranks, so that a tie with most benign windows is no surprise.
        share = 1.0 - np.arange(2 * POINTS + 1) / (2.0 * POINTS)
        least = 1.0 / (np.minimum(self.sizes, 2.0 * POINTS) + 1.0)
        object.__setattr__(self, "worth", -np.log(np.maximum(share, least[:, None])) - 1.0)

    @classmethod
    def fit(cls, values: Matrix) -> TailSurprise:
        """Learn from benign windows: (n, n_features), NaN where unknown."""
        tails = np.zeros((values.shape[1], POINTS))
        sizes = np.zeros(values.shape[1])
        for f in np.flatnonzero(DIRECTIONS):
            column = DIRECTIONS[f] * values[:, f]
            column = column[~np.isnan(column)]
            sizes[f] = len(column)
            if len(column):
                tails[f] = np.quantile(column, np.linspace(0, 1, POINTS))
        return cls(tails, sizes)

    def contributions(self, values: Matrix) -> Matrix:
        """(n, n_features); their sum is the surprise of each window."""
        out = np.zeros_like(values)
        _surprise(values, DIRECTIONS, self.tails, self.sizes, self.worth, out)
        return out


@kernel
def _surprise(values, directions, tails, sizes, worth, out):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        judged = 0
        for f in range(len(directions)):
            value = directions[f] * values[i, f]
            if directions[f] == 0 or np.isnan(value):
                continue
            judged += 1
            if sizes[f] > 0:
                below = above = np.searchsorted(tails[f], value, "left")
                if below < POINTS and tails[f, below] == value:
                    above = np.searchsorted(tails[f], value, "right")
                out[i, f] = worth[f, below + above]
        for f in range(len(directions)):
            out[i, f] /= max(judged, 1)
