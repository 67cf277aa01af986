"""evaluate: a detector against labelled telemetry, or its health without labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from appcadence.cli.loading import load_scorer, read_labels, trusted_keys
from appcadence.cli.log import logged
from appcadence.cli.options import Directory, ExpectModel, Json, Log, Model
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import complain, number, print_table, say
from appcadence.features.extraction import load
from appcadence.training.evaluate import TOO_FEW, Quality, in_words, json_ready, share_learned
from appcadence.training.evaluate import evaluate as evaluate_scores
from appcadence.training.probe import HealthCheck, check_health
from appcadence.training.truth import labels_outside


def evaluate(
    directory: Directory,
    model: Model,
    expect_model: ExpectModel = None,
    labels: Annotated[
        Path | None, typer.Option(help="A Parquet file with the labels table; without it, a health check.")
    ] = None,
    log: Log = None,
    as_json: Json = False,
) -> None:
    """Measure a detector against labelled telemetry, or its health without labels.

    Without --labels, it injects implants into the part of the telemetry that is later than the training and
    looks for them, compares the number of alerts with the promise, and compares the ranking of apps between
    the two halves of that part.

    Example: appcadence evaluate telemetry --model model --labels telemetry.labels.parquet
    """
    found: Quality | HealthCheck
    learned: dict[str, float] = {}
    with logged(log), progress_bar() as progress:
        truth = None if labels is None else read_labels(labels, directory)
        scorer = load_scorer(model, expect_model, trusted_keys(directory))
        if truth is None:
            found = check_health(scorer.detector, load(directory), progress=progress)
        else:
            progress("scoring", 0.0)
            tables = load(directory)
            warn_of_labels(truth, tables["flows"])
            found = evaluate_scores(scorer.score(tables), truth, tables["flows"])
            learned = {"share_learned": share_learned(scorer.detector, tables["flows"])}
    if as_json:
        typer.echo(json.dumps(json_ready(found.metrics() | learned)))
    elif isinstance(found, Quality):
        print_quality(found)
        print_learned("the model", learned["share_learned"])
    else:
        print_health(found)


def warn_of_labels(labels: pa.Table, flows: pa.Table) -> None:
    """Say how many malicious labels the telemetry cannot show.

    Raises:
        SchemaError: it can show none.
    """
    outside, count = labels_outside(labels, flows)
    if outside:
        complain(
            f"{outside} of {count} malicious labels lie outside the telemetry's span; they count as missed."
        )


def print_quality(quality: Quality) -> None:
    """Recall at each budget."""
    realised = {budget: in_words(rate) for budget, rate in quality.realised.items()}
    _print_recall(("false alerts per device-day", "realised", "recall"), quality, realised)
    say(
        f"Recall is over {quality.implant_days} implant-days, {quality.unjudged_implant_days} of them "
        f"without a window that can be judged. False alerts are among {quality.benign_units} benign alert "
        f"units over {quality.device_days:.1f} device-days. Average precision of the units: "
        f"{quality.said(quality.average_precision)} ({quality.said(quality.precision_by_chance)} by chance). "
        "Realised: benign units per device-day at or above the score that promises so many."
    )
    for name, groups in quality.recall_by.items():
        shares = ", ".join(f"{value} {share:.2f} ({n})" for value, (share, n) in groups.items())
        say(f"Recall by {name} at one false alert per device-day (implant-days): {shares}.")


def print_learned(model: str, share: float) -> None:
    """Warn of figures that were measured on what a model had learned from."""
    if share:
        say(
            f"{max(share, 0.01):.0%} of these flows come from devices and days that {model} was trained on. "
            "On new telemetry it raises more alerts and finds less: measure on telemetry from after training."
        )


def _print_recall(names: Sequence[str], quality: Quality, rates: Mapping[float, str]) -> None:
    """A row per budget: the rate of alerts, and the recall with its interval."""
    rows = (
        (f"{budget:g}", rates[budget], quality.said(recall), quality.range(budget))
        for budget, recall in quality.recall.items()
    )
    print_table([*map(number, names), number("95% over devices")], rows)


def print_health(found: HealthCheck) -> None:
    """What can be said without labels."""
    if found.seen_in_training:
        say(
            "Nothing here is later than the training, so the second half of this telemetry was judged. The "
            "detector learned from it: on new telemetry it raises more alerts and finds less."
        )
    injected, rate = found.injected, in_words if found.device_days >= 1 else lambda _: TOO_FEW
    _print_recall(
        ("alert units per device-day, promised", "raised", "recall of injected implants"),
        injected,
        {budget: rate(raised) for budget, raised in found.raised.items()},
    )
    say(
        f"Alerts are counted over {found.device_days:.1f} device-days. Recall is over "
        f"{injected.implant_days} implant-days injected here, {injected.unjudged_implant_days} of them "
        "without a window that can be judged, at the threshold that lets the promised number of this "
        "telemetry's own units through. It is no estimate of recall on real implants."
    )
    say(
        f"Rank correlation of apps between the two halves of the span: {in_words(found.rank_correlation)} "
        f"(Spearman, n = {found.ranked} apps on devices)."
    )
