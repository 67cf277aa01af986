"""New windows -> scores, alerts, report."""

from appcadence.serving.scorer import Scorer

__all__ = ["Scorer"]
