"""drift: whether a detector still fits the telemetry."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from typing import Any

import typer

from appcadence.cli.loading import load_scorer, trusted_keys
from appcadence.cli.log import logged
from appcadence.cli.options import Directory, ExpectModel, Json, Log, Model
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import number, print_table, say, text
from appcadence.features.extraction import load
from appcadence.telemetry.listing import many
from appcadence.training import drift as measurement
from appcadence.training.evaluate import in_words

_MAX_FEATURES = 10


def drift(
    directory: Directory,
    model: Model,
    expect_model: ExpectModel = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Say whether a detector still fits telemetry from after its training: retrain, watch or fine, and why.

    Compares features, apps, scores and the number of alerts with what the bundle recorded in training. Names
    app updates that changed a fleet's traffic, and telemetry that went missing. Ignores windows that begin
    before the end of training. The exit code is 0 whatever the verdict.

    Example: appcadence drift telemetry --model model
    """
    with logged(log), progress_bar() as progress:
        progress("comparing", 0.0)
        scorer = load_scorer(model, expect_model, trusted_keys(directory))
        answer = measurement.drift(scorer.detector, load(directory))
    if as_json:
        typer.echo(json.dumps(answer.as_dict(), allow_nan=False))
        return
    _print(answer)


def _print(answer: measurement.Drift) -> None:
    windows, devices = many(answer.windows, "window"), many(answer.devices, "device")
    say(f"{answer.verdict}: {windows} of {devices} after training.")
    for reason in answer.reasons:
        say(reason, "- ")
    budget = answer.budget
    ratio, low, high = map(in_words, (budget.ratio, budget.low, budget.high))
    say(
        f"Budget: {many(budget.units, 'alerting unit')}, {budget.promised:.0f} promised, ratio {ratio} (95% "
        f"interval {low} to {high}). Stability index of scores: {answer.scores_psi:.2f} (p "
        f"{answer.scores_p:.2g})."
    )
    figures = ("stability", "p (FDR)", "unknown then", "now")
    worst = answer.features.head(_MAX_FEATURES).to_dict("records")
    print_table([text("feature"), *map(number, figures)], map(_cells, worst))
    for note in answer.notes:
        say(note)


def _cells(row: Mapping[Hashable, Any]) -> tuple[str, ...]:
    p = "-" if math.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.3f}"
    return row["feature"], f"{row['psi']:.2f}", p, f"{row['missing_before']:.0%}", f"{row['missing_now']:.0%}"
