"""Every declared format in every wrapping: the same flows, and never a part of them in silence."""

import json

import pytest
from declared_samples import SAMPLES
from flow_samples import load
from wrappings import IN_LINES, IN_RECORDS

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import DECLARATIONS, detect
from appcadence.telemetry.readers._declared import Declared


def alone(sample):
    """Whether each of its lines says all."""
    layout = Declared(DECLARATIONS[sample.format]).layout(sample.content)
    return layout.syntax == "json" or bool(layout.starts or layout.line)


ALONE = [name for name, sample in SAMPLES.items() if alone(sample)]


def lines(name):
    content = SAMPLES[name].content
    if content.lstrip().startswith((b"{", b"[{", b"[\n")):
        try:
            records = json.loads(content)
        except ValueError:
            records = [json.loads(line) for line in content.splitlines()]
        return [json.dumps(record) for record in (records if isinstance(records, list) else [records])]
    return content.decode().splitlines()


def read(tmp_path, text):
    path = tmp_path / "log"
    path.write_text(text)
    found = detect(path).NAME
    flows, bad = load(found, path)
    return found, flows, [(line, reason) for _, line, reason in bad]


@pytest.fixture(params=ALONE)
def plain(request, tmp_path):
    return lines(request.param), read(tmp_path, "\n".join(lines(request.param)) + "\n")


@pytest.mark.parametrize("wrapping", IN_RECORDS)
def test_lines_in_records_of_others(tmp_path, plain, wrapping):
    texts, expected = plain
    records = [json.dumps(IN_RECORDS[wrapping](text)) for text in texts]
    assert read(tmp_path, "\n".join(records) + "\n") == expected
    assert read(tmp_path, f"[{', '.join(records)}]") == expected
    assert read(tmp_path, "".join(f"\x1e{record}\n" for record in records)) == expected


@pytest.mark.parametrize("wrapping", IN_LINES)
def test_lines_behind_what_a_syslog_server_writes(tmp_path, plain, wrapping):
    texts, expected = plain
    wrapped = "".join(IN_LINES[wrapping].replace("{}", text) + "\n" for text in texts)
    if expected[0] == "umbrella":
        # Its table comes from a bucket, never through a syslog server: refused, not read in part.
        with pytest.raises(UnusableFile):
            read(tmp_path, wrapped)
        return
    assert read(tmp_path, wrapped) == expected


def test_what_holds_all_records_in_one_is_named_and_not_read_in_part(tmp_path, plain):
    texts, _ = plain
    for whole, way_out in (
        ({"took": 1, "hits": {"hits": [{"_source": {"message": text}} for text in texts]}}, r"jq -c '\.hits"),
        ({"count": 2, "records": [{"message": text} for text in texts]}, r"jq -c '\.records\[\]' FILE"),
    ):
        with pytest.raises(UnusableFile, match=way_out):
            read(tmp_path, json.dumps(whole))
    framed = (f"<134>1 2024-11-19T07:06:40Z fw x 1 - - {text}" for text in texts * 3)
    with pytest.raises(UnusableFile, match="RFC 6587"):
        read(tmp_path, "".join(f"{len(one)} {one}" for one in framed))
    for header in ("<134>1 2024-11-19T07:06:40Z fw x 1 - - ", "<134>Nov 19 07:06:40 fw x: "):
        # As a program writes datagrams to a file that came without line ends; those of JSON are no object.
        with pytest.raises((UnusableFile, TelemetryError), match=r"without line ends|not a JSON object"):
            path = tmp_path / "run on"
            path.write_text("".join(header + text for text in texts * 3))
            convert([path], tmp_path / "out")


def test_blank_lines_before_the_first_count_and_are_passed_over(tmp_path):
    for sample in SAMPLES.values():
        path = tmp_path / "log"
        path.write_bytes(b"\n\r\n\n" + sample.content + b"?\n")
        assert sample.format == detect(path).NAME
        flows, bad = load(sample.format, path)
        path.write_bytes(sample.content + b"?\n")
        same, before = load(sample.format, path)
        assert flows == same and [line for _, line, _ in bad] == [3 + line for _, line, _ in before]
