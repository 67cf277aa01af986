"""MLflow's registry -> a bundle directory on disk."""

from __future__ import annotations

import re
from pathlib import Path

from appcadence.errors import AppcadenceError
from appcadence.models.bundle import MANIFEST
from appcadence.training.tracking import redacted, session


def resolve(model: str, target: Path) -> Path:
    """Download the model of an MLflow URI into `target` and return the path of its bundle directory there.

    `model` is `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID/model`.

    Raises:
        AppcadenceError: no such URI, no MLflow, no answer from it, or no bundle inside.
    """
    if not re.match(r"(models|runs):/\S", model):
        raise AppcadenceError(f"{model!r} is no MLflow model; expected models:/NAME@ALIAS or runs:/ID/model")
    with session() as (mlflow, uri):
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=model, dst_path=str(target)))
    found = sorted(path.rglob(MANIFEST), key=lambda file: len(file.parts)) if path.is_dir() else []
    if not found:
        raise AppcadenceError(
            f"{model} at {redacted(uri)} holds no {MANIFEST}; register one with 'appcadence train --register'"
        )
    return found[0].parent
