"""Models and tables that several commands load by option."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from appcadence.config import locate, read
from appcadence.errors import TelemetryError
from appcadence.models.bundle import reference_model
from appcadence.models.signature import Trust
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import listed
from appcadence.telemetry.schema import LABELS
from appcadence.telemetry.sheet import read_named


def read_labels(file: Path, directory: Path) -> pa.Table:
    """The labels of a telemetry directory.

    Raises:
        TelemetryError, SchemaError: as `read_named`, or no device of the labels is in the telemetry.
    """
    labels = read_named(file, LABELS)
    named = labels["device_id"].unique().to_pylist()
    known = TelemetryDirectory(directory).names("flows", "device_id")
    if named and not set(named) & set(known):
        raise TelemetryError(
            f"{file} names no device of {directory}, which has {listed(sorted(known))}; the labels name "
            f"{listed(sorted(named))}"
        )
    return labels


def trusted_keys(*near: Path) -> tuple[str, ...]:
    """The `[model] trusted_keys` of the settings in or beside the first of some paths that has any."""
    settings = next(filter(None, map(locate, near)), None)
    return () if settings is None else read(settings).model.trusted_keys


def load_scorer(model: str | None, expected: str | None, keys: Sequence[str]) -> Scorer:
    """The scorer of a bundle directory or an MLflow URI; None = the reference model, to which all is new.

    With `expected` the model must have that id; with `keys` one of them must have signed it (see
    `trusted_keys`). The reference model is part of the program and needs no signature.
    """
    if model is None:
        return Scorer(*reference_model(Trust(expected)))
    if model.startswith(("models:", "runs:")):
        from appcadence.training.registry import resolve  # MLflow is an extra

        with tempfile.TemporaryDirectory(prefix="appcadence-model-") as scratch:
            return Scorer.load(resolve(model, Path(scratch)), model_id=expected, trusted_keys=keys)
    return Scorer.load(model, model_id=expected, trusted_keys=keys)


def signed_by(scorer: Scorer) -> str:
    """Who signed a model that was named."""
    if scorer.signer is None:
        return "The model is not signed: anyone with write access may have made or changed it."
    return f"The model is signed by {scorer.signer}."
