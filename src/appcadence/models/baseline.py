"""What is usual here: robust location and scale of each feature, from the fleet down to the channel."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence._types import Codes, FeatureMatrix, Ints, Matrix
from appcadence.errors import BundleError
from appcadence.features._kernels import kernel
from appcadence.features.catalog import FEATURES, NAMES, RELATIVE
from appcadence.features.domains import registrable_domain
from appcadence.features.windows import APP_LEVEL
from appcadence.models.eligibility import own_log

SHRINKAGE_WINDOWS = (0.5, 5.0, 2.0, 0.5)
"""By level (kind, category, profile, destination), the number of windows that weigh as much as the parent.
Channels differ from each other far more than a channel varies over time, so a single window of its own past
already shows what is usual for a channel."""
SPREAD_WINDOWS = 5.0
"""The same for the spread, in windows beyond the first."""
CLIP = 8.0
_FADING = 0.5
"""Weight of the windows of earlier telemetry when newer ones are learned."""
_MIN_SCALE = 0.02
_MIN_SCALE_SHARE = 0.2
_STATISTICS = ("count", "median", "spread")
_LOG = np.array([f.heavy_tailed for f in FEATURES])
_COMPARED = np.array(RELATIVE)
_LOGGED = np.flatnonzero(_LOG)
_MEMBERSHIP = ["app_id", "dest", "category", "own_log"]
"""The columns that determine the groups of a window."""
_CATEGORY_LEVEL = 1
_SEPARATOR = "\x1f"
_COLUMNS_AT_ONCE = 16
"""Medians copy their input, so they are taken of this many features at a time."""


@dataclass(frozen=True)
class AppBaseline:
    """Expected value and spread of every feature for each known group of windows.

    Groups are nested: all channel windows (all app windows, all of phones' own logs) of the fleet, then
    category, then profile (the app, or the registrable domain where the app is unknown), then profile and
    destination. With n windows, a group's median m is shrunk to its parent's (empirical Bayes):
    `w m + (1 - w) m_parent`, `w = n / (n + k)`, k by level. Its spread (1.4826 times the median absolute
    deviation) likewise, with `(n - 1) / (n - 1 + 5)`, and never below a fifth of the fleet's. Heavy-tailed
    features (seconds, rates, bytes) are compared as log(1 + x).
    """

    keys: pd.Index[str]
    """(g,) group keys, parents before children."""
    level: npt.NDArray[np.int32]
    """(g,) 0 = kind, to 3 = destination."""
    parent: npt.NDArray[np.int32]
    """(g,) row of the next wider group; -1 at level 0."""
    count: FeatureMatrix
    """(g, n_features) windows in which the feature is known; after updates, older windows count less."""
    median: FeatureMatrix
    """(g, n_features) on the compared scale; 0 where the count is."""
    spread: FeatureMatrix
    location: Matrix = field(init=False)
    """(g + 1, n_features) shrunk medians; the last row is for windows of no known group."""
    scale: Matrix = field(init=False)

    def __post_init__(self) -> None:
        shape = (len(self.keys) + 1, len(NAMES))
        location, scale = np.zeros(shape), np.ones(shape)
        floor = np.zeros(len(NAMES))
        for level, shrinkage in enumerate(SHRINKAGE_WINDOWS):
            rows = np.flatnonzero(self.level == level)
            count, up = self.count[rows].astype(np.float64), self.parent[rows]
            weight = count / (count + shrinkage)
            # n windows have n - 1 deviations: one window tells nothing about the spread.
            more = np.maximum(count - 1, 0)
            known = more / (more + (SPREAD_WINDOWS if level else shrinkage))
            width = known * self.spread[rows] + (1 - known) * scale[up]
            if not level:
                width = np.maximum(width, _MIN_SCALE)
                floor = _MIN_SCALE_SHARE * width.max(axis=0, initial=_MIN_SCALE)
            location[rows] = weight * self.median[rows] + (1 - weight) * location[up]
            scale[rows] = np.maximum(width, floor)
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def fit(cls, frame: pd.DataFrame, before: AppBaseline | None = None) -> AppBaseline:
        """Learn from the feature table of a benign period; robust to a few per cent of bad windows.

        With `before`, a baseline of earlier telemetry, that baseline is refined without its flows: its
        windows count half of what they did, medians are averaged by count, and spreads are pooled with the
        distance between the two medians.
        """
        values = _compared(_values(frame))
        parts: list[tuple[Any, ...]] = []
        up, size = np.full(len(frame), -1), 0
        for number, level in enumerate(_levels(_members(frame))):
            codes, names = pd.factorize(level, sort=True)
            parent = np.full(len(names), -1, np.int32)
            parent[codes] = up
            robust = (a.astype(np.float32) for a in _robust(values, codes))
            parts.append((names, np.full(len(names), number, np.int32), parent, *robust))
            up = size + codes
            size += len(names)
        names, *arrays = (np.concatenate(column) for column in zip(*parts, strict=True))
        own = cls(pd.Index(names.astype(object)), *arrays)
        return own if before is None else before._refined(own)

    def outlined(self) -> AppBaseline:
        """The baseline of kinds and categories alone, without names of apps and destinations."""
        keep = self.level <= _CATEGORY_LEVEL
        return AppBaseline(*(getattr(self, f.name)[keep] for f in fields(self) if f.init))

    def _refined(self, new: AppBaseline) -> AppBaseline:
        """Both baselines in one."""
        keys = self.keys.union(new.keys, sort=False)
        mine, others = self.keys.get_indexer(keys), new.keys.get_indexer(keys)
        level = np.where(others >= 0, new.level[others], self.level[mine])
        order = np.argsort(level, kind="stable")
        keys, level, mine, others = keys[order], level[order], mine[order], others[order]

        def taken(name: str, of: AppBaseline, rows: Codes) -> Matrix:
            values = getattr(of, name)[rows].astype(np.float64)
            return np.where(rows[:, None] >= 0, values, 0.0)

        n, k = taken("count", self, mine) * _FADING, taken("count", new, others)
        total = np.maximum(n + k, 1e-9)
        old, fresh = taken("median", self, mine), taken("median", new, others)
        pooled = n * taken("spread", self, mine) ** 2 + k * taken("spread", new, others) ** 2
        # The newer parent wins: an app may have moved to another category.
        parents = np.where(others >= 0, _key(new, new.parent[others]), _key(self, self.parent[mine]))
        return AppBaseline(
            keys,
            level,
            keys.get_indexer(pd.Index(parents)).astype(np.int32),
            (n + k).astype(np.float32),
            ((n * old + k * fresh) / total).astype(np.float32),
            np.sqrt(pooled / total + n * k * ((old - fresh) / total) ** 2).astype(np.float32),
        )

    def group_of(self, frame: pd.DataFrame) -> np.ndarray:
        """(n,) the deepest known group of each window; -1 = none."""
        # Keys are strings, slow to join and to look up, and a channel has one window a day.
        members = _members(frame)
        codes = [pd.factorize(members[name])[0] + 1 for name in _MEMBERSHIP]
        _, first, channel = np.unique(
            np.ravel_multi_index(codes, [c.max(initial=0) + 1 for c in codes]),
            return_index=True,
            return_inverse=True,
        )
        group = np.full(len(first), -1)
        for level in _levels(members.iloc[first]):
            found = self.keys.get_indexer(pd.Index(level))
            group = np.where(found >= 0, found, group)
        return np.asarray(group[channel])

    def distances(self, frame: pd.DataFrame) -> Matrix:
        """(n, n_features) distances from the expectation in spreads, clipped to ±8; NaN if unknown."""
        return self.z_scores(_values(frame), self.group_of(frame))

    def z_scores(self, values: Matrix, group: Codes) -> Matrix:
        """Distances of feature values (n, n_features) in groups (n,), as `group_of` returns them."""
        z = _compared(values)
        _to_z_scores(z, group, self.location, self.scale, _COMPARED)
        return z

    def expected(self, group: Codes, feature: Codes) -> Matrix:
        """The usual values in groups of features (by place in the catalogue), in their units; NaN for
        features that are not compared. The arguments are broadcast."""
        location = self.location[group, feature]
        values = np.where(_LOG[feature], np.expm1(np.minimum(location, 700.0)), location)
        return np.asarray(np.where(_COMPARED[feature], values, np.nan))

    def to_arrow(self) -> pa.Table:
        def rows(values: FeatureMatrix) -> pa.Array:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(NAMES))

        columns = {name: rows(getattr(self, name)) for name in _STATISTICS}
        names = {"key": pa.array(self.keys, pa.string()), "level": self.level, "parent": self.parent}
        return pa.table(names | columns)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> AppBaseline:
        """Raises BundleError when the table is not one that `to_arrow` makes."""

        def values(name: str) -> FeatureMatrix:
            flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            if flat.size != len(table) * len(NAMES) or not np.isfinite(flat).all():
                raise BundleError(
                    f"baseline column {name!r} is not {len(table)} x {len(NAMES)} finite numbers"
                )
            return np.asarray(flat.reshape(len(table), len(NAMES)), np.float32)

        keys = pd.Index(table["key"].to_pylist(), dtype="object")
        level, parent = (
            whole_numbers(table[name], f"baseline column {name!r}") for name in ("level", "parent")
        )
        count, median, spread = (values(name) for name in _STATISTICS)
        inside = np.clip(parent, 0, max(len(keys) - 1, 0))
        nested = np.where(level == 0, parent == -1, (parent == inside) & (level[inside] == level - 1))
        known = (level >= 0) & (level < len(SHRINKAGE_WINDOWS)) & nested
        if not len(keys) or not keys.is_unique or not known.all() or (count < 0).any() or (spread < 0).any():
            raise BundleError("baseline is empty, or its groups are not nested, or a count is negative")
        return cls(keys, level.astype(np.int32), parent.astype(np.int32), count, median, spread)


@kernel
def _to_z_scores(values, group, location, scale, compared):  # type: ignore[no-untyped-def]
    """Replace values on the compared scale; no known group is the last row."""
    for i in range(len(values)):
        g = group[i] if group[i] >= 0 else len(location) - 1
        for k in range(len(compared)):
            if compared[k]:
                z = (values[i, k] - location[g, k]) / scale[g, k]
                # Written so that NaN stays.
                values[i, k] = -CLIP if z < -CLIP else CLIP if z > CLIP else z
            else:
                values[i, k] = np.nan


def whole_numbers(column: pa.Array | pa.ChunkedArray, what: str) -> Ints:
    """(n,) a column of a model's part; `what` names it in errors. Raises BundleError if it is not
    integers."""
    if not pa.types.is_integer(column.type) or column.null_count:
        raise BundleError(f"{what} is not all whole numbers")
    return np.asarray(column.to_numpy(), np.int64)


def _key(baseline: AppBaseline, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.object_]:
    return np.where(rows >= 0, baseline.keys.to_numpy(dtype=object)[rows], "")


def profile(frame: pd.DataFrame) -> np.ndarray:
    """(n,) the app of each window, or the registrable domain of its destination if the app is unknown."""
    dest = frame["dest"].astype("category").cat.remove_unused_categories()
    domains = np.array([registrable_domain(str(name)) for name in dest.cat.categories] + [""], dtype=object)
    app = frame["app_id"].astype(object).to_numpy()
    return np.where(pd.isna(app), domains[dest.cat.codes.to_numpy()], app)


def _members(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[_MEMBERSHIP[:-1]].assign(own_log=own_log(frame))


def _levels(frame: pd.DataFrame) -> list[np.ndarray]:
    """Keys of each window from the widest group to the narrowest."""
    whole = np.where(frame["own_log"], "log", "app")
    kind = np.where(frame["dest"].astype(object).to_numpy() == APP_LEVEL, whole, "channel").astype(object)
    category = frame["category"].astype(object).fillna("").to_numpy()
    who = profile(frame)
    with_category = kind + _SEPARATOR + "category" + _SEPARATOR + category.astype(object)
    with_profile = kind + _SEPARATOR + "profile" + _SEPARATOR + who
    with_dest = with_profile + _SEPARATOR + frame["dest"].astype(object).to_numpy()
    return [kind, with_category, with_profile, with_dest]


def _values(frame: pd.DataFrame) -> Matrix:
    return frame.loc[:, list(NAMES)].to_numpy(np.float64)


def _compared(values: Matrix) -> Matrix:
    out = values.copy()
    out[:, _LOGGED] = np.log1p(np.maximum(values[:, _LOGGED], 0.0))
    return out


def _robust(values: Matrix, codes: Codes) -> Matrix:
    """(3, g, n_features): by group, in the order of the codes (n,), known values, their median and spread."""
    parts = []
    for first in range(0, values.shape[1], _COLUMNS_AT_ONCE):
        some = pd.DataFrame(values[:, first : first + _COLUMNS_AT_ONCE])
        groups = some.groupby(codes)
        count, median = groups.count().to_numpy(np.float64), groups.median().to_numpy()
        spread = 1.4826 * (some - median[codes]).abs().groupby(codes).median().to_numpy()
        parts.append(np.stack([count, median, spread]))
    robust = np.concatenate(parts, axis=2)
    return np.where(np.isnan(robust), 0.0, robust)
