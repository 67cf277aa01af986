"""Training: a past for the baseline, later windows with implants, and held-out windows for calibration."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._extras import require
from appcadence._types import Codes, Progress, logged_stages, silent
from appcadence.errors import TelemetryError
from appcadence.features.catalog import FAMILY_OF
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.features.history import History
from appcadence.features.windows import window_seconds
from appcadence.models.baseline import AppBaseline
from appcadence.models.bundle import starting_model
from appcadence.models.calibration import device_days
from appcadence.models.detector import Detector, comparable, hide
from appcadence.models.eligibility import eligible
from appcadence.models.pipeline import assemble
from appcadence.models.reference import Reference
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.training.evaluate import Quality, injected_quality
from appcadence.training.fit import WEIGHTS, Sample, fit
from appcadence.training.injection import Tables, aligned_spans, history_of, past_and_future
from appcadence.training.rounds import Injector, run_rounds
from appcadence.training.search import search
from appcadence.training.supervised import Hyperparameters, trust
from appcadence.training.truth import taught, verdict_of

HELD_OUT_SHARE = 1 / 3
MIN_DEVICES = 20
"""With fewer devices, channels are held out instead: so few devices are no sample."""
MIN_WINDOWS = 3
"""Telemetry of fewer windows in time is cut at several moments instead of at one border."""
MAX_SEED = 400_000_000
"""LightGBM's bags take five seeds each, which must fit into 32 bits."""
_MOMENTS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Training:
    """The result of a training."""

    detector: Detector
    params: dict[str, Any]
    quality: Quality
    """On implants injected into held-out devices (or channels): no estimate of recall on real implants."""
    injection: pd.DataFrame
    """One row per injected implant."""
    example: pd.DataFrame
    """A few benign feature rows."""
    tested: pd.DataFrame
    """The windows that quality was measured on: device_id, app_id, dest, window_start, observed_seconds, kind
    and implant (None and -1 = benign), round, unit and score."""
    trials: pd.DataFrame
    """One row per trial of the search: hyperparameters and results; empty without a search."""
    held_out: list[str] | None
    """Devices that no model saw; None if channels were held out instead."""
    cut_us: int
    """Where the first round separates past from future, in microseconds since the epoch."""
    baseline: AppBaseline
    """The baseline of the past before that cut."""
    history: History
    """The history of the past before that cut."""


