"""The alert unit: an app on a device on a day, or a destination where the app is unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes

KEYS = ("device_id", "app_id", "dest", "window_start")
"""The columns of windows that say which unit each belongs to."""
UNITS = pa.schema(
    [("device_id", pa.string()), ("kind", pa.string()), ("name", pa.string()), ("day", pa.date32())]
)
"""What tells units apart: `kind` is app or destination, and `name` that of either; days are UTC."""


def alert_units(windows: pa.Table | pd.DataFrame) -> pa.Table:
    """The unit of each of n windows, as `UNITS`; the windows have `KEYS`."""
    device, app, dest = (_texts(windows, name) for name in KEYS[:3])
    start = windows["window_start"]
    start = pa.chunked_array([pa.array(start)]) if isinstance(start, pd.Series) else start
    # A cast of times before 1970 to days would round towards that year.
    day = pc.floor_temporal(start.cast(pa.timestamp("us")), unit="day").cast(pa.date32())
    kind = pc.if_else(pc.is_valid(app), "app", "destination")
    return pa.table([device, kind, pc.coalesce(app, dest), day], UNITS)


def alert_unit(windows: pa.Table | pd.DataFrame) -> Codes:
    """(n,) code of each window's alert unit, in order of `UNITS`."""
    units = alert_units(windows).to_pandas(date_as_object=False)
    return np.asarray(units.groupby(UNITS.names).ngroup(), np.int64)


def _texts(windows: pa.Table | pd.DataFrame, name: str) -> pa.ChunkedArray:
    column = windows[name]
    if isinstance(column, pd.Series):
        return pa.chunked_array([pa.array(column.astype(object), pa.string(), from_pandas=True)])
    return column.cast(pa.string())
