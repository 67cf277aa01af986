"""What tools put around the records of a phone's logs changes nothing."""

import json

import pytest
from ios_files import contact, lines, push, read, record

from appcadence.telemetry.readers import detect

CHAT = "com.example.chat"
PUSHED = push(CHAT)
COLOURS = {
    "log show": "\x1b[1mTimestamp   Thread\x1b[0m\n\x1b[32m2024-06-16 20:34:59.000000+0000\x1b[0m 0x1 Def"
    f"ault 0x0 102 0 apsd: (X) [com.apple.apsd:courier] {PUSHED}\n",
    "pymobiledevice3": "\x1b[32m2024-06-16 20:34:59.000000\x1b[0m \x1b[35mapsd\x1b[0m{\x1b[35mX\x1b[0m}"
    f"[\x1b[36m102\x1b[0m] <\x1b[32mNOTICE\x1b[0m>: {PUSHED}\n",
}
ITERATOR = {"subsystem": "com.apple.apsd", "process": "/usr/libexec/apsd", "message": PUSHED}


@pytest.mark.parametrize("tool", COLOURS)
def test_colours(tmp_path, tool):
    path = tmp_path / "log.txt"
    path.write_text(COLOURS[tool])
    assert detect(path).NAME == "unified_log"
    (event,) = read("unified_log", path)["notifications"]
    assert event["app_id"] == CHAT and f"{event['time']:%H:%M:%S}" == "20:34:59"


@pytest.mark.parametrize(
    "said", ["Skipping debug messages, pass --debug to include.", 'Filtering the log data using "x"']
)
@pytest.mark.parametrize("indent", [None, 2])
def test_what_log_says_before_its_records(tmp_path, said, indent):
    path = tmp_path / "log.json"
    path.write_text(f"{said}\n{json.dumps([record(PUSHED, 1), record('x', 2)], indent=indent)}\n")
    assert detect(path).NAME == "unified_log"
    (event,) = read("unified_log", path)["notifications"]
    assert event["app_id"] == CHAT


def test_nanoseconds_as_a_whole_number(tmp_path):
    nanoseconds = 1_718_570_099_000_000_000
    path = lines(tmp_path / "log.jsonl", [ITERATOR | {"time": t} for t in (nanoseconds, float(nanoseconds))])
    times = {event["time"].timestamp() for event in read("unified_log", path)["notifications"]}
    assert times == {nanoseconds / 1e9}


@pytest.mark.parametrize(
    ("hits", "kept"), [("6", 6), (6.0, 6), (6.5, None), (True, None), ("-6", None), ("9" * 30, None)]
)
def test_hits_that_a_tool_rewrote(tmp_path, hits, kept):
    path = lines(tmp_path / "report.ndjson", [contact(hits=hits)])
    found = read("app_privacy_report", path).get("contact_summaries", [])
    assert [row["hits"] for row in found] == ([] if kept is None else [kept])
