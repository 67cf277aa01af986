"""Types and units that all rooms share, and progress reporting.

What an array contains is documented where it is used.
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
"""(n,) a mask."""
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
"""Called with the name of a stage and the share of it that is done."""


def silent(what: str, share: float) -> None:
    """Progress that is reported to nobody."""


def logged_stages(log: logging.Logger, progress: Progress) -> Progress:
    """`progress`, with a line in the log (INFO) whenever a new stage begins."""
    last = ""

    def tell(what: str, share: float) -> None:
        nonlocal last
        if what != last:
            last = what
            log.info("%s", what)
        progress(what, share)

    return tell
