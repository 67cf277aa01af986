"""A training run in MLflow: parameters, metrics, figures, card and the model, registered as challenger."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import appcadence
from appcadence._extras import require
from appcadence._inputs import sha256
from appcadence.errors import AppcadenceError
from appcadence.models.bundle import MANIFEST
from appcadence.training.search import FIGURES, SEARCHED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEFAULT_URI = "sqlite:///mlflow.db"
NAME = "appcadence"
ALIAS = "challenger"
BUNDLE_TAG = "appcadence.bundle"
# A path, not an import: serving is no business of training, and MLflow reads the model's code from the file.
_CODE = Path(appcadence.__file__).parent / "serving" / "pyfunc.py"
_OPTIONAL = frozenset({"app_id", "category", "score", "p_value", "rank", "exception_id"})
_TYPES = {"f": "double", "i": "long", "u": "long", "b": "boolean", "M": "datetime"}
_MAX_CHARACTERS = 300
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True)
class RunInfo:
    """Where a run was recorded."""

    run_id: str
    model_version: str
    """Version in the registry."""


def log_run(
    *,
    bundle_dir: Path,
    params: dict[str, Any],
    metrics: dict[str, float],
    figures: dict[str, Figure],
    card: str,
    telemetry: Path,
    dataset: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    trials: pd.DataFrame,
    example: pd.DataFrame,
    predictions: pd.DataFrame,
) -> RunInfo:
    """Record a run, and register its model as `appcadence` with alias `challenger`.

    The experiment is MLFLOW_EXPERIMENT_NAME, or else `appcadence`.

    Metrics that are not finite are left out. `dataset` is the fingerprint of the directory `telemetry`, each
    table of which is logged as an input of the run, with a digest of its files. `tables` become CSV files,
    and each row of `trials` (the columns of `search`) a child run. `example` is a few rows of the feature
    table, `predictions` their scores without lists and structs: together they are the model's signature.
    Without MLFLOW_TRACKING_URI, MLflow's SQLite default in the working directory is used. Never changes the
    bundle.

    Raises:
        AppcadenceError: MLflow is not installed, or its server does not answer or refuses.
    """
    with session() as (mlflow, client):
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or NAME
        found = client.get_experiment_by_name(title)
        experiment = client.create_experiment(title) if found is None else found.experiment_id
        with mlflow.start_run(experiment_id=experiment, nested=mlflow.active_run() is not None) as run:
            mlflow.set_tag(BUNDLE_TAG, _identity(bundle_dir))
            mlflow.set_tag("mlflow.note.content", card)
            mlflow.log_params(params)
            mlflow.log_metrics({key: value for key, value in metrics.items() if math.isfinite(value)})
            for file, figure in figures.items():
                mlflow.log_figure(figure, f"figures/{file}.png")
            mlflow.log_text(card, "card.md")
            for file, table in tables.items():
                if len(table):
                    mlflow.log_text(table.to_csv(index=False), f"{file}.csv")
            for entry in _inputs(telemetry, dataset):
                mlflow.log_input(entry, context="training")
            mlflow.log_text(json.dumps(dataset, indent=1, sort_keys=True) + "\n", "dataset.json")
            for trial in trials.to_dict("records"):
                with mlflow.start_run(experiment_id=experiment, nested=True):
                    mlflow.log_params({name: trial[name] for name in SEARCHED})
                    mlflow.log_metrics({k: trial[k] for k in FIGURES if math.isfinite(trial[k])})
            rows = plain(example)
            model = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(_CODE),
                artifacts={"bundle": str(bundle_dir.resolve())},
                pip_requirements=_requirements(),
                signature=_signature(rows, predictions),
                input_example=rows,
            )
        version = str(mlflow.register_model(model.model_uri, NAME, await_registration_for=30).version)
        client.update_model_version(NAME, version, description=card)
        client.set_registered_model_alias(NAME, ALIAS, version)
        return RunInfo(run.info.run_id, version)


def reach() -> None:
    """Ask MLflow for anything, before work whose outcome it is to record; five seconds are enough for that.

    Raises:
        AppcadenceError: MLflow is not installed, or its server does not answer.
    """
    with session(timeout_seconds=5, retries=0) as (_, client):
        client.search_experiments(max_results=1)


@contextlib.contextmanager
def session(timeout_seconds: int = 10, retries: int = 1) -> Iterator[tuple[Any, Any]]:
    """Yields (the mlflow module, a client): quiet, without telemetry, and failing within seconds.

    By default MLflow waits and retries for minutes. What the environment says of it wins.

    Raises:
        MissingExtraError: MLflow is not installed.
        AppcadenceError: MLflow fails inside the block.
    """
    require("train", "mlflow", "sqlalchemy")
    patience = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
    }
    added = {key: value for key, value in (_DEFAULTS | patience).items() if key not in os.environ}
    # Telemetry must be off before the import, and stay off for the threads that MLflow leaves behind.
    os.environ.update(added)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    heard = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        warnings.simplefilter("ignore")  # MLflow warns about its own code; none of it is for our users
        import mlflow
        import mlflow.pyfunc
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        # By the environment, which can be undone, not by set_tracking_uri, which outlives this block.
        if not mlflow.is_tracking_uri_set():  # type: ignore[no-untyped-call]
            added["MLFLOW_TRACKING_URI"] = os.environ["MLFLOW_TRACKING_URI"] = DEFAULT_URI
        uri: str = mlflow.get_tracking_uri()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield mlflow, mlflow.MlflowClient(tracking_uri=uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise AppcadenceError(_sentence(uri, error)) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            for key in added:
                if key != "MLFLOW_DISABLE_TELEMETRY":
                    os.environ.pop(key, None)


def plain(features: pd.DataFrame) -> pd.DataFrame:
    """A feature table in types that MLflow's signature knows: objects for strings, UTC without a zone.

    float64, since a signature of float32 refuses the numbers that come from JSON.
    """
    out = features.reset_index(drop=True)
    for column, dtype in out.dtypes.items():
        if isinstance(dtype, pd.DatetimeTZDtype):
            out[column] = out[column].dt.tz_convert("UTC").dt.tz_localize(None).astype("datetime64[ns]")
        elif isinstance(dtype, pd.CategoricalDtype) or pd.api.types.is_string_dtype(dtype):
            values = out[column].astype(object)
            out[column] = values.where(values.notna(), None)
        elif dtype == "float32":
            out[column] = out[column].astype("float64")
    return out


def redacted(text: str) -> str:
    """A text without the user names and passwords of its URLs."""
    return re.sub(r"://[^/\s@]*@", "://", text)


def _sentence(uri: str, error: BaseException) -> str:
    """What went wrong, in one sentence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and uri.startswith("http"):
            return (
                f"the MLflow server at {redacted(uri)} does not answer; start it, or mend MLFLOW_TRACKING_URI"
            )
        cause = cause.__cause__ or cause.__context__
    reason = redacted(" ".join(str(error).split()))
    reason = reason if len(reason) <= _MAX_CHARACTERS else reason[:_MAX_CHARACTERS] + " ..."
    return f"MLflow at {redacted(uri)} refused: {reason}"


