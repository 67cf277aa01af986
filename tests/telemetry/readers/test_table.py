import gzip
import json
from datetime import UTC, datetime
from ipaddress import ip_network

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flow_samples import MAP, TABLE, load
from typer import Typer
from typer.testing import CliRunner

from appcadence.cli.convert import convert as command
from appcadence.errors import TelemetryError, UnusableFile

SMALL = '[columns]\nstart = "t"\ndevice_id = "d"\ndest_host = "h"\n'


def read(tmp_path, content, mapping, **options):
    path, map_path = tmp_path / "table", tmp_path / "map.toml"
    map_path.write_text(mapping)
    if isinstance(content, pa.Table):
        pq.write_table(content, path, row_group_size=2)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load("table", path, mapping=map_path, **options)


def test_a_mapped_table(tmp_path):
    (first, second), bad = read(tmp_path, TABLE, MAP)
    assert not bad
    assert first.pop("start").isoformat() == "2024-01-01T00:00:00+00:00"
    assert first == {
        "duration_seconds": 5.5,
        "device_id": "d1",
        "app_id": None,
        "app_attribution": "none",
        "dest_host": "a.example",
        "dest_host_source": "observed",
        "dest_ip": None,
        "dest_port": 443,
        "device_port": None,
        "transport": "tcp",
        "service": None,
        "outcome": "established",
        "bytes_out": 1500,
        "bytes_in": None,
        "time_resolution_seconds": 1.0,
        "source": "gateway",
        "source_uid": None,
        "source_app_id": None,
    }
    assert (second["dest_host"], second["outcome"], second["bytes_out"]) == ("b.example", "failed", None)
    assert second["duration_seconds"] is None


