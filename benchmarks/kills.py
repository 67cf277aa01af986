"""A batch job that is killed again and again ends in the same bytes as one left alone.

kills.py [--devices 120] [--days 14] [--kills 20] [--seed 0]

Simulates telemetry, trains on a small fleet, scores once in peace, then starts the same job and sends SIGKILL
after a random share of the time that is still left, `--kills` times, and lets it finish.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from appcadence.models import bundle
from appcadence.telemetry.simulate.fleet import simulate, write
from appcadence.training.train import train

COMMAND = Path(sys.executable).with_name("appcadence")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"devices": 120, "days": 14, "kills": 20, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write(place / "telemetry", options.devices, options.days, options.seed, implants_per_device_day=0.25)
        bundle.save(train(simulate(24, 5, options.seed + 1).tables).detector, place / "model")
        begin = time.perf_counter()
        job(place, "calm").wait()
        calm = time.perf_counter() - begin
        rng, spent, kills = random.Random(options.seed), 0.0, 0
        for _ in range(options.kills):
            begin = time.perf_counter()
            process = job(place, "killed")
            try:
                process.wait(rng.uniform(0.0, calm))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
            spent += time.perf_counter() - begin
        begin = time.perf_counter()
        last = job(place, "killed").wait()
        final = time.perf_counter() - begin
        same = digests(place / "calm") == digests(place / "killed")
        left = [path.name for path in place.glob(".killed*")]
        print(
            f"{kills} kills over {spent:.0f} s, last run {final:.1f} s (exit {last}), calm run {calm:.1f} s; "
            f"files equal: {same}; left behind: {left or 'nothing'}"
        )


def job(place: Path, out: str) -> subprocess.Popen[bytes]:
    arguments = ["score", place / "telemetry", "--model", place / "model", "--out", place / out]
    return subprocess.Popen([COMMAND, *arguments], stdout=subprocess.DEVNULL)


def digests(out: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.iterdir())}


if __name__ == "__main__":
    main()
