"""A finished training -> a run in MLflow and a registered challenger."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import appcadence
from appcadence._extras import require
from appcadence._inputs import sha256
from appcadence._types import Progress, silent
from appcadence.features.catalog import SCHEMA_ID, describe
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.models.scores import SCORES
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.training.evaluate import in_words
from appcadence.training.search import FIGURES, SEARCHED
from appcadence.training.stress import stress
from appcadence.training.tracking import BUNDLE_TAG, NAME, reach, session
from appcadence.training.train import Training

ALIAS = "challenger"
# A path, not an import: serving is no business of training, and MLflow reads the model's code from the file.
_CODE = Path(appcadence.__file__).parent / "serving" / "pyfunc.py"
_OPTIONAL = frozenset({"app_id", "category", "score", "p_value", "rank", "exception_id"})
_TYPES = {"f": "double", "i": "long", "u": "long", "b": "boolean", "M": "datetime"}
_PLAIN = [field.name for field in SCORES if not pa.types.is_nested(field.type)]


@dataclass(frozen=True)
class RunInfo:
    """Identifiers of a recorded run."""

    run_id: str
    model_version: str
    """Version in the registry."""


def check_ready() -> None:
    """Check before a training that `publish` will be able to record it.

    Raises:
        MissingExtraError: MLflow or matplotlib is not installed.
        AppcadenceError: the server does not answer within seconds.
    """
    require("train", "matplotlib", "sklearn")
    reach()


def publish(
    training: Training,
    source: TelemetryDirectory,
    bundle_dir: Path,
    progress: Progress = silent,
) -> RunInfo:
    """Record a training in MLflow and register its bundle as appcadence@challenger.

    If devices were held out, beacons are injected into them for the stress grid, and implants for the
    pictures of found and missed ones; that takes about as long as the training. The experiment is
    MLFLOW_EXPERIMENT_NAME, by default `appcadence`. Metrics that are not finite are left out, each table of
    the telemetry is an input of the run, and each trial of the search is a child run. Without
    MLFLOW_TRACKING_URI, MLflow's SQLite default in the working directory is used.

    `source` is the telemetry that was trained on. `bundle_dir` is the saved bundle, which is not changed.

    Raises:
        AppcadenceError: MLflow or matplotlib is not installed, or the server does not answer or refuses.
        BundleError: the bundle is not whole.
    """
    check_ready()
    from appcadence.training.figures import rasters, stress_map, training_figures

    dataset = fingerprint(source)
    # The loaded bundle, not the detector in memory, so that the logged predictions are the bundle's own.
    detector, identity = bundle.load(bundle_dir)
    scores = detector.score(training.example, version=identity[:12])
    figures, tables = training_figures(training), {"search": training.trials}
    telemetry = load(source)
    if training.held_out is not None:
        tables["stress"] = stress(training, telemetry, progress)
        figures["stress"] = stress_map(tables["stress"])
    picture = rasters(training, telemetry)
    figures |= {} if picture is None else {"rasters": picture}
    tables |= {"feature_schema": describe(), "injection": training.injection}
    card, metrics = model_card(training, dataset), training.quality.metrics()
    predictions = scores.select(_PLAIN).to_pandas()
    progress("recording", 0.0)
    with session() as (mlflow, client):
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or NAME
        found = client.get_experiment_by_name(title)
        experiment = client.create_experiment(title) if found is None else found.experiment_id
        with mlflow.start_run(experiment_id=experiment, nested=mlflow.active_run() is not None) as run:
            mlflow.set_tag(BUNDLE_TAG, sha256(bundle_dir / bundle.MANIFEST))
            mlflow.set_tag("mlflow.note.content", card)
            mlflow.log_params(training.params)
            mlflow.log_metrics({key: value for key, value in metrics.items() if math.isfinite(value)})
            for file, figure in figures.items():
                mlflow.log_figure(figure, f"figures/{file}.png")
            mlflow.log_text(card, "card.md")
            mlflow.log_text("\n".join(_environment()) + "\n", "environment.txt")
            for file, table in tables.items():
                if len(table):
                    mlflow.log_text(table.to_csv(index=False), f"{file}.csv")
            for entry in _inputs(source.path, dataset):
                mlflow.log_input(entry, context="training")
            mlflow.log_text(json.dumps(dataset, indent=1, sort_keys=True) + "\n", "dataset.json")
            for trial in training.trials.to_dict("records"):
                with mlflow.start_run(experiment_id=experiment, nested=True):
                    mlflow.log_params({name: trial[name] for name in SEARCHED})
                    mlflow.log_metrics({k: trial[k] for k in FIGURES if math.isfinite(trial[k])})
            rows = plain(training.example)
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


def fingerprint(source: TelemetryDirectory) -> dict[str, Any]:
    """The contents of a telemetry directory: rows and SHA-256 of each Parquet file by table, and the flows'
    span.

    {"tables": {NAME: {"rows", "files": [{"file", "rows", "sha256"}]}}, "first", "last"}; times as ISO text in
    UTC, absent when there are no flows.
    """
    tables: dict[str, Any] = {}
    for name in source.tables():
        files = []
        for file in source.files(name):
            path = file.relative_to(source.path).as_posix()
            files.append({"file": path, "rows": pq.read_metadata(file).num_rows, "sha256": sha256(file)})
        tables[name] = {"rows": sum(f["rows"] for f in files), "files": files}
    return {"tables": tables} | _span(source)


def _span(source: TelemetryDirectory) -> dict[str, str]:
    ends = [pc.min_max(pq.read_table(file, columns=["start"])["start"]) for file in source.files("flows")]
    starts = [end[side].as_py() for end in ends for side in ("min", "max") if end[side].is_valid]
    return {"first": min(starts).isoformat(), "last": max(starts).isoformat()} if starts else {}


def plain(features: pd.DataFrame) -> pd.DataFrame:
    """A feature table in the types of MLflow's signature: objects for strings, UTC times without a zone.

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


