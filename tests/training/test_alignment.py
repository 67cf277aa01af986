"""Devices that were observed on other days than the rest."""

import numpy as np
import pandas as pd
from make import DAY0, activity, flows, pushes, together

from appcadence.features.columns import micros
from appcadence.training.injection import aligned_spans

DAY = 86_400.0


def spans(tables):
    """First and last start of each device, in days since 2026-03-02."""
    names = tables["flows"]["device_id"].cast("string").to_pandas().to_numpy()
    days = (micros(tables["flows"]["start"]) / 1e6 - DAY0) / DAY
    return pd.Series(days).groupby(names).agg(["min", "max"])


def fleet(**first_day):
    """Four days of flows of each device, one every six hours, from its first day on."""
    times = np.arange(0, 4 * DAY, 6 * 3600)
    return {"flows": together(*(flows(times + day * DAY, name) for name, day in first_day.items()))}


def test_devices_observed_together_stay_where_they_are():
    tables = fleet(a=0, b=0, c=0.5)
    assert aligned_spans(tables) is tables


def test_a_device_whose_inner_third_the_others_miss_is_moved_by_the_nearest_number_of_days():
    assert spans(aligned_spans(fleet(a=0, b=0, c=1))).loc["c"].tolist() == [0.0, 3.75]
    assert spans(aligned_spans(fleet(a=0, b=0, c=400.25))).loc["c"].tolist() == [0.25, 4.0]
    assert spans(aligned_spans(fleet(a=0, b=0, c=400.75))).loc["c"].tolist() == [-0.25, 3.5]


def test_a_device_captured_apart_is_moved_by_whole_days_onto_the_others():
    found = spans(aligned_spans(fleet(a=0, b=0, c=400)))
    assert (found.loc["c"] == found.loc["a"]).all()
    assert found.loc["a"].tolist() == [0.0, 3.75]


def test_its_context_moves_with_it_and_what_is_open_stays_open():
    apart = 400 * DAY
    used = together(activity([(apart, apart + 60)], "c"), activity([(0, 60)], "a"))
    open_end = used.set_column(
        used.schema.get_field_index("end"), used.schema.field("end"), [[used["end"][0].as_py(), None]]
    )
    tables = fleet(a=0, b=0, c=400) | {"activity": open_end, "notifications": pushes([apart + 5], "c")}
    moved = aligned_spans(tables)
    start = pd.Timestamp(DAY0, unit="s", tz="UTC")
    assert moved["activity"]["start"].to_pylist() == [start, start]
    assert moved["activity"]["end"].to_pylist() == [start + pd.Timedelta(seconds=60), None]
    assert moved["notifications"]["time"].to_pylist() == [start + pd.Timedelta(seconds=5)]
