"""Experts: a handful of plain statistics, each worth -log of the share of benign windows that show as much.

They need no implants to learn from. The classifier learns a correction of their sum: on real traffic that
nobody had tuned on, such sums beat a learned score alone, however small the baseline. Summing logarithms of
tail shares is Fisher's method (1925), without its claim of independence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from appcadence._types import Mask, Matrix, Vector
from appcadence.features.catalog import NAMES

POINTS = 256
PRIOR_WINDOWS = 50.0
"""The starting model's tail counts as this many local windows: a small baseline has no tail of its own."""
MAX_OCTAVES = 8.0
"""A new channel on a port that none of the device's used before is this unlike each of them."""
_AT = {name: i for i, name in enumerate(NAMES)}
_CADENCE = ("session_cadence_score", "beat_cadence_score", "part_cadence_score")


class Expert(NamedTuple):
    """One statistic of a window."""

    name: str
    feature: str
    """The feature that its share of the score is listed under."""
    statistic: Callable[[Matrix, Matrix], Vector]
    """Of feature values and baseline distances (n, n_features) each: (n,), higher = more suspicious, NaN
    where it says nothing."""
    shown: tuple[str, ...] = ()
    """The features whose value a reader is shown; of several, the one that rose most. Evidence, surprise and
    products of features mean nothing to a reader."""

    def shown_feature(self, distances: Vector) -> str | None:
        """The feature to show for a window, by its distances (n_features,); None if there is none."""
        rises = [np.nan_to_num(distances[_AT[name]], nan=-np.inf) for name in self.shown]
        return self.shown[int(np.argmax(rises))] if rises else None


@dataclass(frozen=True)
class Experts:
    """What each expert's statistic is worth, learned from benign windows.

    `thresholds` is (n_experts, 256): a statistic that reaches the first j of them is worth j * `step`, and
    exp(-worth) is the share of benign windows that reach as far. `steps` (n_experts,) is the 256th part of
    the largest worth that the sample can show: the logarithm of twice its size.
    """

    thresholds: Matrix
    steps: Vector

    @classmethod
    def fit(cls, values: Matrix, distances: Matrix, prior: Experts | None = None) -> Experts:
        """Learn from benign windows: (n, n_features) each, NaN where unknown.

        The tails of `prior` count as `PRIOR_WINDOWS` more of them.
        """
        tails = []
        for e, expert in enumerate(EXPERTS):
            seen = expert.statistic(values, distances)
            weight = np.ones(len(seen))
            if prior is not None:
                level, mass = prior._masses(e)
                seen, weight = np.append(seen, level), np.append(weight, PRIOR_WINDOWS * mass)
            tails.append(tail(seen, weight))
        return cls(*map(np.array, zip(*tails, strict=True)))

    def worth(self, values: Matrix, distances: Matrix) -> Matrix:
        """(n, n_experts) what each statistic is worth, at least 0; 0 where it says nothing."""
        return worth(self.thresholds, self.steps, (e.statistic(values, distances) for e in EXPERTS))

    def contributions(self, values: Matrix, distances: Matrix) -> Matrix:
        """(n, n_features) the same, each under the expert's feature."""
        out = np.zeros_like(values)
        for worth, column in zip(self.worth(values, distances).T, _COLUMNS, strict=True):
            out[:, column] += worth
        return out

    def _masses(self, e: int) -> tuple[Vector, Vector]:
        """Values of one statistic and the share of the sample at each."""
        finite = np.isfinite(self.thresholds[e])
        above = np.exp(-self.steps[e] * np.arange(1, POINTS + 1))[finite]
        level = self.thresholds[e][finite]
        # Values that reach no threshold lie below the first; where exactly does not matter.
        return np.append(-np.inf, level), np.append(1.0, above) - np.append(above, 0.0)


def worth(thresholds: Matrix, steps: Vector, statistics: Iterable[Vector]) -> Matrix:
    """(n, n_experts) what each statistic (n,) is worth, at least 0; 0 where it is NaN and says nothing."""
    columns = []
    for levels, step, statistic in zip(thresholds, steps, statistics, strict=True):
        reached = np.searchsorted(levels, statistic, "right")
        columns.append(np.where(np.isnan(statistic), 0.0, reached * step))
    return np.ascontiguousarray(np.stack(columns, axis=1))


