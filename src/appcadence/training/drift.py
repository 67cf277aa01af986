"""Whether new telemetry still resembles what a detector learned from: retrain, watch or fine, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._extras import require
from appcadence._types import Ints, Mask, Matrix
from appcadence.errors import TelemetryError
from appcadence.features.catalog import FAMILY_OF, INPUTS_OF, NAMES
from appcadence.models.calibration import adjusted_p_values, alert_unit, device_days
from appcadence.models.detector import Detector, aligned, comparable, hide, placed
from appcadence.models.eligibility import SCORED, eligible, statuses, strata
from appcadence.models.pipeline import assemble
from appcadence.models.reference import BINS, Reference, histograms
from appcadence.telemetry.listing import many
from appcadence.training.app_shifts import AppShift, app_shifts
from appcadence.training.evaluate import json_ready

PSI_WATCH, PSI_DRIFTED = 0.1, 0.25
"""The usual reading of the population stability index."""
FALSE_DISCOVERIES = 0.05
MAX_DRIFTED_SHARE = 0.1
"""Above this share of drifted features, the model's baseline no longer fits."""
MAX_OVERRUN = 1.5
MIN_PAIRED = 6
"""With fewer devices in both periods, no permutation p-value can be small enough."""
_SWAPS = 1999
MIN_LOST_SHARE = 0.1
"""Losing telemetry on this share of the devices that had it calls for a new model."""
_MIN_EXPECTED = 5.0
_SIGNALS = {
    "activity": [n for n in NAMES if INPUTS_OF[n] == ("activity",)],
    "notifications": [n for n in NAMES if INPUTS_OF[n] == ("notifications",)],
    "inventory": [n for n in NAMES if INPUTS_OF[n] == ("flows", "inventory")],
    "flow durations": ["longest_session_seconds"],
    "flow bytes": ["out_size_median_bytes", "in_size_median_bytes"],
}
"""Parts of the telemetry, and the features that are unknown without them."""
_APP_NAMES = "app names of flows"


@dataclass(frozen=True)
class Loss:
    """A part of the telemetry that devices delivered in training and no longer do."""

    what: str
    """activity, notifications, inventory, flow durations, flow bytes or app names of flows."""
    devices: int
    """Devices that lost it."""
    of: int
    """Devices that had it and are still seen."""


@dataclass(frozen=True)
class Budget:
    """Units that score 0 or more, whether benign or an implant's."""

    units: int
    promised: float
    """Units that the detector promises: one per device-day of each stratum."""
    ratio: float
    """NaN, like the interval, where no window is ranked."""
    low: float
    """95% interval of units / promised. It allows for the promise being estimated from a count, too."""
    high: float


@dataclass(frozen=True)
class Drift:
    """The answer: a verdict, its reasons, and the figures behind them."""

    verdict: str
    """retrain, watch or fine."""
    reasons: list[str]
    notes: list[str]
    """What could not be checked, and facts that are no sign of drift."""
    devices: int
    windows: int
    """Windows after the training period that have enough evidence."""
    features: pd.DataFrame
    """One row per feature, the worst first: psi, p_adjusted (NaN = not testable), missing_before,
    missing_now."""
    scores_psi: float
    """Population stability index of the scores against those of calibration."""
    scores_p: float
    """Chance of scores that lie as unevenly, were windows independent (chi-square): few windows always do."""
    budget: Budget
    losses: list[Loss]
    apps: list[AppShift]
    new_apps: dict[str, int]
    """Number of devices by app, for apps that training did not see."""
    versions: dict[str, str]
    """By app, the version change that this inventory dates after training: "from 1.0 to 1.1"."""
    events: pd.DataFrame
    """Fleet events (see `appcadence.models.fleet_events`)."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON: null where a number is unknown."""
        features = self.features.astype(object).where(self.features.notna(), None)
        events = self.events[["kind", "name", "devices"]].assign(
            first_seen=self.events["first_seen"].dt.strftime("%Y-%m-%d")
        )
        facts = asdict(self)
        del facts["events"]
        return facts | {
            "features": features.to_dict("records"),
            "budget": json_ready(facts["budget"]),
            "fleet_events": events.to_dict("records"),
        }


