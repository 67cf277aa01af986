"""Every point at which a command can fail on disk: what is left is whole, and the next run succeeds.

Also two commands that write the same thing at once: nothing is lost or duplicated.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from failure_points import COMMANDS
from pairs_at_once import PAIRS, TIMES

ON_A_SMALL_DISK = ("convert", "inventory-merge", "verdict", "report", "features")
HERE = Path(__file__).parent
OWN_MOUNTS = ("unshare", "-rm")


def answer(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(*command[1:3], done.stdout)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def can_mount():
    tried = subprocess.run([*OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if tried.returncode:
        pytest.skip("no small disk can be mounted here: unshare -rm mount -t tmpfs none /mnt")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_fails_the_old_or_the_new_is_left_and_the_next_run_ends_in_it(name, tmp_path, fleet_model):
    found = answer(sys.executable, HERE / "failure_points.py", name, tmp_path / "place", fleet_model, "turns")
    assert found["points"] >= 10
    assert sum(found["turns"].values()) == found["points"] and len(found["turns"]) > 1


@pytest.mark.slow
@pytest.mark.usefixtures("can_mount")
@pytest.mark.parametrize("name", ON_A_SMALL_DISK)
def test_a_disk_that_is_full_at_any_write_loses_nothing(name, tmp_path, fleet_model):
    script = [sys.executable, HERE / "failure_points.py", name, tmp_path / "place", fleet_model, "disk"]
    found = answer(*OWN_MOUNTS, *script)["disk"]
    assert found["new"] == 1 and sum(found.values()) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_two_at_once_lose_nothing_and_double_nothing(first, second, tmp_path, fleet_model):
    script = HERE / "pairs_at_once.py"
    told = answer(sys.executable, script, first, second, tmp_path / "place", fleet_model)
    assert sum(told.values()) == TIMES
