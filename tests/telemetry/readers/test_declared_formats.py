"""Declared formats: what each sample says, how files are told apart, and the keys of a declaration."""

import gzip
import json

import pytest
from declared_collectors import REST
from declared_samples import SAMPLES
from flow_samples import SECRET, load

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import DECLARATIONS, FORMATS, _lines, detect, reader, takers
from appcadence.telemetry.schema import FLOWS

NAMES = list(SAMPLES)
FORTINET = b'date=2024-11-19 logid="1" type="traffic" srcip=10.8.0.21 dstip=203.0.113.10'
CEF = b"CEF:0|a|b|c|d|e|1|src=10.8.0.21 dst=203.0.113.10"
LEEF = b"LEEF:1.0|a|b|c|d|src=10.8.0.21\tdst=203.0.113.10\tdevTime=1731999600\tdstPort=x"
UMBRELLA = b'"2024-11-19 07:00:00","p","p","10.8.0.21","x","Allowed","1 (A)","NOERROR"'


def write(tmp_path, content, name="log"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


PORTS = {
    **{name: [50000] for name in ("goflow2", "ecs_flows", "pmacct")},
    "aws_vpc": [50000, 50001],
    "gcp_vpc": [50000],
}
"""The devices' own ports, where directions are paired and they are known."""


def expected(sample):
    empty = dict.fromkeys(column.name for column in FLOWS.columns)
    ports = PORTS.get(sample.format, [None] * len(sample.flows))
    own = [{"device_port": port} for port in ports]
    return [
        empty | REST | {"source": sample.format} | port | flow
        for flow, port in zip(sample.flows, own, strict=False)
    ]


def read(name, path):
    flows, bad = load(name, path)
    return [flow | {"start": flow["start"].isoformat()} for flow in flows], bad


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_says_what_a_person_reads_in_it(tmp_path, name):
    sample = SAMPLES[name]
    path = write(tmp_path, sample.content)
    assert [taker.NAME for taker in takers(path, sample.content)] == [sample.format]
    assert read(sample.format, path) == (expected(sample), [])


@pytest.mark.parametrize("name", NAMES)
def test_gzip_small_blocks_and_line_ends_change_nothing(tmp_path, monkeypatch, name):
    sample = SAMPLES[name]
    content = sample.content
    for variant in (gzip.compress(content), content.replace(b"\n", b"\r\n"), content.rstrip(b"\n")):
        assert read(sample.format, write(tmp_path, variant)) == (expected(sample), [])
    assert read(sample.format, write(tmp_path, b"\xef\xbb\xbf" + content)) == (expected(sample), [])
    monkeypatch.setattr(_lines, "BLOCK_BYTES", 40)
    assert read(sample.format, write(tmp_path, content)) == (expected(sample), [])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_personal_is_kept_and_the_rows_add_up(tmp_path, name):
    sample = SAMPLES[name]
    path = write(tmp_path, sample.content + b'{"broken": "' + SECRET.encode() + b"\n\xff\xfe=\n")
    out = tmp_path / "out"
    report = convert([path], out, format=sample.format)
    file = report.files[0]
    # Some samples write one session twice, in two ways.
    sessions = {flow.get("source_uid") or place for place, flow in enumerate(sample.flows)}
    assert report.tables["flows"] == len(sessions)
    assert file.read == file.kept + file.rejected + sum(file.left_out.values())
    directory = TelemetryDirectory(out)
    assert SECRET not in str([directory.read(table).to_pylist() for table in directory.tables()])
    assert all(SECRET.encode() not in file.read_bytes() for file in out.rglob("*") if file.is_file())


def test_every_declaration_has_a_sample_and_its_source():
    known = {sample.format for sample in SAMPLES.values()} | {"content_filter", "jamf"}
    assert known == set(DECLARATIONS) and set(DECLARATIONS) <= set(FORMATS)
    for declared in DECLARATIONS.values():
        assert declared.title and declared.documentation.startswith("https://")
        assert all(layout.recognised for layout in declared.layouts)


def test_a_file_that_fits_two_formats_is_refused_with_both_names(tmp_path):
    row = json.loads(SAMPLES["goflow2"].content.splitlines()[0])
    row |= {"ip_src": "10.8.0.21", "ip_dst": "203.0.113.10"}
    with pytest.raises(UnusableFile, match="may be in the format goflow2 or pmacct; say which") as error:
        detect(write(tmp_path, json.dumps(row)))
    assert error.value.argument == "format"


def test_a_file_without_a_time_says_what_to_add(tmp_path):
    path = write(tmp_path, "SRC_IP,DST_IP,PACKETS,BYTES\n10.8.0.21,203.0.113.10,1,60\n")
    with pytest.raises(UnusableFile, match=r"is pmacct .* but has no 'timestamp_start'.*add timestamp_start"):
        load("pmacct", path)


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("squid", b"what is this", "no such record"),
        ("squid", b"1731999615.250 1 10.8.0.21 TCP_TUNNEL/200 5000 CONNECT \xff:443 - A/- -", "not UTF-8"),
        ("fortinet", FORTINET, "eventtime or date+time is missing"),
        ("cef", CEF, "start or rt is missing"),
        ("cef", CEF + b" rt=now", "rt is not a time"),
        ("cef", CEF.replace(b"0.21", b"0") + b" rt=1731999600000", "an address is cut off or invalid"),
        ("leef", LEEF, "dstPort or url is not a number"),
        ("paloalto", b"1,2024/11/19 07:00:21,1,TRAFFIC,end,1", "Start Time is missing"),
        ("umbrella", UMBRELLA, "the destination is missing"),
    ],
)
def test_bad_lines_are_rejected_with_their_number(tmp_path, name, line, reason):
    sample = SAMPLES[name]
    path = write(tmp_path, sample.content + line + b"\n" + sample.content)
    flows, bad = read(sample.format, path)
    assert flows == expected(sample) * 2
    assert bad == [("log", sample.content.count(b"\n") + 1, reason)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[file]\nsyntax = 'xml'\n", "file.syntax must be one of csv, words, json"),
        ("[file]\nline = '('\n", "file.line must be a regular expression"),
        ("[file]\ncolumns = 1\n", r"\[file\] has no key columns; expected one of syntax"),
        ("[[file]]\nkeys = 'a'\n", "file.keys must be a list of names"),
        ("[[skip]]\ncolumn = 'a'\nreason = 'x'\n", "skip.reason must be one of other_kind, other_system"),
        ("[extract]\ndest_ip = 'a'\n", "extract.dest_ip must have a group"),
        ("[rules]\naddresses = 'no'\n", "rules.addresses must be true or false"),
        ("[rules]\notherwise = 'no'\n", "outcome is 'no'; must be one of established"),
        ("file = [1]\n", "file must be a table, got 1"),
    ],
)
def test_a_faulty_declaration_is_one_sentence(tmp_path, settings, message):
    mapping = write(
        tmp_path, settings + "[columns]\nstart = 't'\ndevice_id = 'd'\ndest_host = 'h'\n", "map.toml"
    )
    with pytest.raises(TelemetryError, match=message) as error:
        load("table", write(tmp_path, "t,d,h\n"), mapping=mapping)
    assert "\n" not in str(error.value)


