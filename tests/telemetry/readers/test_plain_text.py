"""What is read in one pass over its bytes is what the slower ways read."""

import re

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _plain_text

NUMBERS = (
    st.from_regex(r"\A ?-?[0-9]{0,20}(\.[0-9]{0,20})? ?\Z") | st.floats().map(repr) | st.integers().map(str)
)
TEXTS = st.lists(st.none() | NUMBERS | st.text(max_size=4), max_size=6)


def sliced(texts):
    """With values before, which are no part of the column."""
    return pa.array(["7", None, *texts], pa.string()).slice(2)


@given(TEXTS)
def test_whole_numbers_are_those_of_python(texts):
    found = _plain_text.whole(sliced(texts))
    plain = [text is None or re.fullmatch(r" *(-?[0-9]{1,18})? *", text) is not None for text in texts]
    assert (found is not None) == all(plain)
    if found is not None:
        assert found.to_pylist() == [int(text) if text and text.strip() else None for text in texts]


@given(TEXTS)
def test_numbers_are_those_of_python_to_the_last_bit(texts):
    found = _plain_text.number(sliced(texts))
    if found is not None:
        expected = [float(text) if text and text.strip() else None for text in texts]
        assert list(map(repr, found.to_pylist())) == list(map(repr, expected))


def test_ordinary_numbers_are_plain():
    texts = ["0", "1539069039.898171", "-12.5", "5.", " 7 ", "", "0.000001"]
    assert _plain_text.number(pa.array(texts)).to_pylist() == [0, 1539069039.898171, -12.5, 5, 7, None, 1e-6]


@given(st.lists(st.none() | st.text(max_size=6) | st.sampled_from(["-", "N/A", "none", "a b"]), max_size=5))
def test_what_says_nothing_is_never_overlooked(texts):
    nothing = {"", "-", "n/a"}
    if _plain_text.says_all(sliced(texts), nothing):
        said = [text for text in texts if text is not None]
        assert said == [text.strip() for text in said]
        assert not {text.lower() for text in said} & nothing


def test_ordinary_words_say_something():
    assert _plain_text.says_all(pa.array(["tcp", None, "192.0.2.1"]), {"", "-"})
