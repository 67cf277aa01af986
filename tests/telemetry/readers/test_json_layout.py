"""Objects are found however a file lays them out, whatever stands between them."""

import gzip
import json

import pytest
from flow_samples import eve_flow, load, nf, nf_array, report
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _lines
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.readers._json_layout import blocks, first_objects, objects

MARKS = ['{"', '"}', "}, {", "\\", '\\"', "]", "\n{"]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(MARKS)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=6)
LAYOUTS = {
    "lines": lambda rows: "".join(json.dumps(row) + "\n" for row in rows),
    "compact": lambda rows: json.dumps(rows, separators=(",", ":")),
    "array": json.dumps,
    "indented": lambda rows: json.dumps(rows, indent=1),
    "deeper": lambda rows: json.dumps(rows, indent="\t\t", ensure_ascii=False),
    "windows": lambda rows: json.dumps(rows, indent=4).replace("\n", "\r\n"),
    "one a line": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "comma first": lambda rows: "[ " + "\n, ".join(map(json.dumps, rows)) + "]",
    "after each other": lambda rows: "\n".join(json.dumps(row, indent=2) for row in rows),
}
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def found(path, size=None):
    return [pair for block in blocks(path, "objects", size) for pair in objects(block)]


@relaxed
@given(rows=ROWS, layout=st.sampled_from(list(LAYOUTS)), size=st.integers(1, 200), bom=st.booleans())
def test_the_layout_changes_nothing(tmp_path, rows, layout, size, bom):
    text = ("\ufeff" if bom else "") + LAYOUTS[layout](rows)
    path = tmp_path / "log"
    path.write_bytes(text.encode())
    if not text:
        return
    assert [row for _, row in found(path, size)] == rows
    assert [row for _, row in found(path)] == rows
    assert list(first_objects(text.encode())) == rows


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_the_line_of_an_object_is_its_first(tmp_path, layout):
    rows = [{"a": n, "b": {"c": [1, {"d": 2}]}} for n in range(7)]
    path = tmp_path / "log"
    text = LAYOUTS[layout](rows)
    path.write_text(text, newline="")
    begins = [text[: text.index(f'"a":{" " * (layout != "compact")}{n}')].rindex("{") for n in range(7)]
    expected = [text.count("\n", 0, at) + 1 for at in begins]
    for size in (7, 50, None):
        assert [line for line, _ in found(path, size)] == expected


@pytest.mark.parametrize("broken", ['{"a": "torn', '{"a": [1', '{"a": {', "{", '{"a": 1,', '"', "x", "}}}"])
def test_a_damaged_object_does_not_cost_those_after_it(tmp_path, broken):
    good = [json.dumps({"n": n}) for n in range(4)]
    path = tmp_path / "log"
    for text in (
        "[\n" + ",\n".join([*good[:2], broken, *good[2:]]) + "]",
        "[" + ",\n".join([*good[:2], broken, *good[2:]]) + "]",
        "\n".join([*good[:2], broken, *good[2:]]),
    ):
        path.write_text(text)
        for size in (5, None):
            rows = found(path, size)
            assert [row["n"] for _, row in rows if row] == [0, 1, 2, 3]
            assert [line for line, row in rows if row is None] == [4 if text.startswith("[\n") else 3]


def test_many_objects_make_several_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(_lines, "MAX_LINES", 3)
    path = tmp_path / "log"
    path.write_text(json.dumps([{"n": n} for n in range(10)]))
    made = list(blocks(path, "objects"))
    assert [block.count for block in made] == [3, 3, 3, 1]
    assert sum(block.size for block in made) == path.stat().st_size
    assert [row["n"] for block in made for _, row in objects(block)] == list(range(10))


def test_an_endless_object_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_lines, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "log"
    path.write_text('[{"a": 1}, {"b": [' + "1, " * 5000)
    with pytest.raises(UnusableFile, match="a record is longer than"):
        found(path, 100)


@pytest.mark.parametrize("name", ["nfdump", "suricata", "content_filter"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_records_mean_the_same_in_every_layout(tmp_path, name, layout):
    rows = {
        "nfdump": [nf("10.0.0.5:50000", "192.0.2.1:443", n, n + 1, 9) for n in range(0, 90, 30)],
        "suricata": [eve_flow(n) for n in range(3)],
        "content_filter": [report(port=n) for n in range(3)],
    }[name]
    path = tmp_path / "log"
    path.write_text(LAYOUTS["lines"](rows))
    expected = load(name, path)
    assert len(expected[0]) == 3 and not expected[1]
    for content in (LAYOUTS[layout](rows).encode(), gzip.compress(LAYOUTS[layout](rows).encode())):
        path.write_bytes(content)
        assert load(name, path) == expected


def test_nfdump_indents_its_records_by_a_blank_since_1_7_5(tmp_path):
    both = nf("10.0.0.5:5000", "192.0.2.1:443", 0, 1, 260), nf("192.0.2.1:443", "10.0.0.5:5000", 0.1, 1, 620)
    path = tmp_path / "flows.json"
    older = nf_array(*both)
    path.write_bytes(older)
    expected = load("nfdump", path)
    path.write_bytes(b"\n".join(b" " + line if line.strip(b"[]") else line for line in older.split(b"\n")))
    assert path.read_bytes().startswith(b"[\n {\n ")
    assert load("nfdump", path) == expected and len(expected[0]) == 1


@pytest.mark.parametrize("junk", ["x", "\x08", '"', "}"])
def test_text_between_objects_has_room(tmp_path, junk):
    path = tmp_path / "log"
    path.write_text(('{"a": 1}' + junk) * 500 + "\n" + junk + "\n")
    found = [row for block in blocks(path, "a log") for _, row in objects(block)]
    assert len(found) == 1001 and found[:-1] == [{"a": 1}, None] * 500


@pytest.mark.parametrize("bare", ["null\n", " null dns\n", "null\n\nnull\n"])
@pytest.mark.parametrize("name", ["suricata", "content_filter"])
def test_null_where_an_object_should_be_is_a_bad_line(tmp_path, name, bare):
    path = tmp_path / "log"
    rows = {"suricata": map(eve_flow, range(9)), "content_filter": [report()] * 9}[name]
    path.write_text(bare + "".join(json.dumps(row) + "\n" for row in rows) + bare)
    flows, bad = load(name, path)
    assert len(flows) == 9 and {reason for _, _, reason in bad} == {NO_OBJECT}
