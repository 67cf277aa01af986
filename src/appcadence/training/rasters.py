"""A day of some injected implants as a person would look at it: found ones, and ones that were missed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from appcadence._types import DAY_US, HOUR_US, Micros
from appcadence.features.windows import APP_LEVEL
from appcadence.telemetry.schema import TIME
from appcadence.training.injection import Tables
from appcadence.training.probe import Probe, as_of, probe
from appcadence.training.train import Training

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
    flows = _of(shown.flows, "start", begin, device, app)
    dests = set(channels["dest"])
    mine = (flows["dest_host"].astype(object).fillna(flows["dest_ip"].astype(object))).isin(dests)
    lanes = [("this channel", _starts(flows[mine]), "tab:blue")]
    if app is not None:
        lanes.append(("the app's others", _starts(flows[~mine]), "tab:gray"))
        pushes = _known(later.get("notifications"), "push_received", device)
        if pushes is not None:
            lanes.append(("pushes", _micros(_of(pushes, "time", begin, device, app)["time"]), "tab:red"))
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


def _of(table: pa.Table, column: str, begin: int, device: str, app: str | None) -> pd.DataFrame:
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
