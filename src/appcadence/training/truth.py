"""Truth: implant-days of a labels table and the windows that show them, and analysts' decisions on
windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask
from appcadence.errors import SchemaError
from appcadence.features.columns import micros
from appcadence.features.windows import APP_LEVEL
from appcadence.telemetry.arrays import row_and_place
from appcadence.telemetry.schema import LABELS, conform
from appcadence.telemetry.verdicts import latest_decisions

_DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class Truth:
    """Implant-days and the windows that show each. An implant-day is one implant on one UTC day, over all
    hosts."""

    days: pd.DataFrame
    """(m, ...) one row per implant-day: device_id, case_id, day, and the columns to break recall down by."""
    window: Codes
    """(k,) row of a window; `day` holds the row of the implant-day that it shows."""
    day: Codes


def truth_of_carriers(frame: pd.DataFrame, implant: Codes, number: Codes) -> Truth:
    """The implant-days among windows of known truth: one carrier of implants on one day of one round.

    Args:
        frame: n windows with device_id, window_start and implant_kind.
        implant: (n,) code of the carrier, -1 = benign.
        number: (n,) the round.
    """
    rows = np.asarray(np.flatnonzero(implant >= 0), np.int64)
    part = frame.iloc[rows]
    key = pd.DataFrame(
        {
            "case_id": implant[rows].astype(str) + np.char.add("/", number[rows].astype(str)),
            "day": part["window_start"].dt.floor("D").to_numpy(),
            "device_id": part["device_id"].astype(object).to_numpy(),
            "kind": part["implant_kind"].astype(object).to_numpy(),
        }
    )
    code = key.groupby(["case_id", "day"]).ngroup().to_numpy(np.int64)
    heads = np.unique(code, return_index=True)[1]
    return Truth(key.iloc[heads].reset_index(drop=True), rows, code.astype(np.int64))


def with_names(labels: pa.Table, flows: pa.Table) -> pa.Table:
    """The labels, plus a copy of each label on an address for every host name that the device's flows to it
    have.

    The telemetry often has a name for an address that the truth gives.
    """
    labels = conform(LABELS, labels, "labels")
    text = {name: flows[name].cast(pa.string()) for name in ("device_id", "dest_ip", "dest_host")}
    both = pa.table(text).filter(pc.is_in(text["dest_ip"], pc.unique(labels["dest"].cast(pa.string()))))
    both = both.filter(pc.is_valid(both["dest_host"])).group_by(list(text)).aggregate([]).to_pandas()
    more = labels.to_pandas().astype({"device_id": object, "dest": object})
    more = more.merge(both, left_on=["device_id", "dest"], right_on=["device_id", "dest_ip"])
    more["dest"] = more["dest_host"]
    added = pa.Table.from_pandas(more[[c.name for c in LABELS.columns]], preserve_index=False)
    return pa.concat_tables([labels, conform(LABELS, added, "labels")]).unify_dictionaries()


def labels_outside(labels: pa.Table, flows: pa.Table) -> tuple[int, int]:
    """How many malicious labels lie wholly before or after the flows, and how many there are.

    Raises:
        SchemaError: all of them do.
    """
    bad = labels.filter(pc.equal(labels["label"].cast(pa.string()), "malicious"))
    start = micros(flows["start"])
    if not len(bad) or not len(start):
        return 0, len(bad)
    lasted = pc.fill_null(flows["duration_seconds"].cast(pa.float64()), 0.0).to_numpy() * 1e6
    first, last = int(start.min()), int((start + lasted.astype(np.int64)).max())
    outside = int(((micros(bad["end"]) < first) | (micros(bad["start"]) > last)).sum())
    if outside == len(bad):
        span = " to ".join(f"{pd.Timestamp(us, unit='us'):%Y-%m-%d %H:%M}" for us in (first, last))
        raise SchemaError(
            f"none of the {len(bad)} malicious labels lies in the span of the telemetry, {span} UTC; give "
            "labels of this telemetry"
        )
    return outside, len(bad)


def truth_of(windows: pd.DataFrame, labels: pa.Table) -> tuple[Truth, Mask]:
    """The implant-days of a labels table among windows, and the windows that a label says to ignore.

    A window shows an implant-day if it overlaps the label on that day and has its device, app and
    destination, or is the app's `*` window. Labels with the same `case_id` are one implant; without a
    `case_id`, those with the same device and app (or destination). An implant-day without any window stays in
    the truth and is missed.

    Raises:
        SchemaError: `labels` does not fit its declaration.
    """
    truth = conform(LABELS, labels, "labels").to_pandas()
    for column in ("device_id", "app_id", "dest", "label", "kind", "case_id"):
        truth[column] = truth[column].astype(object)
    truth["who"] = truth["app_id"].fillna("")
    whole = truth["device_id"] + "\x1f" + truth["who"].where(truth["who"] != "", truth["dest"])
    truth["case_id"] = truth["case_id"].fillna(whole)
    truth["kind"] = truth["kind"].fillna("malicious")
    daily = _by_day(truth[truth["label"].eq("malicious")])
    code = pd.factorize(daily["case_id"] + "\x1f" + daily["day"].astype(str))[0]
    heads = pd.Series(np.arange(len(daily))).groupby(code).first()
    days = daily.iloc[heads][["device_id", "case_id", "day", "kind"]].reset_index(drop=True)
    window, label = overlaps(windows, daily)
    pairs = np.unique(np.column_stack([window, code[label]]), axis=0)
    ignored = np.zeros(len(windows), np.bool_)
    ignored[overlaps(windows, truth[truth["label"].eq("ignore")])[0]] = True
    return Truth(days, pairs[:, 0], pairs[:, 1]), ignored


def _by_day(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels split at UTC midnights."""
    first, last = labels["start"].dt.floor("D"), (labels["end"] - pd.Timedelta(1, "us")).dt.floor("D")
    row, later = row_and_place(np.maximum((last - first) // _DAY, 0).to_numpy(np.int64) + 1)
    out = labels.iloc[row].reset_index(drop=True)
    out["day"] = first.iloc[row].reset_index(drop=True) + pd.to_timedelta(later, unit="D")
    out["start"] = out[["start", "day"]].max(axis=1)
    out["end"] = np.minimum(out["end"], out["day"] + _DAY)
    return out


def overlaps(windows: pd.DataFrame, labels: pd.DataFrame) -> tuple[Codes, Codes]:
    """Pairs of a window and a label (row numbers) with the same device, app and destination that overlap in
    time."""
    left = pd.DataFrame({name: windows[name].to_numpy() for name in ("window_start", "window_end")})
    left["device_id"], left["dest"] = (
        windows[name].astype(object).to_numpy() for name in ("device_id", "dest")
    )
    left["who"] = windows["app_id"].astype(object).fillna("").to_numpy()
    left["window"] = np.arange(len(left))
    right = labels[["device_id", "who", "dest", "start", "end"]].assign(label=np.arange(len(labels)))
    pairs = left.merge(right, on=["device_id", "who"], suffixes=("", "_label"))
    hit = pairs["dest"].eq(pairs["dest_label"])
    hit |= pairs["dest"].eq(APP_LEVEL) | pairs["dest_label"].eq(APP_LEVEL)
    hit &= (pairs["start"] < pairs["window_end"]) & (pairs["end"] > pairs["window_start"])
    return pairs.loc[hit, "window"].to_numpy(np.int64), pairs.loc[hit, "label"].to_numpy(np.int64)


VERDICT_WEIGHT = 5.0
"""Weight of a window that an analyst decided on; injected and undecided windows have weight 1."""


def verdict_of(windows: pd.DataFrame, verdicts: pa.Table) -> np.ndarray:
    """(n,) the verdict on each window: malicious, benign, unexplained, or None.

    A verdict applies to the windows of its device, app and destination that it overlaps; one on an app's `*`
    window applies to all windows of the app. If analysts disagree, the window is unexplained. Of several
    verdicts by one analyst, the last counts.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    rows = latest_decisions(verdicts).rename(columns={"window_start": "start", "window_end": "end"})
    rows["who"] = rows["app_id"].fillna("")
    window, row = overlaps(windows, rows)
    said = pd.DataFrame({"window": window, "verdict": rows["verdict"].to_numpy()[row]}).drop_duplicates()
    out = np.full(len(windows), None, dtype=object)
    by_window = said.groupby("window")["verdict"]
    agreed = by_window.first().where(by_window.size() == 1, "unexplained")
    out[agreed.index.to_numpy()] = agreed.to_numpy()
    return out


def taught(windows: pd.DataFrame, verdicts: pa.Table, learned: pd.DataFrame) -> dict[str, int]:
    """How many decisions there are, how many windows they cover, and how many of the windows learned from."""
    return {
        "verdicts": len(latest_decisions(verdicts)),
        "verdict_windows": int(pd.notna(verdict_of(windows, verdicts)).sum()),
        "verdict_windows_learned": int(learned["verdict"].notna().sum()),
    }
