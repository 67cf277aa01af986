"""The script of docs/guide-nightly.md, with nights missed and days without flows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from make import fleet

from appcadence.telemetry.directory import write_directory

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "guide-nightly.md").read_text()
(SCRIPT,) = re.findall(r"^cat > nightly\.sh <<'END'\n(.*?)^END$", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def night(tmp_path, fleet_model):
    """Runs the script for a day; returns its exit code and standard error."""
    tables = fleet(devices=2, days=4)
    day = (tables["flows"]["start"].to_pandas() - pd.Timestamp("2026-03-02", tz="UTC")).dt.days
    tables["flows"] = tables["flows"].filter((day != 2).to_numpy())  # none on 2026-03-04
    write_directory(tmp_path / "telemetry", tables)
    (tmp_path / "model").symlink_to(fleet_model)
    (tmp_path / "exceptions.toml").touch()
    (tmp_path / "nightly.sh").write_text(SCRIPT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def run(name):
        command = ["sh", "nightly.sh", name]
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.slow
def test_missed_days_are_scored_first_and_a_day_without_flows_ends_nothing(night, tmp_path):
    assert night("2026-03-02") == (0, "")
    code, said = night("2026-03-05")
    assert code == 2 and "no flows to score" in said and "2026-03-04 was not scored" in said
    scored = sorted(path.name for path in (tmp_path / "scored").iterdir() if path.is_dir())
    assert [name for name in scored if name[0] != "."] == ["2026-03-02", "2026-03-03", "2026-03-05"]
    log = (tmp_path / "night.log").read_text()
    assert re.findall(r"into scored/(\S+):", log) == ["2026-03-02", "2026-03-03", "2026-03-04", "2026-03-05"]
    # The last night goes on from the one before the gap.
    assert (tmp_path / "scored/2026-03-05/earlier_cases.parquet").exists()
    assert night("2026-03-03") == (0, "")
