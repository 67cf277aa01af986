"""Fixtures for all tests."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Idle OpenMP threads wait instead of spinning: tests, servers and LightGBM share few cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# One cache of compiled kernels for all workers and the commands that tests start, kept from run to run.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".numba_cache"))
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# The same examples each time, so that a check says the same of the same code; "thorough" looks for new ones.
settings.register_profile("short", max_examples=15, deadline=None, derandomize=True)
settings.register_profile("default", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared_data():
    """Real captures kept beside the project; they are not part of it."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real captures at {path}")
    return path


@pytest.fixture(scope="session")
def fleet_model(tmp_path_factory):
    """The bundle of a model of days, trained on `make.fleet(devices=6, days=4)`."""
    from make import fleet

    return trained_once(tmp_path_factory, "fleet", lambda: fleet(devices=6, days=4))


@pytest.fixture(scope="session")
def simulated_model(tmp_path_factory):
    """The bundle of a model of days, trained on `simulate(8, 4, 1)`."""
    from appcadence.telemetry.simulate.fleet import simulate

    return trained_once(tmp_path_factory, "simulated", lambda: simulate(8, 4, 1).tables)


def trained_once(tmp_path_factory, name, tables):
    """The bundle of that name: the first worker of a run that needs it trains it, and the others wait."""
    # Imported here: what cannot be imported fails the tests that need it, not all.
    from appcadence.models import bundle
    from appcadence.training.train import train

    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            bundle.save(train(tables(), "24h", 0).detector, path)
    return path
