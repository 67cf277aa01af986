"""Experts: a handful of plain statistics, each worth -log of the share of benign windows that show as much.

They need no implants to learn from. The classifier learns a correction of their sum: on real traffic that
nobody had tuned on, such sums beat a learned score alone, however small the baseline. Summing logarithms of
tail shares is Fisher's method (1925), without its claim of independence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from appcadence._types import Matrix, Vector
from appcadence.features._kernels import bisect_right, kernel
from appcadence.features.catalog import NAMES

POINTS = 256
PRIOR_WINDOWS = 50.0
"""The starting model's tail counts as this many local windows: a small baseline has no tail of its own."""
MAX_OCTAVES = 8.0
"""A new channel on a port that none of the device's used before is this unlike each of them."""
_AT = {name: i for i, name in enumerate(NAMES)}


class Expert(NamedTuple):
    """One statistic of a window."""

    name: str
    feature: str
    """The feature that its share of the score is listed under."""
    shown: tuple[str, ...] = ()
    """The features whose value a reader is shown; of several, the one that rose most. Evidence, surprise and
    products of features mean nothing to a reader."""

    def shown_feature(self, distances: Vector) -> str | None:
        """The feature to show for a window, by its distances (n_features,); None if there is none."""

        def rise(name: str) -> float:
            value = float(distances[_AT[name]])
            return -math.inf if math.isnan(value) else value

        return max(self.shown, key=rise, default=None)


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
        for e, seen in enumerate(statistics(values, distances).T):
            weight = np.ones(len(seen))
            if prior is not None:
                level, mass = prior._masses(e)
                seen, weight = np.append(seen, level), np.append(weight, PRIOR_WINDOWS * mass)
            tails.append(tail(seen, weight))
        return cls(*map(np.array, zip(*tails, strict=True)))

    def worth(self, values: Matrix, distances: Matrix) -> Matrix:
        """(n, n_experts) what each statistic is worth, at least 0; 0 where it says nothing."""
        return worth(self.thresholds, self.steps, statistics(values, distances))

    def contributions(self, values: Matrix, distances: Matrix) -> Matrix:
        """(n, n_features) the same, each under the expert's feature."""
        out = np.zeros_like(values)
        _add_by_feature(self.worth(values, distances), _COLUMNS, out)
        return out

    def _masses(self, e: int) -> tuple[Vector, Vector]:
        """Values of one statistic and the share of the sample at each."""
        finite = np.isfinite(self.thresholds[e])
        above = np.exp(-self.steps[e] * np.arange(1, POINTS + 1))[finite]
        level = self.thresholds[e][finite]
        # Values that reach no threshold lie below the first; where exactly does not matter.
        return np.append(-np.inf, level), np.append(1.0, above) - np.append(above, 0.0)


def worth(thresholds: Matrix, steps: Vector, statistics: Matrix) -> Matrix:
    """(n, n_experts) what statistics (n, n_experts) are worth, at least 0; 0 where one is NaN. `thresholds`
    and `steps` are those of `Experts`."""
    out = np.zeros(statistics.shape)
    _worth(thresholds, steps, statistics, out)
    return out


@kernel
def _worth(thresholds, steps, statistics, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        for e in range(len(steps)):
            if not np.isnan(statistics[i, e]):
                out[i, e] = bisect_right(thresholds[e], 0, POINTS, statistics[i, e]) * steps[e]


@kernel
def _add_by_feature(worth, columns, out):  # type: ignore[no-untyped-def]
    for i in range(len(out)):
        for e in range(len(columns)):
            out[i, columns[e]] += worth[i, e]


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


def statistics(values: Matrix, distances: Matrix) -> Matrix:
    """(n, n_experts) each expert's statistic of feature values and baseline distances (n, n_features) each:
    higher = more suspicious, NaN where it says nothing."""
    out = np.empty((len(values), len(EXPERTS)))
    _statistics(values, distances, _CADENCES, _PLACES, out)
    return out


_PERSISTENCE = ("longest_session_seconds", "connected_ratio")
_VOLUME = ("beats_per_hour",)
EXPERTS = (
    Expert("newness", "channel_is_new"),
    Expert("rhythm_of_new", "part_cadence_score"),
    Expert("persistence_of_new", "longest_session_seconds", _PERSISTENCE[:1]),
    Expert("volume_of_new", "beats_per_hour", _VOLUME),
    Expert("unlike_any_known", "twin_distance_octaves"),
    Expert("rhythm_against_own", "part_cadence_score"),
    Expert("persistence_against_own", "longest_session_seconds", _PERSISTENCE),
    Expert("volume_against_own", "beats_per_hour", _VOLUME),
    Expert("push_coupling", "push_coupling_surprise"),
    Expert("push_coupling_against_own", "push_coupling_surprise"),
    Expert("rhythm_without_user", "userless_excess_ratio"),
    Expert("unexplained_sessions", "unexplained_sessions_per_hour", ("unexplained_sessions_per_hour",)),
)
"""Each behaviour of the analytic has experts of its own. "New" means new to the device's app. New and known
channels have separate tails, so that newness counts once."""
_COLUMNS = np.array([_AT[expert.feature] for expert in EXPERTS])
_CADENCES = tuple(_AT[f"{view}_cadence_score"] for view in ("session", "beat", "part"))
_PLACES = tuple(
    _AT[name]
    for name in (
        *("channel_is_new", "destination_is_new_for_device", *_PERSISTENCE, "beats_per_hour"),
        *("twin_distance_octaves", "push_coupling_surprise", "userless_excess_ratio"),
        "unexplained_sessions_per_hour",
    )
)


@kernel
def _known(value):  # type: ignore[no-untyped-def]
    return 0.0 if np.isnan(value) else value


@kernel
def _rise(distance):  # type: ignore[no-untyped-def]
    """What lies above what the baseline expects; 0 where that is unknown."""
    return distance if distance > 0.0 else 0.0


@kernel
def _statistics(values, distances, cadences, places, out):  # type: ignore[no-untyped-def]
    """Fill in the statistics of each window, in the order of `EXPERTS`."""
    new, new_for_device, session, connected, beats, twin, pushes, userless, unexplained = places
    for i in range(len(values)):
        value, distance, said = values[i], distances[i], out[i]
        # Evidence for a beacon in nats per gap, by the strongest view of the starts, and its largest rise.
        rhythm, rhythm_rise = 0.0, 0.0
        for at in cadences:
            rhythm, rhythm_rise = max(rhythm, _known(value[at])), max(rhythm_rise, _rise(distance[at]))
        said[:] = np.nan
        said[0] = value[new]
        if value[new] == 1.0:
            # A device without a past has nothing to compare with.
            alone = 0.0 if np.isnan(value[new_for_device]) else MAX_OCTAVES
            said[1] = rhythm
            said[2] = _known(value[session])
            said[3] = _known(value[beats])
            said[4] = alone if np.isnan(value[twin]) else min(value[twin], MAX_OCTAVES)
        else:
            said[5] = rhythm_rise
            said[6] = max(_rise(distance[session]), _rise(distance[connected]))
            said[7] = _rise(distance[beats])
            said[9] = _rise(distance[pushes])
        said[8] = value[pushes]
        if not np.isnan(value[userless]):
            said[10] = max(value[userless], 0.0) * rhythm
        # Sessions that use, pushes and scheduled work do not explain; NaN unless all three are known.
        if not np.isnan(value[unexplained]):
            said[11] = _rise(distance[unexplained])