def _inputs(telemetry: Path, dataset: dict[str, Any]) -> Iterator[Any]:
    """MLflow's dataset entries of the training tables; a digest there has at most 36 characters."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    source = resolve_dataset_source(str(telemetry.resolve()))
    for name, entry in sorted(dataset["tables"].items()):
        files = "".join(file["sha256"] for file in entry["files"])
        digest = hashlib.sha256(files.encode()).hexdigest()[:32]
        name = f"{telemetry.resolve().name}.{name}"
        yield MetaDataset(source, name=name, digest=digest)  # type: ignore[abstract]


def _requirements() -> list[str]:
    """Installed versions; MLflow's own inference takes seconds and names packages that scoring never
    needs."""
    declared = importlib.metadata.requires("appcadence") or []
    core = [match[0] for r in declared if "extra ==" not in r and (match := re.match(r"[\w.-]+", r))]
    return _pinned("appcadence", *core, "mlflow")


def _environment() -> list[str]:
    """Besides telemetry and parameters, what a model's bytes depend on."""
    return [
        f"# Python {platform.python_version()} on {platform.machine()}, feature schema {SCHEMA_ID}",
        *_requirements(),
        *_pinned("lightgbm", "scikit-learn", "scipy"),
    ]


def _pinned(*packages: str) -> list[str]:
    return [f"{package}=={importlib.metadata.version(package)}" for package in packages]


def _signature(rows: pd.DataFrame, predictions: pd.DataFrame) -> Any:
    """The signature by dtype; MLflow's own inference fails on a column that is all null."""
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


_BLIND = (
    "Requests inside one HTTP/2 or QUIC connection: flow records cannot tell them apart.",
    "Flows without an app name are judged by destination alone, on a calibration of their own.",
    "Whether the user was present and whether a push started the traffic, where no such telemetry exists.",
    "Windows with too little evidence: they are listed without a score.",
)
_LIMITS = (
    "What was compromised throughout the training period is part of the baseline and looks usual.",
    "Promised rates hold while later telemetry is like the held-out one: same sources, apps and season. "
    "A new app, a new release or another log source calls for a new training.",
    "A high score says that the rhythm is unexplained, not that the app is malicious.",
    "Contributions are tree-path contributions, not Shapley values, and no causes.",
)


