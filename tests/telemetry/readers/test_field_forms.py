"""Declared formats: one value written in the ways that exporters write it says the same, or is rejected."""

import json
import re

import pytest
from declared_samples import SAMPLES
from flow_samples import ARGUS, load, report

from appcadence.telemetry.readers import detect


def read(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    flows, bad = load(detect(path).NAME, path)
    return flows, [reason for _, _, reason in bad]


def text(name):
    return SAMPLES[name].content.decode()


def changed(name, **more):
    """The first record of JSON with other values; those that are `...` are taken out."""
    record = json.loads(text(name).splitlines()[0])
    for path, value in more.items():
        *parts, last = path.split("__")
        inner = record
        for part in parts:
            inner = inner[part]
        inner[last] = value
        if value is ...:
            del inner[last]
    return json.dumps(record) + "\n"


@pytest.mark.parametrize(
    ("name", "written", "also"),
    [
        ("paloalto exported", ",tcp,", "TCP|TCP(6)|tcp (6)|6|6.0|tcp/https|006"),
        ("paloalto exported", ",443,", "443.0|0x1bb|0443|443/tcp|443 (https)|https(443)"),
        (
            "paloalto exported",
            "203.0.113.10",
            "[203.0.113.10]|203.0.113.10:443|203.0.113.10/32|::ffff:203.0.113.10",
        ),
        ("paloalto exported", "10.8.0.21", "10.8.0.21:50000|10.8.0.21/32|::FFFF:10.8.0.21"),
        ("paloalto exported", ",1000,", "1000.0|1.0E+03| 1000 "),
        ("pcapdroid", ",api.example.com,", "API.Example.COM.|https://api.example.com/x?y"),
        ("fortinet", "proto=6 ", 'proto="tcp" |proto=TCP |proto="6" '),
        ("leef of version 2", "^dstPort=443^", "^dstPort=443.0^"),
    ],
)
def test_ways_to_write_a_value(tmp_path, name, written, also):
    base = text(name)
    expected = read(tmp_path, base)
    assert expected[0] and written in base
    for way in also.split("|"):
        edge = [written[:1], written[-1:]] if written[:1] == written[-1:] == "," else ["", ""]
        assert read(tmp_path, base.replace(written, way.join(edge))) == expected, way


@pytest.mark.parametrize("word", ["-", "N/A", "null", "(null)", "None", ""])
def test_words_for_nothing_are_no_names(tmp_path, word):
    flows, bad = read(tmp_path, json.dumps(report(host=word)) + "\n")
    assert (bad, flows[0]["dest_host"], flows[0]["dest_ip"]) == ([], None, "192.0.2.1")
    flows, bad = read(tmp_path, text("fortinet").replace('app="SSL"', f'app="SSL" hostname="{word}"'))
    assert (bad, {flow["dest_host"] for flow in flows}) == ([], {None})


def test_an_address_with_a_port_is_the_address_in_every_format(tmp_path):
    for way in ("[2001:DB8::1]:993", "[2001:db8::1]", "2001:db8:0::1", "2001:DB8::1/128"):
        flows, bad = read(tmp_path, json.dumps(report(address=way)) + "\n")
        assert (bad, flows[0]["dest_ip"]) == ([], "2001:db8::1")


def test_a_time_of_0_is_none_and_the_next_best_counts(tmp_path):
    ends = {"time_flow_start_ns": 0, "time_flow_end_ns": 0}
    (flow,), bad = read(tmp_path, changed("goflow2", **ends))
    assert (bad, flow["start"].isoformat()) == ([], "2024-11-19T07:01:40+00:00")
    old = {"TimeFlowStartMs": 0, "TimeFlowEndMs": 0}
    (flow,), bad = read(tmp_path, changed("goflow2 of version 1", **old))
    assert (bad, flow["start"].isoformat(), flow["duration_seconds"]) == ([], "2024-11-19T07:00:00+00:00", 15)
    flows, bad = read(tmp_path, text("paloalto exported").replace("2024/11/19 07:00:00,15", "0,20"))
    assert (bad, flows[0]["start"].isoformat()) == ([], "2024-11-19T07:00:00+00:00")


def test_a_flow_began_its_duration_before_its_end_rather_than_when_it_was_logged(tmp_path):
    expected = read(tmp_path, changed("filebeat"))
    assert read(tmp_path, changed("filebeat", event__start=...)) == expected
    (flow,), bad = read(tmp_path, changed("filebeat", event__start=..., event__end=...))
    assert (bad, flow["start"].isoformat()) == ([], "2024-11-19T07:00:02+00:00")
    assert flow["duration_seconds"] == 1.5
    cef = text("cef").splitlines()[0]
    assert read(tmp_path, f"{cef} rt=1731999615000\n") == read(tmp_path, f"{cef}\n")


def test_what_a_spreadsheet_rounded_or_shifted_is_rejected(tmp_path):
    base = text("pcapdroid")
    assert read(tmp_path, base.replace("1731999600250", "1.732E+12"))[1] == ["FirstSeen is not a time"]
    exported = text("paloalto exported")
    for count in ("1.234", "1.000", "1.000.000"):
        (reason,) = read(tmp_path, exported.replace(",1000,", f",{count},"))[1]
        assert reason.startswith("Bytes Sent is not a ")


@pytest.mark.parametrize(
    "name", ["paloalto exported", "pcapdroid", "zscaler CSV", "aws_vpc of Athena", "pmacct CSV"]
)
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_table_that_was_saved_with_another_delimiter(tmp_path, name, delimiter):
    base = text(name)
    assert read(tmp_path, base.replace(",", delimiter)) == read(tmp_path, base)
    argus = (ARGUS % b"" if b"%b" in ARGUS else ARGUS).decode()
    assert read(tmp_path, argus.replace(",", delimiter)) == read(tmp_path, argus)


def test_zones_of_times_in_words(tmp_path):
    cef = text("cef").splitlines()[1]
    expected = read(tmp_path, f"{cef}\n")
    assert read(tmp_path, cef.replace("07:00:00 GMT", "08:00:00 +0100") + "\n") == expected
    leef = text("leef")
    assert read(tmp_path, leef.replace("07:00:00 GMT", "02:00:00 -0500")) == read(tmp_path, leef)
    by_date = text("fortinet by date")
    moved = by_date.replace('tz="+0100"', 'tz="UTC+1:00"')
    assert moved != by_date
    assert read(tmp_path, moved) == read(tmp_path, by_date)


def test_fortigate_lines_out_of_other_hands(tmp_path):
    line = text("fortinet").splitlines()[0].removeprefix("<189>")
    expected = read(tmp_path, line + "\n")
    pairs = re.findall(r'(\w+)=(?:"([^"]*)"|(\S+))', line)
    record = {key: quoted or plain for key, quoted, plain in pairs}
    plain = line.replace("a=b c", "a")
    for way in (
        json.dumps(record),
        ",".join(record) + "\n" + ",".join(record.values()),
        line.replace('"', '\\"'),
        line.replace('"', '""'),
        plain.replace(" ", "\t"),
        plain.replace(" ", ","),
    ):
        assert read(tmp_path, way + "\n") == expected, way
    dated = line.replace("eventtime=1731999615 ", "").replace('tz="+0100" ', "")
    received = dated.replace("date=2024-11-19 time=07:00:15 ", 'itime="2024-11-19 07:00:15" ')
    assert read(tmp_path, received + "\n") == expected


def test_vpc_flow_logs_as_json_and_below_a_header_in_capitals(tmp_path):
    header, row = text("aws_vpc with a header").splitlines()
    expected = read(tmp_path, f"{header}\n{row}\n")
    assert read(tmp_path, f"{header.upper()}\n{row}\n") == expected
    record = dict(zip(header.split(), row.split(), strict=True))
    assert read(tmp_path, json.dumps(record) + "\n") == expected


def test_ipv6_ends_of_cef_and_marks_of_pmacct_are_read_and_passed_over(tmp_path):
    cef = (
        text("cef")
        .splitlines()[0]
        .replace("src=10.8.0.21", "c6a2=fd00::21")
        .replace("dst=203.0.113.10", "c6a3=2001:db8::1")
    )
    (flow,), bad = read(tmp_path, cef + "\n")
    assert (bad, flow["device_id"], flow["dest_ip"]) == ([], "fd00::21", "2001:db8::1")
    base = text("pmacct JSON")
    marks = [json.dumps({"event_type": f"purge_{what}", "writer_id": "x"}) for what in ("init", "close")]
    assert read(tmp_path, f"{marks[0]}\n{base}{marks[1]}\n") == read(tmp_path, base)


def test_an_activity_report_of_umbrella_has_its_date_and_time_apart(tmp_path):
    table = (
        "Date,Time,Identity,Internal IP,Action,Query Type,Response Code,Domain\n"
        "2024-11-19,07:00:00,phone-1,10.8.0.21,Allowed,A,NOERROR,api.example.com\n"
    )
    (flow,), bad = read(tmp_path, table)
    assert (bad, flow["start"].isoformat(), flow["device_id"]) == (
        [],
        "2024-11-19T07:00:00+00:00",
        "phone-1",
    )
