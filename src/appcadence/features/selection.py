"""The features to compute: a subset costs only what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from appcadence._types import FeatureMatrix, Mask
from appcadence.errors import AppcadenceError, known_are
from appcadence.features.catalog import FAMILIES, FAMILY_OF, FEATURES, INPUTS_OF, NAMES
from appcadence.features.families import novelty
from appcadence.features.history import History
from appcadence.features.windows import Windows

_FAMILIES = [family.name for family in FAMILIES]
_FAMILY = np.array([FAMILY_OF[name] for name in NAMES])


@dataclass(frozen=True)
class Selection:
    """Some of the features, in catalogue order."""

    wanted: Mask
    """(n_features,) which."""

    @classmethod
    def of(cls, columns: Sequence[str] | None) -> Selection:
        """Features by name or family; None = all.

        Raises:
            AppcadenceError: a name is unknown, or no name is given.
        """
        if columns is None:
            return WHOLE
        for name in columns:
            if name not in NAMES and name not in _FAMILIES:
                known = known_are(name, _FAMILIES, NAMES)
                raise AppcadenceError(
                    f"there is no feature or family {name!r}; of families, {known}", "columns"
                )
        if not len(columns):
            raise AppcadenceError("columns names no feature; give features or families", "columns")
        return cls(np.isin(NAMES, columns) | np.isin(_FAMILY, columns))

    @classmethod
    def without(cls, families: Iterable[str]) -> Selection:
        """All features except those of some families."""
        return cls(~np.isin(_FAMILY, list(families)))

    @property
    def names(self) -> list[str]:
        return [name for name, wanted in zip(NAMES, self.wanted, strict=True) if wanted]

    @property
    def fleetwide(self) -> bool:
        """Whether a wanted feature needs the whole fleet."""
        return bool(self.wanted[novelty.FAMILY.name == _FAMILY][novelty.FLEET].any())

    @property
    def held(self) -> Mask:
        """(n_features,) the wanted features, and all of novelty if the whole fleet is needed: kept until a
        table is made."""
        return self.wanted | ((novelty.FAMILY.name == _FAMILY) & self.fleetwide)

    def past(self, history: History | None) -> History | None:
        """The history, if a feature needs it."""
        return history if any("history" in INPUTS_OF[name] for name in self.names) else None

    def tables(self, history: History | None) -> set[str]:
        """The tables to read; a history also counts what followed pushes."""
        families = {FAMILY_OF[name] for name in self.names}
        mine = [feature for feature in FEATURES if FAMILY_OF[feature.name] in families]
        found = {table for feature in mine for table in (*INPUTS_OF[feature.name], *feature.uses)}
        return found | {"coverage"} | (set() if history is None else {"notifications"})

    def compute(self, windows: Windows) -> FeatureMatrix:
        """(n, k) the kept features; those that need the whole fleet are still NaN."""
        parts = [np.empty((windows.n, 0), np.float32)]
        for family in FAMILIES:
            held = self.held[family.name == _FAMILY]
            if held.any():
                values = family.compute(windows, held)
                parts.append(values if held.all() else values[:, held])
        return np.hstack(parts)

    def shown(self, values: FeatureMatrix) -> FeatureMatrix:
        """(n, k) the wanted features among the kept ones."""
        return values[:, self.wanted[self.held]] if self.wanted.sum() < self.held.sum() else values


WHOLE = Selection(np.ones(len(NAMES), np.bool_))
"""The whole catalogue."""