def drift(detector: Detector, tables: dict[str, pa.Table]) -> Drift:
    """Compare the windows that begin after the training period with what the detector recorded in training.

    Windows of one device are not independent, so the test permutes devices, not windows: a feature's
    population stability index is significant if few random swaps of whole devices between the two periods
    reach it. Benjamini and Hochberg's procedure controls the false discovery rate.

    Raises:
        MissingExtraError: SciPy is not installed.
        TelemetryError: no window with enough evidence begins after the training period.
    """
    require("train", "scipy")
    later = assemble(tables, detector.window, detector.history)
    frame = hide(later.features, detector.excluded_families)
    end_us = detector.reference.end_us
    events = later.fleet_events(end_us)
    end = pd.Timestamp(end_us, unit="us", tz="UTC")
    last = pd.Timestamp(pc.max(tables["flows"]["start"]).as_py())
    # Sessions that outlast the telemetry reach into windows in which nothing begins.
    keep = (frame["window_start"].between(end, last) & eligible(frame)).to_numpy()
    if not keep.any():
        raise TelemetryError(
            f"no window that can be judged begins after the training period, which ended {end:%Y-%m-%d %H:%M}"
            "; give later telemetry"
        )
    frame, common = frame[keep].reset_index(drop=True), events.windows[keep]
    values, distances = aligned(frame), detector.baseline.distances(frame)
    devices = pd.Index(np.sort(frame["device_id"].astype(object).unique()), dtype="object")
    counted = histograms(frame, comparable(values, distances), detector.reference.deciles, devices)
    now = Reference(detector.reference.deciles, devices, *counted, end_us)  # over the bins of the reference
    scores_psi, scores_p, budget = _scores(detector, frame, common)
    known = set(detector.history.contacts["app_id"].dropna())
    per_app = frame.groupby("app_id", observed=True)["device_id"].nunique()
    new_apps = {
        str(app): int(n) for app, n in per_app.sort_values(ascending=False).items() if app not in known
    }
    found: dict[str, Any] = {
        "features": _features(detector.reference, now),
        "scores_psi": scores_psi,
        "scores_p": scores_p,
        "budget": budget,
        "losses": _losses(detector.reference, now),
        "apps": app_shifts(frame, distances),
        "new_apps": new_apps,
        "versions": _versions(tables.get("inventory"), end),
    }
    verdict, reasons = _verdict(**found)
    return Drift(
        verdict=verdict,
        reasons=reasons,
        notes=_notes(detector.reference, now, events.events, found["versions"]),
        devices=len(now.devices),
        windows=len(frame),
        events=events.events,
        **found,
    )


def psi(before: Matrix, now: Matrix) -> Matrix:
    """Population stability index of counts (..., bins), with half a window added to each bin."""
    p, q = (
        (x + 0.5) / (x.sum(axis=-1, keepdims=True) + 0.5 * x.shape[-1])
        for x in (np.asarray(before, float), np.asarray(now, float))
    )
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def _features(reference: Reference, now: Reference) -> pd.DataFrame:
    """Drift by feature. Novelty is left out because every channel grows older."""
    compared = np.flatnonzero([FAMILY_OF[name] != "novelty" for name in NAMES])
    both = reference.devices.intersection(now.devices)
    paired = len(both) >= MIN_PAIRED
    before, after = (
        part.counts[part.devices.get_indexer(both) if paired else slice(None)][:, compared].astype(np.float64)
        for part in (reference, now)
    )
    total, change = before.sum(axis=0), after.sum(axis=0)
    found = psi(total, change)
    p = np.full(len(compared), np.nan)
    if paired:
        swap = np.random.default_rng(0).integers(0, 2, (_SWAPS, len(both))).astype(np.float64)
        moved = (swap @ (after - before).reshape(len(both), -1)).reshape(_SWAPS, *total.shape)
        reached = psi(total + moved, change - moved) >= found - 1e-12
        p = adjusted_p_values((1 + reached.sum(axis=0)) / (_SWAPS + 1))
    table = pd.DataFrame(
        {
            "feature": np.array(NAMES)[compared],
            "psi": found,
            "p_adjusted": p,
            "missing_before": total[:, BINS - 1] / np.maximum(total.sum(axis=1), 1),
            "missing_now": change[:, BINS - 1] / np.maximum(change.sum(axis=1), 1),
        }
    )
    return table.sort_values("psi", ascending=False, kind="stable", ignore_index=True)


