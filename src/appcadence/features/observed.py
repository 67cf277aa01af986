"""How much of a window the telemetry covers, so that counts can be judged as rates."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.features.columns import codes, floats, micros
from appcadence.features.grouping import scatter

COVERAGE_GAP_SECONDS = 4 * 3600.0
"""A device silent for longer than this counts as not observed."""
MAX_DURATION_SECONDS = 30 * 86400.0
"""Longer durations are cut: no capture holds them, and each window they cross costs a row."""


class Observed:
    """How much of each (device, window) the telemetry covers, by the times at which the device was seen."""

    def __init__(self, tables: dict[str, pa.Table], seconds: int) -> None:
        names, begins, ends = [], [], []
        for table, column in (("flows", "start"), ("activity", "start"), ("notifications", "time")):
            if table not in tables or not len(tables[table]):
                continue
            device, index = codes(tables[table]["device_id"])
            names.append(pd.Categorical.from_codes(device, index))
            begins.append(micros(tables[table][column]))
            ends.append(begins[-1])
            if table == "flows":
                duration = np.nan_to_num(floats(tables[table]["duration_seconds"]))
                ends[-1] = begins[-1] + (np.minimum(duration, MAX_DURATION_SECONDS) * 1e6).astype(np.int64)
        union = pd.api.types.union_categoricals(names, ignore_order=True) if names else pd.Categorical([])
        self.devices = union.categories
        begin = np.concatenate([*begins, np.empty(0, np.int64)])
        end = np.concatenate([*ends, np.empty(0, np.int64)])
        self.width = seconds * 1_000_000
        self.first = int(begin.min() // self.width) if len(begin) else 0
        count = int(end.max() // self.width) - self.first + 1 if len(begin) else 1
        order, offsets = scatter(np.asarray(union.codes, np.int64), len(self.devices))
        self.table = _coverage(order, offsets, begin, end, self.first, count, self.width)

    def of(self, devices: pd.Index[Any], device: np.ndarray, window: np.ndarray) -> np.ndarray:
        lookup = self.devices.get_indexer(devices)
        column = np.clip(window - self.first, 0, self.table.shape[1] - 1)
        return np.maximum(self.table[lookup[device], column], 60.0) if len(device) else np.empty(0)


@numba.njit(cache=True, nogil=True)
def _coverage(order, offsets, begin, end, first, count, width):  # type: ignore[no-untyped-def]
    """Seconds of each (device, window) under something seen, or under a silence of at most four hours."""
    covered = np.zeros((len(offsets) - 1, count))
    for device in range(len(offsets) - 1):
        rows = order[offsets[device] : offsets[device + 1]]
        rows = rows[np.argsort(begin[rows], kind="mergesort")]
        reach = begin[rows[0]] if len(rows) else 0
        for row in rows:
            lo = reach if (begin[row] - reach) * 1e-6 <= COVERAGE_GAP_SECONDS else begin[row]
            hi = max(begin[row], end[row])
            if hi <= reach:
                continue
            for w in range(lo // width - first, min(hi // width - first, count - 1) + 1):
                left, right = (w + first) * width, (w + first + 1) * width
                covered[device, w] += max(min(hi, right) - max(lo, left), 0) * 1e-6
            reach = hi
    return covered
