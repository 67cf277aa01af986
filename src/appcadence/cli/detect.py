"""features, train, evaluate and score."""

from __future__ import annotations

import json as jsonlib
import math
import os
import tempfile
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from appcadence._files import open_input
from appcadence.cli.progress import progress_bar
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features import History, describe
from appcadence.features.extraction import load
from appcadence.features.partition import write_features
from appcadence.models import bundle
from appcadence.nightly import read_history
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.training.evaluate import Quality, json_ready
from appcadence.training.evaluate import evaluate as evaluate_scores
from appcadence.training.health import Health, health
from appcadence.training.search import SEARCHED
from appcadence.training.train import train as train_detector

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="A telemetry directory.")]
Model = Annotated[
    str, typer.Option(help="A bundle directory, or an MLflow URI such as models:/appcadence@champion.")
]
Window = Annotated[str, typer.Option(help="Length of the windows: hours that divide a day, or days.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def features(
    directory: Annotated[Path | None, typer.Argument(metavar="DIR", help="A telemetry directory.")] = None,
    out: Annotated[Path | None, typer.Option(help="The Parquet file to write.")] = None,
    window: Window = "24h",
    history: Annotated[
        Path | None, typer.Option(help="What was known before, such as OUT/history.parquet of a scoring run.")
    ] = None,
    describe_only: Annotated[bool, typer.Option("--describe", help="List the features and stop.")] = False,
) -> None:
    """Turn flow windows into the feature table, or list its features.

    Without --history, novelty is as of each window: a device's first window has no past, and no novelty.
    Telemetry may be larger than memory: about 1 GB is used, and scratch files of 60 bytes a flow and 400 a
    window beside FILE while it runs. A run that is killed leaves no table, and the next clears up.

    Example: appcadence features telemetry --out features.parquet --window 6h
    """
    console = Console()
    if describe_only:
        for row in describe().itertuples():
            console.print(
                f"[bold]{row.feature}[/] ({row.family}, {row.unit}, suspicious: {row.suspicious})",
                highlight=False,
            )
            console.print(f"    {row.meaning}", markup=False, highlight=False)
        return
    if directory is None or out is None:
        raise AppcadenceError("give a telemetry directory and --out FILE.parquet, or --describe")
    with progress_bar() as progress:
        past = History.empty() if history is None else read_history(history)
        rows = write_features(directory, out, window, past, progress=progress)
    console.print(f"{rows} windows of {window} written to {out}", markup=False, highlight=False)


def train(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="The bundle directory to write.")] = Path("model"),
    window: Window = "24h",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    exclude_family: Annotated[
        list[str] | None, typer.Option(help="A feature family the detector must not see; repeatable.")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="A Parquet file with the verdicts table: what analysts decided.")
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(help="An earlier MODEL whose baseline and history this training goes on from."),
    ] = None,
    search_trials: Annotated[
        int, typer.Option(help="Draws of hyper-parameters to try; 0 takes the usual ones.")
    ] = 0,
    register: Annotated[
        bool, typer.Option(help="Track the run in MLflow and register it as challenger.")
    ] = False,
    json: Json = False,
) -> None:
    """Learn a detector from the telemetry of a benign period.

    With --register, or where MLFLOW_TRACKING_URI is set, the run is tracked in MLflow and registered as
    appcadence@challenger.

    --search-trials N fits N hyper-parameters of the classifier on a part of the learning windows, judges them
    on the rest and takes the best; what is held out for calibration and for the figures is not touched. A
    trial takes five fits of the classifier (six times as many where fewer than four devices are known).

    Example: appcadence train telemetry --window 24h --out model
    """
    console = Console()
    source = TelemetryDirectory(directory)
    with progress_bar() as progress:
        result = train_detector(
            load(source),
            window,
            seed,
            exclude_families=tuple(exclude_family or ()),
            verdicts=None if verdicts is None else read_named(verdicts, "verdicts"),
            search_trials=search_trials,
            before=None if warm_start is None else load_scorer(warm_start).detector,
            progress=progress,
        )
    identity = bundle.save(result.detector, out)
    version = None
    if register or os.environ.get("MLFLOW_TRACKING_URI"):
        from appcadence.training.publish import publish  # MLflow and matplotlib are an extra

        with progress_bar() as progress:
            version = publish(result, source, out, progress).model_version
    if json:
        answer = {
            "bundle": str(out),
            "id": identity,
            "params": result.params,
            "metrics": json_ready(result.quality.metrics()),
            "trials": jsonlib.loads(result.trials.to_json(orient="records")),
        }
        typer.echo(jsonlib.dumps(answer | {"registered_version": version}))
        return
    console.print(f"Bundle {out} ({identity[:12]}), window {window}.", markup=False, highlight=False)
    if len(result.trials):
        chosen = ", ".join(f"{name} {result.params[name]:g}" for name in SEARCHED)
        console.print(
            f"Best of {len(result.trials)} trials on the learning windows: {chosen}; recall there "
            f"{result.trials['criterion'].max():.2f} (the mean of two budgets), the usual ones "
            f"{result.trials['criterion'][0]:.2f}.",
            highlight=False,
        )
    console.print("On implants injected into what was held out (no estimate of recall on real ones):")
    print_quality(console, result.quality)
    console.print(result.detector.card["roughness"], markup=False, highlight=False)
    if version:
        console.print(f"Registered as models:/appcadence@challenger, version {version}.", highlight=False)


