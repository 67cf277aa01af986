"""Runs a nogil kernel over ranges of windows on all cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from appcadence._cpus import usable_cpus
from appcadence._types import FeatureMatrix
from appcadence.features.flows import BLOCK_FLOWS


def fill(kernel: Callable[..., None], offsets: np.ndarray, slots: int, *arrays: Any) -> FeatureMatrix:
    """Call `kernel(lo, hi, out, offsets, *arrays)` on ranges of windows with about equal rows.

    `out` starts as NaN, shape (n_windows, slots); each range writes its own rows, so the result does
    not depend on the number of threads. A block of flows is one thread's work already.
    """
    n = len(offsets) - 1
    out = np.full((n, slots), np.nan, np.float32)
    workers = usable_cpus() if offsets[-1] > 4 * BLOCK_FLOWS else 1
    cuts = np.unique(np.searchsorted(offsets, np.linspace(0, offsets[-1], 4 * workers + 1)[1:-1]))
    cuts = np.concatenate([[0], cuts[(cuts > 0) & (cuts < n)], [n]])
    if workers == 1 or len(cuts) == 2:
        kernel(0, n, out, offsets, *arrays)
        return out
    with ThreadPoolExecutor(workers) as pool:
        jobs = [
            pool.submit(kernel, int(lo), int(hi), out, offsets, *arrays)
            for lo, hi in zip(cuts[:-1], cuts[1:], strict=True)
        ]
        for job in jobs:
            job.result()
    return out
