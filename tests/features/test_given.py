"""What a program hands over in memory: odd frames and names, and what they are taken for."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from make import flows

from appcadence import extract
from appcadence.errors import AppcadenceError, SchemaError
from appcadence.features.given import conformed, moment_us

ROWS = flows([0.0, 60.0, 120.0, 180.0], app=["com.a", "com.a", "com.b", None])
FRAME = ROWS.to_pandas().astype(dict.fromkeys(("device_id", "app_id", "dest_host", "outcome"), object))
MOMENT = pd.Timestamp("2026-03-02T06:00", tz="UTC")


@pytest.mark.parametrize(
    "made",
    [
        FRAME.assign(start=FRAME["start"].dt.tz_convert("Asia/Tokyo")),
        FRAME.assign(start=FRAME["start"].dt.tz_localize(None)),
        FRAME.assign(start=FRAME["start"].astype(str)),
        FRAME.assign(start=FRAME["start"].dt.as_unit("ns")),
        FRAME.assign(note=[object()] * 4),
        pd.concat([FRAME, pd.DataFrame({"note": range(4)}), pd.DataFrame({"note": range(4)})], axis=1),
        FRAME.set_index(np.array([3.0, 1.0, 2.0, 2.0])),
        FRAME.astype({"bytes_out": object, "dest_port": "Int64"}),
        FRAME.astype({"bytes_in": float, "dest_port": str}),
        FRAME.assign(app_id=FRAME["app_id"].fillna("")),
        FRAME.assign(dest_host="A.Example."),
        ROWS.to_batches()[0],
        ROWS.set_column(2, "device_id", ROWS["device_id"].cast(pa.large_string())),
    ],
    ids=lambda made: type(made).__name__,
)
def test_the_same_records_in_other_types_are_the_same_table(made):
    assert conformed("flows", made).to_pylist() == conformed("flows", ROWS).to_pylist()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (FRAME.assign(start=FRAME["start"].astype("int64") // 10**6), "'start' holds numbers"),
        (FRAME.assign(start=FRAME["start"].astype("int64") / 1e6), "'start' holds numbers"),
        (FRAME.assign(device_id=["d1", 2, "d3", "d4"]), "device_id"),
        (FRAME.assign(device_id=["d1", "", "d3", ""]), "'device_id': 2 of 4 values are empty"),
        (FRAME.assign(device_id=["d1", None, "d3", "d4"]), "'device_id': 1 of 4 values are null"),
        (FRAME.assign(duration_seconds=pd.Timedelta(1, "s")), "'duration_seconds'"),
        (pd.concat([FRAME, FRAME[["app_id"]]], axis=1), "2 columns 'app_id'; keep one"),
        (pa.table([ROWS["start"]] * 2, names=["start"] * 2), "2 columns 'start'"),
        (FRAME.to_dict("records"), "of type list; give a pandas DataFrame"),
        (ROWS.to_reader(), "of type RecordBatchReader"),
        (pd.DataFrame(), "lacks the required column 'start'"),
    ],
    ids=lambda value: value[:25] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_one_sentence(made, said):
    with pytest.raises(SchemaError, match=said) as error:
        conformed("flows", made)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"flows": FRAME, "activities": FRAME}, "no table 'activities'; .*did you mean activity"),
        ({}, "no flows in the given tables"),
        (FRAME, r'tables by name: \{"flows": frame\}'),
        ([FRAME], "of type list"),
        (None, "of type NoneType"),
    ],
    ids=["misspelt", "none", "frame", "list", "nothing"],
)
def test_what_is_no_telemetry_is_said(source, said):
    with pytest.raises(AppcadenceError, match=said):
        extract(source)


def test_empty_names_are_unknown():
    table = extract({"flows": FRAME.assign(app_id="", dest_host="")})
    assert table["app_id"].isna().all() and set(table["dest"]) == {"unknown"}


@pytest.mark.parametrize(
    "moment", [MOMENT, MOMENT.to_pydatetime(), "2026-03-02T06:00Z", "2026-03-02T07:00+01:00"]
)
def test_a_moment_may_be_of_any_kind_that_names_a_zone(moment):
    assert moment_us(moment, "until") == MOMENT.value // 1000


@pytest.mark.parametrize("moment", ["soon", pd.NaT, None, object(), "2026-13-01"])
def test_what_is_no_moment_is_said(moment):
    with pytest.raises(AppcadenceError, match=r"until is .*; expected a moment"):
        moment_us(moment, "until")


@pytest.mark.parametrize("moment", [np.datetime64("2026-03-02"), 5, "2026-03-02", pd.Timestamp("2026-03-02")])
def test_a_moment_without_a_zone_is_refused(moment):
    with pytest.raises(AppcadenceError, match="names no time zone"):
        moment_us(moment, "until")
