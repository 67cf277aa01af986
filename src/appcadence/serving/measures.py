"""Measures of each window for judging exceptions: period, volume, hours."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence._types import DAY_US, HOUR_US, Vector
from appcadence.errors import SchemaError
from appcadence.features._kernels import HALF_MICROSECOND, MIN_STARTS
from appcadence.features.windows import Windows
from appcadence.telemetry.arrays import one_array

MEASURES_FILE = "measures.parquet"
"""File of a batch output with the measures, in the order of its scores."""
MEASURES = pa.schema(
    [
        ("period_seconds", pa.float64()),
        ("bytes_a_day", pa.float64()),
        ("hours", pa.int32()),
        ("alert", pa.bool_()),
    ]
)
"""period_seconds: median gap between beats, null below six; bytes_a_day: both directions, null = unknown;
hours: bit h = connected in hour h of a day (UTC); alert: as the detector set it."""
COLUMNS = tuple(MEASURES.names[:3])
"""The columns that `of_windows` computes."""


def of_windows(windows: Windows) -> dict[str, npt.NDArray[Any]]:
    """The `COLUMNS`, (n,) each.

    For windows shorter than a day, bytes_a_day sums the given windows of the channel on that UTC day; for
    longer windows it is a mean.
    """
    return {
        "period_seconds": _periods(*windows.beats),
        "bytes_a_day": _bytes_a_day(windows),
        "hours": _hours(windows),
    }


def measures_of(values: dict[str, npt.NDArray[Any]], scores: pa.Table) -> pa.Table:
    """The values of `of_windows` and the alerts of the scores, before any exception, as `MEASURES`.

    Raises:
        SchemaError: the scores do not belong to the windows.
    """
    if any(len(column) != len(scores) for column in values.values()):
        raise SchemaError(f"{len(scores)} scores do not belong to these windows")
    columns = [pa.array(values[name], from_pandas=True) for name in COLUMNS]
    return pa.Table.from_arrays([*columns, one_array(scores["alert"])], schema=MEASURES)


def hour_bits(first: int, more: int) -> int:
    """The bits of an hour of the day and of `more` hours after it."""
    return sum(1 << (first + k) % 24 for k in range(more + 1))


_SPANS = np.array([[hour_bits(first, more) for more in range(24)] for first in range(24)], np.int32)


def _periods(offsets: npt.NDArray[Any], times: npt.NDArray[Any]) -> Vector:
    """(n,) median gap between the beats of each window; NaN below six."""
    count = np.diff(offsets)
    owner = np.repeat(np.arange(len(count)), count)
    inside = (owner[1:] == owner[:-1]) & (count[owner[1:]] >= MIN_STARTS)
    usual = pd.Series(np.diff(times)[inside]).groupby(owner[1:][inside]).median()
    return usual.reindex(range(len(count))).to_numpy(np.float64)


def _bytes_a_day(windows: Windows) -> Vector:
    if not windows.n:
        return np.empty(0)
    both = np.stack([windows.bytes_out, windows.bytes_in])
    known = ~np.isnan(both)
    total = np.add.reduceat(np.where(known, both, 0.0).sum(axis=0), windows.offsets[:-1])
    total[~np.logical_or.reduceat(known.any(axis=0), windows.offsets[:-1])] = np.nan
    days = windows.seconds * 1e6 / DAY_US
    if days >= 1:
        return np.asarray(total / days)
    channel = [windows.device, windows.app, windows.dest, windows.start_us // DAY_US]
    return pd.Series(total).groupby(channel).transform("sum", min_count=1).to_numpy()


def _hours(windows: Windows) -> npt.NDArray[np.int32]:
    if not windows.n:
        return np.empty(0, np.int32)
    start, end = windows.flow_start, windows.flow_end
    first = np.floor((start + HALF_MICROSECOND) / 3600.0).astype(np.int64)
    last = np.floor((np.where(np.isnan(end), start, end) - HALF_MICROSECOND) / 3600.0).astype(np.int64)
    begins = np.repeat(windows.start_us // HOUR_US, np.diff(windows.offsets))
    spans = _SPANS[(begins + first) % 24, np.clip(last - first, 0, 23)]
    return np.asarray(np.bitwise_or.reduceat(spans, windows.offsets[:-1]))
