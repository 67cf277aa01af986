"""The model card: what a detector was trained on, promises (and how roughly), and cannot see."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from appcadence.training.evaluate import in_words
from appcadence.training.train import Training

_BLIND = (
    "Requests inside one HTTP/2 or QUIC connection: flow records cannot tell them apart.",
    "Flows without an app name are judged by destination alone, on a calibration of their own.",
    "Whether the user was present and whether a push started the traffic, where no such telemetry exists.",
    "Windows with too little evidence: they are listed as such and get no score.",
)
_LIMITS = (
    "What was compromised throughout the training period is part of the baseline and looks usual.",
    "Promised rates hold while later telemetry is like the held-out one: same sources, apps and season. "
    "A new app, a new release or another log source calls for a new training.",
    "A high score says that the rhythm is unexplained, not that the app is malicious.",
    "Contributions are tree-path contributions, not Shapley values, and no causes.",
)


def model_card(training: Training, dataset: dict[str, Any]) -> str:
    """The card as Markdown; `dataset` is the fingerprint that `publish` makes."""
    p, q = training.params, training.quality
    held = p["held_out"] if p["held_out"] != "channels" else "channels of the same devices (too few devices)"
    tables = "\n".join(
        f"| {name} | {entry['rows']:,} | {len(entry['files'])} | `{_digest(entry)}` |"
        for name, entry in sorted(dataset.get("tables", {}).items())
    )
    budgets = "\n".join(f"| {budget:g} | {q.said(recall)} |" for budget, recall in q.recall.items())
    kinds = "".join(f"| {kind} | {q.said(recall)} |\n" for kind, recall in q.recall_by_kind.items())
    if kinds:
        kinds = f"\n| kind, at 1 benign unit per device-day | recall |\n|---|---|\n{kinds}"
    return f"""# appcadence detector

Ranks windows of an app's traffic to a destination by how little the user or the app's purpose explains
their rhythm.

## Trained on

{p["devices"]} devices, {p["flows"]:,} flows{_span(dataset)},
windows of {p["window"]}, seed {p["seed"]}. Excluded feature families: {p["excluded_families"]}.
{p["implants"]:,} implants were injected as flows; no real implant was seen. The classifier has {p["trees"]}
trees of {p["leaves"]} leaves a bag and learning rate {p["learning_rate"]:g}, {_chosen(p["search_trials"])}.

| table | rows | files | SHA-256 (start) |
|---|---|---|---|
{tables}

## Held out

Calibrated and measured on {held}, later in time than the baseline they are judged against:
{p["calibration_windows"]:,} benign windows over {p["calibration_device_days"]:g} device-days for calibration,
{q.device_days:.1f} device-days in {p["rounds"]} rounds of injection for measuring, which repeat the same
benign windows.

## Promised rates

Score 0 is exceeded by one benign alert unit per device-day; each factor e fewer adds one to the score.
{training.detector.card.get("roughness", "")}

Measured on held-out benign windows: {in_words(q.realised[1.0])} benign alert units per device-day at or
above 0.

## Quality on injected implants

This is **no estimate of recall on real implants**: the same generator made the implants that were learned
from and those that were looked for.

| benign alert units per device-day | recall |
|---|---|
{budgets}
{kinds}
{q.implant_days} implant-days, every one that was injected: {q.unjudged_implant_days} had no window that could
be judged, and count as missed. {q.benign_units} benign alert units; average precision
{q.said(q.average_precision)}.

## Blind spots

{_list(_BLIND)}

## Limits

{_list(_LIMITS)}

## Intended use

Ordering windows of managed iOS devices for an analyst's triage, on telemetry like that of the training. Not
for blocking traffic or judging people without review.
"""


def _chosen(trials: int) -> str:
    return f"the best of {trials} draws on the learning windows alone" if trials else "not searched for"


def _span(dataset: dict[str, Any]) -> str:
    if "first" not in dataset:
        return ""
    first, last = (datetime.fromisoformat(dataset[end]) for end in ("first", "last"))
    days = (last - first).total_seconds() / 86_400
    return f" over {days:.1f} days ({first:%Y-%m-%d} to {last:%Y-%m-%d})"


def _digest(entry: dict[str, Any]) -> str:
    files = entry["files"]
    return " ".join(file["sha256"][:12] for file in files[:3]) + (" ..." if len(files) > 3 else "")


def _list(sentences: tuple[str, ...]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)
