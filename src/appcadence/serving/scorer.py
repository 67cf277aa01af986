"""The scoring library: one object, no MLflow, no LightGBM, no scikit-learn, no pickle, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.config import DEFAULTS, UNSET, Alerts, Config, Tunables
from appcadence.errors import SchemaError
from appcadence.features.extraction import load
from appcadence.features.history import History
from appcadence.features.windows import Windows, window_seconds
from appcadence.findings import Finding
from appcadence.models.bundle import load_signed
from appcadence.models.detector import Detector
from appcadence.models.fleet_events import alerting_devices
from appcadence.models.pipeline import assemble
from appcadence.models.scores import SCORES
from appcadence.models.signature import Trust
from appcadence.models.single import Channel, Explanation, explain
from appcadence.serving.stream import Live
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
    """Fleet events (see `appcadence.models.fleet_events`), whose windows are in no ranking, with the count
    `alerting_devices`."""
    identity: Finding | None = None
    """Which names changed under the fleet, if any did."""


@dataclass(frozen=True)
class Scorer:
    """Scores windows with a trained detector. Safe to share between threads: only `update` keeps anything.

    >>> from appcadence import Scorer
    >>> scorer = Scorer.load("model")                     # doctest: +SKIP
    >>> scorer.score("telemetry")                         # doctest: +SKIP
    """

    detector: Detector
    version: str
    """Id of the bundle."""
    signer: str | None = None
    """The public key that signed the bundle; None = nobody did."""
    live: Live = field(init=False, repr=False, compare=False)
    """What `update` has seen so far."""

    def __post_init__(self) -> None:
        live = Live(self.detector.history, window_seconds(self.detector.window))
        object.__setattr__(self, "live", live)

    def __reduce__(self) -> tuple[Any, ...]:
        # What `update` has seen stays in its process.
        return Scorer, (self.detector, self.version, self.signer)

    @classmethod
    def load(
        cls, bundle: str | Path, *, model_id: str | None = None, trusted_keys: Sequence[str] = ()
    ) -> Scorer:
        """Load a bundle directory: with `model_id` no other, with `trusted_keys` one that such a key signed.

        Raises:
            BundleError: the bundle is incomplete, altered, of another feature schema or id, or not signed
                as asked.
        """
        return cls(*load_signed(bundle, Trust(model_id, trusted_keys)))

    def score(
        self,
        source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
        *,
        alerts_per_device_day: float = 1.0,
        false_discovery_rate: float | None = None,
        tunables: Tunables = UNSET,
    ) -> pd.DataFrame:
        """The scores table of a telemetry directory, or of canonical tables by name.

        Alerts keep to the budget or, if given, to the false discovery rate (see `Detector.score`), and to the
        thresholds that `tunables` set.

        Raises:
            TelemetryError, SchemaError: the telemetry cannot be read or does not fit.
        """
        settings = Config(Alerts(alerts_per_device_day, false_discovery_rate), tunables)
        return pd.DataFrame(self.run(source, settings).scores.to_pandas())

    def score_windows(
        self,
        features: pd.DataFrame,
        *,
        alerts_per_device_day: float = 1.0,
        tunables: Tunables = UNSET,
    ) -> pd.DataFrame:
        """The scores table of a feature table that `appcadence.features.extract` made.

        Fleet events take the whole fleet's contacts and are not looked for.

        Raises:
            SchemaError: a column is missing, or a window is longer or shorter than those of the model.
        """
        self._require_window(features)
        settings = Config(Alerts(alerts_per_device_day), tunables)
        return pd.DataFrame(self.detector.score(features, settings, version=self.version[:12]).to_pandas())

    def update(
        self,
        flows: pa.Table | pd.DataFrame,
        *,
        until: pd.Timestamp | None = None,
        alerts_per_device_day: float = 1.0,
        tunables: Tunables = UNSET,
        **around: pa.Table | pd.DataFrame,
    ) -> pd.DataFrame:
        """Take flows as they come, and give the scores of the windows that have closed.

        A window is closed when it ended at `until` or before: the moment up to which all records have been
        given. Without it that is the start of the latest flow, which suits a source in order; a sensor that
        logs connections when they end is behind, and needs an `until` some hours back. Flows that come after
        their windows had closed are counted in `live.late_flows` and in no score. Flows must be as they were
        converted: names that reading a directory fills in would count as records. `around` are further
        records by table: activity, notifications, inventory.

        Rows are those of one batch over the same records; ranks are within the rows of one call, and more
        rows have their reasons in words. Windows of devices whose activity or push telemetry begins later
        are scored without it. One `update` runs at a time, whichever threads call.

        Raises:
            SchemaError: a table does not fit its declaration; nothing of the call is kept.
            AppcadenceError: `until` names no time zone, or there is no such table.
        """

        settings = Config(Alerts(alerts_per_device_day), tunables)

        def score(tables: dict[str, pa.Table], span_us: tuple[int, int]) -> tuple[pa.Table, History]:
            scored = self._run(tables, self.live.history, settings, span_us)
            return scored.scores, scored.history

        scores = self.live.advance({"flows": flows} | around, until, score)
        return pd.DataFrame((SCORES.empty_table() if scores is None else scores).to_pandas())

    def channel(
        self,
        app_id: str | None,
        dest: str,
        category: str | None = None,
        destination_known: bool = True,
    ) -> Channel:
        """What scores windows of one app (None = unknown) and destination ("*" = all) from plain arrays.

        Look it up once a channel: its `score` takes microseconds a window. Numbers are those of
        `score_windows`, bit for bit. `category` is the app's in the inventory; `destination_known` is that of
        the feature table.
        """
        return Channel.of(self.detector, app_id, dest, category, destination_known)

    def explain(self, row: pd.Series | pd.DataFrame) -> Explanation:
        """Explain one row of a feature table: score, reasons, and the contributions of all features.

        Raises:
            SchemaError: a column is missing, or the window is longer or shorter than those of the model.
            ValueError: it is not one row.
        """
        self._require_window(row)
        return explain(self.detector, row)

    def _require_window(self, features: pd.DataFrame | pd.Series) -> None:
        """Refuse windows of another length than those that the model was trained on."""
        for name in ("window_start", "window_end"):
            if name not in features:
                raise SchemaError(f"the feature table lacks {name!r}; give it as extract returns it")
        start, end = (pd.to_datetime(features[name], utc=True) for name in ("window_start", "window_end"))
        length = np.atleast_1d((end - start).to_numpy())
        model = self.detector.window
        if len(other := length[length != np.timedelta64(window_seconds(model), "s")]):
            found = f"{other[0] / np.timedelta64(1, 'h'):g}h"
            raise SchemaError(
                f"the feature table has a window of {found}, the model is for windows of {model}; "
                f"extract the features again with window={model!r}"
            )

    def run(
        self,
        source: str | Path | TelemetryDirectory | Mapping[str, pa.Table | pd.DataFrame],
        settings: Config = DEFAULTS,
    ) -> Scored:
        """Score and keep more than `score` gives: windows, fleet events and the advanced history."""
        return self._run(load(source), self.detector.history, settings)

    def _run(
        self,
        tables: Mapping[str, pa.Table],
        past: History,
        settings: Config,
        span_us: tuple[int, int] | None = None,
    ) -> Scored:
        new = assemble(tables, self.detector.window, past, span_us)
        found = new.fleet_events(self.detector.reference.end_us)
        version = self.version[:12]
        scores = self.detector.score(new.features, settings, fleet_event=found.windows, version=version)
        events = found.events.assign(alerting_devices=alerting_devices(found.events, scores))
        return Scored(scores, new.windows, new.history, events, found.identity)