def train(
    source: str | Path | TelemetryDirectory | Tables,
    window: str = "24h",
    seed: int = 0,
    *,
    exclude_families: tuple[str, ...] = (),
    kinds: Sequence[str] = tuple(KINDS),
    weights: npt.ArrayLike = WEIGHTS,
    verdicts: pa.Table | None = None,
    search_trials: int = 0,
    before: Detector | None = None,
    from_reference: bool = True,
    outlined: bool = False,
    sources: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Training:
    """Learn a detector from the telemetry of a benign period: a directory, its path, or canonical tables.

    Deterministic: equal tables, window and seed give an equal detector. `exclude_families` names feature
    families that the detector must not use. `kinds` are the implants to inject. `weights` are those of
    classifier and experts in the score: a pair, or (n_strata, 2) in the order of `STRATA`. `verdicts` is the
    canonical table of analysts' decisions: windows called malicious or benign are learned as such, with five
    times the weight, and windows called malicious or unexplained are left out of the baseline. The
    classifier's hyperparameters are the best of `search_trials` draws on the learning windows; 0 = the
    defaults. With `before`, a detector of earlier telemetry, training uses only later flows: it continues
    that history and refines that baseline. Learning starts from the shipped starting model unless
    `from_reference` is false. With `outlined`, windows are compared only with kinds and categories of apps,
    for a model that is used on other fleets. `sources` are recorded with the parameters: where `verdicts` and
    `before` came from. Stages and counts are logged under `appcadence.training.train` at level INFO.

    Raises:
        MissingExtraError: LightGBM or scikit-learn is not installed.
        TelemetryError, SchemaError: the telemetry cannot be read.
        TelemetryError: too little telemetry, and the message says how much; or a number out of range.
    """
    require("train", "lightgbm", "sklearn")
    _require_valid(seed, search_trials, exclude_families)
    tables = load(source)
    if before is not None:
        tables = _later(tables, before, window, exclude_families)
    flows = tables["flows"]
    if not len(flows):
        raise TelemetryError("the flows table is empty; nothing can be learned from it")
    devices = sorted(pc.unique(flows["device_id"].cast("string")).to_pylist())
    _log.info("%d flows of %d devices, windows of %s, seed %d", len(flows), len(devices), window, seed)
    progress = logged_stages(_log, progress)
    learners, held_out = _split(devices, seed)
    injector = _injector(tables, window, seed, tuple(kinds), verdicts, before, exclude_families, outlined)
    cut = injector.cuts[0]
    learn, clean, check, injected = run_rounds(injector, learners, held_out, progress)
    if not any(len(sample.frame) for sample in learn):
        raise TelemetryError(
            f"{len(flows)} flows of {len(devices)} device(s) have no channel with 6 beats or half an hour "
            "after the first part of their span; train on a longer capture"
        )
    progress("fitting", 0.0)
    weighed = np.broadcast_to(np.asarray(weights, np.float64), WEIGHTS.shape)
    prior, prior_id = starting_model() if from_reference else (None, "none")
    searches: list[tuple[Hyperparameters, pd.DataFrame]] = []

    def choose(rows: Sample) -> Hyperparameters:
        searches.append(search(rows, seed, search_trials, weighed, prior, progress))
        return searches[-1][0]

    everything = assemble(tables, window, injector.known)
    trusted = trust(device_days(everything.features)) if prior else 1.0
    result = fit(learn, clean, check, seed, weighed, choose, prior, trusted)
    settings, trials = searches[0]
    whole = hide(everything.features, exclude_families)
    params = {
        "window": window,
        "seed": seed,
        "devices": len(devices),
        "held_out": "channels" if held_out is None else f"{len(held_out)} devices",
        "cuts": len(injector.cuts),
        "rounds": len(learn),
        "implants": sum(map(len, injected)),
        "excluded_families": ",".join(exclude_families) or "none",
        "flows": len(flows),
        "calibration_windows": result.calibration_windows,
        "calibration_device_days": round(result.calibration_days, 3),
        "search_trials": search_trials,
        "reference": prior_id,
        "local_correction": round(result.trusted, 3),
        **asdict(settings),
    }
    usual = AppBaseline.fit(_judgeable(_undisputed(whole, verdicts)))
    detector = Detector(
        window=window,
        baseline=usual.outlined() if outlined else usual,
        history=history_of(everything, verdicts),
        classifier=result.classifier,
        classifier_text=result.classifier_text,
        forest=result.forest,
        experts=result.experts,
        weights=result.weights,
        calibration=result.calibration,
        behaviours=result.behaviours,
        reference=_reference([learn[0], *clean[:1]], flows),
        excluded_families=tuple(sorted(exclude_families)),
        card={
            **params,
            "roughness": _roughness(result.calibration_windows, result.calibration_days, held_out is None),
        },
    )
    decisions = {} if verdicts is None else taught(everything.features, verdicts, learn[0].frame)
    progress("fitting", 1.0)
    _log.info(
        "done: %d implants in %d rounds, calibrated on %d windows of %.2f device-days",
        *(params[name] for name in ("implants", "rounds", "calibration_windows", "calibration_device_days")),
    )
    example = whole[eligible(whole)].head(5)
    injection = pd.concat(injected, ignore_index=True)
    return Training(
        detector=detector,
        params=params | decisions | dict(sources or {}),
        quality=injected_quality(result.tested, injection, held_out),
        injection=injection,
        example=example,
        tested=result.tested,
        trials=trials,
        held_out=held_out,
        cut_us=cut,
        baseline=injector.baselines[cut],
        history=history_of(
            assemble(past_and_future(injector.tables, cut)[0], window, injector.known), injector.verdicts
        ),
    )


def _require_valid(seed: int, search_trials: int, exclude_families: tuple[str, ...]) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise TelemetryError(f"seed {seed} is not between 0 and {MAX_SEED:,}", "seed")
    if search_trials < 0:
        raise TelemetryError(f"{search_trials} trials are negative; expected 0 or more", "search_trials")
    unknown = sorted(set(exclude_families) - set(FAMILY_OF.values()))
    if unknown:
        raise TelemetryError(
            f"no feature family {unknown[0]!r}; families are {', '.join(dict.fromkeys(FAMILY_OF.values()))}",
            "exclude_families",
        )


def _split(devices: list[str], seed: int) -> tuple[list[str] | None, list[str] | None]:
    if len(devices) < MIN_DEVICES:
        return None, None
    order = np.random.default_rng(seed).permutation(len(devices))
    k = max(1, round(len(devices) * HELD_OUT_SHARE))
    return sorted(devices[i] for i in order[k:]), sorted(devices[i] for i in order[:k])


def _cuts(start_us: Codes, seconds: int, seed: int) -> list[int]:
    """Moments that separate past from future: the middle border, or several moments of a short span."""
    first, last = int(start_us.min()), int(start_us.max())
    width = seconds * 1_000_000
    count = last // width - first // width + 1
    if count >= MIN_WINDOWS:
        return [(first // width + (count + 1) // 2) * width]
    shares = np.random.default_rng(seed).uniform(0.35, 0.65, _MOMENTS)
    return [int(first + share * (last - first)) for share in shares]


def _injector(
    tables: Tables,
    window: str,
    seed: int,
    kinds: tuple[str, ...],
    verdicts: pa.Table | None,
    before: Detector | None,
    exclude_families: tuple[str, ...],
    outlined: bool,
) -> Injector:
    """What every round starts from: spans of devices aligned, cut, and a baseline of the past of each cut."""
    placed = aligned_spans(tables if verdicts is None else tables | {"verdicts": verdicts})
    decided = placed.get("verdicts")
    cuts = _cuts(micros(placed["flows"]["start"]), window_seconds(window), seed)
    baselines = {
        cut: _baseline(past_and_future(placed, cut)[0], window, exclude_families, decided, before)
        for cut in set(cuts)
    }
    if outlined:
        baselines = {cut: baseline.outlined() for cut, baseline in baselines.items()}
    return Injector(placed, cuts, window, kinds, decided, _known(before), exclude_families, baselines, seed)


def _baseline(
    past: Tables,
    window: str,
    exclude_families: tuple[str, ...],
    verdicts: pa.Table | None,
    before: Detector | None,
) -> AppBaseline:
    table = assemble(past, window, _known(before)).features
    older = None if before is None else before.baseline
    return AppBaseline.fit(_judgeable(hide(_undisputed(table, verdicts), exclude_families)), older)


def _known(before: Detector | None) -> History:
    """The history that a training continues; what it adds is vetted."""
    return History.empty() if before is None else replace(before.history, vetting=True)


def _later(tables: Tables, before: Detector, window: str, exclude_families: tuple[str, ...]) -> Tables:
    """The tables without the flows up to the end of what `before` learned."""
    same = window == before.window and sorted(exclude_families) == sorted(before.excluded_families)
    if not same:
        raise TelemetryError(
            f"the earlier model has windows of {before.window} and excludes "
            f"{', '.join(before.excluded_families) or 'no feature family'}; train with the same settings, or "
            "without the earlier model"
        )
    later = past_and_future(tables, before.reference.end_us + 1)[1]
    if not len(later["flows"]):
        raise TelemetryError("the earlier model learned all of these flows already; add later telemetry")
    return later


def _undisputed(table: pd.DataFrame, verdicts: pa.Table | None) -> pd.DataFrame:
    """Windows that no analyst called malicious or unexplained."""
    if verdicts is None:
        return table
    return table[~np.isin(verdict_of(table, verdicts).astype(str), ("malicious", "unexplained"))]


def _reference(later: list[Sample], flows: pa.Table) -> Reference:
    rows = Sample.joined(later)
    rows = rows.take(~rows.malicious)
    end_us = int(micros(flows["start"]).max())
    return Reference.fit(rows.frame, comparable(rows.values, rows.distances), end_us)


def _judgeable(table: pd.DataFrame) -> pd.DataFrame:
    """Windows that can be judged, or all of them when none can."""
    mask = eligible(table)
    return table[mask] if mask.any() else table


def _roughness(windows: int, days: float, by_channel: bool) -> str:
    held = (
        "channels of the same device(s), for want of devices" if by_channel else "devices that no model saw"
    )
    return (
        f"Calibrated on {windows} windows over {days:.2f} device-days, held out as {held}. No p-value can be "
        f"below {1 / (windows + 1):.2g}; a promise of one alert per device-day is good to about "
        f"{100 / max(np.sqrt(days), 0.1):.0f}% (one standard deviation of counts)."
    )
