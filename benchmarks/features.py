"""The feature step against its physical floor, on simulated flows, in one run.

features.py [--devices 560] [--days 14] [--telemetry DIR] [--runs 3]
features.py --scale 56,560,5600

The floor reads flows, groups them into channels and sorts each by time, with pyarrow and NumPy's lexsort, as
`floor.py` of the shared benchmarks does. The feature step reads all tables and computes the whole catalogue,
novelty and app windows included. Both are the best of some runs, taken in turn after a warm-up that compiles
or loads the kernels; the peak is that of a process that does nothing else.

With --scale the step that writes to disk (`appcadence features`) runs on fleets of those sizes, each in a
process of its own, to show time a flow and peak memory as the telemetry grows past memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
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
_PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)"
_EXTRACT = (
    "import sys; from appcadence.features import History, extract;"
    "extract(sys.argv[1], history=History.empty());"
)
_WRITE = (
    "import sys, time; from pathlib import Path; from appcadence.features import History;"
    "from appcadence.features.partition import write_features;"
    "write_features(sys.argv[2], Path(sys.argv[3] + '/w.parquet'), history=History.empty());"  # warm-up
    "stages = {}; last = [None, time.perf_counter()];\n"
    "def note(what, share):\n"
    "    now = time.perf_counter(); stages[what] = stages.get(what, 0.0) + now - last[1]; last[1] = now\n"
    "begin = time.perf_counter()\n"
    "write_features(sys.argv[1], Path(sys.argv[3] + '/f.parquet'), history=History.empty(), progress=note)\n"
    "print(time.perf_counter() - begin, *(stages[s] for s in ('reading', 'extracting', 'writing')));"
)


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


def seconds(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def alone(code: str, *arguments: object) -> list[float]:
    """The numbers that a process of its own prints, the last of them its peak memory in GB."""
    command = [sys.executable, "-c", f"{code}\n{_PEAK}", *map(str, arguments)]
    return [float(word) for word in subprocess.check_output(command, text=True).split()]


def against_the_floor(path: Path, runs: int) -> None:
    rows, windows = floor(path), len(extract(path, history=History.empty()))
    both = [
        (seconds(lambda: floor(path)), seconds(lambda: extract(path, history=History.empty())))
        for _ in range(runs)
    ]
    physical, step = (min(column) for column in zip(*both, strict=True))
    (peak,) = alone(_EXTRACT, path)
    print(f"{rows / 1e6:.2f} M flows, {windows / 1e3:.0f} k windows, best of {runs}")
    print(f"floor (read + group + sort)   {physical:6.2f} s  {rows / physical / 1e6:5.2f} M flows/s")
    print(f"feature step, whole catalogue {step:6.2f} s  {rows / step / 1e6:5.2f} M flows/s")
    print(f"ratio {step / physical:.2f}, peak memory {peak:.2f} GB")


def scaling(sizes: list[int], days: int, scratch: Path) -> None:
    write(scratch / "small", 4, 3, 1)
    print(
        f"{'devices':>8}{'M flows':>9}{'seconds':>9}{'read':>7}{'extract':>9}{'write':>7}"
        f"{'us/flow':>9}{'M/s':>6}{'peak GB':>9}"
    )
    for size in sizes:
        path = scratch / f"fleet-{size}"
        write(path, size, days, 0)
        rows = pq.read_metadata(path / "flows.parquet").num_rows
        total, read, step, out, peak = alone(_WRITE, path, scratch / "small", scratch)
        print(
            f"{size:>8}{rows / 1e6:>9.2f}{total:>9.1f}{read:>7.1f}{step:>9.1f}{out:>7.1f}"
            f"{1e6 * total / rows:>9.2f}{rows / total / 1e6:>6.2f}{peak:>9.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=560)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--telemetry", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", help="fleet sizes, such as 56,560,5600")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.scale:
            scaling([int(size) for size in options.scale.split(",")], options.days, Path(scratch))
            return
        path = options.telemetry
        if path is None:
            path = Path(scratch) / "telemetry"
            write(path, options.devices, options.days, 0)
        against_the_floor(path, options.runs)


if __name__ == "__main__":
    main()
