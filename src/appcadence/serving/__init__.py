"""New windows -> scores."""

from appcadence.serving.scorer import Scorer

__all__ = ["Scorer"]
