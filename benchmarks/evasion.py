"""What evasion costs: implants that do what hides them, found at one false app-day a device-day.

evasion.py [--seeds N] [--first-seed S] [--devices N]

Simulated fleets: a benign week to train on, and a week to score in which a quarter of the devices carry one
implant each, all of one scenario, in an app drawn from those that can show it (per unlock and in use: apps in
front for an hour or more). "Known host" is a host that the app met in the first week; sizes and outcomes are
exchanges of that host (for a new host: of one of the app's hosts) drawn from the same week. The unit is a
device, an app and a day (without app names: a destination); it counts once, by its strongest ranked window.
Recall is of all units in which flows of the implant start, at the score that one benign unit a device-day
exceeds. Beside it: the share of the same units above that score without the implant, the share of all benign
units (the base rate), the share of the implant's units that cannot be judged; and one line of arithmetic
(`one_liners`) over the same units, an app's sum over its destinations left out. Simulated figures promise
nothing for a real fleet.
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
from evaders import SCENARIOS, Unit, implants
from fleet import DAYS, spread, weeks
from one_liners import one_liners

from appcadence.features.extraction import load, table_of
from appcadence.features.windows import APP_LEVEL
from appcadence.models.calibration import alert_units, device_days
from appcadence.models.eligibility import eligible
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.simulate.fleet import simulate
from appcadence.training.injection import Tables
from appcadence.training.train import train

PACKAGE = "appcadence"
CARRYING_SHARE = 0.25
DRAWS = 2
"""So often are carriers and hosts drawn anew on one fleet."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=2000)
    parser.add_argument("--devices", type=int, default=40)
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    results = pd.concat([fleet_results(options.devices, seed) for seed in seeds], ignore_index=True)
    methods = [PACKAGE, *(name for name in results if name.startswith(("first seen", "sum")))]
    print(
        f"\nsimulated: {options.devices} devices, a week to train and a week to score, {options.seeds} seeds "
        f"from {options.first_seed}, {DRAWS} draws each; share found at one false unit a device-day\n"
    )
    columns = [*methods, "without it", "all benign", "unjudged"]
    heads = " ".join(f"{name.removeprefix('first seen + '):>15s}" for name in columns)
    print(f"{'':32s} {'units':>5s} {'flows':>6s} {heads}  earlier")
    for scenario in SCENARIOS:
        rows = results[results["scenario"] == scenario.name]
        number, each = rows["units"].sum(), rows["flows"].sum() / rows["units"].sum()
        cells = " ".join(f"{spread(list(rows[name])):>15s}" for name in columns)
        print(f"{scenario.name:32s} {number:5d} {each:6.1f} {cells}  {scenario.earlier}")
    print('"earlier": on another fleet. Flows: of the implant in a unit. Peers: ' + "; ".join(methods[1:]))


def fleet_results(devices: int, seed: int) -> pd.DataFrame:
    """One row a scenario and draw, on one fleet."""
    before, after = weeks(load(simulate(devices, DAYS, seed, implants_per_device_day=0.0).tables))
    scorer = Scorer(train(before, seed=seed).detector, "benchmark")
    clean = units(scorer, after)
    rows = []
    for number, (draw, scenario) in enumerate(product(range(DRAWS), SCENARIOS)):
        made, truth = implants(before, after, scenario, round(devices * CARRYING_SHARE), seed * 100 + number)
        flows = pa.concat_tables([after["flows"], made]).unify_dictionaries()
        shares = found(units(scorer, after | {"flows": flows}), clean, truth)
        rows.append({"scenario": scenario.name, "flows": len(made)} | shares)
        print(f"seed {seed}, draw {draw}, {scenario.name}: {shares[PACKAGE]:.2f}", flush=True)
    return pd.DataFrame(rows)


def units(scorer: Scorer, tables: Tables) -> pd.DataFrame:
    """One row a unit: the strongest score of each method, and `days`, the observed device-days of all."""
    run = scorer.run(tables)
    table, scores = table_of(run.windows), run.scores.to_pandas()
    rows = alert_units(table).to_pandas(date_as_object=False)
    rows["day"] = rows["day"].astype("datetime64[us]")
    rows[PACKAGE] = scores["score"].where(scores["status"] == "scored")
    # An app's sum over its destinations is neither new nor known, which the one-liners do not foresee.
    single = (table["dest"] != APP_LEVEL).to_numpy() & eligible(table)
    rows = rows.join(one_liners(table[single]))
    out = rows.groupby(["device_id", "name", "day"]).max(numeric_only=True)
    return out.assign(days=device_days(table))


def found(rows: pd.DataFrame, clean: pd.DataFrame, truth: set[Unit]) -> dict[str, float]:
    """Share of the implant's units above the score that one benign unit a device-day exceeds, by method."""
    methods = [name for name in rows if name != "days"]
    mine = pd.MultiIndex.from_tuples(sorted(truth), names=rows.index.names)
    benign = rows.drop(mine, errors="ignore")
    level = {m: _level(benign[m], float(rows["days"].iloc[0])) for m in methods}
    # A unit without any window is missed like one that cannot be judged.
    of_implant = rows.reindex(mine)
    return {
        "units": len(mine),
        **{m: float((of_implant[m] > level[m]).mean()) for m in methods},
        "without it": float((clean.reindex(mine)[PACKAGE] > level[PACKAGE]).mean()),
        "all benign": float((benign[PACKAGE] > level[PACKAGE]).mean()),
        "unjudged": float(of_implant[PACKAGE].isna().mean()),
    }


def _level(scores: pd.Series, allowed: float) -> float:
    """The score that so many units exceed."""
    falling = np.sort(scores.fillna(-np.inf))[::-1]
    return float(falling[int(allowed)]) if int(allowed) < len(falling) else -np.inf


if __name__ == "__main__":
    main()
