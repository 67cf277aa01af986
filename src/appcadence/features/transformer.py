"""The feature step as a scikit-learn transformer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from appcadence.features.build import build
from appcadence.features.catalog import NAMES
from appcadence.features.extraction import KEYS, Source, load, table_of
from appcadence.features.history import History
from appcadence.features.windows import window_seconds

INDEX = ("device_id", "app_id", "dest", "window_start")


class FlowFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Telemetry -> one row of features per window, relative to the fitted history.

    `fit` learns who contacted what (the history of the novelty features). `transform` judges other, later
    telemetry against it. `fit_transform` judges each window of the same telemetry by what came before it.

    Parameters:
        window: length of the windows, such as 1h, 6h, 24h or 7d.

    Attributes:
        history_: the `History` after fitting.

    X is an input of `appcadence.features.extract` (a telemetry directory, its path, or a mapping of canonical
    tables) or a DataFrame of flows. The output rows are windows, not rows of X, so this must be the first
    step of a pipeline, without `y`. The output is a DataFrame of float32, (n_windows, n_features), indexed by
    device, app, destination and start of the window; NaN = unknown.

    Raises:
        TelemetryError, SchemaError: X cannot be read or does not fit the canonical tables.
        AppcadenceError: `window` has another form.
    """

    def __init__(self, window: str = "24h") -> None:
        self.window = window

    def fit(self, X: Source | pd.DataFrame, y: Any = None) -> FlowFeatures:
        """Learn the history; `y` is ignored."""
        past = build(_tables(X), window_seconds(self.window), History.empty()).history
        self.history_ = replace(past, vetting=False)
        return self

    def transform(self, X: Source | pd.DataFrame) -> pd.DataFrame:
        """The features of X, with novelty relative to the fitted history."""
        check_is_fitted(self)
        return self._features(X, self.history_)

    def fit_transform(self, X: Source | pd.DataFrame, y: Any = None, **_: Any) -> pd.DataFrame:
        """Fit, and return the features of X itself, each window judged by what came before it."""
        self.fit(X)
        return self._features(X, History.empty())

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The column names, in catalogue order."""
        return np.array(NAMES, dtype=object)

    def _features(self, X: Source | pd.DataFrame, history: History) -> pd.DataFrame:
        table = table_of(build(_tables(X), window_seconds(self.window), history))
        return table.set_index(list(INDEX)).drop(columns=[name for name in KEYS if name not in INDEX])


def _tables(X: Source | pd.DataFrame) -> dict[str, Any]:
    return load({"flows": X} if isinstance(X, pd.DataFrame) else X)
