"""How good a ranking is: found alert units at a false-alarm budget, against known truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence.errors import SchemaError
from appcadence.features.windows import APP_LEVEL
from appcadence.models.calibration import alert_unit, device_days
from appcadence.telemetry.schema import LABELS, conform

BUDGETS = (0.1, 1.0, 3.0)
"""False alert units per device-day at which recall is quoted."""


@dataclass(frozen=True)
class Quality:
    """Counted in alert units (device-app-day, or device-dest-day without app names)."""

    malicious_units: int
    benign_units: int
    device_days: float
    recall: dict[float, float]
    """Share of malicious units above the threshold that lets each budget of benign units through."""
    average_precision: float
    alerts_per_device_day: float
    """Benign units at or above score 0, per device-day: promised is 1."""
    recall_by_kind: dict[str, float]
    """At one false unit per device-day."""

    def metrics(self) -> dict[str, float]:
        """Flat numbers for tracking and JSON."""
        return {
            "malicious_units": float(self.malicious_units),
            "benign_units": float(self.benign_units),
            "device_days": self.device_days,
            "average_precision": self.average_precision,
            "benign_units_above_zero_per_device_day": self.alerts_per_device_day,
            **{f"recall_at_{budget:g}_per_device_day": value for budget, value in self.recall.items()},
            **{f"recall_{kind}": value for kind, value in self.recall_by_kind.items()},
        }


def quality(
    score: npt.NDArray[np.float64],
    malicious: npt.NDArray[np.bool_],
    unit: npt.NDArray[np.int64],
    days: float,
    kind: npt.NDArray[Any] | None = None,
) -> Quality:
    """Quality of window scores (n,); a unit is malicious when one of its windows is, and scores its best.

    NaN scores (too little evidence) rank last, and count as missed.
    """
    n = int(unit.max()) + 1 if len(unit) else 0
    best, bad = np.full(n, -np.inf), np.zeros(n, np.bool_)
    np.maximum.at(best, unit, np.nan_to_num(score, nan=-np.inf))
    bad[unit[malicious]] = True
    kinds = np.full(n, "", dtype=object)
    if kind is not None:
        kinds[unit[malicious]] = kind[malicious]
    seen = np.bincount(unit, minlength=n) > 0
    benign, found = np.sort(best[~bad & seen]), best[bad]
    recall = {budget: _recall(found, benign, budget * days) for budget in BUDGETS}
    level = _level(benign, days)
    return Quality(
        malicious_units=int(bad.sum()),
        benign_units=len(benign),
        device_days=days,
        recall=recall,
        average_precision=_average_precision(best[seen], bad[seen]),
        alerts_per_device_day=float((benign >= 0).sum() / days) if days else float("nan"),
        recall_by_kind={
            str(k): float(np.mean(best[bad & (kinds == k)] > level)) for k in np.unique(kinds[bad]) if k
        },
    )


def labelled_scores(
    scores: pd.DataFrame, labels: pa.Table
) -> tuple[pd.DataFrame, npt.NDArray[np.bool_], npt.NDArray[Any]]:
    """Scores without ignored windows, and for each the truth and the kind of the implant.

    A window is malicious when a malicious label of its device and app names its destination and overlaps it;
    an app's `*` window when any destination of the app is.

    Raises:
        SchemaError: `labels` does not fit its declaration.
    """
    truth = conform(LABELS, labels, "labels").to_pandas()
    for column in ("device_id", "app_id", "dest", "label", "kind"):
        truth[column] = truth[column].astype(object)
    if not len(truth):
        raise SchemaError("the labels table is empty; nothing can be evaluated")
    state, kind = np.zeros(len(scores), np.int8), np.full(len(scores), "", dtype=object)
    rows = scores.reset_index(drop=True).assign(row=np.arange(len(scores)))
    rows["who"] = rows["app_id"].astype(object).fillna("")
    truth["who"] = truth["app_id"].fillna("")
    joined = (
        rows[["row", "device_id", "who", "dest", "window_start", "window_end"]]
        .astype({"device_id": object})
        .merge(truth, on=["device_id", "who"], suffixes=("", "_label"))
    )
    hit = (
        joined["dest"].eq(joined["dest_label"])
        | joined["dest"].eq(APP_LEVEL)
        | joined["dest_label"].eq(APP_LEVEL)
    )
    hit &= (joined["start"] < joined["window_end"]) & (joined["end"] >= joined["window_start"])
    for label, code in (("ignore", 2), ("malicious", 1)):
        part = joined[hit & joined["label"].eq(label)]
        state[part["row"].to_numpy()] = code
        kind[part["row"].to_numpy()] = part["kind"].fillna("malicious").to_numpy()
    keep = state != 2
    return rows.loc[keep].reset_index(drop=True), (state == 1)[keep], kind[keep]


def evaluate(scores: pd.DataFrame, labels: pa.Table) -> Quality:
    """Quality of a scores table against a labels table; a label without any window counts as missed."""
    kept, malicious, kind = labelled_scores(scores, labels)
    return quality(kept["score"].to_numpy(np.float64), malicious, alert_unit(kept), device_days(kept), kind)


def _level(benign: npt.NDArray[np.float64], allowed: float) -> float:
    """The score that at most floor(allowed) benign units exceed."""
    k = int(allowed)
    return float(benign[-k - 1]) if k < len(benign) else -np.inf


def _recall(found: npt.NDArray[np.float64], benign: npt.NDArray[np.float64], allowed: float) -> float:
    return float(np.mean(found > _level(benign, allowed))) if len(found) else float("nan")


def _average_precision(best: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> float:
    if not bad.any():
        return float("nan")
    order = np.argsort(-best, kind="stable")
    hits = np.cumsum(bad[order])
    return float((hits / np.arange(1, len(order) + 1))[bad[order]].mean())
