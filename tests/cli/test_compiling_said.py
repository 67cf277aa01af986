"""That a terminal says why the first run takes longer."""

import io
import logging
import subprocess
import sys

import pytest
from rich.console import Console

from appcadence.cli import progress

FIRST_RUN = """
import logging
import numpy as np
from appcadence.features.grouping import group
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
group(np.array([2, 0, 1]), 3)
group(np.array([2, 0, 1]), 3)
"""


def test_compiling_is_said_once_and_only_where_the_cache_has_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    said = [
        subprocess.run([sys.executable, "-c", FIRST_RUN], capture_output=True, text=True, check=True).stderr
        for _ in range(2)
    ]
    assert said[0].count("appcadence._compiled: compiling for this machine") == 1
    assert "compiling" not in said[1]


@pytest.mark.parametrize(("terminal", "times"), [(True, 1), (False, 0)])
def test_a_terminal_shows_it_above_the_bar(monkeypatch, terminal, times):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, force_terminal=terminal))
    log = logging.getLogger("appcadence._compiled")
    with progress.progress_bar():
        log.info("compiling [now]")
    log.info("compiling later")
    assert shown.getvalue().count("compiling [now]") == times
    assert "later" not in shown.getvalue()
