"""Plain JSON read in one pass is what Python reads; all else is refused."""

import gc
import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _json, _json_columns
from appcadence.telemetry.readers._lines import Block

WANTED = {
    "a": pa.string(),
    "n": pa.int64(),
    "f": pa.float64(),
    "t": pa.bool_(),
    "list": pa.list_(pa.string()),
    "in": pa.struct([("a", pa.string()), ("deep", pa.struct([("n", pa.int64())]))]),
}
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from([*WANTED, "deep", "other", "b"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
FITTING = {
    "a": st.text(max_size=5),
    "n": st.integers(-(10**17), 10**17),
    "f": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-99, 99),
    "t": st.booleans(),
    "list": st.none(),
    "in": st.fixed_dictionaries(
        {}, optional={"a": st.text("ab", max_size=3), "deep": st.fixed_dictionaries({"n": st.integers(0, 9)})}
    ),
    "other": VALUES,
}
OBJECTS = st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in FITTING.items()})
JSON_TEXT = {"ensure_ascii": False}


def read(text, count):
    columns = _json_columns.columns(text, count, WANTED)
    return None if columns is None else pa.table(columns)


def expected(rows):
    """What Arrow makes of the rows, with nothing but the wanted fields."""

    def cut(value, kind):
        if pa.types.is_struct(kind) and value is not None:
            return {field.name: cut(value.get(field.name), field.type) for field in kind}
        return float(value) if pa.types.is_floating(kind) and value is not None else value

    return pa.table(
        {name: pa.array([cut(row.get(name), kind) for row in rows], kind) for name, kind in WANTED.items()}
    )


@given(st.lists(OBJECTS, max_size=5), st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")]))
def test_objects_are_read_as_python_does(rows, separators):
    text = "\n".join(json.dumps(row, separators=separators, **JSON_TEXT) for row in rows)
    found = read(text.encode("utf-8", "surrogatepass"), len(rows))
    if found is not None:
        assert found.equals(expected(rows))


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=5), max_size=4))
def test_what_does_not_fit_is_refused(rows):
    text = "\n".join(json.dumps(row) for row in rows).encode()
    found = read(text, len(rows))
    if found is not None:
        assert found.equals(expected([json.loads(line) for line in text.split(b"\n")] if rows else []))


@given(st.lists(OBJECTS, min_size=1, max_size=3), st.data())
def test_a_damaged_text_is_read_as_before_or_refused(rows, data):
    text = "\n".join(json.dumps(row) for row in rows).encode()
    at = data.draw(st.integers(0, len(text)))
    text = (
        text[:at]
        + data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"{", b"]", b",", b"0"]))
        + (text[at + data.draw(st.integers(0, 2)) :])
    )
    ends = text.count(b"\n")
    block = Block(text, 1, ends)
    fast = _json.parse(block, WANTED)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_json_columns, "columns", lambda *_: None)
        slow = _json.parse(block, WANTED)
    assert (fast.read, list(fast.bad), fast.lines.tolist()) == (
        slow.read,
        list(slow.bad),
        slow.lines.tolist(),
    )
    assert fast.table.to_pylist() == slow.table.to_pylist()


def test_plain_objects_are_read_in_one_pass():
    lines = [
        b'{"a":"x","n":-7,"f":1.5,"t":true,"in":{"a":"y","deep":{"n":3}},"other":[{"a":1},"\\u00e9"]}',
        b' {"t": false, "other": {"n": "\\"", "list": []}, "f": 2e3, "list": null} \r',
    ]
    found = read(b"\n".join(lines) + b"\n", 2)
    assert found.to_pylist() == [
        {"a": "x", "n": -7, "f": 1.5, "t": True, "list": None, "in": {"a": "y", "deep": {"n": 3}}},
        {"a": None, "n": None, "f": 2000.0, "t": False, "list": None, "in": None},
    ]


@pytest.mark.parametrize(
    "line",
    [
        '{"a":"x","a":"y"}',
        '{"a":null,"a":"y"}',
        '{"a":"\\n"}',
        '{"n":1.0}',
        '{"n":"1"}',
        '{"n":01}',
        '{"f":.5}',
        '{"f":1e}',
        '{"t":t}',
        '{"a":"x",}',
        '{"in":[]}',
        '{"list":[]}',
        '{"\\u0061":"x"}',
        '{"other":"\\x"}',
        '{"other":"\x01"}',
        '{"a":"x"',
        '{"a":"x"}}',
        '{"a":"x"} {}',
        "",
        "[]",
        '{"other":' + "[" * 20 + "]" * 20 + "}",
    ],
)
def test_what_is_not_plain_is_refused(line):
    assert read(line.encode(), 1) is None


def test_nothing_of_a_block_waits_for_the_garbage_collector():
    # What refers to itself is freed only by a collection, which large arrays do not bring nearer.
    line = b'{"a":"x","in":{"a":"y","deep":{"n":3}}}'
    read(line, 1)
    gc.collect()
    gc.disable()
    try:
        assert read(line, 1) is not None
        assert gc.collect() == 0
    finally:
        gc.enable()