def model_card(training: Training, dataset: dict[str, Any]) -> str:
    """The card as Markdown; `dataset` is the fingerprint that `publish` makes."""
    p, q = training.params, training.quality
    held = p["held_out"] if p["held_out"] != "channels" else "channels of the same devices (too few devices)"
    tables = "\n".join(
        f"| {name} | {entry['rows']:,} | {len(entry['files'])} | `{_digest(entry)}` |"
        for name, entry in sorted(dataset.get("tables", {}).items())
    )
    budgets = "\n".join(f"| {b:g} | {q.said(recall)} | {q.range(b)} |" for b, recall in q.recall.items())
    kinds = "".join(f"| {kind} | {q.said(recall)} |\n" for kind, recall in q.recall_by_kind.items())
    if kinds:
        kinds = f"\n| kind, at 1 benign unit per device-day | recall |\n|---|---|\n{kinds}"
    return f"""# appcadence detector

Ranks windows of an app's traffic to a destination. The less the user or the app's purpose explains the rhythm
of a window, the higher its score.

## Trained on

{p["devices"]} devices, {p["flows"]:,} flows{_captured(dataset)},
windows of {p["window"]}, seed {p["seed"]}. Excluded feature families: {p["excluded_families"]}.
{p["implants"]:,} implants were injected as flows; no real implant was seen. The classifier has {p["trees"]}
trees of {p["leaves"]} leaves a bag and learning rate {p["learning_rate"]:g}, {_chosen(p["search_trials"])}.

| table | rows | files | SHA-256 (start) |
|---|---|---|---|
{tables}

## Held out

Calibrated and measured on {held}, later in time than the baseline they are judged against:
{p["calibration_windows"]:,} benign windows over {p["calibration_device_days"]:g} device-days for calibration,
{q.device_days:.1f} device-days in {p["rounds"]} rounds of injection for measuring, which repeat the same
benign windows.

## Promised rates

Score 0 is exceeded by one benign alert unit per device-day; each factor e fewer adds one to the score.
{training.detector.card.get("roughness", "")}

Measured on held-out benign windows: {in_words(q.realised[1.0])} benign alert units per device-day at or
above 0. The calibration used the same days, so this checks its fit and not how later telemetry behaves.

## Quality on injected implants

This is **no estimate of recall on real implants**: the same generator made the implants that were learned
from and those that were looked for.

| benign alert units per device-day | recall | 95% over devices |
|---|---|---|
{budgets}
{kinds}
All {q.implant_days} injected implant-days count; {q.unjudged_implant_days} without a judged window are
missed. {q.benign_units} benign alert units; average precision {q.said(q.average_precision)}
({q.said(q.precision_by_chance)} by chance).

## Blind spots

{_list(_BLIND)}

## Limits

{_list(_LIMITS)}

## Intended use

Ordering windows of managed iOS devices for an analyst's triage, on telemetry like that of the training. Not
for blocking traffic or judging people without review.
"""


def _chosen(trials: int) -> str:
    return f"the best of {trials} draws on the learning windows alone" if trials else "not searched for"


def _captured(dataset: dict[str, Any]) -> str:
    if "first" not in dataset:
        return ""
    first, last = (datetime.fromisoformat(dataset[end]) for end in ("first", "last"))
    days = (last - first).total_seconds() / 86_400
    return f" over {days:.1f} days ({first:%Y-%m-%d} to {last:%Y-%m-%d})"


def _digest(entry: dict[str, Any]) -> str:
    files = entry["files"]
    return " ".join(file["sha256"][:12] for file in files[:3]) + (" ..." if len(files) > 3 else "")


def _list(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
