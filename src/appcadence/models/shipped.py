"""The reference model that comes with the package: what is usual before anything local is known."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from appcadence.models.bundle import load
from appcadence.models.detector import Detector

SHIPPED = Path(__file__).parent / "shipped"
"""Its bundle, which `make reference` writes."""


@cache
def shipped() -> tuple[Detector, str]:
    """The reference model and its id: trained on simulated fleets of many kinds, with no past of its own."""
    return load(SHIPPED)
