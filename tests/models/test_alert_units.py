"""One definition of the alert unit, for frames and for tables of the scores."""

from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from appcadence.models.calibration import KEYS, UNITS, alert_unit, alert_units

DAY = pd.Timedelta(days=1)
ROWS = st.tuples(
    st.sampled_from(["d1", "d2"]),
    st.sampled_from([None, "a", "b", "x"]),
    st.sampled_from(["*", "x", "y"]),
    st.integers(-50, 50).map(lambda hour: pd.Timestamp("1970-01-02", tz="UTC") + pd.Timedelta(hours=hour)),
)


def frame_of(rows):
    frame = pd.DataFrame(rows, columns=list(KEYS)).astype(dict.fromkeys(KEYS[:3], object))
    return frame.astype({"window_start": "datetime64[us, UTC]"})


def naive(row):
    """(device, kind, name, day) of a window."""
    device, app, dest, start = row
    kind, name = ("destination", dest) if app is None else ("app", app)
    return device, kind, name, start.date()


@given(st.lists(ROWS, max_size=12))
def test_a_unit_is_an_app_or_an_unknown_destination_on_a_day(rows):
    frame = frame_of(rows)
    want = [naive(row) for row in rows]
    got = alert_units(frame)
    assert got.schema == UNITS and list(zip(*got.to_pydict().values(), strict=True)) == want
    assert alert_unit(frame).tolist() == [sorted(set(want)).index(unit) for unit in want]


@given(st.lists(ROWS, max_size=12))
def test_frames_and_tables_have_the_same_units(rows):
    frame = frame_of(rows)
    table = pa.table(
        {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(KEYS[:3])}
        | {"window_start": pa.array(frame["window_start"])}
    )
    coded = frame.astype(dict.fromkeys(KEYS[:3], "category"))
    assert alert_units(table).equals(alert_units(frame)) and alert_units(coded).equals(alert_units(frame))
    np.testing.assert_array_equal(alert_unit(table), alert_unit(coded))


def test_days_are_those_of_utc():
    start = pd.Timestamp("2026-03-02 23:00", tz="UTC")
    frame = frame_of([("d", "a", "x", start), ("d", "a", "y", start + DAY / 12)])
    assert alert_units(frame)["day"].to_pylist() == [date(2026, 3, 2), date(2026, 3, 3)]
