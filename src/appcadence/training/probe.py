"""A finished detector on telemetry with injected implants: scores of the implant-days, and a health check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._extras import require
from appcadence._types import Progress, silent
from appcadence.errors import TelemetryError
from appcadence.features.columns import micros
from appcadence.models.calibration import alert_unit, device_days
from appcadence.models.detector import Detector, hide, placed
from appcadence.models.eligibility import SCORED, eligible, statuses, strata
from appcadence.models.pipeline import assemble
from appcadence.telemetry.schema import LABELS
from appcadence.telemetry.simulate.behaviours import KINDS, Behaviour
from appcadence.telemetry.simulate.implants import inject
from appcadence.telemetry.simulate.phone_log import joined
from appcadence.training.evaluate import BUDGETS, Quality, quality
from appcadence.training.injection import Tables, aligned_spans, of_devices, past_and_future
from appcadence.training.train import Training
from appcadence.training.truth import Truth, truth_of, with_names

_SHOWN = ["device_id", "app_id", "dest", "window_start", "window_end", "observed_seconds"]


@dataclass(frozen=True)
class Probe:
    """Scored windows with implants among them."""

    windows: pd.DataFrame
    """(n, ...) device_id, app_id, dest, window_start, window_end, observed_seconds and score, which is NaN
    for windows that are not ranked (too little evidence, a fleet event)."""
    truth: Truth
    """Every implant-day, also those without a window; `days` has the best score of each, -inf if none was
    scored."""
    flows: pa.Table
    """All flows, including those of the implants."""


def as_of(training: Training, tables: Tables) -> tuple[Detector, Tables]:
    """The trained detector with only the past as baseline and history, and the telemetry after that past.

    `tables` is the telemetry of the training. The detector's own baseline and history hold all of it, so
    nothing in it would be new.
    """
    detector = replace(
        training.detector,
        baseline=training.baseline,
        history=training.history,
        reference=replace(training.detector.reference, end_us=training.cut_us),
    )
    return detector, past_and_future(aligned_spans(tables), training.cut_us)[1]


def probe(
    detector: Detector,
    tables: Tables,
    seed: int,
    per_device_day: float,
    *,
    devices: Sequence[str] | None = None,
    kinds: Sequence[str] | Mapping[str, Behaviour] = tuple(KINDS),
    lost: Callable[[pa.Table], pa.Table] = lambda flows: flows,
) -> Probe:
    """Inject implants, recompute the features and score.

    `devices` (default all) limits the carriers and the windows returned; other devices are context. `kinds`
    is that of `inject`. `lost` takes the flows, including the implants', and returns those that the logs
    keep.
    """
    flows = tables["flows"]
    mine = tables | {"flows": of_devices(flows, devices)}
    injected_flows, specs = inject(mine, seed, per_device_day=per_device_day, kinds=kinds)
    both = lost(joined(flows, injected_flows))
    labels = with_names(_labels(specs), both)
    windows = scores_of(detector, tables | {"flows": both}, devices, labels)
    truth, _ = truth_of(windows, labels)
    best = np.full(len(truth.days), -np.inf)
    np.maximum.at(best, truth.day, windows["score"].fillna(-np.inf).to_numpy()[truth.window])
    return Probe(windows, Truth(truth.days.assign(score=best), truth.window, truth.day), both)


def scores_of(
    detector: Detector, tables: Tables, devices: Sequence[str] | None = None, labels: pa.Table | None = None
) -> pd.DataFrame:
    """The windows of some telemetry as `Probe.windows` lists them, with the scores that scoring gives them.

    Windows that `labels` call malicious do not count towards `device_shift`: more implants are injected into
    a device at once than an attack would bring.
    """
    later = assemble(tables, detector.window, detector.history)
    frame = hide(later.features, detector.excluded_families)
    common = later.fleet_events(detector.reference.end_us).windows
    if devices is not None:
        mine = frame["device_id"].astype(object).isin(devices).to_numpy()
        frame, common = frame[mine].reset_index(drop=True), common[mine]
    ranked = statuses(frame, eligible(frame), common, rank_local=False) == SCORED
    counted = ranked.copy()
    if labels is not None:
        counted[truth_of(frame, labels)[0].window] = False
    score, _, shift = placed(frame, detector.parts(frame)[1], counted, detector.calibration)
    score = np.where(ranked, score + shift, np.nan)
    texts = {name: frame[name].astype(object) for name in ("device_id", "app_id", "dest")}
    return frame[_SHOWN].assign(**texts, score=score)


def _labels(specs: pd.DataFrame) -> pa.Table:
    """The labels table of an injection: a row per implant and destination, once with the app and once
    without, since logs may lose the app's name."""
    rows = specs.explode("dests")
    rows = pd.concat([rows, rows[rows["app_id"].notna()].assign(app_id=None)])
    columns: dict[str, Any] = {name: rows[name] for name in ("device_id", "app_id", "kind")}
    columns |= {"dest": rows["dests"], "label": ["malicious"] * len(rows)}
    columns |= {"start": rows["start_us"].to_numpy(np.int64), "end": rows["end_us"].to_numpy(np.int64) + 1}
    return LABELS.of(columns | {"case_id": rows["implant_id"].astype(str)})


