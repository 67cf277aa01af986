"""A batch job that is killed again and again ends in the same bytes as one left alone.

kills.py [--devices 120] [--days 14] [--kills 20] [--seed 0]

Simulates telemetry, trains on a small fleet, scores once in peace, then starts the same job again and again
and sends SIGKILL after a random share of that time. Whenever an output is finished all the same, it is
compared with the calm one, removed, and the killing goes on; in the end the job is let finish.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
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
        rng, kills, finished, same = random.Random(options.seed), 0, 0, True
        while kills < options.kills or not (place / "killed").exists():
            process = job(place, "killed")
            try:
                process.wait(rng.uniform(0.0, 0.7 * calm) if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                continue
            finished += 1
            same &= digests(place / "calm") == digests(place / "killed")
            if kills < options.kills:
                shutil.rmtree(place / "killed")
        left = [path.name for path in place.glob(".killed*")]
        print(
            f"calm run {calm:.1f} s; {kills} kills, after which {finished} outputs were finished; "
            f"files equal those of the calm run: {same}; left behind: {left or 'nothing'}"
        )


def job(place: Path, out: str) -> subprocess.Popen[bytes]:
    arguments = ["score", place / "telemetry", "--model", place / "model", "--out", place / out]
    return subprocess.Popen([COMMAND, *arguments], stdout=subprocess.DEVNULL)


def digests(out: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(out.iterdir())}


if __name__ == "__main__":
    main()
