"""The scoring library: one object, without MLflow, LightGBM, scikit-learn, pickle or network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.config import DEFAULTS, UNSET, Alerts, Config, Tunables, checked
from appcadence.errors import AppcadenceError, SchemaError
from appcadence.features import feature_table
from appcadence.features.columns import micros
from appcadence.features.extraction import Source, load
from appcadence.features.given import moment_us
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

_BUDGET = "alerts_per_device_day"
_NO_SCORES = pd.DataFrame(SCORES.empty_table().to_pandas())


@dataclass(frozen=True)
class Scored:
    """The result of scoring telemetry."""

    scores: pa.Table
    """The scores table, in window order."""
    windows: Windows
    history: History
    """The history with the contacts of these windows: the next scoring starts from it."""
    events: pd.DataFrame
    """Fleet events (see `appcadence.models.fleet_events`) with the count `alerting_devices`; their windows
    are not ranked."""
    identity: Finding | None = None
    """A finding on names that changed across the fleet, if any did."""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores windows with a trained detector. Threads may share it. Only `update` keeps state, which copies
    and pickles of the scorer do not include.

    >>> from appcadence import Scorer
    >>> scorer = Scorer.load("model")                     # doctest: +SKIP
    >>> scorer.score("telemetry")                         # doctest: +SKIP
    """

    detector: Detector
    version: str
    """The id of the bundle."""
    signer: str | None = None
    """The public key that signed the bundle; None = unsigned."""
    live: Live = field(init=False, repr=False, compare=False)
    """The state of `update`."""

    def __post_init__(self) -> None:
        self._start(Live(self.detector.history, self._seconds))

    def _start(self, live: Live) -> None:
        object.__setattr__(self, "live", live)

    @property
    def _seconds(self) -> int:
        return window_seconds(self.detector.window)

    def __reduce__(self) -> tuple[Any, ...]:
        # The state of `update` stays in its process.
        return Scorer, (self.detector, self.version, self.signer)

    @classmethod
    def load(
        cls, bundle: str | Path, *, model_id: str | None = None, trusted_keys: Sequence[str] = ()
    ) -> Scorer:
        """Load a bundle directory. With `model_id` it must have that id, with `trusted_keys` one of them must
        have signed it.

        Raises:
            BundleError: the bundle is incomplete, altered, of another feature schema or id, or not signed as
                required.
        """
        return cls(*load_signed(bundle, Trust(model_id, trusted_keys)))

    def score(
        self,
        source: Source,
        *,
        alerts_per_device_day: float = 1.0,
        false_discovery_rate: float | None = None,
        tunables: Tunables = UNSET,
    ) -> pd.DataFrame:
        """The scores table of a telemetry directory, or of canonical tables by name.

        Alerts follow the budget or, if given, the false discovery rate (see `Detector.score`), and the
        thresholds set in `tunables`.

        Raises:
            TelemetryError, SchemaError: the telemetry cannot be read, or a table is unknown or does not fit.
        """
        settings = Config(_limits(alerts_per_device_day, false_discovery_rate), tunables)
        return pd.DataFrame(self.run(source, settings).scores.to_pandas())

    def score_windows(
        self,
        features: pd.DataFrame,
        *,
        alerts_per_device_day: float = 1.0,
        tunables: Tunables = UNSET,
    ) -> pd.DataFrame:
        """The scores table of a feature table from `appcadence.features.extract`.

        Fleet events are not detected, since that needs the contacts of the whole fleet: their windows are
        scored like any other, and count in the `device_shift` of their device.

        Raises:
            SchemaError: a column is missing or of a wrong type (see `features.feature_table.checked`), or a
                window is longer or shorter than those of the model.
        """
        table, settings = self._checked(features), Config(_limits(alerts_per_device_day), tunables)
        return pd.DataFrame(self.detector.score(table, settings, version=self.version[:12]).to_pandas())

    def update(
        self,
        flows: pa.Table | pd.DataFrame,
        *,
        until: datetime | str | None = None,
        alerts_per_device_day: float = 1.0,
        tunables: Tunables = UNSET,
        **around: pa.Table | pd.DataFrame,
    ) -> pd.DataFrame:
        """Take flows as they arrive, and return the scores of the windows that have closed.

        A window closes when it ends at or before `until`, the moment up to which all records have arrived.
        The default is the start of the latest flow, which suits a source in order. A sensor that logs
        connections when they end lags behind and needs an `until` some hours back. Flows that arrive after a
        window they touch has closed are counted in `live.late_flows`, and are in no score of that window. A
        record given twice counts twice. Flows must be as converted: names that reading a directory fills in
        would count as records. `around` are further records by table: activity, notifications, inventory.

        Rows equal those of one batch over the same records, except that ranks are within one call and more
        rows have reasons in words. Windows of devices whose activity or push telemetry begins later are
        scored without it. Only one `update` runs at a time, whichever threads call it.

        Raises:
            SchemaError: a table is unknown or does not fit its declaration; nothing of the call is kept.
            AppcadenceError: `until` is no moment, or names no time zone.
        """
        settings = Config(_limits(alerts_per_device_day), tunables)

        def score(tables: dict[str, pa.Table], span_us: tuple[int, int]) -> tuple[pa.Table, History]:
            scored = self._run(tables, self.live.history, settings, span_us)
            return scored.scores, scored.history

        scores = self.live.advance({"flows": flows} | around, until, score)
        return _NO_SCORES.copy() if scores is None else pd.DataFrame(scores.to_pandas())

    def resumed(self, history: History, closed_until: datetime | str) -> Scorer:
        """A scorer like this one whose `update` continues after a restart, or takes over from another model.

        `history` and `closed_until` are those of `live` before. Pass the records of the open windows and of
        the day before them to `update` again, including connections that began earlier and go on. Closed
        windows are not scored again; flows that touch one are counted in `live.late_flows`.

        Raises:
            AppcadenceError: no window ends at `closed_until`, or the history extends beyond it.
        """
        border_us, width = moment_us(closed_until, "closed_until"), self._seconds * 1_000_000
        if border_us % width:
            raise AppcadenceError(f"closed_until is {closed_until}; expected the end of a window")
        history.require_before(border_us)
        made = Scorer(self.detector, self.version, self.signer)
        made._start(Live(history, self._seconds, border_us))
        return made

    def channel(
        self,
        app_id: str | None,
        dest: str,
        category: str | None = None,
        destination_known: bool = True,
    ) -> Channel:
        """Scores windows of one app (None = unknown) and destination ("*" = all) from plain arrays.

        Look it up once per channel; its `score` takes microseconds per window. Results equal those of
        `score_windows` bit for bit. `category` is the app's in the inventory; `destination_known` is that of
        the feature table.
        """
        return Channel.of(self.detector, app_id, dest, category, destination_known)

    def explain(self, row: pd.Series | pd.DataFrame) -> Explanation:
        """Explain one row of a feature table: score, reasons, and the contributions of all features.

        Raises:
            SchemaError: as `score_windows`.
            ValueError: `row` is not exactly one row.
        """
        table = row.to_frame().T.infer_objects() if isinstance(row, pd.Series) else row
        return explain(self.detector, self._checked(table))

    def _checked(self, features: pd.DataFrame) -> pd.DataFrame:
        """The feature table as `extract` makes it, if its windows are as long as the model's."""
        table = feature_table.checked(features)
        length = (table["window_end"] - table["window_start"]).to_numpy()
        model = self.detector.window
        if len(other := length[length != np.timedelta64(window_seconds(model), "s")]):
            found = f"{other[0] / np.timedelta64(1, 'h'):g}h"
            raise SchemaError(
                f"the feature table has a window of {found}, the model is for windows of {model}; "
                f"extract the features again with window={model!r}"
            )
        return table

    def run(
        self,
        source: Source,
        settings: Config = DEFAULTS,
        *,
        history: History | None = None,
    ) -> Scored:
        """Like `score`, but also return windows, fleet events and the advanced history.

        `history` is the history before the first window, such as that of the previous run. None = that of the
        model, which ends with its training.

        Raises:
            TelemetryError: the telemetry cannot be read, or the history extends beyond the start of the first
                window.
            SchemaError: a table is unknown or does not fit its declaration.
        """
        tables = load(source)
        if history is not None and len(flows := tables["flows"]):
            width = self._seconds * 1_000_000
            history.require_before(int(micros(flows["start"]).min()) // width * width)
        return self._run(tables, self.detector.history if history is None else history, settings)

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


def _limits(alerts_per_device_day: float, false_discovery_rate: float | None = None) -> Alerts:
    """The limit of alerts; a budget is always given."""
    budget = checked(_BUDGET, _plain(alerts_per_device_day), _BUDGET, _BUDGET)
    return Alerts(budget, _plain(false_discovery_rate))


def _plain(number: Any) -> Any:
    """A real number as one of Python's, whatever its type, such as NumPy's; anything else as it is."""
    return float(number) if isinstance(number, Real) and not isinstance(number, int) else number
