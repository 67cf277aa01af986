"""Host names and hashes of Zeek's name logs."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers.zeek_names import hash_text, host_name


@given(st.lists(st.none() | st.text()))
def test_hashes_depend_on_the_text_alone(texts):
    array = pa.array(["x", *texts, "yy"], pa.string())
    hashes = hash_text(array)
    assert hash_text(array.slice(1)).tolist() == hashes[1:].tolist()
    assert len(set(hashes.tolist())) == len({text or "" for text in array.to_pylist()})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (None, None),
        ("", None),
        ("10.0.0.1:80", None),
        ("2001:db8::1", None),
        (" A.b. ", "a.b"),
        ("a:443", "a"),
    ],
)
def test_host_name(text, name):
    assert host_name(text) == name
