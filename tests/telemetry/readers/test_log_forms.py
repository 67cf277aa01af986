"""The unified log in every form: the same entries, in any order, give the same rows."""

import csv
import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ios_files import database, push, read

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import _log_forms, detect, unified_log

START = datetime(2025, 10, 9, 9, tzinfo=UTC)
PAYLOAD = '{\n    aps =     {\n        "content-available" = 1;\n    };\n}'
APSD = "/System/Library/PrivateFrameworks/ApplePushService.framework/apsd"
SPRINGBOARD = "/System/Library/CoreServices/SpringBoard.app/SpringBoard"
ENTRIES = [
    (0, SPRINGBOARD, "Screen did unlock (Was locked for 600.000000 seconds)"),
    (20, APSD, push("com.example.a", PAYLOAD, "' with priority 5 for device token: NO")),
    (30, "/usr/libexec/chatty", "one line\nand another\n2025 is no time"),
    (90, SPRINGBOARD, "Screen did lock (Was unlocked for 90.000000 seconds)"),
    (90.5, SPRINGBOARD, "Screen did light down (Was lit for 95.5 seconds)"),
    (100, "/usr/libexec/apsd", "[ImplicitKA] next KA in 15min"),
]
UNLOCKED = [(START, START + timedelta(seconds=90))]
ZONED = ("ndjson", "json", "default", "syslog", "jsonl", "old jsonl", "enclosed jsonl", "csv")
NAIVE = ("compact", "pymobiledevice3")


def written(path: Path, form: str, entries: list[tuple[float, str, str]]) -> Path:
    """The entries as a tool writes them."""
    if form in ("ndjson", "json"):
        rows = [
            {"timestamp": f"{at(second, 2):%Y-%m-%d %H:%M:%S.%f}+0200", "processImagePath": process}
            | {"eventMessage": message, "subsystem": "com.apple.x"}
            for second, process, message in entries
        ]
        path.write_text(json.dumps(rows, indent=1) if form == "json" else ndjson([*rows, {"finished": 1}]))
    elif form == "jsonl":
        path.write_text(
            ndjson(
                {"subsystem": "x", "event_type": "Log", "process": process, "message": message}
                | {"timestamp": f"{at(second):%Y-%m-%dT%H:%M:%S.%f}000Z"}
                for second, process, message in entries
            )
        )
    elif form == "old jsonl":
        path.write_text(
            ndjson(
                {"subsystem": "x", "process": process, "message": message, "time": at(s).timestamp() * 1e9}
                for s, process, message in entries
            )
        )
    elif form == "enclosed jsonl":
        path.write_text(
            ndjson(
                {"datetime": at(second).isoformat(), "message": message, "module": "logarchive"}
                | {"timestamp_desc": "logarchive", "data": {"process": process, "subsystem": "x"}}
                for second, process, message in entries
            )
        )
    elif form == "csv":
        with path.open("w", newline="") as out:
            table = csv.writer(out)
            table.writerow(["Timestamp", "Event Type", "Subsystem", "Process", "Message", "Boot UUID"])
            table.writerows(
                [f"{at(s):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", "Log", "x", process, message, "B"]
                for s, process, message in entries
            )
    else:
        head, line = STYLES[form]
        text = (
            line.format(time=at(s), name=process.rpartition("/")[2], message=message)
            for s, process, message in entries
        )
        path.write_text(head + "\n".join(text) + "\n")
    return path


STYLES = {
    "default": (
        'Filtering the log data using "x"\nTimestamp                       Thread     Type        Activity\n',
        "{time:%Y-%m-%d %H:%M:%S.%f}+0000 0x4f1      Default     0x0                  90     0    "
        "{name}: (Library) [com.apple.x:courier] {message}",
    ),
    "syslog": (
        "Timestamp                       (process)[PID]    \n",
        "{time:%Y-%m-%d %H:%M:%S.%f}+0000  localhost {name}[90]: (Library) [com.apple.x:courier] {message}",
    ),
    "compact": (
        "Timestamp               Ty Process[PID:TID]\n",
        "{time:%Y-%m-%d %H:%M:%S.%f} Df {name}[90:4f1] [com.apple.x:courier] {message}",
    ),
    "pymobiledevice3": ("", "{time:%Y-%m-%d %H:%M:%S.%f} {name}{{Library}}[90] <NOTICE>: {message}"),
}


def at(second: float, ahead: int = 0) -> datetime:
    return START + timedelta(seconds=second, hours=ahead)


