"""Devices observed on other days than the rest, moved in time so that one cut leaves each a past and a
future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US
from appcadence.features.columns import micros
from appcadence.training.injection import Tables

_INNER = (1 / 3, 2 / 3)
_TIMES = {
    "flows": ("start",),
    "activity": ("start", "end"),
    "notifications": ("time",),
    "usage": ("start", "end"),
    "tasks": ("start", "end"),
    "coverage": ("start", "end"),
    "verdicts": ("window_start", "window_end"),
}


def aligned_spans(tables: Tables) -> Tables:
    """The tables with some devices moved by whole days, so that every hour of the day stays what it was.

    One cut in time for a fleet starves it where devices enrolled later or were captured apart: they have no
    past, or nothing to learn from. A device stays where it is if the median device's middle lies in the inner
    third of its own span, as it does where all were observed together.
    """
    flows = tables["flows"]
    device = flows["device_id"].cast(pa.string()).to_pandas()
    span = pd.Series(micros(flows["start"])).groupby(device.to_numpy()).agg(["min", "max"])
    middle = (span["min"] + span["max"]) / 2
    share = (middle.median() - span["min"]) / (span["max"] - span["min"]).clip(lower=1)
    apart = ~share.between(*_INNER)
    days = ((middle.median() - middle) / DAY_US).round().where(apart, 0).astype(np.int64)
    moved = {str(name): offset * DAY_US for name, offset in days[days != 0].items()}
    if not moved:
        return tables
    return tables | {
        name: _moved(tables[name], times, moved) for name, times in _TIMES.items() if name in tables
    }


def _moved(table: pa.Table, times: tuple[str, ...], offset_us: dict[str, int]) -> pa.Table:
    who = table["device_id"].cast(pa.string()).to_pandas().map(offset_us).fillna(0).to_numpy(np.int64)
    for name in times:
        place, column = table.schema.get_field_index(name), table[name]
        absent = column.is_null().to_numpy()
        later = pa.array(pc.fill_null(column.cast(pa.int64()), 0).to_numpy() + who, mask=absent)
        table = table.set_column(place, table.schema.field(place), later.cast(column.type))
    return table
