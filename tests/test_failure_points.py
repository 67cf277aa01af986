"""Every point at which a command can fail on disk: what is left is whole, and the next run ends well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from failure_points import COMMANDS, MODES

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_fails_the_old_or_the_new_is_left_and_the_next_run_ends_in_it(name, tmp_path, fleet_model):
    command = [sys.executable, HERE / "failure_points.py", name, tmp_path / "place", fleet_model]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(name, found)
    assert found["points"] >= 10
    for mode in MODES:
        assert sum(found[mode].values()) == found["points"] and len(found[mode]) > 1
