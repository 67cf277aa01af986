"""Quality of a ranking against known truth: the implant-days found at a budget of false alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask, Vector
from appcadence.errors import SchemaError
from appcadence.features.columns import micros
from appcadence.features.windows import APP_LEVEL
from appcadence.models.calibration import alert_unit, device_days
from appcadence.models.detector import Detector
from appcadence.training.injection import carriers
from appcadence.training.truth import Truth, truth_of, truth_of_carriers, with_names

BUDGETS = (0.1, 1.0, 3.0)
"""False alert units per device-day at which recall is reported."""
_RESAMPLES = 200
TOO_FEW = "too few to tell"


@dataclass(frozen=True)
class Quality:
    """Recall counts implant-days; false alarms are benign alert units (device-app-day, or
    device-dest-day)."""

    implant_days: int
    benign_units: int
    device_days: float
    recall: dict[float, float]
    """Share of the implant-days with a window above the threshold that lets the budget's benign units
    through."""
    interval: dict[float, tuple[float, float]]
    """95% of each recall, resampled over devices, and at least as wide as Wilson's over implants."""
    average_precision: float
    """Of the alert units."""
    realised: dict[float, float]
    """Benign units per device-day at or above the score that promises each budget."""
    first_found_days: float
    """Median days from an implant's first day to the day it is found, at one false unit per device-day;
    infinite for implants that are never found."""
    unjudged_implant_days: int = 0
    """Implant-days without a window that can be judged; they count as missed."""
    precision_by_chance: float = float("nan")
    """Average precision of a random order: the share of alert units that are an implant's."""
    recall_by: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    """By column and value: recall at one false unit per device-day, and implant-days."""

    @property
    def recall_by_kind(self) -> dict[str, float]:
        return {kind: share for kind, (share, _) in self.recall_by.get("kind", {}).items()}

    def said(self, value: float) -> str:
        """A recall or precision as text, also if there is none."""
        return in_words(value) if self.implant_days else "no implant-days"

    def range(self, budget: float) -> str:
        """The interval of a recall as text."""
        low, high = self.interval[budget]
        if np.isfinite(low):
            return f"{low:.2f} to {high:.2f}"
        return "one device" if self.implant_days else "no implant-days"

    def metrics(self) -> dict[str, float]:
        """Flat numbers for tracking and JSON."""
        return {
            "implant_days": float(self.implant_days),
            "unjudged_implant_days": float(self.unjudged_implant_days),
            "benign_units": float(self.benign_units),
            "device_days": self.device_days,
            "average_precision": self.average_precision,
            "precision_by_chance": self.precision_by_chance,
            "first_found_days": self.first_found_days,
            **{f"realised_at_{b:g}_per_device_day": value for b, value in self.realised.items()},
            **{f"recall_at_{b:g}_per_device_day": value for b, value in self.recall.items()},
            **{f"recall_at_{b:g}_low": low for b, (low, _) in self.interval.items()},
            **{f"recall_at_{b:g}_high": high for b, (_, high) in self.interval.items()},
            **{
                f"recall_{value}": share
                for column in sorted(self.recall_by)
                for value, (share, _) in self.recall_by[column].items()
            },
        }


def quality(frame: pd.DataFrame, score: Vector, truth: Truth, unit: Codes, days: float) -> Quality:
    """Quality of window scores.

    An alert unit is benign if none of its windows shows an implant. Alert units and implant-days have the
    score of their best window. NaN scores (too little evidence, fleet events) rank last and count as missed.

    Args:
        frame: n windows with device_id, window_start and observed_seconds.
        score: (n,) scores.
        truth: the implant-days.
        unit: (n,) code of each window's alert unit.
        days: observed device-days, which the devices share in proportion to what `frame` observed of each.
    """
    ranked = np.nan_to_num(score, nan=-np.inf)
    n = int(unit.max()) + 1 if len(unit) else 0
    best, bad = np.full(n, -np.inf), np.zeros(n, np.bool_)
    np.maximum.at(best, unit, ranked)
    bad[unit[truth.window]] = True
    shown = np.full(len(truth.days), -np.inf)
    np.maximum.at(shown, truth.day, ranked[truth.window])
    seen = np.bincount(unit, minlength=n) > 0
    clean = seen & ~bad
    benign = np.sort(best[clean])
    level = _level(benign, days)
    units = pd.DataFrame({"unit": unit, "device_id": frame["device_id"].astype(object).to_numpy()})
    owner = units.drop_duplicates("unit").set_index("unit")["device_id"].reindex(np.flatnonzero(clean))
    return Quality(
        implant_days=len(truth.days),
        benign_units=len(benign),
        device_days=days,
        recall={budget: _recall(shown, benign, budget * days) for budget in BUDGETS},
        interval=_intervals(shown, truth.days, best[clean], owner, _days_of(frame, truth.days, days)),
        average_precision=average_precision(best[seen], bad[seen]),
        realised={b: float((benign >= -np.log(b)).sum() / days) if days else np.nan for b in BUDGETS},
        first_found_days=_first_found(truth.days, shown > level),
        unjudged_implant_days=int(np.isneginf(shown).sum()),
        precision_by_chance=float(bad[seen].mean()) if seen.any() else float("nan"),
        recall_by={
            column: _by(shown > level, truth.days[column])
            for column in truth.days.columns.difference(["device_id", "case_id", "day"])
        },
    )


