"""The feature step against its physical floor, on simulated flows, in one run.

features.py [--devices 560] [--days 14] [--telemetry DIR]

The floor reads flows, groups them into channels and sorts each by time, with pyarrow and NumPy's lexsort, as
`floor.py` of the shared benchmarks does. The feature step reads all tables and computes the whole catalogue.
Both are the best of three, after one warm-up that compiles or loads the kernels.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence.features import History, extract
from appcadence.telemetry.simulate.fleet import write

COLUMNS = ["device_id", "app_id", "dest_host", "start", "duration_seconds", "bytes_out", "bytes_in"]


def floor(path: Path) -> int:
    """Read + group + sort alone; returns the rows."""
    table = pq.read_table(path / "flows.parquet", columns=COLUMNS, read_dictionary=COLUMNS[:3])
    key = np.zeros(len(table), np.int64)
    for name in COLUMNS[:3]:
        codes = table[name].unify_dictionaries().combine_chunks()
        codes = codes.chunk(0) if hasattr(codes, "chunk") else codes
        indices = codes.indices.fill_null(len(codes.dictionary)).to_numpy(zero_copy_only=False)
        key = key * (len(codes.dictionary) + 1) + indices
    start = pc.cast(table["start"], "int64").to_numpy()
    order = np.lexsort((start, key))
    for name in COLUMNS[4:]:
        np.take(table[name].to_numpy(), order)
    np.take(start, order)
    np.take(key, order)
    return len(table)


def best(step: Callable[[], object], runs: int = 3) -> float:
    seconds = []
    for _ in range(runs):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=560)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--telemetry", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = options.telemetry
        if path is None:
            path = Path(scratch) / "telemetry"
            write(path, options.devices, options.days, 0)
        rows = floor(path)
        windows = len(extract(path, history=History.empty()))
        physical = best(lambda: floor(path))
        features = best(lambda: extract(path, history=History.empty()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{rows / 1e6:.2f} M flows, {windows / 1e3:.0f} k windows")
    print(f"floor (read + group + sort)   {physical:6.2f} s  {rows / physical / 1e6:5.2f} M flows/s")
    print(f"feature step, whole catalogue {features:6.2f} s  {rows / features / 1e6:5.2f} M flows/s")
    print(f"ratio {features / physical:.2f}, peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main()
