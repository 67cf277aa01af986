"""formats and formats test as a person types them."""

import json

import pytest
from declared_samples import SAMPLES
from flow_samples import MAP, TABLE
from flow_samples import SAMPLES as CODED
from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.telemetry.formats import MAX_ROWS, examine, formats
from appcadence.telemetry.readers import FORMATS


def run(*words):
    done = CliRunner().invoke(app, ["formats", *map(str, words)])
    assert done.exit_code == 0, (done.output, done.exception)
    # A path is one word, however long.
    lines = [line for line in done.output.splitlines() if " " in line.strip()]
    assert max(map(len, lines)) <= 80 or "--json" in words
    return done.output


def write(tmp_path, content, name="access.log"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_all_formats_are_listed_with_what_they_give():
    printed, listed = run(), {format.name: format for format in formats()}
    assert all(name in printed for name in FORMATS) and set(listed) == set(FORMATS)
    assert listed["pcapdroid"].gives == ("apps", "names", "durations", "bytes")
    assert listed["umbrella"].gives == ("names",) and listed["zeek"].gives == ("names", "durations", "bytes")
    assert [entry["name"] for entry in json.loads(run("--json"))] == sorted(FORMATS)


def test_a_file_that_is_taken_says_what_becomes_of_its_lines(tmp_path):
    path = write(tmp_path, SAMPLES["squid"].content + b"what is this\n")
    printed = run("test", path)
    assert "access.log is read as squid." in printed
    assert "Of 4 rows among its first lines, 2 count; 1 are records of other kinds; 1 were" in printed
    assert "line 4: no such record" in printed
    found = json.loads(run("test", path, "--json"))
    assert (found["taken_as"], found["read"], found["kept"]) == (["squid"], 4, 2)
    assert found["faults"] == [[4, "no such record"]]


def test_only_the_first_lines_are_tried(tmp_path):
    path = write(tmp_path, SAMPLES["cef"].content * MAX_ROWS)
    assert examine(path).read == MAX_ROWS


@pytest.mark.parametrize("name", ["zeek", *CODED])
def test_formats_that_are_code_are_tried_too(tmp_path, name):
    conn = json.dumps(
        {"ts": 1700000000.5, "uid": "C1", "id.orig_h": "10.0.0.5", "id.orig_p": 5000, "conn_state": "SF"}
        | {"id.resp_h": "192.0.2.1", "id.resp_p": 443, "proto": "tcp"}
    )
    path, mapping = write(tmp_path, CODED.get(name, conn.encode())), write(tmp_path, MAP.encode(), "map.toml")
    found = examine(path, format="table" if name == "table" else None, mapping=mapping)
    assert found.taken_as == (name,) and found.kept and not found.rejected and not found.unusable


def test_a_file_that_is_not_taken_says_why_not(tmp_path):
    printed = run("test", write(tmp_path, b"Timestamp,Client\n1,2\n"))
    assert "is in no known format" in printed and "its header line names no IPProto" in printed
    printed = run("test", write(tmp_path, TABLE))
    assert "--format table --map FILE.toml" in " ".join(printed.split())
    printed = run("test", write(tmp_path, b"\x0a\x0d\x0d\x0a" + bytes(40)))
    assert "is a packet capture; run Zeek (zeek -r)" in printed
    both = json.loads(SAMPLES["goflow2"].content.splitlines()[0])
    both |= {"ip_src": "10.8.0.21", "ip_dst": "203.0.113.10"}
    printed = run("test", write(tmp_path, json.dumps(both).encode()))
    assert printed.startswith("access.log may be goflow2 or pmacct; choose one with --format.")


def test_a_file_that_is_taken_and_refused_says_why(tmp_path):
    path = write(tmp_path, b"SRC_IP,DST_IP,PACKETS,BYTES\n10.8.0.21,203.0.113.10,1,60\n")
    printed = " ".join(run("test", path).split())
    assert "is read as pmacct. It is refused:" in printed and "add timestamp_start" in printed
    assert str(path) in printed
