"""Figures of a training, for tracking: matplotlib without pyplot, so there is no window and no global
state."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from appcadence._types import DAY_US, HOUR_US, Micros
from appcadence.features.windows import APP_LEVEL
from appcadence.telemetry.schema import TIME
from appcadence.training.evaluate import in_words
from appcadence.training.injection import Tables
from appcadence.training.probe import Probe, as_of, probe
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
    """Recall by kind of implant, at one benign alert unit per device-day."""
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

    Calibration saw the same devices. The line therefore shows how well one tail fits all rates, and the band
    how much single devices matter; neither shows how well the promise holds on later telemetry.
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
                rows.index,
                rows["false_units_per_device_day"],
                marker="s",
                label="benign units per device-day",
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


_EACH = 3
_PER_DEVICE_DAY = 1.5
_GAP_US = 30_000_000
"""Flows that start later than this after all ends so far begin another session."""
_MAX_CHARACTERS = 40
_BANDS = (("app_foreground", "app in foreground", "tab:green"), ("device_unlocked", "unlocked", "tab:orange"))


def rasters(training: Training, tables: Tables) -> Figure | None:
    """Starts of sessions over 24 hours (UTC) of three found and three missed implants, no kind twice a side.

    The implants are those that training injected into the held-out devices first, in `tables`, its telemetry;
    where channels were held out, implants like those it learned from, on any device. Above the channel's
    sessions stand those of the app's other channels, pushes, and the user's presence as far as it is known.
    None where no implant-day has a window.
    """
    detector, later = as_of(training, tables)
    seed = training.params["seed"] * 1000 + 500
    shown = probe(detector, later, seed, _PER_DEVICE_DAY, devices=training.held_out)
    days = shown.truth.days
    days = days[np.isin(np.arange(len(days)), shown.truth.day)].sort_values(
        "score", ascending=False, kind="stable"
    )
    found = days["score"] >= 0
    sides = [days[mask].drop_duplicates("kind").head(_EACH) for mask in (found, ~found)]
    if not any(map(len, sides)):
        return None
    figure = Figure(figsize=(14.0, 2.6 * max(map(len, sides))), layout="constrained")
    grid = figure.subplots(max(map(len, sides)), 2, squeeze=False, sharex=True)
    for column, (word, side) in enumerate(zip(("found", "missed"), sides, strict=True)):
        for row, axes in enumerate(grid[:, column]):
            if row < len(side):
                _draw(axes, shown, later, side.index[row], word)
            else:
                axes.set_visible(False)
    return figure


def _draw(axes: Axes, shown: Probe, later: Tables, number: int, word: str) -> None:
    day = shown.truth.days.loc[number]
    begin = int(day["day"].value // 1000)
    windows = shown.windows.iloc[shown.truth.window[shown.truth.day == number]]
    channels = windows[windows["dest"] != APP_LEVEL]
    device = str(day["device_id"])
    app = next((a for a in windows["app_id"] if pd.notna(a)), None)
    flows = _rows_of(shown.flows, "start", begin, device, app)
    dests = set(channels["dest"])
    mine = (flows["dest_host"].astype(object).fillna(flows["dest_ip"].astype(object))).isin(dests)
    lanes = [("this channel", _starts(flows[mine]), "tab:blue")]
    if app is not None:
        lanes.append(("the app's others", _starts(flows[~mine]), "tab:gray"))
        pushes = _known(later.get("notifications"), "push_received", device)
        if pushes is not None:
            lanes.append(("pushes", _micros(_rows_of(pushes, "time", begin, device, app)["time"]), "tab:red"))
    labels = []
    for height, (label, times, colour) in enumerate(lanes):
        axes.eventplot((times - begin) / HOUR_US, lineoffsets=height, linelengths=0.8, colors=colour)
        labels.append(label)
    for kind, label, colour in _BANDS:
        spans = _spans(later.get("activity"), kind, begin, device, app)
        if spans is not None:
            axes.broken_barh(spans, (len(labels) - 0.4, 0.8), facecolors=colour)
            labels.append(label)
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlim=(0, 24), ylim=(-0.6, len(labels) - 0.4), xticks=range(0, 25, 3), xlabel="hour, UTC")
    score = "too little evidence" if np.isneginf(day["score"]) else f"score {day['score']:.1f}"
    names = (app or "(unknown app)", device, ", ".join(sorted(dests)) or "unknown")
    where = "{} on {} to {}".format(*map(inert, names))
    axes.set_title(f"{word}, {score}: {day['kind']}\n{where}", fontsize=9, loc="left", parse_math=False)


def inert(name: str) -> str:
    """A name as plain ASCII, cut after 40 characters: nothing in it is markup, and every font has it."""
    plain = "".join(c if c.isprintable() else "?" for c in name)
    plain = plain.encode("ascii", "backslashreplace").decode("ascii")
    return plain if len(plain) <= _MAX_CHARACTERS else plain[: _MAX_CHARACTERS - 3] + "..."


def _rows_of(table: pa.Table, column: str, begin: int, device: str, app: str | None) -> pd.DataFrame:
    """Rows of a day, device and app (None = of unknown apps)."""
    time = table[column].cast(TIME).cast(pa.int64())
    mask = pc.and_(pc.greater_equal(time, begin), pc.less(time, begin + DAY_US))
    mask = pc.and_(mask, pc.equal(table["device_id"].cast(pa.string()), device))
    apps = table["app_id"].cast(pa.string())
    of_app = pc.is_null(apps) if app is None else pc.fill_null(pc.equal(apps, app), False)
    return pd.DataFrame(table.filter(pc.and_(mask, of_app)).to_pandas())


def _known(table: pa.Table | None, kind: str, device: str) -> pa.Table | None:
    """A device's rows of a kind over all time, None where its telemetry has none."""
    if table is None:
        return None
    mine = pc.equal(table["device_id"].cast(pa.string()), device)
    rows = table.filter(pc.and_(mine, pc.equal(table["kind"].cast(pa.string()), kind)))
    return rows if len(rows) else None


