"""Figures of a training, for tracking: matplotlib without pyplot, so no window and no global state."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from appcadence.training.train import Training

_TOP = 20
_BINS = 40


def training_figures(training: Training) -> dict[str, Figure]:
    """The figures by name: recall by budget (and kind), benign scores, calibration tail, classifier gains."""
    figures = {
        "recall_at_budget": recall_at_budget(training),
        "benign_scores": benign_scores(training),
        "calibration_tail": calibration_tail(training),
        "classifier_gain": classifier_gain(training),
    }
    return figures | ({"recall_by_kind": recall_by_kind(training)} if training.quality.recall_by_kind else {})


def recall_at_budget(training: Training) -> Figure:
    """Share of injected implants found (0 to 1) against benign alert units per device-day."""
    figure, axes = _figure()
    budgets = sorted(training.quality.recall)
    axes.plot(budgets, [training.quality.recall[b] for b in budgets], marker="o")
    axes.set(
        xscale="log", ylim=(0, 1.03), xlabel="benign alert units per device-day", ylabel="recall",
        title="Injected implants found, held out (no estimate of recall on real ones)",
    )  # fmt: skip
    return figure


def recall_by_kind(training: Training) -> Figure:
    """The same for each kind of implant, at one benign alert unit per device-day."""
    found = sorted(training.quality.recall_by_kind.items(), key=lambda item: item[1])
    figure, axes = _figure(1.5 + 0.3 * len(found))
    axes.barh([kind for kind, _ in found], [share for _, share in found])
    axes.set(xlim=(0, 1), xlabel="recall", title="Injected implants found, by kind")
    return figure


def benign_scores(training: Training) -> Figure:
    """Histogram of the held-out benign windows' scores; 0 is the score of one alert per device-day."""
    figure, axes = _figure()
    for stratum, calibration in training.detector.calibration.items():
        scores = calibration.scale(calibration.windows)
        if len(scores):
            axes.hist(scores, bins=_BINS, histtype="step", label=f"{stratum} ({len(scores)} windows)")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set(xlabel="score", ylabel="windows", title="Held-out benign windows")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure


def calibration_tail(training: Training) -> Figure:
    """Benign alert units per device-day above a score: counted, and the exponential tail that is promised."""
    figure, axes = _figure()
    for stratum, calibration in training.detector.calibration.items():
        scores = calibration.scale(calibration.units)[::-1]
        rate = np.arange(1, len(scores) + 1) / calibration.device_days
        axes.step(scores, rate, where="post", label=f"{stratum}, counted")
    line = np.linspace(-3, 4, 50)
    axes.plot(line, np.exp(-line), linestyle="--", color="black", label="promised")
    axes.set(
        yscale="log", xlim=(-3, 4), xlabel="score", ylabel="benign alert units per device-day",
        title="Calibration tail, held out",
    )  # fmt: skip
    axes.legend()
    return figure


def classifier_gain(training: Training) -> Figure:
    """Summed split gains of the classifier's 20 strongest features, values and distances together."""
    gain = gains(training.detector.classifier_text)
    top = sorted(gain.items(), key=lambda item: item[1])[-_TOP:]
    figure, axes = _figure(1.5 + 0.25 * len(top))
    axes.barh([name for name, _ in top], [value for _, value in top])
    axes.set(xlabel="summed split gain", title="What the classifier splits on")
    return figure


def gains(text: str) -> dict[str, float]:
    """Summed split gain by feature from LightGBM's own text of a model; `X_distance` counts for `X`."""
    names: list[str] = []
    index: list[int] = []
    out: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "feature_names":
            names = value.split()
        elif key == "split_feature":
            index = [int(part) for part in value.split()]
        elif key == "split_gain":
            for i, gain in zip(index, value.split(), strict=True):
                out[names[i].removesuffix("_distance")] += float(gain)
    return dict(out)


def _figure(height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
