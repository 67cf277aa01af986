"""The scoring library: one object, no MLflow, no LightGBM, no scikit-learn, no pickle, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence.features.extract import load, table_of
from appcadence.features.history import History
from appcadence.features.windows import Windows, build, window_seconds
from appcadence.models.bundle import load as load_bundle
from appcadence.models.detector import Detector, Measured
from appcadence.models.fleet_events import fleet_events
from appcadence.telemetry.directory import TelemetryDirectory


@dataclass(frozen=True)
class Scored:
    """The outcome of scoring some telemetry."""

    scores: pa.Table
    """The scores table, in window order."""
    windows: Windows
    history: History
    """The history with these windows' contacts added: what the next scoring starts from."""
    events: pd.DataFrame
    """Fleet events (see `appcadence.models.fleet_events`), whose windows are in no ranking."""


@dataclass(frozen=True)
class Scorer:
    """Scores windows with a trained detector. Immutable, safe to share between threads.

    >>> from appcadence.serving import Scorer
    >>> scorer = Scorer.load("model")                     # doctest: +SKIP
    >>> scorer.score("telemetry")                         # doctest: +SKIP
    """

    detector: Detector
    version: str
    """Id of the bundle."""

    @classmethod
    def load(cls, bundle: str | Path) -> Scorer:
        """Load a bundle directory.

        Raises:
            BundleError: the bundle is incomplete, altered, or of another feature schema.
        """
        return cls(*load_bundle(bundle))

    def score(
        self,
        source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
        *,
        alerts_per_device_day: float = 1.0,
        false_discovery_rate: float | None = None,
    ) -> pd.DataFrame:
        """The scores table of a telemetry directory, or of canonical tables by name.

        Alerts keep to the budget or, if given, to the false discovery rate (see `Detector.score`).

        Raises:
            TelemetryError, SchemaError: the telemetry cannot be read or does not fit.
        """
        result = self.run(
            source, alerts_per_device_day=alerts_per_device_day, false_discovery_rate=false_discovery_rate
        )
        return pd.DataFrame(result.scores.to_pandas())

    def score_windows(self, features: pd.DataFrame, *, alerts_per_device_day: float = 1.0) -> pd.DataFrame:
        """The scores table of a feature table that `appcadence.features.extract` made.

        Fleet events take the whole fleet's contacts and are not looked for.

        Raises:
            SchemaError: a feature column is missing.
        """
        return pd.DataFrame(self._score(features, alerts_per_device_day).to_pandas())

    def run(
        self,
        source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
        *,
        alerts_per_device_day: float = 1.0,
        false_discovery_rate: float | None = None,
        history: History | None = None,
    ) -> Scored:
        """Score and keep what the batch job needs: scores, windows and the advanced history.

        `history` replaces the detector's own, for a job that rolls it from night to night.
        """
        past = self.detector.history if history is None else history
        windows = build(load(source), window_seconds(self.detector.window), past)
        features = table_of(windows)
        after = past.update(windows)
        found = fleet_events(after, self.detector.reference.end_us, features)
        scores = self._score(features, alerts_per_device_day, false_discovery_rate, found.windows)
        return Scored(scores, windows, after, found.events)

    def measure(
        self,
        features: pd.DataFrame,
        fleet_event: npt.NDArray[np.bool_],
        *,
        alerts_per_device_day: float,
        false_discovery_rate: float | None,
    ) -> Measured:
        """What a part of a feature table can tell of the scores table; see `Detector.measure`."""
        return self.detector.measure(
            features,
            fleet_event=fleet_event,
            alerts_per_device_day=alerts_per_device_day,
            false_discovery_rate=false_discovery_rate,
            version=self.version[:12],
        )

    def _score(
        self,
        features: pd.DataFrame,
        alerts_per_device_day: float,
        false_discovery_rate: float | None = None,
        fleet_event: npt.NDArray[np.bool_] | None = None,
    ) -> pa.Table:
        return self.detector.score(
            features,
            fleet_event=fleet_event,
            alerts_per_device_day=alerts_per_device_day,
            false_discovery_rate=false_discovery_rate,
            version=self.version[:12],
        )
