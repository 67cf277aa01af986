"""Arguments and options that several commands share, and the models and files that they name."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from appcadence._files import open_input
from appcadence._parquet import read_parquet
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.models.shipped import reference_model
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import listed
from appcadence.telemetry.schema import LABELS, Table, conform

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A telemetry directory.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="An output directory of 'appcadence score'.")]
Model = Annotated[
    str, typer.Option(help="A bundle directory, or an MLflow URI such as models:/appcadence@champion.")
]
Window = Annotated[str, typer.Option(help="Length of the windows: hours that divide a day, or days.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append stages, counts and the error, if any, to a log.")
]

_OPTIONS = {
    "exclude_families": "--exclude-family",
    "keyfile": "--pseudonymise",
    "local_nets": "--local-net",
    "mapping": "--map",
}
"""By argument of a library function, the option that sets it, where it is not called the same."""


def sentence(error: Exception) -> str:
    """What an error says, with the file or the option that it is about."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; give it more, or fewer and smaller files at once"
    if not isinstance(error, AppcadenceError | OSError):
        said_of = AppcadenceError(f"{type(error).__name__}: {error}")
        return f"an input cannot be used ({said_of}); 'appcadence --verbose' and the command shows where"
    if isinstance(error, OSError):
        what = error.strerror or " ".join(str(error).split())
        return what if error.filename is None else f"{error.filename}: {what}"
    return said(str(error), error.argument)


def said(text: str, argument: str | None) -> str:
    """What is said of an argument, with the option that sets it."""
    return text if argument is None else f"{text} ({option_of(argument)})"


def option_of(argument: str) -> str:
    """The option that sets an argument of a library function."""
    return _OPTIONS.get(argument, f"--{argument.replace('_', '-')}")


def read_named(file: Path, table: Table) -> pa.Table:
    """A Parquet file that holds one canonical table.

    Raises:
        TelemetryError: it cannot be read.
        SchemaError: it does not fit the declaration.
    """
    try:
        with open_input(file) as stream:
            found = read_parquet(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise TelemetryError(f"{file} is not a readable {table.name} file ({error})") from None
    return conform(table, found, str(file))


def read_labels(file: Path, directory: Path) -> pa.Table:
    """The labels of some telemetry.

    Raises:
        TelemetryError, SchemaError: as `read_named`; or none of its devices is in the telemetry.
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


def load_scorer(model: str) -> Scorer:
    """The scorer of a bundle directory or an MLflow URI."""
    if model.startswith(("models:", "runs:")):
        from appcadence.training.registry import resolve  # MLflow is an extra

        with tempfile.TemporaryDirectory(prefix="appcadence-model-") as scratch:
            return Scorer.load(resolve(model, Path(scratch)))
    return Scorer.load(model)


def reference_scorer() -> Scorer:
    """The scorer of the reference model, to which every channel is new."""
    return Scorer(*reference_model())
