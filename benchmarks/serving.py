"""Serving: one window from arrays, the batch job against the feature step, and the import.

serving.py [--devices 100] [--days 14] [--telemetry DIR] [--model BUNDLE] [--calls 5000] [--runs 3]

Simulated fleets; without --model one of 60 devices trains for six days. All times are taken in turn in one
run after a warm-up, and what counts are ratios.

One window: different rows of the fleet, each a call. Ours returns score, p-value, classifier, experts and all
contributions; the plain path asks LightGBM's own boosters of the same model for `predict` and `pred_contrib`,
and does no baseline, experts, fusion or calibration.

Batch: `score_directory` (read, features, score, alerts, all files) against the feature step that writes
to disk in bounded memory, as the batch job works, and against `extract`, which holds all in memory and writes
nothing. A ratio is the job over the step, by the clock and in CPU seconds, which other work on the machine
disturbs less. Slips documents about 5,000 flows a minute; its figure is quoted, not measured.

Micro-batches: the same telemetry through `Scorer.update`, bound to one core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import lightgbm
import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from appcadence.features import extract
from appcadence.features.catalog import NAMES
from appcadence.features.partition import write_features
from appcadence.models import bundle
from appcadence.models.detector import aligned
from appcadence.nightly import score_directory
from appcadence.serving import Scorer
from appcadence.telemetry.simulate.fleet import simulate, write
from appcadence.training.train import train

SLIPS_FLOWS_PER_MINUTE = 5000
_TURN = 500
"""Calls in a row; of the plain path a tenth."""
_SLICE = 10_000
_TIMES = {"flows": "start", "activity": "start", "notifications": "time"}
_END = pd.Timestamp("2100-01-01", tz="UTC")
_HEAVY = "mlflow, lightgbm, sklearn"
_IMPORT = (
    "import sys, time; begin = time.perf_counter(); from appcadence.serving import Scorer;"
    "print(time.perf_counter() - begin);"
    f"print(*[name for name in '{_HEAVY}'.split(', ') if name in sys.modules])"
)


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def one_window(scorer: Scorer, frame: pd.DataFrame, calls: int) -> None:
    """Latency of single windows, ours and the plain path's in turn."""
    detector = scorer.detector
    frame = frame.sample(min(calls, len(frame)), random_state=0)
    values = frame[list(NAMES)].to_numpy()
    distances = detector.baseline.distances(frame)
    both = np.hstack([aligned(frame), distances])
    bags = [
        lightgbm.Booster(model_str=f"tree\n{text}") for text in detector.classifier_text.split("tree\n")[1:]
    ]
    keys = [
        tuple(None if pd.isna(x) else x for x in key)
        for key in frame[["app_id", "dest", "category"]].itertuples(index=False)
    ]
    channels = {key: scorer.channel(*key) for key in set(keys)}

    def plain(i: int) -> None:
        for bag in bags:
            bag.predict(both[i : i + 1], raw_score=True, num_threads=1)
            bag.predict(both[i : i + 1], pred_contrib=True, num_threads=1)

    n_beats = frame["n_beats"].tolist()

    def ours(i: int) -> None:
        channels[keys[i]].score(values[i], n_beats[i])

    steps: dict[str, Callable[[int], None]] = {
        "arrays in, arrays out": ours,
        "LightGBM": plain,
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for first in range(0, len(frame), _TURN):
        for name, step in steps.items():
            last = first + (_TURN if step is ours else _TURN // 10)
            took = [seconds(partial(step, i)) for i in range(first, min(last, len(frame)))]
            # The first turn loads kernels.
            times[name] += took if first else []
    print(f"{'one window, microseconds':44s}{'p50':>9}{'p99':>9}{'calls':>8}")
    figures = {name: 1e6 * np.percentile(took, [50, 99]) for name, took in times.items()}
    for name, (middle, late) in figures.items():
        print(f"{name:44s}{middle:9.0f}{late:9.0f}{len(times[name]):8d}")
    mine, other = figures.values()
    print(f"{'ratio':44s}{other[0] / mine[0]:9.1f}{other[1] / mine[1]:9.1f}\n")


def batch(scorer: Scorer, path: Path, scratch: Path, runs: int) -> None:
    """The batch job against the feature step, in turn."""
    past, flows = scorer.detector.history, pq.read_metadata(path / "flows.parquet").num_rows
    steps: dict[str, Callable[[], object]] = {
        "score_directory": lambda: score_directory(path, scorer, scratch / "out"),
        "write_features": lambda: write_features(path, scratch / "features.parquet", history=past),
        "extract, in memory": lambda: extract(path, history=past),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for run in range(runs + 1):
        for name, step in steps.items():
            shutil.rmtree(scratch / "out", ignore_errors=True)
            before = time.process_time()
            took = seconds(step), time.process_time() - before
            times[name] += [took] if run else []
    title = f"{flows / 1e6:.2f} M flows, median of {runs}"
    print(f"{title:36s}{'seconds':>8}{'flows/s':>9}{'ratio':>7}{'CPU s':>8}{'ratio':>7}")
    job = np.array(times["score_directory"])
    for name, pairs in times.items():
        (wall, cpu), (times_wall, times_cpu) = np.median(pairs, axis=0), np.median(job / pairs, axis=0)
        print(f"{name:36s}{wall:8.2f}{flows / wall:9,.0f}{times_wall:7.2f}{cpu:8.2f}{times_cpu:7.2f}")
    slips = SLIPS_FLOWS_PER_MINUTE / 60
    ahead = flows / np.median(job[:, 0]) / slips
    print(f"{'Slips, as documented':36s}{'':8}{slips:9,.0f}{ahead:7,.0f}\n")


def micro_batches(scorer: Scorer, path: Path, runs: int) -> None:
    """`Scorer.update` on one core, all flows in slices by their start, each with what lies around it."""
    tables = {name: pq.read_table(path / f"{name}.parquet") for name in ("inventory", *_TIMES)}
    moments = {}
    for name, column in _TIMES.items():
        tables[name] = tables[name].sort_by(column)
        moments[name] = tables[name][column].cast("int64").to_numpy()
    edges = [-(2**62), *moments["flows"][_SLICE::_SLICE].tolist(), 2**62]
    cores, took, slowest = os.sched_getaffinity(0), [], []
    os.sched_setaffinity(0, {min(cores)})
    try:
        for _ in range(runs + 1):
            live, calls = Scorer(scorer.detector, scorer.version), []
            live.update(tables["flows"][:0], inventory=tables["inventory"])
            for low, high in pairwise(edges):
                parts = {}
                for name, at in moments.items():
                    first, last = np.searchsorted(at, (low, high))
                    parts[name] = tables[name][first:last]
                calls.append(seconds(partial(live.update, parts.pop("flows"), **parts)))
            calls.append(seconds(partial(live.update, tables["flows"][:0], until=_END)))
            took.append(sum(calls))
            slowest.append(max(calls))
    finally:
        os.sched_setaffinity(0, cores)
    flows = len(tables["flows"])
    print(
        f"micro-batches of {_SLICE:,} flows on one core: {flows / median(took[1:]):,.0f} flows/s, slowest "
        f"{median(slowest[1:]):.2f} s (a day closes); median of {runs}"
    )


def imports(runs: int) -> None:
    """The import in a fresh process, and what it must not bring along."""
    took, brought = [], ""
    for _ in range(runs + 1):
        out = subprocess.check_output([sys.executable, "-c", _IMPORT], text=True).splitlines()
        took.append(float(out[0]))
        brought = out[1]
    print(f"import of Scorer: {median(took[1:]):.2f} s; of {_HEAVY} it imports {brought or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--telemetry", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch, model, path = Path(name), options.model, options.telemetry
        if model is None:
            model = scratch / "model"
            bundle.save(train(simulate(60, 6, 11).tables, seed=11).detector, model)
        if path is None:
            path = scratch / "telemetry"
            write(path, options.devices, options.days, 0)
        scorer = Scorer.load(model)
        imports(options.runs)
        print()
        one_window(scorer, extract(path, history=scorer.detector.history), options.calls)
        batch(scorer, path, scratch, options.runs)
        micro_batches(scorer, path, options.runs)


if __name__ == "__main__":
    main()
