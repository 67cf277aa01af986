"""train: a detector from the telemetry of a benign period."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from appcadence._inputs import sha256
from appcadence.cli.evaluate import print_quality
from appcadence.cli.loading import load_scorer, trusted_keys
from appcadence.cli.log import logged
from appcadence.cli.options import Directory, Json, Log, Window, check_directories
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import complain, say
from appcadence.errors import AppcadenceError
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.models.signature import read_key
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import many
from appcadence.telemetry.schema import VERDICTS
from appcadence.telemetry.sheet import read_named
from appcadence.training import train as training
from appcadence.training.evaluate import json_ready
from appcadence.training.search import SEARCHED


def train(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="The bundle directory to write.")] = Path("model"),
    window: Window = "24h",
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    exclude_family: Annotated[
        list[str] | None, typer.Option(help="A feature family that the detector must not use; repeatable.")
    ] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="A Parquet file with the verdicts table: what analysts decided.")
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(help="An earlier MODEL whose baseline and history this training continues."),
    ] = None,
    search_trials: Annotated[
        int, typer.Option(help="Number of hyperparameter settings to try; 0 keeps the defaults.")
    ] = 0,
    register: Annotated[
        bool | None,
        typer.Option(
            "--register/--no-register",
            help="Track the run in MLflow and register it as challenger; by default where "
            "MLFLOW_TRACKING_URI is set.",
        ),
    ] = None,
    sign_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign the bundle with a key of 'appcadence models keygen'."),
    ] = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Learn a detector from the telemetry of a benign period.

    --search-trials N tries N hyperparameter settings of the classifier by cross-validation on the learning
    windows and keeps the best. It does not touch what is held out for calibration and for the figures. A
    trial fits the classifier five times (30 times with fewer than 20 devices).

    Example: appcadence train telemetry --window 24h --out model
    """
    tracked = bool(os.environ.get("MLFLOW_TRACKING_URI")) if register is None else register
    version, failure = None, ""
    check_directories(out=out)
    with logged(log), progress_bar() as progress:
        source = TelemetryDirectory(directory)
        bundle.check_target(out)
        if sign_key is not None:
            read_key(sign_key)
        if tracked:
            from appcadence.training import publish  # MLflow and matplotlib are an extra

            progress("asking MLflow", 0.0)
            publish.check_ready()
        sources: dict[str, str] = {}
        decided = None
        if verdicts is not None:
            decided, sources["verdicts_sha256"] = read_named(verdicts, VERDICTS), sha256(verdicts)
        before = None
        if warm_start is not None:
            earlier = load_scorer(warm_start, None, trusted_keys(directory))
            before, sources["warm_start"] = earlier.detector, earlier.version
        result = training.train(
            load(source),
            window,
            seed,
            exclude_families=tuple(exclude_family or ()),
            verdicts=decided,
            search_trials=search_trials,
            before=before,
            sources=sources,
            progress=progress,
        )
        identity = bundle.save(result.detector, out)
        if sign_key is not None:
            bundle.sign(out, sign_key)
        if tracked:
            try:
                version = publish.publish(result, source, out, progress).model_version
            except AppcadenceError as error:  # what was learned is told first
                failure = f"{error}; the bundle {out} is whole, but not registered"
    if as_json:
        answer = {
            "bundle": str(out),
            "id": identity,
            "params": result.params,
            "metrics": json_ready(result.quality.metrics()),
            "trials": json.loads(result.trials.to_json(orient="records")),
            "registered_version": version,
        }
        typer.echo(json.dumps(answer))
        if failure:
            raise AppcadenceError(failure)
        return
    say(f"Bundle {out} ({identity[:12]}), window {window}.")
    if decided is not None:
        _say_verdicts(result.params)
    if len(result.trials):
        _say_search(result)
    say("On implants injected into held-out telemetry (no estimate of recall on real implants):")
    print_quality(result.quality)
    if (rounds := result.params["rounds"]) > 1:
        say(f"The device-days are {rounds} rounds over the same days, with different implants in each.")
    say(result.detector.card["roughness"])
    if version:
        say(f"Registered as models:/appcadence@challenger, version {version}.")
    if failure:
        raise AppcadenceError(failure)


def _say_verdicts(params: Mapping[str, Any]) -> None:
    windows, learned = params["verdict_windows"], params["verdict_windows_learned"]
    say(
        f"{many(params['verdicts'], 'verdict')} {'decides' if params['verdicts'] == 1 else 'decide'} "
        f"{many(windows, 'window')} of this telemetry. The "
        f"classifier learned from {learned:,} of them, those of its later part."
    )
    if not windows:
        complain(
            "no verdict is about this telemetry; train on telemetry that holds the windows they decided."
        )


def _say_search(result: training.Training) -> None:
    chosen = ", ".join(f"{name} {result.params[name]:g}" for name in SEARCHED)
    criterion = result.trials["criterion"]
    say(
        f"Best of {len(result.trials)} trials on the learning windows: {chosen}. Mean recall at two budgets "
        f"there: {criterion.max():.2f}, with the defaults {criterion[0]:.2f}."
    )