def _starts(flows: pd.DataFrame) -> Micros:
    """Starts of the sessions of some flows, each destination by itself, in microseconds since the epoch."""
    start = flows["start"]
    end = start + pd.to_timedelta(flows["duration_seconds"].fillna(0.0), unit="s")
    dest = flows["dest_host"].astype(object).fillna(flows["dest_ip"].astype(object)).fillna("")
    rows = pd.DataFrame({"dest": dest, "start": _micros(start), "end": _micros(end)}).sort_values("start")
    by_dest = rows.groupby("dest")
    before = by_dest["end"].cummax().groupby(rows["dest"]).shift()
    return rows.loc[before.isna() | (rows["start"] > before + _GAP_US), "start"].to_numpy(np.int64)


def _micros(times: pd.Series) -> Micros:
    return np.asarray(times.dt.as_unit("us").astype("int64"), np.int64)


def _spans(
    activity: pa.Table | None, kind: str, begin: int, device: str, app: str | None
) -> list[tuple[float, float]] | None:
    """(hour, hours) within the day; None where the device's telemetry never knows this kind."""
    known = _known(activity, kind, device)
    if known is None or (kind == "app_foreground" and app is None):
        return None
    rows = known.to_pandas()
    if kind == "app_foreground":
        rows = rows[rows["app_id"].astype(object) == app]
    first = np.maximum(_micros(rows["start"]), begin)
    end = rows["end"].fillna(pd.Timestamp(begin + DAY_US, unit="us", tz="UTC"))
    last = np.minimum(_micros(end), begin + DAY_US)
    kept = last >= first
    return [((a - begin) / HOUR_US, (b - a) / HOUR_US) for a, b in zip(first[kept], last[kept], strict=True)]