_PER_DEVICE_DAY = 1.5
_MIN_IMPLANT_DAYS = 100
"""The number wanted; small telemetry takes several injections to reach it."""
_MAX_ROUNDS = 20
_MIN_COMMON = 3
"""With fewer apps in both halves, ranks cannot be compared."""


@dataclass(frozen=True)
class HealthCheck:
    """The health of a detector, measured without labels."""

    seen_in_training: bool
    """Nothing is later than the training, so the second half of the telemetry was judged. The detector
    learned from it, so it raises fewer alerts than on new telemetry."""
    injected: Quality
    """On implants injected into this telemetry: no estimate of recall on real implants. All of the
    telemetry's own alert units count as false, compromised or not."""
    raised: dict[float, float]
    """By promised rate of alert units per device-day: the rate that reaches its threshold."""
    device_days: float
    rank_correlation: float
    """Spearman's correlation between the best scores of each device's apps in the two halves of the span, -1
    to 1; NaN if fewer than three apps were scored in both."""
    ranked: int
    """Apps on devices (destinations if the app is unknown) that were scored in both halves."""

    def metrics(self) -> dict[str, Any]:
        """Flat figures for JSON."""
        return {
            "seen_in_training": self.seen_in_training,
            "device_days": self.device_days,
            "implant_days": self.injected.implant_days,
            **{f"injected_recall_at_{b:g}_per_device_day": r for b, r in self.injected.recall.items()},
            **{f"injected_recall_at_{b:g}_low": low for b, (low, _) in self.injected.interval.items()},
            **{f"injected_recall_at_{b:g}_high": high for b, (_, high) in self.injected.interval.items()},
            **{f"raised_at_{b:g}_per_device_day": rate for b, rate in self.raised.items()},
            "rank_correlation": self.rank_correlation,
            "ranked_apps": self.ranked,
        }


def check_health(
    detector: Detector,
    tables: Tables,
    progress: Progress = silent,
) -> HealthCheck:
    """Judge a detector on the part of `tables` after its training or, if there is none, on their second half.

    Three checks: does it find implants injected into this telemetry, does it raise as many alerts as it
    promises, and do the same apps rank high in both halves of the span? The last two depend on the telemetry
    as much as on the detector: a rising rate of alerts means drift or an incident. Deterministic.

    Raises:
        MissingExtraError: SciPy is not installed.
        TelemetryError: there are no flows to judge.
    """
    require("train", "scipy")
    seen, later = _later(tables, detector.reference.end_us)
    progress("scoring", 0.0)
    clean = scores_of(detector, later)
    rounds: list[Probe] = []
    while not rounds or (_implant_days(rounds) < _MIN_IMPLANT_DAYS and len(rounds) < _MAX_ROUNDS):
        rounds.append(probe(detector, later, len(rounds), _PER_DEVICE_DAY))
        progress(
            "injecting implants", max(_implant_days(rounds) / _MIN_IMPLANT_DAYS, len(rounds) / _MAX_ROUNDS)
        )
    days = device_days(clean)
    correlation, ranked = _ranks(clean)
    return HealthCheck(
        seen, _quality(rounds), _alerts_per_device_day(detector, clean, days), days, correlation, ranked
    )