def injected_quality(tested: pd.DataFrame, injection: pd.DataFrame, devices: list[str] | None) -> Quality:
    """Quality on injected implants. Every implant-day counts; one without a judged window is missed.

    Args:
        tested: the judged windows, as `Training.tested` has them.
        injection: the implants of all rounds, as `training.injection.labelled` gives them, with `round`.
        devices: the tested devices; None = all.
    """
    if devices is not None:
        injection = injection[injection["device_id"].isin(devices)]
    frame = tested.rename(columns={"kind": "implant_kind"})
    number = tested["round"].to_numpy(np.int64)
    truth = truth_of_carriers(frame, tested["implant"].to_numpy(np.int64), number)
    missed = injection.assign(case_id=_cases(injection, tested)).explode("missed_days")
    missed = missed[missed["missed_days"].notna()]
    rest = pd.DataFrame(
        {
            "case_id": missed["case_id"].astype(object),
            "day": pd.to_datetime(missed["missed_days"].astype(object), utc=True).dt.as_unit("us"),
            "device_id": missed["device_id"].astype(object),
            "kind": missed["kind"].astype(object),
        }
    )
    days = pd.concat([part for part in (truth.days, rest) if len(part)] or [truth.days], ignore_index=True)
    observed = injection.groupby("round")["observed_device_days"].first()
    of_round = (observed.get(n, device_days(tested[number == n])) for n in np.unique(number))
    unit, score = (tested[name].to_numpy() for name in ("unit", "score"))
    return quality(frame, score, Truth(days, truth.window, truth.day), unit, float(sum(of_round)))


def _cases(injection: pd.DataFrame, tested: pd.DataFrame) -> npt.NDArray[np.object_]:
    """(n,) the case of each implant: that of its carrier's judged windows, or one of its own."""
    of_round = tested["round"].astype(str)
    judged = ((tested["implant"] >= 0) & (tested["kind"] != "verdict")).to_numpy()
    keys = (of_round + "/" + carriers(tested))[judged]
    known = dict(zip(keys, (tested["implant"].astype(str) + "/" + of_round)[judged], strict=True))
    every = injection.explode("dests")
    found = (every["round"].astype(str) + "/" + carriers(every, "dests")).map(known).groupby(level=0).first()
    alone = "unjudged/" + injection["implant_id"].astype(str) + "/" + injection["round"].astype(str)
    return found.reindex(injection.index).fillna(alone).to_numpy(object)


def evaluate(
    scores: pd.DataFrame,
    labels: pa.Table,
    flows: pa.Table,
    by: Mapping[str, pd.Series] | None = None,
) -> Quality:
    """Quality of a scores table against a labels table.

    Args:
        scores: the scores table.
        labels: the labels table.
        flows: the scored flows, which give the host names of addresses in the labels.
        by: further columns to break recall down by: series of values indexed by case_id or device_id.

    Raises:
        SchemaError: `labels` does not fit its declaration, or holds nothing malicious.
    """
    scores = scores.reset_index(drop=True)
    truth, ignored = truth_of(scores, with_names(labels, flows))
    days = truth.days
    if not len(days):
        raise SchemaError("the labels table holds no malicious label; nothing can be evaluated")
    for name, values in (by or {}).items():
        key = "case_id" if values.index.name == "case_id" else "device_id"
        days = days.assign(**{name: days[key].map(values)})
    kept = ~ignored
    place = np.cumsum(kept) - 1
    pairs = kept[truth.window]
    truth = Truth(days, place[truth.window[pairs]], truth.day[pairs])
    rows = scores[kept].reset_index(drop=True)
    # What is judged: the ranked, and of fleet events what alerts for its rhythm.
    shown = (rows["status"].astype(object) == "scored") | rows["alert"]
    score = rows["score"].where(shown).to_numpy(np.float64)
    return quality(rows, score, truth, _units(rows), device_days(rows))


def share_learned(detector: Detector, flows: pa.Table) -> float:
    """Share of the flows whose device and time the detector learned from: 0 on a fair test."""
    known = detector.history.contacts
    known = known[known["vetted"].astype(bool)]
    if not len(known) or not len(flows):
        return 0.0
    start = micros(flows["start"])
    within = (start >= known["first_seen"].min()) & (start <= detector.reference.end_us)
    devices = pa.array(known["device_id"].astype(object).unique(), pa.string())
    return float(np.mean(within & pc.is_in(flows["device_id"].cast(pa.string()), devices).to_numpy()))


