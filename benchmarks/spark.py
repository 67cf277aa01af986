"""The batch job on a standalone Spark cluster beside the same job on this machine alone.

spark.py [--devices 120] [--days 7] [--workers 2] [--seed 0]

Starts a master and workers of one core each on the loopback, scores the same telemetry with both engines,
compares the outputs byte by byte, and prints how long Spark takes beyond the work itself, against Spark's own
shuffle of the same flows by the same key.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from appcadence.features.flows import COLUMNS
from appcadence.models import bundle
from appcadence.nightly import score_directory
from appcadence.serving import Scorer, spark
from appcadence.telemetry.simulate.fleet import simulate, write
from appcadence.training.train import train

CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
ROUNDS = 3
DEPLOY = "org.apache.spark.deploy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"devices": 120, "days": 7, "workers": 2, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        write(place / "telemetry", options.devices, options.days, options.seed, implants_per_device_day=0.25)
        bundle.save(train(simulate(24, 5, options.seed + 1).tables).detector, place / "model")
        with cluster(place, options.workers) as master:
            os.environ["PYSPARK_SUBMIT_ARGS"] = (
                f"--master {master} --conf spark.ui.enabled=false pyspark-shell"
            )
            session = spark.session()
            try:
                compare(place, session)
            finally:
                session.stop()


@contextmanager
def cluster(place: Path, workers: int) -> Iterator[str]:
    """A standalone cluster on the loopback; yields the address of its master."""
    os.environ |= {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
    processes = [start(place, "master", "master.Master", "--host", "127.0.0.1", "--port", "0")]
    try:
        master = said(place / "master.log", r"Starting Spark master at (spark://\S+)")
        for number in range(workers):
            work = place / f"worker-{number}"
            place_args = ["--host", "127.0.0.1", "--work-dir", str(work), "--cores", "1", "--memory", "3g"]
            processes.append(start(place, work.name, "worker.Worker", *place_args, master))
        for number in range(workers):
            said(place / f"worker-{number}.log", "(Successfully registered)")
        yield master
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


def start(place: Path, name: str, main_class: str, *arguments: str) -> subprocess.Popen[bytes]:
    with (place / f"{name}.log").open("wb") as log:
        command = [str(CLASS), f"{DEPLOY}.{main_class}", "--webui-port", "0", *arguments]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def said(log: Path, pattern: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := re.search(pattern, log.read_text()):
            return found.group(1)
        time.sleep(0.2)
    raise SystemExit(f"{log.name} never said {pattern!r}:\n{log.read_text()[-2000:]}")


def compare(place: Path, session: SparkSession) -> None:
    scorer, engine = Scorer.load(place / "model"), spark.engine(session)
    flows = session.read.parquet(str(place / "telemetry" / "flows.parquet")).select(*COLUMNS)

    def shuffle() -> None:
        flows.repartition(64, "device_id").write.format("noop").mode("overwrite").save()

    calls = {
        "shuffle": shuffle,
        "local": lambda: score_directory(place / "telemetry", scorer, place / "local"),
        "spark": lambda: score_directory(place / "telemetry", scorer, place / "spark", engine=engine),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            shutil.rmtree(place / name, ignore_errors=True)
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    # The first round loads classes and kernels.
    best = {name: min(times[1:]) for name, times in seconds.items()}
    files = sorted(path.name for path in (place / "local").iterdir())
    same = [f for f in files if (place / "local" / f).read_bytes() == (place / "spark" / f).read_bytes()]
    print(f"{flows.count() / 1e6:.2f} M flows; files equal to the byte: {len(same)} of {len(files)}")
    print(f"local {best['local']:.1f} s, Spark {best['spark']:.1f} s, shuffle {best['shuffle']:.1f} s")
    print(f"overhead / shuffle: {(best['spark'] - best['local']) / best['shuffle']:.2f}")


if __name__ == "__main__":
    main()