def _later(tables: Tables, end_us: int) -> tuple[bool, Tables]:
    start = micros(tables["flows"]["start"])
    if not len(start):
        raise TelemetryError("the flows table is empty; a detector cannot be judged on it")
    seen = bool(start.max() <= end_us)
    cut = (int(start.min()) + int(start.max())) // 2 if seen else end_us + 1
    return seen, past_and_future(tables, cut)[1]


def _implant_days(rounds: list[Probe]) -> int:
    return sum(len(p.truth.days) for p in rounds)


def _quality(rounds: list[Probe]) -> Quality:
    """The quality over all rounds; a window that occurs in two rounds counts as two."""
    width = max(len(p.windows) for p in rounds)
    frame = pd.concat([p.windows for p in rounds], ignore_index=True)
    first = np.cumsum([0] + [len(p.windows) for p in rounds])
    before = np.cumsum([0] + [len(p.truth.days) for p in rounds])
    days = [
        p.truth.days.assign(case_id=p.truth.days["case_id"].astype(str) + f"/{k}")
        for k, p in enumerate(rounds)
    ]
    truth = Truth(
        pd.concat(days, ignore_index=True).drop(columns="score"),
        np.concatenate([p.truth.window + k for p, k in zip(rounds, first, strict=False)]),
        np.concatenate([p.truth.day + k for p, k in zip(rounds, before, strict=False)]),
    )
    unit = np.concatenate([alert_unit(p.windows) + k * (width + 1) for k, p in enumerate(rounds)])
    unit = np.unique(unit, return_inverse=True)[1].astype(np.int64)
    observed = sum(device_days(p.windows) for p in rounds)
    return quality(frame, frame["score"].to_numpy(np.float64), truth, unit, observed)


def _alerts_per_device_day(detector: Detector, windows: pd.DataFrame, days: float) -> dict[float, float]:
    unit, score = alert_unit(windows), windows["score"].to_numpy(np.float64)
    out = {}
    for budget in BUDGETS:
        high = np.zeros(len(windows), np.bool_)
        for stratum, rows in strata(windows).items():
            high[rows] = score[rows] >= detector.calibration[stratum].threshold(budget)
        out[budget] = float(len(np.unique(unit[high])) / days) if days else np.nan
    return out


def _ranks(windows: pd.DataFrame) -> tuple[float, int]:
    from scipy.stats import spearmanr

    scored = windows[windows["score"].notna()]
    if not len(scored):
        return float("nan"), 0
    # By the windows and not by the clock: at both ends of the span there may be a few of a minute each.
    start = scored["window_start"]
    middle = start.sort_values().iloc[len(start) // 2]
    later = start >= middle if middle > start.min() else start > middle
    who = scored["app_id"].where(scored["app_id"].notna(), scored["dest"])
    halves = [
        scored[mask].groupby([scored["device_id"][mask], who[mask]])["score"].max()
        for mask in (~later, later)
    ]
    both = pd.concat(halves, axis=1, join="inner").to_numpy(np.float64)
    if len(both) < _MIN_COMMON or (np.ptp(both, axis=0) == 0).any():
        return float("nan"), len(both)
    return float(spearmanr(both[:, 0], both[:, 1]).statistic), len(both)
