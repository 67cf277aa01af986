"""What is usual here: robust location and scale of each feature, from the fleet down to the channel."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence.errors import BundleError
from appcadence.features.catalog import FEATURES, NAMES, RELATIVE
from appcadence.features.domains import registrable_domain
from appcadence.features.windows import APP_LEVEL

Matrix = npt.NDArray[np.float64]

SHRINKAGE_WINDOWS = (0.5, 5.0, 2.0, 0.5)
"""By level (kind, category, profile, destination), how many windows weigh as much as the parent: channels
differ from each other far more than one channel differs from itself, so a single window of its own past
already says what is usual for a channel."""
SPREAD_WINDOWS = 5.0
"""The same for the spread, in windows beyond the first."""
CLIP = 8.0
_MIN_SCALE_SHARE = 0.2
_LOG = np.array([f.heavy_tailed for f in FEATURES])
_COMPARED = np.array(RELATIVE)
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class AppBaseline:
    """Expected value and spread of every feature for each known group of windows.

    Groups are nested: all channel windows (all app windows) of the fleet, then category, then profile (the
    app, or the registrable domain where the app is unknown), then profile and destination. With n windows,
    a group's median m is shrunk to its parent's: `w m + (1 - w) m_parent`, `w = n / (n + k)`, k by level.
    Its spread (1.4826 times the median absolute deviation) likewise, with `(n - 1) / (n - 1 + 5)`, and never
    below a fifth of the fleet's. Heavy-tailed features (seconds, rates, bytes) are compared as log(1 + x).
    """

    keys: pd.Index[str]
    """(g,) group keys, parents before children."""
    location: Matrix
    """(g, n_features), on the compared scale."""
    scale: Matrix

    @classmethod
    def fit(cls, frame: pd.DataFrame) -> AppBaseline:
        """Learn from the feature table of a benign period; robust to a few per cent of bad windows."""
        values = _compared(frame)
        levels = _levels(frame)
        keys: list[np.ndarray] = [np.array(["fleet"])]
        location, scale = [np.zeros((1, len(NAMES)))], [np.ones((1, len(NAMES)))]
        parent_of_row = np.zeros(len(frame), np.int64)
        size = 1
        floor = None
        for shrinkage, level in zip(SHRINKAGE_WINDOWS, levels, strict=True):
            codes, names = pd.factorize(level, sort=True)
            order = np.argsort(codes, kind="stable")
            offsets = np.searchsorted(codes[order], np.arange(len(names) + 1))
            parent = np.zeros(len(names), np.int64)
            parent[codes] = parent_of_row
            up_location, up_scale = np.vstack(location)[parent], np.vstack(scale)[parent]
            count, median, spread = _robust(values[order], offsets)
            weight = count / (count + shrinkage)
            median, spread = np.where(count > 0, median, 0.0), np.where(count > 0, spread, 0.0)
            here = weight * median + (1 - weight) * up_location
            # n windows hold n - 1 deviations: a group of one says nothing about its spread.
            more = np.maximum(count - 1, 0)
            known = more / (more + (shrinkage if floor is None else SPREAD_WINDOWS))
            width = known * spread + (1 - known) * up_scale
            if floor is None:
                width = np.maximum(width, 0.02)
                floor = _MIN_SCALE_SHARE * width.max(axis=0, initial=0.02)
            location.append(here)
            scale.append(np.maximum(width, floor))
            keys.append(np.asarray(names, dtype=object))
            parent_of_row = size + codes
            size += len(names)
        return cls(pd.Index(np.concatenate(keys).astype(object)), np.vstack(location), np.vstack(scale))

    def group_of(self, frame: pd.DataFrame) -> np.ndarray:
        """(n,) the deepest known group of each window."""
        group = np.zeros(len(frame), np.int64)
        for level in _levels(frame):
            found = self.keys.get_indexer(pd.Index(level))
            group = np.where(found >= 0, found, group)
        return group

    def distances(self, frame: pd.DataFrame) -> Matrix:
        """(n, n_features) distances from the expectation in spreads, within ±8; NaN where unknown."""
        group = self.group_of(frame)
        z = (_compared(frame) - self.location[group]) / self.scale[group]
        z[:, ~_COMPARED] = np.nan
        return np.asarray(np.clip(z, -CLIP, CLIP))

    def expected(self, frame: pd.DataFrame) -> Matrix:
        """(n, n_features) the expected value of each feature, in its unit; NaN where none is compared."""
        location = self.location[self.group_of(frame)]
        values = np.where(_LOG, np.expm1(np.minimum(location, 700.0)), location)
        return np.asarray(np.where(_COMPARED, values, np.nan))

    def to_arrow(self) -> pa.Table:
        width = len(NAMES)
        return pa.table(
            {
                "key": pa.array(self.keys, pa.string()),
                "location": pa.FixedSizeListArray.from_arrays(pa.array(self.location.ravel()), width),
                "scale": pa.FixedSizeListArray.from_arrays(pa.array(self.scale.ravel()), width),
            }
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> AppBaseline:
        def values(name: str) -> Matrix:
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if flat.size != len(table) * len(NAMES) or not np.isfinite(flat).all():
                raise BundleError(
                    f"baseline column {name!r} is not {len(table)} x {len(NAMES)} finite numbers"
                )
            return np.asarray(flat.reshape(len(table), len(NAMES)), np.float64)

        scale = values("scale")
        if len(table) == 0 or (scale <= 0).any():
            raise BundleError("baseline is empty or has a spread of zero")
        return cls(pd.Index(table["key"].to_pylist(), dtype="object"), values("location"), scale)


def profile(frame: pd.DataFrame) -> np.ndarray:
    """(n,) the app of each window, or the registrable domain of its destination where the app is unknown."""
    dest = frame["dest"].astype("category")
    domains = np.array([registrable_domain(str(name)) for name in dest.cat.categories] + [""], dtype=object)
    app = frame["app_id"].astype(object).to_numpy()
    return np.where(pd.isna(app), domains[dest.cat.codes.to_numpy()], app)


def _levels(frame: pd.DataFrame) -> list[np.ndarray]:
    """Keys of each window from the widest group to the narrowest."""
    kind = np.where(frame["dest"].astype(object).to_numpy() == APP_LEVEL, "app", "channel").astype(object)
    category = frame["category"].astype(object).fillna("").to_numpy()
    who = profile(frame)
    with_category = kind + _SEPARATOR + "category" + _SEPARATOR + category.astype(object)
    with_profile = kind + _SEPARATOR + "profile" + _SEPARATOR + who
    with_dest = with_profile + _SEPARATOR + frame["dest"].astype(object).to_numpy()
    return [kind, with_category, with_profile, with_dest]


def _compared(frame: pd.DataFrame) -> Matrix:
    values = frame.loc[:, list(NAMES)].to_numpy(np.float64, copy=True)
    values[:, _LOG] = np.log1p(np.maximum(values[:, _LOG], 0.0))
    return values


@numba.njit(cache=True, nogil=True)
def _robust(values, offsets):  # type: ignore[no-untyped-def]
    groups, width = len(offsets) - 1, values.shape[1]
    count = np.zeros((groups, width))
    median = np.full((groups, width), np.nan)
    spread = np.full((groups, width), np.nan)
    for g in range(groups):
        for f in range(width):
            column = values[offsets[g] : offsets[g + 1], f]
            column = column[~np.isnan(column)]
            count[g, f] = len(column)
            if len(column):
                median[g, f] = np.median(column)
                spread[g, f] = 1.4826 * np.median(np.abs(column - median[g, f]))
    return count, median, spread