def _scores(detector: Detector, frame: pd.DataFrame, common: Mask) -> tuple[float, float, Budget]:
    """Stability index of the scores, its p-value, and the budget."""
    from scipy.stats import chi2

    raw, parts = detector.parts(frame)[1], []
    units, promised, counted, calibrated = 0, 0.0, 0.0, 0
    ranked = statuses(frame, eligible(frame), common, rank_local=False) == SCORED
    score, spread, shift = placed(frame, raw, ranked, detector.calibration)
    score, raw = score + shift, raw + shift * spread
    for stratum, rows in strata(frame).items():
        mine = rows & ranked
        if not mine.any():
            continue
        calibration = detector.calibration[stratum]
        units += len(np.unique(alert_unit(frame[mine & (score >= 0)])))
        promised += device_days(frame[rows])
        counted += calibration.device_days
        calibrated += len(calibration.windows)
        decile = np.minimum((10 * calibration.p_values(raw[mine])).astype(int), 9)
        parts.append(np.bincount(decile, minlength=10))
    ratio = units / promised if promised else np.nan
    low, high = _ratio_interval(units, promised, counted) if promised else (np.nan, np.nan)
    observed = np.sum(parts, axis=0) if parts else np.ones(10)
    even = np.full(10, observed.sum() / 10)
    # The calibration is a sample, too.
    uneven = ((observed - even) ** 2 / even).sum() * calibrated / max(calibrated + observed.sum(), 1)
    p = float(chi2.sf(uneven, len(even) - 1))
    return float(psi(even, observed)), p, Budget(units, promised, ratio, low, high)


def _ratio_interval(units: int, promised: float, counted: float) -> tuple[float, float]:
    """95% interval of a ratio of two Poisson rates (exact, from the binomial share of one count in both).

    The promise itself rests on a count: about one unit per device-day of calibration.
    """
    from scipy.stats import beta

    of = counted / promised
    low = beta.ppf(0.025, units, counted + 1) if units else 0.0
    high = beta.ppf(0.975, units + 1, max(counted, 1e-9))
    return float(of * low / (1 - low)), float(of * high / max(1 - high, 1e-9))


def _losses(reference: Reference, now: Reference) -> list[Loss]:
    both = reference.devices.intersection(now.devices)
    old, new = (part.counts[part.devices.get_indexer(both)] for part in (reference, now))
    windows = [part[:, 0].sum(axis=1) for part in (old, new)]
    known = {
        what: [_most_known(part[:, [NAMES.index(f) for f in features]]) for part in (old, new)]
        for what, features in _SIGNALS.items()
    }
    known[_APP_NAMES] = [part.attributed[part.devices.get_indexer(both)] for part in (reference, now)]
    out = []
    for what, (then, since) in known.items():
        expected = then / np.maximum(windows[0], 1) * windows[1]
        had = expected >= _MIN_EXPECTED
        lost = had & (since < expected / 4)
        if lost.any():
            out.append(Loss(what, int(lost.sum()), int(had.sum())))
    return out


def _most_known(counts: Ints) -> Ints:
    """(n_devices,) windows in which a feature is known, for the feature that is known most often."""
    return np.asarray(counts[:, :, : BINS - 1].sum(axis=2).max(axis=1))


