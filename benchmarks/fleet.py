"""Recall on a simulated fleet that training and tuning never saw, and whether the alert budget holds.

fleet.py [--seeds N] [--first-seed S] [--devices N] [--development] [--exclude-family NAME]...
         [--poisoned | --ablations]

Simulated telemetry: a week without implants to train on, a week with implants to score, the history rolled
from day to day. Six archetypes of apps and one kind of implant (slow_drip) were drawn by lot, once, and left
out of all tuning: `--development` simulates fleets without them, and training never injects that kind. The
reported fleets hold them all. An implant-day is one implant on one UTC day on which it was active; false
alarms are benign device-app-days (device-dest-days without app names). Figures on a simulated fleet promise
nothing for a real one.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.features.catalog import NAMES
from appcadence.features.columns import micros
from appcadence.features.extraction import load
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import Detector
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.fleet import Simulation, simulate
from appcadence.telemetry.simulate.implants import inject
from appcadence.training.evaluate import BUDGETS, Quality, evaluate
from appcadence.training.fit import WEIGHTS
from appcadence.training.injection import Tables, past_and_future
from appcadence.training.train import train

UNSEEN_APPS = (
    "com.castaway.podcasts",
    "com.daybreak.news",
    "com.lanternsoft.browser",
    "com.parley.messenger",
    "com.skylark.weather",
    "com.wayfare.maps",
)
UNSEEN_KIND = "slow_drip"
KNOWN_KINDS = tuple(kind for kind in KINDS if kind != UNSEEN_KIND)
DAYS = 14
POISONED_SHARE = 0.03
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Outcome:
    """One fleet: quality of its second week, and false alerts a device-day by day."""

    quality: Quality
    daily: pd.Series
    detector: Detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=120)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--exclude-family", action="append", default=[])
    parser.add_argument("--poisoned", action="store_true", help="also train on 3% poisoned device-days")
    parser.add_argument("--ablations", action="store_true", help="leave out one part after the other")
    options = parser.parse_args()
    if options.ablations:
        ablations(options)
        return
    excluded = tuple(options.exclude_family)
    outcomes, poisoned = [], []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        fleet = made(options.devices, seed, development=options.development)
        began = time.perf_counter()
        outcomes.append(run(fleet, seed, excluded))
        if options.poisoned:
            poisoned.append(run(fleet, seed, excluded, poisoned=True))
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    what = "development" if options.development else "unseen"
    print(
        f"\nsimulated, {what}: {options.devices} devices, a week to train and a week to score, "
        f"{options.seeds} seeds from {options.first_seed}; without {', '.join(excluded) or 'nothing'}\n"
    )
    report(outcomes)
    if poisoned:
        print("\ntrained on a week in which 3% of the device-days carry implants:\n")
        report(poisoned)


def made(devices: int, seed: int, *, development: bool) -> Simulation:
    """A fleet; one for development lacks what was left out of tuning."""
    left_out = UNSEEN_APPS if development else ()
    kinds = KNOWN_KINDS if development else tuple(KINDS)
    return simulate(devices, DAYS, seed, implants_per_device_day=0.25, without_apps=left_out, kinds=kinds)


def run(
    fleet: Simulation,
    seed: int,
    excluded: tuple[str, ...] = (),
    *,
    poisoned: bool = False,
    without: str = "",
    weights: np.ndarray = WEIGHTS,
    from_reference: bool = True,
) -> Outcome:
    """Train on the first week and evaluate on the second, perhaps without one context table."""
    tables = {name: table for name, table in load(fleet.tables).items() if name != without}
    before, after = weeks(tables)
    if poisoned:
        injected_flows = inject(before, seed + 77, per_device_day=POISONED_SHARE / 2, kinds=KNOWN_KINDS)[0]
        flows = pa.concat_tables([before["flows"], injected_flows]).unify_dictionaries()
        before = before | {"flows": flows}
    detector = train(
        before,
        seed=seed,
        kinds=KNOWN_KINDS,
        exclude_families=excluded,
        weights=weights,
        from_reference=from_reference,
    ).detector
    scores = Scorer(detector, "benchmark").score(after)
    devices = fleet.tables["flows"].select(["device_id", "source"]).to_pandas().drop_duplicates("device_id")
    telemetry = devices.astype(str).set_index("device_id")["source"]
    implants = fleet.implants.set_index("case_id")
    origin = implants["new_destination"].map({True: "new host", False: "known host"})
    quality = evaluate(
        scores,
        fleet.labels,
        after["flows"],
        {"telemetry": telemetry, "difficulty": implants["difficulty"], "origin": origin},
    )
    return Outcome(quality, _daily(scores, fleet.labels), detector)


def weeks(tables: Tables) -> tuple[Tables, Tables]:
    """The week to train on and the week to score; context tables stay whole."""
    first = int(micros(tables["flows"]["start"]).min()) // _DAY_US
    return past_and_future(tables, (first + DAYS // 2) * _DAY_US)


def ablations(options: argparse.Namespace) -> None:
    """The same fleets with one part left out at a time; recall by the ranking alone."""
    variants: dict[str, dict[str, Any]] = {
        "complete": {},
        "without distances from the baseline": {},
        "experts alone": {"weights": WEIGHTS * [0.0, 1.0]},
        "LightGBM alone": {"weights": WEIGHTS * [1.0, 0.0]},
        "without the reference model": {"from_reference": False},
        "without novelty": {"excluded": ("novelty",)},
        "without size": {"excluded": ("size",)},
        "without novelty and size": {"excluded": ("novelty", "size")},
        "without companion": {"excluded": ("companion",)},
        "without activity": {"without": "activity"},
        "without notifications": {"without": "notifications"},
    }
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    fleets = {seed: made(options.devices, seed, development=options.development) for seed in seeds}
    print(f"simulated, {options.devices} devices, {options.seeds} seeds from {options.first_seed}")
    print(f"{'':38s} " + " ".join(f"{f'at {b:g}':>14s}" for b in BUDGETS) + "  realised at 1")
    for name, how in variants.items():
        blind = (
            mock.patch.object(AppBaseline, "distances", _unknown) if "distances" in name else nullcontext()
        )
        with blind:
            found = [run(fleet, seed, **how).quality for seed, fleet in fleets.items()]
        recalls = " ".join(spread([q.recall[b] for q in found]) for b in BUDGETS)
        print(f"{name:38s} {recalls}  {spread([q.realised[1.0] for q in found])}", flush=True)


def _unknown(_baseline: AppBaseline, frame: pd.DataFrame) -> np.ndarray:
    return np.full((len(frame), len(NAMES)), np.nan)


def _daily(scores: pd.DataFrame, labels: pa.Table) -> pd.Series:
    """Benign alerting device-app-days per device by day, carriers of implants left out."""
    carriers = set(labels["device_id"].to_pylist())
    rows = scores[(scores["score"] >= 0) & (scores["status"] == "scored")]
    rows = rows[~rows["device_id"].isin(carriers)]
    what = rows["app_id"].astype(object).where(rows["app_id"].notna(), rows["dest"].astype(object))
    day = rows["window_start"].dt.floor("D")
    units = pd.DataFrame({"device": rows["device_id"], "what": what, "day": day}).drop_duplicates()
    observed = scores[~scores["device_id"].isin(carriers)].drop_duplicates(["device_id", "window_start"])
    days = observed.groupby(observed["window_start"].dt.floor("D"))["observed_seconds"].sum() / 86_400
    # Sessions that outlast the week are seen in the days after it.
    return (units.groupby("day").size() / days).fillna(0.0).iloc[: DAYS // 2]


def report(outcomes: list[Outcome]) -> None:
    """Means over seeds, their spread, and counts."""
    qualities = [o.quality for o in outcomes]
    print(f"{'false alerts a device-day':28s} {'realised':>14s} {'recall':>14s}   95% over devices")
    for budget in BUDGETS:
        low, high = np.mean([q.interval[budget] for q in qualities], axis=0)
        print(
            f"{budget:28g} {spread([q.realised[budget] for q in qualities])} "
            f"{spread([q.recall[budget] for q in qualities])}   {low:.2f} to {high:.2f}"
        )
    found = [q.first_found_days for q in qualities]
    print(
        f"{sum(q.implant_days for q in qualities)} implant-days, "
        f"{sum(q.device_days for q in qualities):.0f} device-days; average precision "
        f"{np.mean([q.average_precision for q in qualities]):.2f}; median days to the first find: "
        + ", ".join(f"{days:g}" for days in found)
    )
    for column in qualities[0].recall_by:
        print(f"\nrecall at one false alert a device-day, by {column} (implant-days):")
        for value in sorted({v for q in qualities for v in q.recall_by[column]}):
            each = [q.recall_by[column][value] for q in qualities if value in q.recall_by[column]]
            mark = "  (left out of tuning and training)" if value == UNSEEN_KIND else ""
            print(f"  {value:26s} {spread([s for s, _ in each])} {sum(n for _, n in each):6d}{mark}")
    daily = pd.concat([o.daily for o in outcomes], axis=1).mean(axis=1)
    print("\nfalse alerts a device-day at a promise of one, by day, devices without implants:")
    print("  " + "  ".join(f"{value:.2f}" for value in daily))


def spread(values: list[float]) -> str:
    return f"{np.mean(values):6.2f} ± {np.std(values):4.2f}"


if __name__ == "__main__":
    main()
