"""How a feature and a family of features are declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appcadence._types import FeatureMatrix, Mask

if TYPE_CHECKING:
    from appcadence.features.windows import Windows


@dataclass(frozen=True)
class Feature:
    """One column of the feature table. NaN always means "not known", never zero."""

    name: str
    meaning: str
    phrase: str
    """The feature as a noun phrase, for reasons."""
    unit: str = "ratio"
    """s, 1/h, bytes, days, ratio, times, count, s/kB, nats, octaves or decades; heavy-tailed units are
    compared on a log scale."""
    direction: int = 1
    """+1: high is suspicious, -1: low is suspicious, 0: neither alone."""
    source: str = ""
    """Where the method comes from."""
    needs: tuple[str, ...] = ()
    """Tables beyond the family's without which it is NaN."""
    uses: tuple[str, ...] = ()
    """Tables that it takes into account where they are there."""

    @property
    def heavy_tailed(self) -> bool:
        return self.unit in ("s", "1/h", "bytes", "days", "times", "count", "s/kB")


@dataclass(frozen=True)
class Family:
    """Features that one kernel fills together."""

    name: str
    inputs: tuple[str, ...]
    """Canonical tables without which all its features are NaN."""
    features: tuple[Feature, ...]
    compute: Callable[[Windows, Mask], FeatureMatrix]
    """Windows -> (n_windows, n_features), columns in declared order. Those that are not wanted (n_features,)
    may hold anything, and what they alone take is left out."""
    relative: bool = True
    """Values are judged by their distance from what is usual for the app. False: they speak for themselves,
    being relative to the past or to a declaration already."""
