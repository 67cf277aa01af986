"""Declarations of features and of families of features."""

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
    """+1: high is suspicious, -1: low is suspicious, 0: neither on its own."""
    source: str = ""
    """The source of the method."""
    needs: tuple[str, ...] = ()
    """Further tables, beyond the family's, without which it is NaN."""
    uses: tuple[str, ...] = ()
    """Tables that it uses if present."""

    @property
    def heavy_tailed(self) -> bool:
        return self.unit in ("s", "1/h", "bytes", "days", "times", "count", "s/kB")


@dataclass(frozen=True)
class Family:
    """Features that one kernel computes together."""

    name: str
    inputs: tuple[str, ...]
    """Canonical tables without which all its features are NaN."""
    features: tuple[Feature, ...]
    compute: Callable[[Windows, Mask], FeatureMatrix]
    """Windows -> (n_windows, n_features), columns in declared order. Columns that are not wanted
    (n_features,) may have any values, and work that only they need is skipped."""
    relative: bool = True
    """Whether values are compared with what is usual for the app. False: they are already relative to the
    past or to a declaration."""
