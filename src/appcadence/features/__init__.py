"""Flow windows -> the feature table."""

from appcadence.features.catalog import describe
from appcadence.features.extraction import extract
from appcadence.features.history import History

__all__ = ["History", "describe", "extract"]
