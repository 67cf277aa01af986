"""models list, show, compare, promote, keygen and sign."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from appcadence._inputs import sha256
from appcadence.cli.evaluate import print_learned, warn_of_labels
from appcadence.cli.loading import load_scorer, read_labels, trusted_keys
from appcadence.cli.options import Json, group
from appcadence.cli.progress import progress_bar
from appcadence.cli.terminal import complain, number, print_table, say, text
from appcadence.errors import AppcadenceError, BundleError
from appcadence.features.extraction import load
from appcadence.models.bundle import sign
from appcadence.models.signature import make_key
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.training import registry
from appcadence.training.evaluate import Quality, in_words, json_ready, share_learned
from appcadence.training.evaluate import evaluate as evaluate_scores
from appcadence.training.publish import fingerprint
from appcadence.training.registry import judge

models = group("Registered models: compare challenger with champion, and promote.")
Data = Annotated[
    Path, typer.Option(metavar="DIR", help="Frozen evaluation telemetry, which no model was trained on.")
]
Labels = Annotated[Path, typer.Option(metavar="FILE", help="Its labels table, a Parquet file.")]


@models.command("list")
def list_(as_json: Json = False) -> None:
    """List the versions registered as appcadence, newest first.

    The figures come from training, on implants injected into held-out telemetry. To rank versions, use
    'appcadence models compare' on labelled telemetry.

    Example: appcadence models list
    """
    with progress_bar() as progress:
        progress("asking MLflow", 0.0)
        found = registry.versions()
    if as_json:
        typer.echo(json.dumps([_ready(version) for version in found]))
        return
    if not found:
        say("Nothing is registered; register a model with: appcadence train DIR --register")
        return
    columns = [number("version"), text("aliases")]
    columns += [number(name) for name in ("created", "window", "recall at 0.1", "at 1")]
    print_table([*columns, text("bundle")], map(_cells, found))
    say("Recall at 0.1 and 1 false alerts per device-day, on implants injected in training.")


@models.command()
def show(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Such as models:/appcadence@champion.")],
    as_json: Json = False,
) -> None:
    """Show a version: parameters, figures of training, promotions.

    Example: appcadence models show models:/appcadence@challenger
    """
    with progress_bar() as progress:
        progress("asking MLflow", 0.0)
        version = registry.find(model)
    if as_json:
        typer.echo(json.dumps(_ready(version)))
        return
    facts = {
        "model": version.uri,
        "aliases": ", ".join(version.aliases) or "-",
        "created": version.created,
        "bundle": version.bundle or "-",
        "model card": f"runs:/{version.run_id}/card.md",
    }
    figures = {name: f"{value:.4g}" for name, value in version.metrics.items()}
    for title, rows in (("", facts), ("Trained with", version.params), ("Figures of training", figures)):
        if title:
            say()
            say(f"{title}:")
        print_table([text(), text()], rows.items())
    say()
    say("Promotions:" if version.promotions else "Never promoted.")
    for record in version.promotions:
        over = f"over version {record['over']}" if record["over"] else "as the first champion"
        forced = ", forced although " + "; ".join(record["reasons"]) if record["forced"] else ""
        say(f"{record['time']}: {over}{forced}")


@models.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A bundle directory or an MLflow URI.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    data: Data,
    labels: Labels,
    as_json: Json = False,
) -> None:
    """Measure two models on the same labelled telemetry, side by side.

    Example: appcadence models compare models:/appcadence@champion model --data frozen --labels
    frozen.labels.parquet
    """
    (first, second), learned = _measure([a, b], data, labels)
    if as_json:
        metrics = [
            json_ready(outcome.metrics() | {"share_learned": share})
            for outcome, share in zip((first, second), learned, strict=True)
        ]
        typer.echo(json.dumps(dict(zip("ab", metrics, strict=True))))
        return
    say(f"A: {a}")
    say(f"B: {b}")
    _print_both({"A": first, "B": second})
    for name, share in zip("AB", learned, strict=True):
        print_learned(name, share)


@models.command()
def promote(
    data: Data,
    labels: Labels,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="The registered version to promote.")
    ] = "models:/appcadence@challenger",
    force: Annotated[bool, typer.Option("--force", help="Promote a refused model, and record why.")] = False,
    as_json: Json = False,
) -> None:
    """Make a version the champion, unless it is worse than the champion.

    On the frozen telemetry the version may lose no more than 0.02 of recall at 0.1 and at 1 false alerts per
    device-day, and at a promise of 1 it may raise no more than 1.25, or than the champion does. Without a
    champion only the second rule applies. A version that was trained on this telemetry is refused. The
    figures, the checksums of the evaluation set and what --force overruled are recorded with the version.

    Example: appcadence models promote --data frozen --labels frozen.labels.parquet
    """
    candidate = registry.find(model)
    current = registry.champion(candidate.name)
    if current is not None and current.version == candidate.version:
        raise AppcadenceError(f"version {candidate.version} is the champion already; nothing to promote")
    both, reasons = _judged(candidate, current, data, labels)
    over = None if current is None else current.version
    record = {
        "over": over,
        "forced": bool(force and reasons),
        "reasons": reasons,
        "figures": {name: _gate_figures(outcome) for name, outcome in both.items()},
        "evaluation": _evaluation_set(data, labels),
    }
    promoted = force or not reasons
    if promoted:
        registry.promote(candidate, record)
    if as_json:
        answer = {"promoted": promoted, "model": candidate.uri}
        typer.echo(json.dumps(answer | record))
    else:
        _print_both(both)
    for reason in reasons:
        verdict = "forced" if force else "not promoted"
        complain(f"version {candidate.version} {verdict}: {reason}.")
    if not promoted:
        raise typer.Exit(2)
    if not as_json:
        say(f"Version {candidate.version} is the champion" + (f", over version {over}." if over else "."))


@models.command()
def keygen(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write the private key to; it must not exist.")
    ],
    as_json: Json = False,
) -> None:
    """Make a key to sign models with; print its public half.

    Example: appcadence models keygen signing.pem
    """
    key = make_key(file)
    if as_json:
        typer.echo(json.dumps({"key": key, "file": str(file)}))
        return
    say(key)
    say(f"The private key is in {file}: keep it only where models are made.")
    say('To score, put the public key above in the settings: [model] trusted_keys = ["ed25519:..."]')


@models.command("sign")
def sign_(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle directory.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key; only its owner may read it.")],
    as_json: Json = False,
) -> None:
    """Sign a bundle. The signature covers its id, which depends on every byte of the bundle.

    A bundle that is trained again must be signed again. To register a signed model in MLflow, use
    'appcadence train --sign-key'.

    Example: appcadence models sign model --key signing.pem
    """
    identity, signer = sign(bundle, key)
    if as_json:
        typer.echo(json.dumps({"bundle": str(bundle), "id": identity, "key": signer}))
        return
    say(f"Bundle {bundle} is signed by {signer}; its id:")
    say(identity)


def _judged(
    candidate: registry.Version, current: registry.Version | None, data: Path, labels: Path
) -> tuple[dict[str, Quality], list[str]]:
    """The quality by role, and the reasons to refuse the candidate."""
    if current is None:
        (challenger,), (learned,) = _measure([candidate.uri], data, labels)
        return {"challenger": challenger}, list(judge(None, challenger, learned))
    try:
        (champion, challenger), (_, learned) = _measure([current.uri, candidate.uri], data, labels)
    except BundleError:
        # A champion of an older feature schema must not bar its successor for good: --force may overrule.
        (challenger,), (learned,) = _measure([candidate.uri], data, labels)
        unusable = f"the champion, version {current.version}, cannot be loaded to compare with"
        return {"challenger": challenger}, [unusable, *judge(None, challenger, learned)]
    return {"champion": champion, "challenger": challenger}, list(judge(champion, challenger, learned))


def _measure(names: list[str], data: Path, labels: Path) -> tuple[list[Quality], list[float]]:
    """The quality of each model, and the share of the telemetry that it was trained on."""
    truth = read_labels(labels, data)
    keys = trusted_keys(data)
    scorers = [load_scorer(name, None, keys) for name in names]
    with progress_bar() as progress:
        progress("reading", 0.0)
        tables: Mapping[str, pa.Table] = load(data)
        warn_of_labels(truth, tables["flows"])
        out = []
        for k, scorer in enumerate(scorers):
            progress(f"scoring with model {k + 1} of {len(scorers)}", k / len(scorers))
            out.append(evaluate_scores(scorer.score(tables), truth, tables["flows"]))
    return out, [share_learned(scorer.detector, tables["flows"]) for scorer in scorers]


def _evaluation_set(data: Path, labels: Path) -> dict[str, str]:
    """Checksums that show whether two promotions used the same evaluation set."""
    text = json.dumps(fingerprint(TelemetryDirectory(data)), sort_keys=True)
    return {
        "telemetry_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "labels_sha256": sha256(labels),
    }


def _gate_figures(outcome: Quality) -> dict[str, Any]:
    kept = ("implant_days", "device_days")
    figures = json_ready(outcome.metrics())
    return {k: v for k, v in figures.items() if k in kept or k.endswith("_per_device_day")}


def _print_both(both: dict[str, Quality]) -> None:
    names = ("false alerts per device-day", *(f"{k} {name}" for name in both for k in ("recall", "95%")))
    first = next(iter(both.values()))
    rows: list[tuple[str, ...]] = []
    for budget in first.recall:
        cells = []
        for outcome in both.values():
            cells += [outcome.said(outcome.recall[budget]), outcome.range(budget)]
        rows.append((f"{budget:g}", *cells))
    print_table([number(name) for name in names], rows)
    rows = [
        (f"raised at a promise of {budget:g}", *(in_words(q.realised[budget]) for q in both.values()))
        for budget in first.realised
    ]
    rows.append(("average precision", *(q.said(q.average_precision) for q in both.values())))
    rows.append(("median days to find", *(in_words(q.first_found_days, ".1f") for q in both.values())))
    print_table([text(), *map(number, both)], rows)
    say(
        f"On {first.implant_days} implant-days, {first.benign_units} benign alert units and "
        f"{first.device_days:.1f} device-days; 95% intervals are over devices."
    )


def _cells(version: registry.Version) -> tuple[str, ...]:
    recall = (version.metrics.get(f"recall_at_{b}_per_device_day") for b in ("0.1", "1"))
    return (
        version.version,
        ", ".join(version.aliases) or "-",
        version.created[:10],
        version.params.get("window", "-"),
        *("-" if figure is None else f"{figure:.2f}" for figure in recall),
        (version.bundle or "-")[:12],
    )


def _ready(version: registry.Version) -> dict[str, Any]:
    return asdict(version) | {"uri": version.uri, "metrics": json_ready(version.metrics)}
