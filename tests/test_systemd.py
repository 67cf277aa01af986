"""The units of examples/systemd: they start what the guide says, and systemd accepts them."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
UNITS = ROOT / "examples" / "systemd"
GUIDE = (ROOT / "docs" / "guide-nightly.md").read_text()


def unit(name):
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_service_starts_the_script_of_the_guide_where_cron_does():
    service = unit("appcadence.service")["Service"]
    (path,) = re.findall(r"^PATH=(\S+)$", GUIDE, re.MULTILINE)
    ((directory, command),) = re.findall(r"^30 2 \* \* \*  cd (\S+) && (.+)$", GUIDE, re.MULTILINE)
    assert service["Environment"] == f"PATH={path}" and path.startswith(f"{directory}/.venv/bin:")
    assert service["WorkingDirectory"] == service["ReadWritePaths"] == directory
    assert service["ExecStart"] == f"/bin/{command}"
    assert service["Type"] == "oneshot" and service["ProtectSystem"] == "strict"


def test_the_timer_starts_the_service_at_the_same_hour():
    timer = unit("appcadence.timer")
    assert timer["Timer"]["OnCalendar"] == "*-*-* 02:30:00 UTC"
    assert timer["Install"]["WantedBy"] == "timers.target"


def test_systemd_takes_them():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", *UNITS.iterdir()], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if "appcadence" in line and "user" not in line.lower()]
    assert not ours, done.stderr
