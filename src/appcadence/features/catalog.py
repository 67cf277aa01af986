"""The families in one tuple: the schema of the feature table, of model signatures and of the docs page."""

from __future__ import annotations

import hashlib

import pandas as pd

from appcadence.features.families import (
    companion,
    declared,
    interaction,
    interval,
    notification,
    novelty,
    session,
    size,
    usage,
)
from appcadence.features.feature import Family, Feature

FAMILIES: tuple[Family, ...] = (
    interval.FAMILY,
    session.FAMILY,
    interaction.FAMILY,
    companion.FAMILY,
    notification.FAMILY,
    declared.FAMILY,
    size.FAMILY,
    usage.FAMILY,
    novelty.FAMILY,
)
"""In column order. Novelty is last: part of it is filled in after the whole fleet has been read."""

FEATURES: tuple[Feature, ...] = tuple(f for family in FAMILIES for f in family.features)
NAMES: tuple[str, ...] = tuple(f.name for f in FEATURES)
FAMILY_OF: dict[str, str] = {f.name: family.name for family in FAMILIES for f in family.features}
INPUTS_OF: dict[str, tuple[str, ...]] = {
    f.name: family.inputs + f.needs for family in FAMILIES for f in family.features
}
"""Tables that a feature needs: without them it is NaN."""
RELATIVE: tuple[bool, ...] = tuple(family.relative for family in FAMILIES for _ in family.features)
"""Whether a feature is compared with what is usual for the app; see `Family`."""

SCHEMA_ID: str = hashlib.sha256(
    "\n".join(f"{f.name} {f.unit} {f.direction} {f.meaning}" for f in FEATURES).encode()
).hexdigest()[:12]
"""Changes with any feature's name, unit, direction or meaning; stored in bundles."""


def describe() -> pd.DataFrame:
    """The catalogue as a DataFrame, one row per feature."""
    return pd.DataFrame(
        {
            "feature": NAMES,
            "family": [FAMILY_OF[name] for name in NAMES],
            "unit": [f.unit for f in FEATURES],
            "inputs": [", ".join(INPUTS_OF[name]) for name in NAMES],
            "suspicious": [{1: "high", -1: "low", 0: "-"}[f.direction] for f in FEATURES],
            "meaning": [f.meaning for f in FEATURES],
            "source": [f.source for f in FEATURES],
        }
    )
