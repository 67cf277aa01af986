"""From telemetry to the input of scoring: windows, feature table, history and fleet events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import pyarrow as pa

from appcadence.features.build import build
from appcadence.features.extraction import table_of
from appcadence.features.history import History
from appcadence.features.windows import Windows, window_seconds
from appcadence.models.fleet_events import FleetEvents, fleet_events


@dataclass(frozen=True)
class Assembled:
    """The windows of some telemetry; everything else is computed once, on first use."""

    windows: Windows

    @cached_property
    def features(self) -> pd.DataFrame:
        """The feature table, in order of the windows."""
        return table_of(self.windows)

    @property
    def history(self) -> History:
        """The history after these windows."""
        return self.windows.history

    def fleet_events(self, baseline_end_us: int) -> FleetEvents:
        """Fleet events after the end of the baseline, given in microseconds since the epoch."""
        return fleet_events(self.history, baseline_end_us, self.features)


def assemble(
    tables: Mapping[str, pa.Table],
    window: str,
    past: History | None = None,
    span_us: tuple[int, int] | None = None,
) -> Assembled:
    """Group canonical tables into windows. Novelty of each is relative to the history before it; None = no
    past.

    With a span (microseconds since the epoch, at borders of windows), only the windows in it are built.

    Raises:
        AppcadenceError: `window` is not of the form 1h, 6h, 24h, 7d.
    """
    known = History.empty() if past is None else past
    return Assembled(build(tables, window_seconds(window), known, span_us))
