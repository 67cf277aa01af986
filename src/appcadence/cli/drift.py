"""drift: whether a detector still fits the telemetry."""

from __future__ import annotations

import json as jsonlib
import math
import textwrap

import typer
from rich.console import Console
from rich.table import Table

from appcadence.cli.detect import Directory, Json, Model, load_scorer
from appcadence.cli.inventory import plain
from appcadence.cli.progress import progress_bar
from appcadence.features.extraction import load
from appcadence.training import drift as measurement

_WIDTH = 80
_MAX_FEATURES = 10


def drift(directory: Directory, model: Model, json: Json = False) -> None:
    """Say whether a detector still fits telemetry from after its training: retrain, watch or fine, and why.

    Compares features, apps, scores and the alert budget with what the bundle holds of its training, and
    names an app update that moved a fleet and telemetry that went missing. Windows that begin before the
    end of training are left out. The exit code is 0 whatever the verdict.

    Example: appcadence drift telemetry --model model
    """
    with progress_bar() as progress:
        progress("comparing", 0.0)
        answer = measurement.drift(load_scorer(model).detector, load(directory))
    if json:
        typer.echo(jsonlib.dumps(answer.as_dict(), allow_nan=False))
        return
    _print(answer)


def _print(answer: measurement.Drift) -> None:
    console = Console(width=_WIDTH, highlight=False)

    def say(line: str, indent: str = "") -> None:
        wrapped = textwrap.fill(
            plain(line), _WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent)
        )
        console.print(wrapped, markup=False)

    say(f"{answer.verdict}: {answer.windows:,} windows of {answer.devices:,} device(s) after training.")
    for reason in answer.reasons:
        say(reason, "- ")
    budget = answer.budget
    say(
        f"Budget: {budget.units} alerting units, {budget.promised:.0f} promised; {budget.ratio:.2f} times it "
        f"(95% interval {budget.low:.2f} to {budget.high:.2f}). Stability index of scores: "
        f"{answer.scores_psi:.2f}."
    )
    console.print(_features(answer))
    for note in answer.notes:
        say(note)


def _features(answer: measurement.Drift) -> Table:
    table = Table(box=None, width=_WIDTH, pad_edge=False)
    table.add_column("feature", overflow="fold", ratio=1)
    for name in ("stability", "p (FDR)", "unknown then", "now"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in answer.features.head(_MAX_FEATURES).to_dict("records"):
        p = "-" if math.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.3f}"
        before, now = f"{row['missing_before']:.0%}", f"{row['missing_now']:.0%}"
        table.add_row(row["feature"], f"{row['psi']:.2f}", p, before, now)
    return table
