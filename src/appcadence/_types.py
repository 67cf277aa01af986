"""Types and units that all rooms share, and how a long job tells where it is.

What an array holds is said where it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
"""(n,) numbers."""
Matrix = npt.NDArray[np.float64]
"""(n, m) numbers."""
FeatureMatrix = npt.NDArray[np.float32]
"""(n, n_features): seven digits, half the memory of the larger part of a feature table."""
Mask = npt.NDArray[np.bool_]
"""(n,) which of n."""
Ints = npt.NDArray[np.int64]
"""(n,) whole numbers."""
Codes = Ints
"""(n,) places in a list of names, or numbers of groups or of rows; -1 = none."""
Micros = Ints
"""(n,) microseconds, since the epoch where they are times."""
Structs = npt.NDArray[np.void]
"""(n,) records of named fields."""

HOUR_US = 3_600_000_000
DAY_US = 86_400_000_000

Progress = Callable[[str, float], None]
"""Told what is being done, and what share of it is done."""


def silent(what: str, share: float) -> None:
    """The progress that nobody is told."""


def logged_stages(log: logging.Logger, progress: Progress) -> Progress:
    """`progress`, and a line in the log (INFO) whenever another stage begins than the last."""
    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if what != last:
            last = what
            log.info("%s", what)
        progress(what, share)

    return tell
