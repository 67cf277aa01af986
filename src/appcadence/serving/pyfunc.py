"""The MLflow model as code: MLflow runs this file to load it. No other module of serving needs MLflow."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
import pyarrow as pa

from appcadence.models.scores import SCORES
from appcadence.serving.scorer import Scorer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints while it is imported
    import mlflow.models
    from mlflow.pyfunc.model import PythonModel, PythonModelContext

NESTED = [field.name for field in SCORES if pa.types.is_nested(field.type)]
_NAMES = ("device_id", "app_id", "dest", "app_attribution", "category")
_TIMES = ("window_start", "window_end")


class CadenceModel(PythonModel):
    """Takes feature rows and returns score rows in the same order.

    Feature rows are those of `appcadence.features.extract`, with times in UTC without a zone. Score rows are
    those of `Scorer.score_windows` without lists and structs; ranks are within one call.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the bundle logged with the model."""
        self.scorer = Scorer.load(context.artifacts["bundle"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score feature rows; `params` may hold alerts_per_device_day, the alert budget.

        Raises:
            SchemaError: a column is missing, or a window is longer or shorter than those of the model.
        """
        budget = float((params or {}).get("alerts_per_device_day", 1.0))
        scores = self.scorer.score_windows(_restored(model_input), alerts_per_device_day=budget)
        return _plain(scores.drop(columns=NESTED))


def _restored(rows: pd.DataFrame) -> pd.DataFrame:
    """Feature rows with the types of `extract`, from the plain types of JSON and MLflow's signature."""
    rows = rows.reset_index(drop=True).copy()
    if "category" not in rows:
        rows["category"] = None
    rows = _plain(rows, _NAMES)
    for name in _TIMES:
        rows[name] = pd.to_datetime(rows[name], utc=True).dt.as_unit("us")
    return rows


def _plain(rows: pd.DataFrame, names: tuple[str, ...] = ()) -> pd.DataFrame:
    """The rows with string columns as objects; unknown = None, which is null in JSON."""
    for name in names or [c for c in rows.columns if pd.api.types.is_string_dtype(rows[c].dtype)]:
        values = rows[name].astype(object)
        rows[name] = values.where(values.notna(), None)
    return rows


mlflow.models.set_model(CadenceModel())