def tail(seen: Vector, weight: Vector) -> tuple[Vector, float]:
    """Thresholds (256,) and step of a weighted sample, ignoring NaN. A value above the whole sample is as
    rare as half a window. Without a sample, every worth is 0."""
    seen, weight = seen[~np.isnan(seen)], weight[~np.isnan(seen)]
    if not len(seen):
        return np.full(POINTS, np.inf), 0.0
    total = float(weight.sum())
    value, place = np.unique(seen, return_inverse=True)
    reaching = np.cumsum(np.bincount(place, weight)[::-1])[::-1]
    surprise = -np.log((reaching + 0.5) / (total + 0.5))
    most = float(np.log((total + 0.5) / 0.5))
    value, surprise = np.append(value, np.nextafter(value[-1], np.inf)), np.append(surprise, most)
    step = most / POINTS
    first = np.searchsorted(np.round(surprise / step, 9), np.arange(1, POINTS + 1))
    return value[first], step


def _of(name: str) -> Callable[[Matrix, Matrix], Vector]:
    return lambda values, _distances: values[:, _AT[name]]


def _new(values: Matrix) -> Mask:
    return np.asarray(values[:, _AT["channel_is_new"]] == 1.0)


def _cadence(values: Matrix) -> Vector:
    """(n,) evidence for a beacon in nats per gap, by the strongest view of the starts; 0 if there are few."""
    return np.asarray(np.nan_to_num(values[:, [_AT[name] for name in _CADENCE]]).max(axis=1, initial=0.0))


def _among_new(statistic: Callable[[Matrix], Vector]) -> Callable[[Matrix, Matrix], Vector]:
    return lambda values, _distances: np.where(_new(values), np.nan_to_num(statistic(values)), np.nan)


def _own(*names: str) -> Callable[[Matrix, Matrix], Vector]:
    """The largest rise above what the baseline expects, among channels that are not new."""
    columns = [_AT[name] for name in names]

    def statistic(values: Matrix, distances: Matrix) -> Vector:
        rise = np.nan_to_num(distances[:, columns]).max(axis=1, initial=0.0)
        return np.where(_new(values), np.nan, rise)

    return statistic


def _unexplained(values: Matrix, distances: Matrix) -> Vector:
    """The rise of sessions that use, pushes and scheduled work do not explain; NaN unless all three are
    known."""
    column = _AT["unexplained_sessions_per_hour"]
    return np.where(np.isnan(values[:, column]), np.nan, np.maximum(np.nan_to_num(distances[:, column]), 0.0))


def _unlike(values: Matrix) -> Vector:
    twin = values[:, _AT["twin_distance_octaves"]]
    # A device without a past has nothing to compare with.
    alone = np.where(np.isnan(values[:, _AT["destination_is_new_for_device"]]), 0.0, MAX_OCTAVES)
    return np.where(np.isnan(twin), alone, np.minimum(twin, MAX_OCTAVES))


def _userless(values: Matrix, _distances: Matrix) -> Vector:
    return np.maximum(values[:, _AT["userless_excess_ratio"]], 0.0) * _cadence(values)


_PERSISTENCE = ("longest_session_seconds", "connected_ratio")
_VOLUME = ("beats_per_hour",)
EXPERTS = (
    Expert("newness", "channel_is_new", _of("channel_is_new")),
    Expert("rhythm_of_new", "part_cadence_score", _among_new(_cadence)),
    Expert(
        "persistence_of_new",
        "longest_session_seconds",
        _among_new(lambda values: values[:, _AT["longest_session_seconds"]]),
        _PERSISTENCE[:1],
    ),
    Expert(
        "volume_of_new",
        "beats_per_hour",
        _among_new(lambda values: values[:, _AT["beats_per_hour"]]),
        _VOLUME,
    ),
    Expert("unlike_any_known", "twin_distance_octaves", _among_new(_unlike)),
    Expert("rhythm_against_own", "part_cadence_score", _own(*_CADENCE)),
    Expert("persistence_against_own", "longest_session_seconds", _own(*_PERSISTENCE), _PERSISTENCE),
    Expert("volume_against_own", "beats_per_hour", _own(*_VOLUME), _VOLUME),
    Expert("push_coupling", "push_coupling_surprise", _of("push_coupling_surprise")),
    Expert("push_coupling_against_own", "push_coupling_surprise", _own("push_coupling_surprise")),
    Expert("rhythm_without_user", "userless_excess_ratio", _userless),
    Expert(
        "unexplained_sessions",
        "unexplained_sessions_per_hour",
        _unexplained,
        ("unexplained_sessions_per_hour",),
    ),
)
"""Each behaviour of the analytic has experts of its own. "New" means new to the device's app. New and known
channels have separate tails, so that newness counts once."""
_COLUMNS = [_AT[expert.feature] for expert in EXPERTS]
