"""Figures of a training, for tracking: matplotlib without pyplot, so no window and no global state."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from appcadence.training.evaluate import in_words
from appcadence.training.train import Training

_TOP = 20
_BINS = 40
_RESAMPLES = 200
_PROMISED = np.geomspace(0.03, 10, 40)


def training_figures(training: Training) -> dict[str, Figure]:
    """The figures by name: recall by budget (and kind), precision and recall, benign scores, promised and
    counted rates, calibration tail, classifier gains."""
    figures = {
        "recall_at_budget": recall_at_budget(training),
        "precision_recall": precision_recall(training),
        "benign_scores": benign_scores(training),
        "reliability": reliability(training),
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


def precision_recall(training: Training) -> Figure:
    """Precision against recall of alert units, each by its best window; a unit with an implant is a hit."""
    units = training.tested.groupby("unit").agg(score=("score", "max"), implant=("implant", "max"))
    figure, axes = _figure()
    hits = (units["implant"] >= 0).to_numpy()
    if hits.any():
        precision, recall, _ = precision_recall_curve(hits, units["score"])
        axes.step(recall, precision, where="post")
        axes.axhline(hits.mean(), linestyle="--", color="black", linewidth=0.8, label="by chance")
        axes.legend(loc="lower left")
    axes.set(
        xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision",
        title=f"Alert units, held out: average precision {in_words(training.quality.average_precision)}",
    )  # fmt: skip
    return figure


def reliability(training: Training) -> Figure:
    """Benign alert units per device-day that reach the score of each promised rate, with 95% over devices.

    Calibration knew the same devices, so the line shows how well one tail fits all rates, and the band how
    much a few devices weigh; neither shows how later telemetry would do.
    """
    windows = training.tested.astype({"device_id": object})
    units = windows.groupby("unit").agg(
        score=("score", "max"), implant=("implant", "max"), device=("device_id", "first")
    )
    observed = windows.drop_duplicates(["device_id", "round", "window_start"])
    days = observed.groupby("device_id")["observed_seconds"].sum()
    # Days on which nothing could be judged count too, as they do in the quality.
    days *= training.quality.device_days / days.sum()
    benign = units[units["implant"] < 0]
    reached = benign["score"].to_numpy()[:, None] >= -np.log(_PROMISED)
    counts = pd.DataFrame(reached).groupby(benign["device"].to_numpy()).sum()
    counts = counts.reindex(days.index, fill_value=0)
    drawn = np.random.default_rng(0).multinomial(len(days), np.full(len(days), 1 / len(days)), _RESAMPLES)
    rates = (drawn @ counts.to_numpy()) / np.maximum(drawn @ days.to_numpy(), 1e-9)[:, None]
    figure, axes = _figure()
    if len(days) > 1:
        low, high = np.quantile(rates, [0.025, 0.975], axis=0)
        axes.fill_between(_PROMISED, low, high, alpha=0.25, label=f"95% over {len(days)} devices")
    axes.plot(_PROMISED, counts.sum().to_numpy() / days.sum(), label="counted")
    axes.plot(_PROMISED, _PROMISED, linestyle="--", color="black", label="as promised")
    axes.set(
        xscale="log", xlabel="promised benign alert units per device-day",
        ylabel="counted", title="Benign alert units, held out",
    )  # fmt: skip
    axes.set_yscale("symlog", linthresh=0.03)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def stress_map(cells: pd.DataFrame) -> Figure:
    """The table of `stress`: recall (0 to 1) over period and jitter, a panel a share of missed beats, and
    below over the share of the day and of the telemetry that is there."""
    figure = Figure(figsize=(12.0, 7.5), layout="constrained")
    usual = (cells["active"] == 1) & cells["false_units_per_device_day"].isna()
    grid = cells[usual]
    panels = sorted(grid["missed"].unique())
    above = figure.subplots(2, max(len(panels), 3), squeeze=False)
    for axes, missed in zip(above[0], panels, strict=False):
        part = grid[grid["missed"] == missed]
        table, count = (
            part.pivot_table(values, "jitter", "period_seconds", dropna=False)
            for values in ("recall", "implant_days")
        )
        axes.imshow(table.to_numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (row, column), value in np.ndenumerate(table.to_numpy()):
            said = "no\nimplant" if np.isnan(value) else f"{value:.2f}\n({count.iloc[row, column]:.0f})"
            axes.text(column, row, said, ha="center", va="center", color="black" if value > 0.6 else "white")
        axes.set_xticks(range(table.shape[1]), [f"{p / 60:g}" for p in table.columns])
        axes.set_yticks(range(table.shape[0]), [f"{j:g}" for j in table.index])
        axes.set(xlabel="period, minutes", ylabel="jitter", title=f"{missed:.0%} of the beats missed")
    losses = cells[cells["false_units_per_device_day"].notna()]
    lines = {
        "share of the day active": cells[cells["active"] < 1].set_index("active"),
        "share of flows lost": losses[losses["lost_names"] == 0].set_index("lost_flows"),
        "share of app names lost": losses[losses["lost_flows"] == 0].set_index("lost_names"),
    }
    for axes, (label, rows) in zip(above[1], lines.items(), strict=False):
        axes.plot(rows.index, rows["recall"], marker="o", label="recall")
        if rows["false_units_per_device_day"].notna().any():
            axes.plot(
                rows.index, rows["false_units_per_device_day"], marker="s", label="benign units a device-day"
            )
        axes.set(xlabel=label, xlim=(0, 1), ylim=(0, None))
        axes.legend()
    figure.suptitle("Injected beacons found at one promised benign alert unit per device-day (implant-days)")
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
    return figure, figure.add_subplot()
