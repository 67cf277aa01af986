"""Other detectors on the simulated fleets of fleet.py: the same windows, implant-days and budgets.

fleet_peers.py [--seeds N] [--first-seed S] [--devices N] [--development]

PyOD's ECOD and HBOS, as they come, learn the benign windows of the first week's later part: distances from a
baseline of its earlier part where a feature has one, else values, missing = 0. RITA's timing score, ratio
regularity and "first seen, then count" need no training. Every method ranks the windows that appcadence
ranks: with enough evidence, and no fleet event. appcadence's own scale is calibrated by stratum; the others
rank all windows together.
    python -m venv peers && peers/bin/pip install -e '.[train]' pyod
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from fleet import DAYS, KNOWN_KINDS, made, spread
from pyod.models.ecod import ECOD
from pyod.models.hbos import HBOS
from rita import timing_score

from appcadence.features.build import build
from appcadence.features.columns import micros
from appcadence.features.extraction import load, table_of
from appcadence.features.windows import window_seconds
from appcadence.models.baseline import AppBaseline
from appcadence.models.detector import aligned, comparable
from appcadence.models.eligibility import eligible
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.simulate.fleet import Simulation
from appcadence.training.evaluate import BUDGETS, Quality, evaluate
from appcadence.training.injection import Tables, labelled, past_and_future
from appcadence.training.train import train

WINDOW = "24h"
_DAY_US = 86_400_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=120)
    parser.add_argument("--development", action="store_true")
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    found = [compared(made(options.devices, seed, development=options.development), seed) for seed in seeds]
    what = "development" if options.development else "unseen"
    print(
        f"simulated, {what}: {options.devices} devices, {options.seeds} seeds from {options.first_seed}; "
        f"{sum(q['appcadence'].implant_days for q in found)} implant-days, "
        f"{sum(q['appcadence'].device_days for q in found):.0f} device-days"
    )
    print("recall at so many false alerts a device-day:")
    print(f"{'':20s}" + "".join(f"{f'at {b:g}':>14s}" for b in BUDGETS) + "  average precision")
    for method in found[0]:
        each = [q[method] for q in found]
        recalls = " ".join(spread([q.recall[b] for q in each]) for b in BUDGETS)
        print(f"{method:20s} {recalls}  {spread([q.average_precision for q in each])}")


def compared(fleet: Simulation, seed: int) -> dict[str, Quality]:
    """Quality of each method on the second week of a fleet."""
    tables = load(fleet.tables)
    first = int(micros(tables["flows"]["start"]).min()) // _DAY_US
    before, after = past_and_future(tables, (first + DAYS // 2) * _DAY_US)
    detector = train(before, WINDOW, seed, kinds=KNOWN_KINDS).detector
    scored = Scorer(detector, "benchmark").run(after)
    scores, frame = scored.scores.to_pandas(), table_of(scored.windows)
    offsets, times = scored.windows.beats
    beats = np.split(times, offsets[1:-1])
    ranked = (scores["status"] == "scored").to_numpy()
    known = benign(before, (first + DAYS // 4) * _DAY_US)
    rows = complete(frame[ranked], detector.baseline)
    methods = {
        "appcadence": scores["score"].to_numpy()[ranked],
        "ECOD": ECOD().fit(known).decision_function(rows),
        "HBOS": HBOS().fit(known).decision_function(rows),
        "first seen + count": (frame["channel_is_new"].fillna(0) * 1e6 + frame["n_flows"])[ranked],
        "ratio regularity": np.fmax(frame["session_ratio_share_1_3"], frame["beat_ratio_share_1_3"])[ranked],
        "RITA timing": np.array([timing_score(np.diff(part)) for part in beats])[ranked],
    }
    out = {}
    for name, values in methods.items():
        score = np.full(len(frame), np.nan)
        score[ranked] = values
        out[name] = evaluate(scores.assign(score=score), fleet.labels, after["flows"])
    print(f"seed {seed}: {len(known)} benign windows to learn, {ranked.sum()} to rank", flush=True)
    return out


def benign(tables: Tables, cut_us: int) -> np.ndarray:
    """(n, n_features) eligible windows from the cut on, as `complete` gives them with the past's baseline."""
    past = table_of(build(past_and_future(tables, cut_us)[0], window_seconds(WINDOW)))
    later = labelled(tables, cut_us, WINDOW, 0, 0.0)[0].frame
    return complete(later, AppBaseline.fit(past[eligible(past)]))


def complete(frame: pd.DataFrame, baseline: AppBaseline) -> np.ndarray:
    """(n, n_features) distances where a feature has one, else values; missing = 0."""
    return np.nan_to_num(comparable(aligned(frame), baseline.distances(frame)))


if __name__ == "__main__":
    main()