def _units(scores: pd.DataFrame) -> Codes:
    """(n,) alert units; a fleet event is one unit."""
    unit, texts = alert_unit(scores), scores[["status", "app_id", "dest"]].astype(object)
    event = (texts["status"] == "fleet_event").to_numpy(np.bool_)
    name = texts["dest"].where(texts["dest"] != APP_LEVEL, texts["app_id"])
    return np.where(event, len(unit) + pd.factorize(name)[0], unit)


def _level(benign: Vector, allowed: float) -> float:
    """The score that at most floor(allowed) benign units exceed."""
    k = _whole(allowed)
    return float(benign[-k - 1]) if k < len(benign) else -np.inf


def _whole(allowed: float) -> int:
    """Units that fit into a budget; a sum of days may fall short of it by rounding."""
    return int(allowed + 1e-9)


def _recall(shown: Vector, benign: Vector, allowed: float) -> float:
    return float(np.mean(shown > _level(benign, allowed))) if len(shown) else float("nan")


def _days_of(frame: pd.DataFrame, implant_days: pd.DataFrame, days: float) -> pd.Series:
    """Device-days by device, 0 where only implant-days without a window name it; `days` in all."""
    windows = frame.loc[:, ["device_id", "window_start", "observed_seconds"]].astype({"device_id": object})
    windows = windows.drop_duplicates(["device_id", "window_start"])
    seconds = windows.groupby("device_id")["observed_seconds"].sum()
    names = seconds.index.union(pd.Index(implant_days["device_id"].unique(), dtype=object))
    seconds = seconds.reindex(names, fill_value=0.0)
    return pd.Series(seconds * (days / max(float(seconds.to_numpy().sum()), 1e-9)))


def _intervals(
    shown: Vector, implant_days: pd.DataFrame, benign: Vector, owner: pd.Series, days: pd.Series
) -> dict[float, tuple[float, float]]:
    """95% of recall at each budget: the union of two intervals.

    The first holds the middle 95% of the recalls of fleets resampled from the devices, with threshold and
    device-days computed anew. With few implants it is far too narrow, and has no width where all or none are
    found. The second is therefore Wilson's, with the implants as trials.
    """
    names = days.index
    if not len(shown) or len(names) < 2:
        return {budget: (float("nan"), float("nan")) for budget in BUDGETS}
    of_day, of_unit = (
        names.get_indexer(pd.Index(implant_days["device_id"])),
        names.get_indexer(pd.Index(owner)),
    )
    order = np.argsort(-benign, kind="stable")
    rng = np.random.default_rng(0)
    found: dict[float, list[float]] = {budget: [] for budget in BUDGETS}
    for _ in range(_RESAMPLES):
        weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        above = np.cumsum(weight[of_unit[order]])
        drawn, observed = weight[of_day], float(weight @ days.to_numpy())
        if not drawn.sum():
            continue  # a fleet without implants has no recall
        for budget in BUDGETS:
            k = np.searchsorted(above, _whole(budget * observed), "right")
            level = benign[order[k]] if k < len(order) else -np.inf
            found[budget].append(float(drawn[shown > level].sum() / drawn.sum()))
    implants = implant_days["case_id"].nunique()
    ranked = np.sort(benign)
    out = {}
    for budget, shares in found.items():
        low, high = wilson(_recall(shown, ranked, budget * float(days.sum())), implants)
        drawn_low, drawn_high = np.quantile(shares, [0.025, 0.975]) if shares else (low, high)
        out[budget] = (min(low, float(drawn_low)), max(high, float(drawn_high)))
    return out


def wilson(share: float, trials: int) -> tuple[float, float]:
    """95% interval of a share of independent trials (Wilson, 1927)."""
    z2 = 1.959964**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)


def _first_found(days: pd.DataFrame, found: Mask) -> float:
    if not len(days) or "day" not in days:
        return float("nan")
    begin = days.groupby("case_id")["day"].min()
    first = days[found].groupby("case_id")["day"].min().reindex(begin.index)
    wait = (first - begin).dt.total_seconds().to_numpy(np.float64) / 86_400
    return float(np.median(np.where(np.isnan(wait), np.inf, wait)))


def _by(found: Mask, values: pd.Series) -> dict[str, tuple[float, int]]:
    groups = pd.Series(found).groupby(values.astype(object).to_numpy())
    return {str(value): (float(part.mean()), len(part)) for value, part in groups}


def average_precision(best: Vector, bad: Mask) -> float:
    if not bad.any():
        return float("nan")
    order = np.argsort(-best, kind="stable")
    hits = np.cumsum(bad[order])
    return float((hits / np.arange(1, len(order) + 1))[bad[order]].mean())


def in_words(value: float, form: str = ".2f") -> str:
    """A figure as text, also for NaN (too little data) and infinity (never)."""
    if np.isnan(value):
        return TOO_FEW
    return "never" if np.isinf(value) else format(value, form)


def json_ready(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics with None for numbers that are not finite, which JSON cannot hold."""
    return {k: (v if not isinstance(v, float) or np.isfinite(v) else None) for k, v in metrics.items()}
