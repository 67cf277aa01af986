"""What a fuzzed edge is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

Step = Callable[[Path], int]
"""Reads a file; gives the rows that it rejects."""


@dataclass(frozen=True)
class Target:
    """One way by which a file comes in."""

    seeds: list[bytes]
    read: Step
    whole: Callable[[Path, Path], object] | None = None
    """The command into a directory that does not exist yet; None where there is none."""
    suffix: str = ""
    named: str = ""
    """What a refusal names; empty = the file."""
    inputs: st.SearchStrategy[bytes] | None = None
    """None = damaged copies of the seeds."""