def test_a_user_declares_a_format_of_their_own(tmp_path):
    mapping = write(
        tmp_path,
        """
[columns]
end = "ts"
duration_seconds = "ms"
device_id = "user"
dest_host = "to"
dest_port = "to"
[file]
syntax = "kv"
starts = '(?=ts=)'
[time]
format = "epoch"
unit = "ms"
[units]
duration = "ms"
[[skip]]
column = "kind"
unless = "^open$"
""",
        "map.toml",
    )
    log = (
        "gw[1]: ts=1731999615250 ms=15000 user=p1 to=api.example.com:8443 kind=open\nts=1 user=p1 kind=shut\n"
    )
    (flow,), bad = load("table", write(tmp_path, log), mapping=mapping)
    assert not bad and flow["start"].isoformat() == "2024-11-19T07:00:00.250000+00:00"
    assert (flow["duration_seconds"], flow["device_id"], flow["dest_host"], flow["dest_port"]) == (
        15.0, "p1", "api.example.com", 8443,
    )  # fmt: skip


def test_types_of_json_are_those_of_the_file(tmp_path):
    row = json.loads(SAMPLES["goflow2"].content.splitlines()[0])
    texts = {name: str(value) for name, value in row.items()}
    mixed = [row, texts, row | {"bytes": 1000.0}, row | {"proto": 6}]
    path = write(tmp_path, "".join(json.dumps(line) + "\n" for line in mixed))
    flows, bad = load("goflow2", path)
    assert not bad and [flow["bytes_out"] for flow in flows] == [1000] * 4
    assert {flow["transport"] for flow in flows} == {"tcp"}


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x0c\xa5\x02\x00" + bytes(40), "a binary capture of nfcapd; print .*nfdump -r FILE -o ndjson"),
        (b"\xa5\x0c\x00\x01" + bytes(40), "nfcapd"),
        (b"\x83\x10\x00\x20" + bytes(12) + b"\xe5\x71\x2d\xcb", "a binary log of Argus; print .* ra -r FILE"),
        (b"   StartTime      Flgs  Proto            SrcAddr  Sport   Dir\n", "text of Argus's ra for people"),
        (bytes(72) + b"\x02\x00\x02\xc0" + bytes(9), "a Windows trace"),
        (b"ElfFile\x00" + bytes(9), "a Windows event log"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z or RAR archive; unpack it first"),
    ],
)
def test_what_is_known_and_not_read_is_named_with_the_way_out(tmp_path, start, said):
    with pytest.raises(UnusableFile, match=said):
        detect(write(tmp_path, start))


def test_a_reader_is_one_object():
    assert reader("cef") is reader("cef")


def test_a_device_with_a_name_is_in_no_network(tmp_path):
    path = write(tmp_path, SAMPLES["umbrella"].content)
    report = convert([path], tmp_path / "out", local_nets=["10.9.0.0/16"])
    # Two rows name their device; the third has its address alone, which is outside.
    assert report.fates == {"kept": 2, "elsewhere": 1}
