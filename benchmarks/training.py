"""Training on a big baseline: wall time by part, and peak memory.

training.py [--devices 580] [--days 14] [--seed 0] [--telemetry DIR]

Simulated telemetry without implants, written to disk first; then this process reads it and trains, as
`appcadence train` does. Parts are the functions that `train` itself calls, by cumulative time. The peak is
that of the whole process. Goals for a million windows of 24 h on two cores: five minutes, 6 GB.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import tempfile
import time
from pathlib import Path

from appcadence.features.build import build
from appcadence.features.extraction import load
from appcadence.features.windows import window_seconds
from appcadence.telemetry.simulate.fleet import write
from appcadence.training.train import train

SHOWN_SECONDS = 0.5
Function = tuple[str, int, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"devices": 580, "days": 14, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--telemetry", type=Path, help="a telemetry directory instead of a simulated one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = options.telemetry or Path(scratch) / "telemetry"
        if options.telemetry is None:
            write(path, options.devices, options.days, options.seed, implants_per_device_day=0.0)
        measure(path)


def measure(path: Path) -> None:
    """Read, train, count, print."""
    profile = cProfile.Profile()
    begin = time.perf_counter()
    tables = load(path)
    read = time.perf_counter() - begin
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    training = profile.runcall(train, tables)
    wall = time.perf_counter() - begin
    used = resource.getrusage(resource.RUSAGE_SELF)
    windows = build(tables, window_seconds("24h")).n
    print(
        f"{windows / 1e3:.0f} k windows of {training.params['devices']} devices, "
        f"{len(tables['flows']) / 1e6:.2f} M flows, {os.cpu_count()} cores; "
        f"{training.params['rounds']} rounds of injection, {training.params['implants']} implants"
    )
    print(f"{'part':28s}{'calls':>6}{'seconds':>9}{'share':>7}")
    print(f"{'reading':28s}{1:6d}{read:9.1f}{read / wall:7.0%}")
    for name, calls, seconds in parts(profile):
        print(f"{name:28s}{calls:6d}{seconds:9.1f}{seconds / wall:7.0%}")
    cpu = used.ru_utime + used.ru_stime
    print(f"all: {wall:.1f} s, {windows / wall:.0f} windows/s, {cpu:.0f} s of processor time")
    print(f"peak memory {used.ru_maxrss / 1e6:.2f} GB, {before:.2f} GB before training")


def parts(profile: cProfile.Profile) -> list[tuple[str, int, float]]:
    """Name, calls and cumulative seconds of what `train` calls, comprehensions opened; longest first."""
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    (root,) = (f for f in stats if f[2] == "train" and f[0].endswith("training/train.py"))
    found: dict[str, tuple[int, float]] = {}
    opened = [root]
    while opened:
        caller = opened.pop()
        for function, (_, _, _, _, callers) in stats.items():
            if caller not in callers:
                continue
            _, calls, _, seconds = callers[caller]
            if function[2].startswith("<") and function[0] == root[0]:
                opened.append(function)
                continue
            name = f"{Path(function[0]).stem}.{function[2]}"
            old = found.get(name, (0, 0.0))
            found[name] = (old[0] + calls, old[1] + seconds)
    rows = [(name, calls, seconds) for name, (calls, seconds) in found.items() if seconds >= SHOWN_SECONDS]
    return sorted(rows, key=lambda row: -row[2])


if __name__ == "__main__":
    main()
