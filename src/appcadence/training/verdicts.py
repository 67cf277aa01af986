"""What analysts decided about earlier windows, for training to learn from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.telemetry.verdicts import latest_decisions
from appcadence.training.truth import overlaps

WEIGHT = 5.0
"""A window that an analyst decided on weighs as much as so many injected or undecided ones."""


def verdict_of(windows: pd.DataFrame, verdicts: pa.Table) -> np.ndarray:
    """(n,) the verdict on each window: malicious, benign, unexplained, or None.

    A verdict speaks for the windows of its device, app and destination that it overlaps, and one on an app's
    `*` window for all of the app's. Where analysts disagree, the window is unexplained; of one analyst's
    words on a window the last counts.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    rows = latest_decisions(verdicts).rename(columns={"window_start": "start", "window_end": "end"})
    rows["who"] = rows["app_id"].fillna("")
    window, row = overlaps(windows, rows)
    said = pd.DataFrame({"window": window, "verdict": rows["verdict"].to_numpy()[row]}).drop_duplicates()
    out = np.full(len(windows), None, dtype=object)
    by_window = said.groupby("window")["verdict"]
    agreed = by_window.first().where(by_window.size() == 1, "unexplained")
    out[agreed.index.to_numpy()] = agreed.to_numpy()
    return out