TIMES = [
    ("", "2024-01-01T00:00:00.25Z", "2024-01-01T00:00:00.250000+00:00", 0.01),
    ("[time]\noffset = '-05:30'\n", "2024-01-01 00:00:00", "2024-01-01T05:30:00+00:00", 1.0),
    ("[time]\noffset = '-05:30'\n", "2024-01-01 00:00:00+01:00", "2023-12-31T23:00:00+00:00", 1.0),
    ("[time]\nformat = 'epoch'\n", "1704067200.5", "2024-01-01T00:00:00.500000+00:00", 0.1),
    ("[time]\nformat = 'epoch'\nunit = 'ms'\n", "1704067200500", "2024-01-01T00:00:00.500000+00:00", 1e-3),
    ("[time]\nformat = 'cocoa'\n", "725760000.5", "2024-01-01T00:00:00.500000+00:00", 0.1),
    (
        "[time]\nformat = '%d.%m.%Y %H:%M'\noffset = '+01:00'\n",
        "01.02.2024 01:00",
        "2024-02-01T00:00:00+00:00",
        1,
    ),
    ("[time]\nresolution_seconds = 60\n", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00+00:00", 60.0),
]


def test_times_before_the_first_iphone_are_refused(tmp_path):
    count = SMALL + "[time]\nformat = 'epoch'\n"
    with pytest.raises(UnusableFile, match=r'1992-12-31T00:00:00\+00:00.*count from 2001.*"cocoa"'):
        read(tmp_path, "t,d,h\n725759999,a,x.example\n725760000,a,x.example\n", count)
    flows, bad = read(tmp_path, "t,d,h\n725759999,a,x.example\n1704067200,a,x.example\n", count)
    assert len(flows) == 2 and not bad


@pytest.mark.parametrize(("settings", "text", "iso", "grid"), TIMES)
def test_times(tmp_path, settings, text, iso, grid):
    (flow,), bad = read(tmp_path, f"t,d,h\n{text},a,x.example\n", SMALL + settings)
    assert not bad and flow["start"].isoformat() == iso
    if "%" not in settings:
        assert flow["time_resolution_seconds"] == pytest.approx(grid)


@pytest.mark.parametrize(
    ("units", "sent", "duration", "expected"),
    [
        ("", "10", "2.5", (10, 2.5)),
        ("bytes = 'KiB'\nduration = 'ms'\n", "1.5", "2500", (1536, 2.5)),
        ("bytes = 'MB'\nduration = 'min'\n", "2", "1", (2_000_000, 60.0)),
        ("", "", "", (None, None)),
    ],
)
def test_units(tmp_path, units, sent, duration, expected):
    mapping = SMALL + "bytes_in = 'b'\nduration_seconds = 'l'\n[units]\n" + units
    (flow,), bad = read(tmp_path, f"t,d,h,b,l\n1704067200,a,x.example,{sent},{duration}\n", mapping)
    assert not bad and (flow["bytes_in"], flow["duration_seconds"]) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", None])
def test_parquet_keeps_its_own_types(tmp_path, unit, zone):
    start = datetime(2024, 1, 1, tzinfo=UTC if zone else None)
    table = pa.table(
        {
            "t": pa.array([start, None, start], pa.timestamp(unit, zone)),
            "d": pa.array(["a", "a", None]).dictionary_encode(),
            "h": ["x.example"] * 3,
            "port": pa.array([443.0, 443.0, 443.0]),
            "b": pa.array([7, 7, 7], pa.uint8()),
            "secret": ["never read"] * 3,
        }
    )
    mapping = SMALL + "dest_port = 'port'\nbytes_out = 'b'\n"
    (flow,), bad = read(tmp_path, table, mapping)
    assert (flow["start"], flow["dest_port"], flow["bytes_out"]) == (start.replace(tzinfo=UTC), 443, 7)
    # Parquet has no whole seconds: Arrow writes them as milliseconds.
    assert flow["time_resolution_seconds"] == (1e-3 if unit in ("s", "ms") else 1e-6)
    assert bad == [("table", 2, "start is missing"), ("table", 3, "the device is missing")]


def test_apps_words_and_local_nets(tmp_path):
    mapping = (
        SMALL + "app_id = 'app'\ntransport = 'p'\nservice = 's'\n[constants]\napp_attribution = 'exact'\n"
    )
    text = (
        "t,d,h,app,p,s\n1704067200,10.0.0.5,192.0.2.1:443,com.a,17,QUIC\n1704067200,8.8.8.8,x.example,,TCP,\n"
    )
    flows, bad = read(tmp_path, text, mapping)
    names = ("app_id", "app_attribution", "dest_host", "dest_ip", "transport", "service", "outcome")
    assert not bad and [tuple(flow[name] for name in names) for flow in flows] == [
        ("com.a", "exact", None, "192.0.2.1", "udp", "quic", "unknown"),
        (None, "none", "x.example", None, "tcp", None, "unknown"),
    ]
    assert len(read(tmp_path, text, mapping, local_nets=(ip_network("10.0.0.0/8"),))[0]) == 1
    without = mapping.replace('device_id = "d"\n', "")
    assert {flow["device_id"] for flow in read(tmp_path, text, without, device_id="p")[0]} == {"p"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x,a,h.example,1,allow", "start is not a time"),
        (",a,h.example,1,allow", "start is missing"),
        ("1704067200,,h.example,1,allow", "the device is missing"),
        ("1704067200,a,,1,allow", "the destination is missing"),
        ("1704067200,a,h.example,x,allow", "dest_port is not a number"),
        ("1704067200,a,h.example,65536,allow", "the port is out of range"),
        ("1704067200,a,h.example,1,odd", "outcome is not one of established, failed, unknown"),
        ("1704067200,a,h.example", "3 columns instead of 5"),
    ],
)
def test_bad_rows_are_rejected_with_file_line_and_reason(tmp_path, line, reason):
    mapping = SMALL + "dest_port = 'p'\noutcome = 'o'\n[values.outcome]\nAllow = 'established'\n"
    good = "1704067200,a,h.example,443,ALLOW"
    flows, bad = read(tmp_path, f"t,d,h,p,o\n{good}\n{line}\n{good}\n", mapping)
    assert [flow["outcome"] for flow in flows] == ["established"] * 2
    assert bad == [("table", 3, reason)]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("[columns", "not readable TOML"),
        ("[colums]\n", "colums is no section; expected one of columns"),
        ("columns = 1\n", "columns is no section"),
        ('[columns]\nbegin = "t"\n', r"\[columns\] has no key begin; expected one of start"),
        ("[columns]\nstart = 1\n", "columns.start must be text, got 1"),
        ('[columns]\ndest_host = "h"\n', "must say which column is start"),
        ('[columns]\nstart = "t"\n', "must say which column is dest_host or dest_ip"),
        ('[columns]\nstart = "t"\ndest_host = "h"\n', "must say which column is device_id"),
        (SMALL + 'app_id = "a"\n', "app_id needs app_attribution"),
        (SMALL + 'end = "e"\nduration_seconds = "l"\n', "give end or duration_seconds, not both"),
        (SMALL + '[constants]\noutcome = "yes"\n', "outcome is 'yes'; must be one of established"),
        (SMALL + '[values.outcome]\nallow = "yes"\n', "outcome is 'yes'; must be one of established"),
        (SMALL + "[values]\noutcome = 1\n", "must be a table of words"),
        (SMALL + '[time]\nunit = "days"\n', "time.unit must be one of s, ms, us, ns, by size; got 'days'"),
        (SMALL + '[time]\noffset = "CET"\n', "time.offset must be an offset such as"),
        (SMALL + '[time]\noffset = "+99:00"\n', "time.offset must be below 24 hours"),
        (SMALL + "[time]\nresolution_seconds = 0\n", "time.resolution_seconds must be between"),
        (SMALL + '[units]\nbytes = "bits"\n', "units.bytes must be one of B, kB"),
        (SMALL + '[file]\ndelimiter = ""\n', "file.delimiter must be text"),
        (SMALL + '[file]\ndelimiter = "::"\n', "file.delimiter must be a single character"),
        (SMALL.replace('"h"', '"host"'), "has no column 'host', which the mapping names; it has t, d, h"),
    ],
)
def test_a_faulty_mapping_is_one_sentence(tmp_path, mapping, message):
    with pytest.raises(TelemetryError, match=message) as error:
        read(tmp_path, "t,d,h\n1704067200,a,x.example\n", mapping)
    assert "\n" not in str(error.value)


