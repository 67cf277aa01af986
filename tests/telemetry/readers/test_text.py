"""Texts as numbers and times: what a row is read as depends on that row alone."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _text

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
