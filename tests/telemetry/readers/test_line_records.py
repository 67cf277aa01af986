"""Records found in many lines at once are those found line by line."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.readers import _line_records
from appcadence.telemetry.readers._declaration import Declaration, Layout
from appcadence.telemetry.readers._lines import Block

MAPPING = """
[columns]
start = "time"
dest_ip = "to"
bytes_out = "bytes"
[file]
syntax = "words"
starts = '{starts}'
of_kind = '{kind}'
names = ["time", "to", "bytes", "{more}"]
"""
STARTS = st.sampled_from(
    [r"(?=\\d+ \\S+)", r"^(?:AT )?(?=\\d+ \\S+)", r"(?=[^ ]+ x)", r"<\\d+>", r"(?:1|12) ", r"(?i)(?=\\d+ at)"]
)
KINDS = st.sampled_from([r"\\d+ [^ \\n]+ (?:5|6)", r"7", r"x\\s", "."])
WORDS = st.sampled_from(
    ["1", "12", "AT", "x", "192.0.2.1", "5", "7", "-", "-3", "<9>", "\r", "", "é", "9" * 19, "a" * 999]
)
LINES = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=8)


def layout(tmp_path, starts, kind):
    path = tmp_path / "map.toml"
    path.write_text(MAPPING.format(starts=starts, kind=kind, more="more").replace("\\\\", "\\"))
    return Declaration.read(path).layouts[0]


def text(rows):
    columns = {
        name: column.cast("string").to_pylist()
        for name, column in zip(rows.table.column_names, rows.table, strict=True)
    }
    return columns, rows.lines.tolist(), rows.read, list(rows.bad)


@given(STARTS, KINDS, LINES, st.booleans(), st.sampled_from([(), ("bytes", "time")]))
def test_lines_in_a_row_are_found_as_one_by_one(tmp_path_factory, starts, kind, lines, ended, counts):
    found = layout(tmp_path_factory.mktemp("map"), starts, kind)
    data = ("\n".join(lines) + "\n" * ended).encode()
    names = ["time", "to", "bytes", "more"]
    block = Block(data, 1, data.count(b"\n"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_line_records, "_in_a_row", lambda *_: None)
        slow = _line_records.rows(block, found, names, names)
    assert text(_line_records.rows(block, found, names, names)) == text(slow)
    # What comes as numbers says the same.
    assert text(_line_records.rows(block, found, names, names, counts))[1:] == text(slow)[1:]
    numbers = _line_records.rows(block, found, names, names, counts).table
    for name in counts:
        said, plain = numbers[name], slow.table[name]
        if said.type == "int64":
            assert said.to_pylist() == [None if t is None else int(t) for t in plain.to_pylist()]
        else:
            assert said.equals(plain)


def test_a_dash_is_no_number_where_it_says_nothing():
    rows = Block(b"1 a 5\n2 b -\n", 1, 2)
    names = ["time", "to", "bytes"]
    found = Layout("words", names=tuple(names))
    (number,), (word,) = (
        [_line_records.rows(rows, found, names, ["bytes"], ["bytes"], dash).table["bytes"]]
        for dash in (True, False)
    )
    assert number.to_pylist() == [5, None] and word.to_pylist() == ["5", "-"]


@pytest.mark.parametrize(
    ("pattern", "sure"),
    [
        (r"(?=\d \S+ [A-Z_]+/\d{3})", True),
        (r"[^,\n]*,", True),
        (r"[^,]*,", False),
        (r"a\s", False),
        (r"(a)", False),
        (r"a$", False),
        (r"(?i)a", False),
        (r"(?<=x)a", False),
        (r"\bx", False),
    ],
)
def test_only_patterns_that_end_with_the_line_are_matched_in_a_row(pattern, sure):
    assert (_line_records._in_a_row(re.compile(pattern), True) is not None) == sure


def test_most_lines_are_found_in_a_row():
    lines = b"".join(b"%d x\n" % at for at in range(20_000)) + b"odd\n" + b"7 x\n" * 5
    starts = np.flatnonzero(np.frombuffer(b"\n" + lines, np.uint8) == 10)[:-1]
    found = _line_records._matching(lines, starts, re.compile(r"(?=\d+ x)"), at_once=True)
    assert np.flatnonzero(~found).tolist() == [20_000]
