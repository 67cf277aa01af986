"""A finished training -> a run in MLflow and a registered challenger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._extras import require
from appcadence._inputs import sha256
from appcadence._types import Progress, silent
from appcadence.features.catalog import describe
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.models.scores import SCORES
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.training.card import model_card
from appcadence.training.stress import stress
from appcadence.training.tracking import RunInfo, log_run, reach
from appcadence.training.train import Training

_PLAIN = [field.name for field in SCORES if not pa.types.is_nested(field.type)]


def check_ready() -> None:
    """Refuse, before a training, what would keep `publish` from recording it.

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

    Where devices were held out, beacons are injected into them for the stress grid, and implants for the
    pictures of found and missed ones; that takes about as long as the training.

    `source` is the telemetry it was trained on, `bundle_dir` the saved bundle, which stays as it is
    whatever MLflow does.

    Raises:
        AppcadenceError: MLflow or matplotlib is not installed, or the server does not answer.
        BundleError: the bundle is not whole.
    """
    check_ready()
    from appcadence.training.figures import stress_map, training_figures
    from appcadence.training.rasters import rasters

    dataset = fingerprint(source)
    # The bundle as loaded, not the detector in memory: the logged predictions are then the bundle's own.
    detector, identity = bundle.load(bundle_dir)
    scores = detector.score(training.example, version=identity[:12])
    figures, tables = training_figures(training), {"search": training.trials}
    telemetry = load(source)
    if training.held_out is not None:
        tables["stress"] = stress(training, telemetry, progress)
        figures["stress"] = stress_map(tables["stress"])
    picture = rasters(training, telemetry)
    figures |= {} if picture is None else {"rasters": picture}
    progress("recording", 0.0)
    return log_run(
        bundle_dir=bundle_dir,
        params=training.params,
        metrics=training.quality.metrics(),
        figures=figures,
        card=model_card(training, dataset),
        telemetry=source.path,
        dataset=dataset,
        tables={"feature_schema": describe(), "injection": training.injection} | tables,
        trials=training.trials,
        example=training.example,
        predictions=scores.select(_PLAIN).to_pandas(),
    )


def fingerprint(source: TelemetryDirectory) -> dict[str, Any]:
    """What a telemetry directory holds: rows and SHA-256 of each Parquet file by table, and the flows' span.

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