def ndjson(rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def spans(rows: list[dict], kind: str = "device_unlocked") -> list[tuple[datetime, datetime]]:
    return [(row["start"], row["end"]) for row in rows if row["kind"] == kind]


@pytest.mark.parametrize("form", ZONED + NAIVE)
@pytest.mark.parametrize("block", [150, 1 << 20])
def test_every_form_gives_the_same(tmp_path, form, block, monkeypatch):
    monkeypatch.setattr(_log_forms, "BLOCK_BYTES", block)
    path = written(tmp_path / "log", form, ENTRIES)
    assert detect(path).NAME == "unified_log"
    found = read("unified_log", path)
    assert spans(found["activity"]) == UNLOCKED
    assert spans(found["activity"], "screen_on") == [(at(-5), at(90.5))]
    (event,) = found["notifications"]
    assert (event["app_id"], event["time"], event["priority"]) == ("com.example.a", at(20), 5)
    assert event["content_available"] is True
    reasons = [row["reason"] for row in found.get("rejected", [])]
    assert reasons == ([_log_forms.NO_OFFSET] if form in NAIVE else [])


@given(order=st.permutations(range(8)), form=st.sampled_from(ZONED + NAIVE))
def test_the_order_of_entries_changes_nothing(tmp_path_factory, order, form):
    entries = []
    for hour, length in enumerate((120, 300, 100, 59)):
        entries.append((3600 * hour, SPRINGBOARD, "Screen did unlock (Was locked for 7 seconds)"))
        entries.append((3600 * hour + length, SPRINGBOARD, f"Screen did lock (Was unlocked for {length} s"))
    path = written(tmp_path_factory.mktemp("log") / "log", form, [entries[place] for place in order])
    expected = [(at(3600 * k), at(3600 * k + length)) for k, length in enumerate((120, 300, 100, 59))]
    assert sorted(spans(read("unified_log", path)["activity"])) == expected


def test_a_time_without_decimals_or_offset(tmp_path):
    path = tmp_path / "log"
    text = "2025-10-09 09:00:00 SpringBoard{}[58] <NOTICE>: Screen did unlock\n"
    path.write_text(text + text.replace("09:00:00", "09:01:00").replace("unlock", "lock"))
    assert spans(read("unified_log", path)["activity"]) == [(at(0), at(60))]


def test_bad_lines_of_text_and_csv(tmp_path):
    head, line = STYLES["default"]
    good = line.format(time=START, name="apsd", message=push("com.example.a"))
    path = tmp_path / "log"
    path.write_text(f"{head}before any entry\n{good}\n{good.replace('-10-', '-13-')}\n{good}")
    found = read("unified_log", path)
    assert len(found["notifications"]) == 2
    assert [(row["line"], row["reason"]) for row in found["rejected"]] == [(5, _log_forms.NO_TIME)]
    row = f'2025-10-09T09:00:00Z,apsd,"{push("com.example.a")}"\r\n'
    endless = '2025-10-09T09:00:00Z,apsd,"' + "x" * 200_000 + "\r\n"
    path.write_text(f"\ufefftimestamp,process,message\r\n{row}{row[1:]}a,b\r\n{endless}", newline="")
    found = read("unified_log", path)
    assert len(found["notifications"]) == 1
    assert [row["reason"][:20] for row in found["rejected"]] == [
        "timestamp is no time",
        "the row has 2 values",
        "not readable CSV (fi",
    ]


def test_a_quote_in_the_first_line_of_csv_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('"Timestamp,Process,Message\n2025-10-09T09:00:00.000Z,apsd,"Screen did\n lock"\n')
    with pytest.raises(UnusableFile, match="no columns timestamp, process, message"):
        read("unified_log", path)


def test_a_time_beyond_all_numbers_is_rejected(tmp_path):
    path = tmp_path / "log.ndjson"
    row = {"time": 10**400, "subsystem": "com.apple.apsd", "process": "apsd", "message": "x"}
    path.write_text(json.dumps(row) + "\n")
    assert len(read("unified_log", path)["rejected"]) == 1


def test_a_message_without_end_is_cut(tmp_path):
    head, line = STYLES["syslog"]
    path = tmp_path / "log"
    tail = "' with priority 10 for device token: NO"
    path.write_text(head + line.format(time=START, name="apsd", message=push("com.example.a", "{\n")))
    with path.open("a") as out:
        out.writelines(["y" * 1000 + "\n"] * 200)
        out.write(tail)
    (event,) = read("unified_log", path)["notifications"]
    assert (event["app_id"], event["priority"]) == ("com.example.a", None)


def test_bounds_of_changes_and_intervals(tmp_path, monkeypatch):
    entries = [(0, SPRINGBOARD, "Screen did unlock"), (86_400 * 32, SPRINGBOARD, "Screen did lock")]
    path = written(tmp_path / "log", "ndjson", entries)
    found = read("unified_log", path)
    assert found["activity"] == []
    assert [(r["line"], r["reason"]) for r in found["rejected"]] == [
        (1, "the interval that begins here lasts more than 31 days")
    ]
    monkeypatch.setattr(unified_log, "MAX_CHANGES", 1)
    with pytest.raises(UnusableFile, match="more than 1 messages about lock and screen"):
        read("unified_log", path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x00\x10\x00\x00\x11\x00\x00" + bytes(200), "log show --archive"),
        (STYLES["compact"][0].encode(), "unified log without entries"),
        (
            b"Oct  9 09:00:00 iPhone apsd(ApplePushService)[90] <Notice>: Screen did lock\n",
            "neither year nor UTC offset",
        ),
        (b'[{"first_isodate": "2025", "proc_name": "a/b", "wifi_in": 1, "wwan_in": 2}]', "bytes per process"),
    ],
)
def test_what_cannot_be_read_says_what_to_run(tmp_path, content, said):
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(UnusableFile, match=said):
        detect(path)


def test_bytes_per_process_have_no_rhythm(tmp_path):
    path = database(tmp_path / "x", {"ZLIVEUSAGE": ("ZTIMESTAMP, ZWWANIN", [(7e8, 1)])})
    with pytest.raises(UnusableFile, match=r"data usage .* no rhythm.* give the PowerLog"):
        detect(path)


def test_an_archive_says_what_to_run(tmp_path):
    archive = tmp_path / "system_logs.logarchive"
    archive.mkdir()
    (archive / "0000000000000001.tracev3").write_bytes(bytes.fromhex("00100000110000000000"))
    with pytest.raises(TelemetryError, match=r"log show --archive .* --style ndjson"):
        convert([archive], tmp_path / "out", device_id="phone")


def test_text_of_any_kind_is_no_log(tmp_path):
    draw = random.Random(0)
    path = tmp_path / "text"
    for text in ("2025-10-09 09:00:00 a sentence", "timestamp,process\n1,2\n", draw.randbytes(500).hex()):
        path.write_text(text)
        with pytest.raises(UnusableFile, match="is not a unified log"):
            read("unified_log", path)
