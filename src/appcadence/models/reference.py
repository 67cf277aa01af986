"""The drift reference: the distribution of the features of each training device on its later days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Ints, Matrix
from appcadence.errors import BundleError
from appcadence.features.catalog import NAMES, RELATIVE
from appcadence.models.baseline import whole_numbers

DECILES = 9
STEP_SPREADS = 0.5
"""Deciles of distances are moved to the middles of a grid of this width. A value that an app repeats, such as
the expected one, has a slightly different distance from each baseline and must not cross a border because of
that."""
BINS = 2 * DECILES + 2
"""Below, at, between and above the deciles; the last bin counts unknown values."""


@dataclass(frozen=True)
class Reference:
    """Histograms of every feature for each device, with bins from the deciles of the whole fleet.

    Features that the baseline compares are binned by their distance from a baseline that has not seen these
    windows, other features by their value. Each decile is a bin, and so is each interval between deciles,
    which separates the few values that flags and shares repeat.
    """

    deciles: Matrix
    """(n_features, 9), NaN where a feature was never known."""
    devices: pd.Index[str]
    counts: Ints
    """(n_devices, n_features, 20) windows."""
    attributed: Ints
    """(n_devices,) windows whose app is known."""
    end_us: int
    """Latest start of a flow in training, in microseconds since the epoch; later flows are new."""

    @classmethod
    def fit(cls, frame: pd.DataFrame, compared: Matrix, end_us: int) -> Reference:
        """Learn from benign windows (n): their feature table and compared values (n, n_features)."""
        known = [column[~np.isnan(column)] for column in compared.T]
        levels = np.arange(1, DECILES + 1) / (DECILES + 1)
        deciles = np.array(
            [
                np.quantile(column, levels, method="inverted_cdf")
                if len(column)
                else np.full(DECILES, np.nan)
                for column in known
            ]
        )
        grid = (np.floor(deciles / STEP_SPREADS) + 0.5) * STEP_SPREADS
        deciles = np.where(np.array(RELATIVE)[:, None], grid, deciles)
        devices = pd.Index(np.sort(frame["device_id"].astype(object).unique()), dtype="object")
        return cls(deciles, devices, *histograms(frame, compared, deciles, devices), end_us)

    def to_arrow(self) -> pa.Table:
        width = len(NAMES) * BINS
        flat = pa.array(self.counts.ravel(), pa.int32())
        return pa.table(
            {
                "device_id": pa.array(self.devices, pa.string()),
                "attributed": pa.array(self.attributed, pa.int32()),
                "counts": pa.FixedSizeListArray.from_arrays(flat, width),
            }
        )

    @classmethod
    def from_arrow(cls, table: pa.Table, deciles: Matrix, end_us: int) -> Reference:
        """Raises BundleError when the shapes are not those of the catalogue, or a count is none."""
        flat = whole_numbers(table["counts"].combine_chunks().flatten(), "counts of the drift reference")
        attributed = whole_numbers(table["attributed"], "'attributed' of the drift reference")
        shape = (len(table), len(NAMES), BINS)
        if flat.size != np.prod(shape) or deciles.shape != (len(NAMES), DECILES) or flat.min(initial=0) < 0:
            raise BundleError(
                f"the drift reference is not counts of {len(table)} devices x {len(NAMES)} x {BINS}"
            )
        return cls(
            deciles,
            pd.Index(table["device_id"].to_pylist(), dtype="object"),
            flat.reshape(shape),
            attributed,
            end_us,
        )


def histograms(
    frame: pd.DataFrame, compared: Matrix, deciles: Matrix, devices: pd.Index[str]
) -> tuple[Ints, Ints]:
    """Windows by device, feature and bin (n_devices, n_features, 20), and those of a known app (n_devices,).

    Windows of other devices are not counted.
    """
    device = devices.get_indexer(pd.Index(frame["device_id"].astype(object)))
    mine = device >= 0
    device, values = device[mine], compared[mine]
    counts = np.empty((len(devices), len(NAMES), BINS), np.int64)
    for f, column in enumerate(values.T):
        # At a decile, the two sides differ by the number of deciles with its value.
        code = np.searchsorted(deciles[f], column, "left") + np.searchsorted(deciles[f], column, "right")
        code = np.where(np.isnan(column), BINS - 1, code)
        counts[:, f] = np.bincount(device * BINS + code, minlength=len(devices) * BINS).reshape(-1, BINS)
    named = frame["app_id"].notna().to_numpy()[mine]
    return counts, np.bincount(device[named], minlength=len(devices)).astype(np.int64)