def _versions(inventory: pa.Table | None, end: pd.Timestamp) -> dict[str, str]:
    """Version changes that the snapshots of the inventory date after the training period."""
    if inventory is None or not len(inventory):
        return {}
    keys = ["app_id", "device_id"]
    rows = (
        inventory.select([*keys, "version", "snapshot_time"]).to_pandas().astype(dict.fromkeys(keys, object))
    )
    rows = rows[rows["version"].notna()].sort_values("snapshot_time", kind="stable")
    out = {}
    for (app, _), mine in rows.groupby(keys, dropna=False):
        old, new = mine[mine["snapshot_time"] < end]["version"], mine["version"]
        if len(old) and new.iloc[-1] != old.iloc[-1]:
            out[str(app)] = f"from {old.iloc[-1]} to {new.iloc[-1]}"
    return out


def _verdict(
    features: pd.DataFrame,
    scores_psi: float,
    scores_p: float,
    budget: Budget,
    losses: list[Loss],
    apps: list[AppShift],
    new_apps: dict[str, int],
    versions: dict[str, str],
) -> tuple[str, list[str]]:
    retrain = [_lost(loss) for loss in losses if loss.devices >= MIN_LOST_SHARE * loss.of]
    watch = [_lost(loss) for loss in losses if loss.devices < MIN_LOST_SHARE * loss.of]
    retrain += [shift.sentence(versions.get(shift.app)) for shift in apps]
    rate = (
        f"{budget.units} alerting units where {budget.promised:.0f} were promised: {budget.ratio:.2f} times "
        f"the budget (95% interval {budget.low:.2f} to {budget.high:.2f}). The cause may be implants as well "
        "as drift."
    )
    if budget.low > MAX_OVERRUN:
        retrain.append(rate)
    elif budget.low > 1:
        watch.append(rate)
    sure = features[features["p_adjusted"] <= FALSE_DISCOVERIES]
    drifted, moved = sure[sure["psi"] > PSI_DRIFTED], sure[sure["psi"] > PSI_WATCH]
    for rows, least, limit in ((drifted, MAX_DRIFTED_SHARE, PSI_DRIFTED), (moved, 0.0, PSI_WATCH)):
        if len(rows) and len(rows) >= least * len(features):
            (retrain if least else watch).append(
                f"{len(rows)} of {len(features)} features moved beyond a stability index of {limit:g} on "
                f"more devices than chance explains. The strongest: {', '.join(rows['feature'].head(3))}."
            )
            break
    if scores_psi > PSI_DRIFTED and scores_p <= FALSE_DISCOVERIES:
        watch.append(
            f"The distribution of scores differs from calibration: stability index {scores_psi:.2f}."
        )
    if new_apps:
        named = ", ".join(f"{app} ({n})" for app, n in list(new_apps.items())[:5])
        watch.append(f"Apps that training did not see: {len(new_apps)} (devices in brackets): {named}.")
    named_apps = {shift.app for shift in apps}
    if changed := [f"{app} {change}" for app, change in versions.items() if app not in named_apps]:
        watch.append(f"New versions whose traffic did not change: {', '.join(changed[:5])}.")
    return ("retrain" if retrain else "watch" if watch else "fine"), retrain + watch


def _lost(loss: Loss) -> str:
    return f"Telemetry lost: {loss.what}, on {loss.devices} of {loss.of} devices that had it."


def _notes(reference: Reference, now: Reference, events: pd.DataFrame, versions: dict[str, str]) -> list[str]:
    out = []
    both = len(reference.devices.intersection(now.devices))
    if both < MIN_PAIRED:
        out.append(
            f"Devices in both periods: {both}. With fewer than {MIN_PAIRED}, drift of single features cannot "
            "be told from chance."
        )
    if silent := len(reference.devices.difference(now.devices)):
        out.append(
            f"{many(silent, 'device')} of the training period without a window here that can be judged."
        )
    if fresh := len(now.devices.difference(reference.devices)):
        out.append(f"{many(fresh, 'device')} here without a judged window in the later part of training.")
    if len(events):
        most = events.sort_values("devices", ascending=False, kind="stable").head(5)
        named = ", ".join(f"{e.name} ({e.devices} devices)" for e in most.itertuples())
        out.append(f"New to several devices of the fleet at once: {named}.")
    if not versions:
        out.append("The inventory shows no change of an app's version after training.")
    return out