def test_without_a_mapping(tmp_path):
    with pytest.raises(TelemetryError, match="needs a mapping file"):
        load("table", tmp_path / "x")
    with pytest.raises(TelemetryError, match=r"none.toml cannot be read \(No such file"):
        load("table", tmp_path / "x", mapping=tmp_path / "none.toml")


def test_parquet_texts_that_are_no_texts_are_one_sentence(tmp_path):
    broken = pa.StringArray.from_buffers(
        1, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")
    )
    content = pa.table({"t": broken, "d": ["d"], "h": ["a.example"]})
    with pytest.raises(TelemetryError, match="not a readable Parquet file"):
        read(tmp_path, content, SMALL)


def test_damaged_parquet_is_one_sentence(tmp_path):
    table = pa.table({"t": [1704067200], "d": ["a"], "h": [["list"]]})
    with pytest.raises(TelemetryError, match="the column mapped to dest_host has the type list"):
        read(tmp_path, table, SMALL)
    content = (tmp_path / "table").read_bytes()
    for broken in (content[:-9], content[:4], content[: len(content) // 2]):
        with pytest.raises(TelemetryError, match="is not a readable Parquet file"):
            read(tmp_path, broken, SMALL)


def test_the_command(tmp_path):
    (tmp_path / "map.toml").write_text(MAP)
    (tmp_path / "flows.csv.gz").write_bytes(gzip.compress(TABLE))
    app = Typer()
    app.command()(command)
    arguments = [str(tmp_path / "flows.csv.gz"), "--out", str(tmp_path / "out"), "--format", "table"]
    printed = CliRunner().invoke(app, [*arguments, "--map", str(tmp_path / "map.toml"), "--json"]).output
    assert json.loads(printed)["tables"] == {"flows": 2}
