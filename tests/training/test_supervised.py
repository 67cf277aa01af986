"""LightGBM beside other work: threads that wait sleep."""

import multiprocessing
import os
import subprocess
import sys

import pytest

CODE = """
import os, resource
import numpy as np
from appcadence.training.supervised import Hyperparameters, fit_classifier
rows = np.random.default_rng(0).normal(size=(2000, 60))
target = (rows[:, 0] > 0.5).astype(int)
names, directions = [f"f{i}" for i in range(60)], np.zeros(60, int)
before = resource.getrusage(resource.RUSAGE_SELF)
fit_classifier(rows, target, np.ones(2000), names, directions, 0, Hyperparameters(trees=10))
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def spin():
    while True:
        pass


def fitted():
    """The processor seconds of fitting a classifier, while OpenMP's threads may spin."""
    environment = os.environ | {"OMP_WAIT_POLICY": "active"}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.slow
def test_fitting_beside_busy_processes_does_not_spin():
    alone = fitted()
    spawn = multiprocessing.get_context("spawn")
    busy = [spawn.Process(target=spin, daemon=True) for _ in range(2 * os.cpu_count())]
    for process in busy:
        process.start()
    try:
        beside = fitted()
    finally:
        for process in busy:
            process.kill()
            process.join()
    assert beside < 3 * alone, (beside, alone)
