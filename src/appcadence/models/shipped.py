"""The two models that ship, trained on simulated fleets of many kinds, with no past of their own.

The reference model scores telemetry of which no baseline is known: it tells windows by what is
usual for kinds and categories of apps alone. The starting model is what every training begins with: it has
learned against baselines of the apps themselves, as a local one will have.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from appcadence.models.bundle import load
from appcadence.models.detector import Detector
from appcadence.models.signature import ANY, Trust

SHIPPED = Path(__file__).parent / "shipped"
"""Their bundles, `reference` and `start`, which `make reference` writes."""


@cache
def reference_model(trust: Trust = ANY) -> tuple[Detector, str]:
    """The model that scores where nothing local is known, and its id."""
    return load(SHIPPED / "reference", trust)


@cache
def starting_model() -> tuple[Detector, str]:
    """The model that a training starts from, and its id."""
    return load(SHIPPED / "start")
