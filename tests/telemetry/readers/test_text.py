"""Texts as numbers and times: what a row is read as depends on that row alone."""

from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _text
from appcadence.telemetry.times import EPOCH

TIMES = st.one_of(
    st.from_regex(
        r"(1970|2023|2099|2100|9999|0001)[-/][01][0-9][-/][0-3][0-9][T ][0-2][0-9](:?[0-5][0-9](:[0-6][0-9]"
        r"([.,][0-9]{0,9})?)?)?( ?(Z|z|UTC)|[-+][0-2][0-9](:?[0-9]{2})?)?",
        fullmatch=True,
    ),
    st.sampled_from(["2023-11-14", "2023-11-14T22", "2023-11-14T22+0100", "1700000000.25", "", " ", "noon"]),
)
NUMBERS = st.one_of(
    st.from_regex(r"[-+]?[0-9]{0,20}(\.[0-9]*)?", fullmatch=True),
    st.sampled_from(
        ["0x7f", "0X1", "1e5", "nan", "inf", "1_0", "\u0663", " 5 ", "-0", "9" * 18, "-" + "9" * 18]
    ),
)


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2099, 12, 30)),
    st.sampled_from([0, 3600, -19_800]),
    st.sampled_from(["", "Z", "+02:00", "-0530"]),
    st.sampled_from(["T", " "]),
    st.integers(0, 9),
)
def test_iso_times_are_those_of_the_standard_library(time, ahead, zone, middle, decimals):
    fraction = f"{time.microsecond:06d}000"[:decimals]
    text = f"{time:%Y-%m-%d}{middle}{time:%H:%M:%S}{'.' if decimals else ''}{fraction}{zone}"
    seen = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seen = seen if seen.tzinfo else seen.replace(tzinfo=timezone(timedelta(seconds=ahead)))
    micros, bad = _text.times(pa.array([text, f" {text} ", None]), ahead)
    assert not bad.any()
    assert micros.to_pylist() == [(seen - EPOCH) // timedelta(microseconds=1)] * 2 + [None]
    assert _text.resolution(pa.array([text]), 1e-6).to_pylist() == [max(10.0**-decimals, 1e-6)]


@pytest.mark.parametrize(
    "text", ["2023-02-29 00:00:00", "2023-13-01T00:00:00", "2023-11-14T24:00:00", "2023-11-14T22:13:20."]
)
def test_what_is_almost_a_time_is_none(text):
    micros, bad = _text.times(pa.array([text]))
    assert bad.all() and micros.to_pylist() == [None]


@pytest.mark.parametrize(
    ("read", "texts", "nonsense"), [(_text.times, TIMES, "2023-13-45T00:00"), (_text.whole, NUMBERS, "many")]
)
@given(data=st.data())
def test_a_faulty_neighbour_changes_nothing(read, texts, nonsense, data):
    values = data.draw(st.lists(st.none() | texts, max_size=4))
    alone, faulty = read(pa.array(values, pa.string()))
    beside, also = read(pa.array([*values, nonsense], pa.string()))
    assert beside.to_pylist()[:-1] == alone.to_pylist()
    assert also.tolist() == [*faulty.tolist(), True]
