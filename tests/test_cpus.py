"""The CPUs that a process may use: affinity mask and control group quota."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import appcadence
from appcadence._cpus import quota, usable_cpus


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000", None),
        ("150000 100000", 2),
        ("200000 100000", 2),
        ("5000 100000", 1),
        ("", None),
        ("1 0", None),
    ],
)
def test_quota_of_version_2(tmp_path, text, cpus):
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert quota(tmp_path) == cpus


@pytest.mark.parametrize(("limit", "cpus"), [("-1", None), ("250000", 3)])
def test_quota_of_version_1(tmp_path, limit, cpus):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(limit + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota(tmp_path) == cpus


def test_no_control_group_is_no_limit(tmp_path):
    assert quota(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity mask")
def test_affinity_counts():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from appcadence._cpus import usable_cpus; print(usable_cpus())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_no_pool_is_sized_by_the_machine():
    files = Path(appcadence.__file__).parent.rglob("*.py")
    assert [f.name for f in files if "cpu_count()" in f.read_text()] == ["_cpus.py"]
    assert usable_cpus() >= 1
