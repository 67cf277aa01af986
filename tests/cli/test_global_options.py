"""What stands before the command: --version, -v, -q; and what the shell asks for."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from make import flows
from typer.testing import CliRunner

from appcadence._version import VERSION
from appcadence.cli import app
from appcadence.telemetry.directory import write_directory


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the telemetry of one device, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    write_directory(
        "telemetry", {"flows": flows(np.arange(0, 80_000, 700.0), "phone", "com.a.b", "a.example")}
    )
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)


def test_the_version_as_a_module_too():
    words = [sys.executable, "-m", "appcadence", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"appcadence {VERSION}\n", "")


def test_quiet_prints_errors_and_json_alone(place):
    words = ("score", "telemetry", "--out", "scored")
    assert run("-q", *words).output == "" and (place / "scored" / "scores.parquet").exists()
    assert run("--quiet", "readiness", "telemetry").output == ""
    assert run("-q", "explain", "scored", "--rank", 1).output == ""
    assert json.loads(run("-q", *words, "--json").stdout)["windows"] > 0
    assert "of 1 device " in " ".join(run(*words).output.split())  # the next is not quiet any more
    done = subprocess.run(
        [sys.executable, "-m", "appcadence", "-q", "readiness", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("appcadence: nowhere")


def test_verbose_tells_stages_and_counts_on_standard_error(place):
    done = run("-v", "score", "telemetry", "--out", "scored", "--log", "night.log")
    lines = done.stderr.splitlines()
    assert "INFO appcadence.nightly: writing" in lines[-3] and "1 devices" in lines[-2]
    assert "evidence head" in lines[-1]
    assert (place / "night.log").read_text().splitlines() == lines
    assert run("score", "telemetry", "--out", "scored").stderr == ""
    assert logging.getLogger("appcadence").handlers == [] and "not both" in str(
        CliRunner().invoke(app, ["-v", "-q", "models"]).exception
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell, monkeypatch):
    # The shell that started the tests may be one without completion.
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    assert "_APPCADENCE_COMPLETE" in run("--show-completion").output
    variable = {
        "_APPCADENCE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "appcadence rea",
        "COMP_CWORD": "1",
    }
    variable |= {"_TYPER_COMPLETE_ARGS": "appcadence rea", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = CliRunner(env=variable).invoke(app, [], prog_name="appcadence")
    assert "readiness" in done.output and "score" not in done.output