def _inputs(telemetry: Path, dataset: dict[str, Any]) -> Iterator[Any]:
    """MLflow's entries of the tables that were trained on; a digest there has at most 36 characters."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    source = resolve_dataset_source(str(telemetry.resolve()))
    for name, entry in sorted(dataset["tables"].items()):
        files = "".join(file["sha256"] for file in entry["files"])
        digest = hashlib.sha256(files.encode()).hexdigest()[:32]
        name = f"{telemetry.resolve().name}.{name}"
        yield MetaDataset(source, name=name, digest=digest)  # type: ignore[abstract]


def _identity(bundle_dir: Path) -> str:
    return sha256(bundle_dir / MANIFEST)


def _requirements() -> list[str]:
    """Versions as installed here: MLflow's own inference takes seconds and names what scoring never needs."""
    declared = importlib.metadata.requires("appcadence") or []
    core = [match[0] for r in declared if "extra ==" not in r and (match := re.match(r"[\w.-]+", r))]
    return [
        f"{package}=={importlib.metadata.version(package)}" for package in ("appcadence", *core, "mlflow")
    ]


def _signature(rows: pd.DataFrame, predictions: pd.DataFrame) -> Any:
    """Names and types by dtype; MLflow's own inference fails on a column that happens to be all null."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    def schema(frame: pd.DataFrame) -> Any:
        kinds = {str(name): np.dtype(dtype).kind for name, dtype in plain(frame).dtypes.items()}
        return Schema(
            [
                ColSpec(_TYPES.get(k, "string"), name, required=name not in _OPTIONAL)
                for name, k in kinds.items()
            ]
        )

    budget = ParamSpec("alerts_per_device_day", "double", 1.0)
    return ModelSignature(inputs=schema(rows), outputs=schema(predictions), params=ParamSchema([budget]))