def evaluate(
    directory: Directory,
    model: Model,
    labels: Annotated[
        Path | None, typer.Option(help="A Parquet file with the labels table; without it, health.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a detector against labelled telemetry, or its health without labels.

    Without --labels: implants are injected into what the telemetry holds after the training and looked for,
    alerts are counted against their promise, and the ranks of apps are compared between the two halves.

    Example: appcadence evaluate telemetry --model model --labels telemetry.labels.parquet
    """
    if labels is None:
        with progress_bar() as progress:
            sound = health(load_scorer(model).detector, load(directory), progress=progress)
        if json:
            typer.echo(jsonlib.dumps(json_ready(sound.metrics())))
        else:
            print_health(Console(), sound)
        return
    truth = read_named(labels, "labels")
    with progress_bar() as progress:
        progress("scoring", 0.0)
        tables = load(directory)
        outcome = evaluate_scores(load_scorer(model).score(tables), truth, tables["flows"])
    if json:
        typer.echo(jsonlib.dumps(json_ready(outcome.metrics())))
        return
    print_quality(Console(), outcome)


def read_named(file: Path, name: str) -> pa.Table:
    """A Parquet file, called a `name` file when it cannot be read."""
    try:
        with open_input(file) as stream:
            return pq.read_table(stream)
    except (OSError, pa.ArrowInvalid) as error:
        raise TelemetryError(f"{file} is not a readable {name} file ({error})") from None


def load_scorer(model: str) -> Scorer:
    """The scorer of a bundle directory or an MLflow URI."""
    if model.startswith(("models:", "runs:")):
        from appcadence.training.registry import resolve  # MLflow is an extra

        with tempfile.TemporaryDirectory(prefix="appcadence-model-") as scratch:
            return Scorer.load(resolve(model, Path(scratch)))
    return Scorer.load(model)


def print_quality(console: Console, outcome: Quality) -> None:
    """Recall at each budget."""
    table = Table(box=None, width=80, pad_edge=False)
    table.add_column("false alerts per device-day", justify="right")
    table.add_column("realised", justify="right")
    table.add_column("recall", justify="right")
    table.add_column("95% over devices", justify="right")
    for budget, recall in outcome.recall.items():
        low, high = outcome.interval[budget]
        table.add_row(
            f"{budget:g}", f"{outcome.realised[budget]:.2f}", f"{recall:.2f}", f"{low:.2f} to {high:.2f}"
        )
    console.print(table)
    console.print(
        f"Recall is of {outcome.implant_days} implant-days, false alerts of {outcome.benign_units} benign "
        f"alert units over {outcome.device_days:.1f} device-days; average precision of the units "
        f"{outcome.average_precision:.2f}. Realised: benign units per device-day at or above the score that "
        "promises so many.",
        highlight=False,
    )
    for name, groups in outcome.recall_by.items():
        shares = ", ".join(f"{value} {share:.2f} ({n})" for value, (share, n) in groups.items())
        console.print(
            f"Recall by {name} at one false alert per device-day (implant-days): {shares}.",
            markup=False,
            highlight=False,
        )


def print_health(console: Console, sound: Health) -> None:
    """What can be said without labels."""
    if sound.seen_in_training:
        console.print(
            "Nothing here is later than the training. Its latter half was judged, from which the detector "
            "learned: on new telemetry it raises more and finds less.",
            highlight=False,
        )
    table = Table(box=None, width=80, pad_edge=False)
    table.add_column("alert units per device-day, promised", justify="right")
    table.add_column("raised", justify="right")
    table.add_column("recall of injected implants", justify="right")
    table.add_column("95% over devices", justify="right")
    for budget, recall in sound.injected.recall.items():
        low, high = sound.injected.interval[budget]
        table.add_row(
            f"{budget:g}",
            f"{sound.raised[budget]:.2f}",
            _figure(recall),
            f"{_figure(low)} to {_figure(high)}",
        )
    console.print(table)
    console.print(
        f"Raised over {sound.device_days:.1f} device-days. Recall is of {sound.injected.implant_days} "
        "implant-days injected here, at as many of this telemetry's own units above them as promised: no "
        "estimate of recall on real implants.",
        highlight=False,
    )
    console.print(
        f"Ranks of apps between the two halves of the span: Spearman {_figure(sound.rank_correlation)} "
        f"(n = {sound.ranked} apps on devices).",
        highlight=False,
    )


def _figure(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
