"""What holds for every reader of flow logs; what each makes of its rows is in the files beside this one."""

import gzip
from pathlib import Path

import pytest
from flow_samples import MAP, SAMPLES, SECRET, load, sniffs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import FORMATS, ReadOptions, _lines, detect, reader
from appcadence.telemetry.readers._hosts import host_name, without_path

NAMES = list(SAMPLES)


@pytest.fixture
def mapping(tmp_path):
    path = tmp_path / "map.toml"
    path.write_text(MAP)
    return path


def write(tmp_path: Path, content: bytes, name: str = "log") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_all_are_registered():
    assert set(NAMES) <= set(FORMATS)


@pytest.mark.parametrize("name", NAMES)
def test_a_log_is_read_and_recognised(tmp_path, mapping, name):
    path = write(tmp_path, SAMPLES[name])
    flows, bad = load(name, path, mapping=mapping)
    assert (len(flows), bad) == (2, [])
    if name == "table":
        assert not sniffs(name, path)
    else:
        assert name == detect(path).NAME
        others = [other for other in FORMATS if other != name and sniffs(other, path)]
        assert not others


@pytest.mark.parametrize("name", NAMES)
def test_gzip_small_blocks_and_other_line_ends_give_the_same(tmp_path, mapping, monkeypatch, name):
    content = SAMPLES[name]
    expected = load(name, write(tmp_path, content), mapping=mapping)
    variants = [gzip.compress(content), content.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + content]
    paths = [write(tmp_path, variant) for variant in (*variants, content.rstrip(b"\n"))]
    for path, variant in zip(paths, (*variants, content.rstrip(b"\n")), strict=True):
        path.write_bytes(variant)
        assert load(name, path, mapping=mapping) == expected
    for size in (1, 50, 300):
        monkeypatch.setattr(_lines, "BLOCK_BYTES", size)
        assert load(name, write(tmp_path, content), mapping=mapping) == expected


@pytest.mark.parametrize("name", NAMES)
def test_nothing_personal_is_kept(tmp_path, mapping, name):
    path = write(tmp_path, SAMPLES[name] + b'{"broken": "' + SECRET.encode() + b"\n")
    assert SECRET.encode() in path.read_bytes()
    out = tmp_path / "out"
    report = convert([path], out, format=name, mapping=mapping)
    assert report.tables == {"flows": 2, "rejected": 1}
    tables = TelemetryDirectory(out)
    assert SECRET not in str([tables.read(table).to_pylist() for table in tables.tables()])
    assert all(SECRET.encode() not in file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert SECRET not in str(report.as_dict())


@pytest.mark.parametrize("name", NAMES)
def test_progress_and_rows_read_add_up(tmp_path, mapping, name):
    path = write(tmp_path, SAMPLES[name])
    batches = [b for _, b in reader(name).read([path], ReadOptions(mapping=mapping))]
    marks = [batch.schema.metadata for batch in batches]
    assert sum(int(mark[b"size"]) for mark in marks) == path.stat().st_size
    rows = {"nfdump": 3}.get(name, 2)
    assert sum(int(mark[b"read"]) for mark in marks) == rows


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (bytes(range(256)) * 50, "is not|has no"),
        (b"\0" * 5000, "is not|has no"),
        ("x,y\n1,2\n".encode("utf-16"), "is not|has no"),
        (b"x,y\n1,2\n", "is not|has no"),
        (b'{"x": 1}\n', "is not|has no"),
        (b"\x1f\x8bxxxxxxxxxxxxxxxxxx", "is damaged gzip"),
    ],
)
def test_files_that_cannot_be_read_are_one_sentence(tmp_path, mapping, name, content, message):
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TelemetryError, match=message) as error:
        load(name, path, mapping=mapping)
    assert str(path) in str(error.value) and str(error.value).isprintable()
    assert not sniffs(name, path)


@pytest.mark.parametrize("name", NAMES)
def test_torn_gzip_is_one_sentence(tmp_path, mapping, name):
    path = write(tmp_path, gzip.compress(SAMPLES[name] * 50)[:-20])
    with pytest.raises(TelemetryError, match="is cut off inside its gzip data"):
        load(name, path, mapping=mapping)


DEEP = b'{"type":"FLOW","event_type":"flow","x":' + b"[" * 100_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tail", [DEEP, b'{"a', b'"a', b'\xff\xfe{"a":"\xff"}', b"\0"])
def test_a_bad_last_line_is_rejected_and_the_rest_kept(tmp_path, mapping, name, tail):
    path = write(tmp_path, SAMPLES[name] + tail)
    flows, bad = load(name, path, mapping=mapping)
    # After the end of nfdump's array an object that follows other text counts by itself.
    assert (len(flows), len(bad)) == (2, 2 if name == "nfdump" and tail.startswith(b"\xff") else 1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [b"NaN", b"9" * 40, b"-5", b"1e308", b"true", b'"\\ud800"'])
def test_impossible_numbers_are_rejected(tmp_path, mapping, name, number):
    field = {"suricata": b"7626", "content_filter": b"512", "jamf": b"101", "nfdump": b"260"}
    field |= {"zscaler": b"1300", "argus": b"630", "table": b"1.5"}
    # Zscaler's numbers are texts as they are.
    number = number.strip(b'"') if name == "zscaler" else number
    path = write(tmp_path, SAMPLES[name].replace(field[name], number))
    flows, bad = load(name, path, mapping=mapping)
    assert bad and len(flows) < 2
    assert all(reason.isprintable() and "\n" not in reason for _, _, reason in bad)


relaxed = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40
)


@relaxed
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_hostile_bytes_never_raise_anything_else(tmp_path, mapping, data, name):
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    path = write(tmp_path, bytes(content))
    assert sniffs(name, path) in (True, False)
    try:
        load(name, path, mapping=mapping)
    except TelemetryError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://user:key@API.example.com:8443/v1?token=x#y", "api.example.com"),
        ("www.example.com/a@b", "www.example.com"),
        ("//a.example?x=//b.example", "a.example"),
        ("a.example\\b", "a.example"),
        ("192.0.2.1/x", None),
        ("[2001:db8::1]:443/x", None),
        ("", None),
    ],
)
def test_of_a_url_only_the_host_is_kept(url, host):
    assert host_name(without_path(url)) == host
