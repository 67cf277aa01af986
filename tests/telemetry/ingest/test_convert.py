import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from appcadence.cli.convert import convert as command
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.telemetry.directory import DirectoryWriter, TelemetryDirectory
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import FORMATS, detect, reader

FIELDS = (
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state"
)


def log(*rows: str) -> str:
    return "#separator \\x09\n#path\tconn\n#fields\t" + "\t".join(FIELDS.split()) + "\n" + "".join(rows)


def row(uid: str, ts: float = 100.0, device: str = "10.0.0.5") -> str:
    return f"{ts}\t{uid}\t{device}\t1\t192.0.2.1\t443\ttcp\tssl\t1.0\t10\t20\tSF\n"


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    texts = [log(row("A"), row("B", 200.0)), log(row("C", 300.25, "10.0.0.6"), "torn")]
    paths = [tmp_path / f"conn.{i}.log" for i in range(2)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def state(path: Path) -> dict[str, tuple[bytes, int]]:
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_the_report_and_the_directory_agree(tmp_path, logs):
    seen = []
    report = convert(logs, tmp_path / "out", progress=lambda what, share: seen.append(share))
    assert seen[-1] == 1
    assert report.changed and report.tables == {"flows": 3, "rejected": 1} and report.notes == ()
    first, second = report.files
    assert (first.name, first.format, first.read, first.rows, first.rejected) == (
        "conn.0.log",
        "zeek",
        2,
        2,
        0,
    )
    assert (first.first, first.last) == ("1970-01-01T00:01:40+00:00", "1970-01-01T00:03:20+00:00")
    assert (second.read, second.rows, second.rejected, second.devices, second.skipped) == (2, 1, 1, 1, False)
    directory = TelemetryDirectory(tmp_path / "out")
    assert len(directory.read("flows")) == 3
    assert directory.read("rejected").to_pylist() == [
        {"file": "conn.1.log", "line": 5, "reason": "1 columns instead of 12"}
    ]
    assert [entry["sha256"] for entry in directory.sources] == [first.sha256, second.sha256]
    assert json.loads(json.dumps(report.as_dict()))["files"][0]["name"] == "conn.0.log"


def test_one_path_and_one_network_need_no_list(tmp_path, logs):
    expected = convert(logs[:1], tmp_path / "listed", local_nets=["10.0.0.0/8"])
    for number, path in enumerate((logs[0], str(logs[0]))):
        report = convert(path, tmp_path / f"out-{number}", local_nets="10.0.0.0/8")
        assert report.files == expected.files and report.tables == expected.tables
    with pytest.raises(TelemetryError, match=r"nope\.log"):
        convert("nope.log", tmp_path / "out")
    with pytest.raises(TelemetryError, match="somewhere is no network"):
        convert(logs, tmp_path / "out", local_nets="somewhere")
    assert not (tmp_path / "out").exists()


def test_a_second_conversion_changes_nothing(tmp_path, logs):
    out = tmp_path / "out"
    convert(logs, out)
    before, folder = state(out), out.stat().st_mtime_ns
    report = convert(logs, out)
    assert not report.changed and all(file.skipped for file in report.files)
    assert (state(out), out.stat().st_mtime_ns) == (before, folder)


def test_new_files_are_added_and_equal_ones_count_once(tmp_path, logs):
    out = tmp_path / "out"
    convert(logs[:1], out)
    copy = tmp_path / "copy.log"
    copy.write_bytes(logs[1].read_bytes())
    report = convert([*logs, copy], out)
    assert [file.skipped for file in report.files] == [True, False, True]
    assert len(TelemetryDirectory(out).read("flows")) == 3
    assert not convert([copy], out).changed


def test_the_same_path_twice_counts_once(tmp_path, logs):
    report = convert([logs[0], logs[0]], tmp_path / "out")
    assert [(file.rows, file.skipped) for file in report.files] == [(2, False), (0, True)]


def test_overlapping_conversions_at_once_add_each_file_once(tmp_path, logs):
    third, out = tmp_path / "third.log", tmp_path / "out"
    third.write_text(log(row("D", 400.0)))
    with DirectoryWriter(out, adding=True), pytest.raises(AppcadenceError, match="another run is writing"):
        convert(logs, out)

    def insisting(paths):
        while True:
            try:
                return convert(paths, out)
            except AppcadenceError as error:
                assert "another run is writing" in str(error)

    with ThreadPoolExecutor() as pool:
        list(pool.map(insisting, [logs, [logs[1], third], [third, logs[0]]] * 3))
    assert sorted(TelemetryDirectory(out).read("flows")["source_uid"].to_pylist()) == ["A", "B", "C", "D"]


def test_equal_input_gives_equal_bytes(tmp_path, logs):
    convert(logs, tmp_path / "a")
    convert(logs, tmp_path / "b")
    contents = [[content for content, _ in state(tmp_path / name).values()] for name in "ab"]
    assert contents[0] == contents[1]


def test_devices_and_device_id(tmp_path, logs):
    table = tmp_path / "devices.csv"
    table.write_text("address,device_id,from,to\n10.0.0.5,phone,1970-01-01T00:02:00Z,\n")
    convert(logs, tmp_path / "a", devices=table)
    flows = TelemetryDirectory(tmp_path / "a").read("flows")
    assert flows["device_id"].to_pylist() == ["10.0.0.5", "phone", "10.0.0.6"]
    convert(logs, tmp_path / "b", device_id="mine")
    assert set(TelemetryDirectory(tmp_path / "b").read("flows")["device_id"].to_pylist()) == {"mine"}


def test_where_nothing_is_kept_the_commonest_reason_is_the_error_and_the_logs_can_be_given_again(
    tmp_path, logs
):
    with pytest.raises(
        TelemetryError, match=r"were opened by addresses outside .*; give the networks"
    ) as error:
        convert(logs[:1], tmp_path / "out", local_nets=["172.16.0.0/12"])
    assert error.value.argument == "local_nets" and not (tmp_path / "out").exists()
    assert convert(logs[:1], tmp_path / "out").changed
    bad = tmp_path / "bad.log"
    bad.write_text(log("x\n"))
    with pytest.raises(
        TelemetryError, match=r"of bad.log .*: 1 are faulty, most often \(1\) because .*; correct"
    ):
        convert([bad], tmp_path / "out")


def test_logs_without_any_row_are_valid(tmp_path):
    path = tmp_path / "empty.log"
    path.write_text(log())
    assert "hold no connections" in convert([path], tmp_path / "out").notes[0]
    assert len(TelemetryDirectory(tmp_path / "out").read("flows")) == 0


def test_errors_leave_nothing_behind(tmp_path, logs):
    binary, names = tmp_path / "binary", tmp_path / "ssl.log"
    binary.write_bytes(b"\x00\xff")
    names.write_text("#separator \\x09\n#path\tssl\n#fields\tts\tuid\tserver_name\n")
    mixed = tmp_path / "mixed.log"
    mixed.write_text(log(row("A")) + "#path\tssl\n#fields\tts\tuid\tserver_name\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    cases = [
        ([pipe], {}, r"pipe cannot be read \(it is a pipe"),
        (logs, {"mapping": pipe, "format": "table"}, r"pipe cannot be read \(it is a pipe"),
        (logs, {"app_map": pipe}, r"pipe cannot be read \(it is a pipe"),
        (logs, {"keyfile": pipe}, r"pipe cannot be read \(it is a pipe"),
        (logs, {"devices": "/dev/zero"}, r"zero cannot be read \(it is a device"),
        ([binary], {}, "binary is in no known format"),
        ([binary], {"format": "zeek"}, "binary is not a Zeek log"),
        ([tmp_path / "none"], {}, "does not exist"),
        ([tmp_path / "empty"], {}, "empty holds no file that can be read: it is empty"),
        ([], {}, "no file to convert"),
        ([names], {}, "give the conn log"),
        ([mixed], {}, "changes from conn to ssl"),
        (
            [binary, names],
            {},
            "none of the 2 files can be used: .*no known format.*; there are no connections in",
        ),
        ([mixed, mixed, binary], {}, "none of the 3 files can be used"),
        (logs, {"format": "pcap"}, "unknown format 'pcap'; expected one of leases, zeek"),
        (logs, {"local_nets": ["10.0.0.1/8"]}, "10.0.0.1/8 is no network"),
        (logs, {"device_id": " "}, "device id is empty"),
        (logs, {"device_id": "a", "devices": "b"}, "not both"),
    ]
    for paths, options, message in cases:
        with pytest.raises(TelemetryError, match=message):
            convert(paths, tmp_path / "out", **options)
        assert sorted(tmp_path.iterdir()) == before


UNUSABLE = {
    "no known format": b"Summary of conn.log\n",
    "is empty": b"",
    "does not say which device": b'{"type": "networkActivity", "bundleID": "a", "domain": "b"}\n',
    # These are found out while the files are read.
    "cut off inside its gzip data": gzip.compress((log() + row("T") * 9000).encode())[:-20],
    "damaged gzip": gzip.compress(log(row("X")).encode())[:-6] + bytes(6),
    "changes from conn to ssl": (log(row("Y")) + "#path\tssl\n#fields\tts\tuid\n").encode(),
    "a row comes before any #fields": (log(row("Z")) + "#separator \\x2c\nx\n").encode(),
}


def test_a_file_that_cannot_be_used_does_not_stop_the_others(tmp_path, logs):
    folder = tmp_path / "folder"
    folder.mkdir()
    bad = [folder / f"{number}.log" for number in range(len(UNUSABLE))]
    for path, content in zip(bad, UNUSABLE.values(), strict=True):
        path.write_bytes(content)
    twin = folder / "twin.log"
    twin.write_bytes(bad[1].read_bytes())
    whole = [tmp_path / "missing", folder, *bad[:4], logs[0], twin, *bad[4:], logs[1]]
    alone = convert(logs, tmp_path / "alone")
    report = convert(whole, tmp_path / "out")
    assert [file.format for file in report.files if not file.unusable] == ["zeek", "zeek"]
    reasons = {file.name: file.unusable for file in report.files}
    for name, text in zip([path.name for path in bad], UNUSABLE, strict=True):
        assert text in reasons[name] and name in reasons[name]
    assert "is empty" in reasons["twin.log"] and "does not exist" in reasons["missing"]
    assert report.tables == alone.tables
    flows = [TelemetryDirectory(tmp_path / name).read("flows") for name in ("alone", "out")]
    assert flows[0].equals(flows[1])
    assert [entry["name"] for entry in TelemetryDirectory(tmp_path / "out").sources] == [p.name for p in logs]
    # Once more: nothing new, and what cannot be used is still named.
    again = convert(whole, tmp_path / "out")
    assert not again.changed and sum(file.skipped for file in again.files) == 2


def test_the_command_names_what_it_passes_over(tmp_path, logs):
    empty = tmp_path / "empty.log"
    empty.write_bytes(b"")
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [*map(str, logs), str(empty), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0
    assert "empty.log" in result.output and "passed over" in result.output
    assert "empty.log is empty; expected a log" in " ".join(result.output.split())


def test_a_directory_in_other_use_is_left_alone(tmp_path, logs):
    with pytest.raises(TelemetryError, match="no telemetry table"):
        convert(logs, tmp_path)
    with pytest.raises(TelemetryError, match="is a file"):
        convert(logs, logs[0])
    out = tmp_path / "out"
    convert(logs[:1], out)
    before = state(out)
    bad = tmp_path / "bad"
    bad.write_text("?")
    with pytest.raises(TelemetryError):
        convert([bad], out)
    assert state(out) == before


def test_the_current_directory_may_be_the_output(tmp_path, logs, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert convert(logs, ".").changed
    assert len(TelemetryDirectory(".").read("flows")) == 3


def test_a_name_that_is_no_text(tmp_path, logs):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/conn\xff.log"))
    path.write_bytes(logs[1].read_bytes())
    report = convert([path], tmp_path / "out")
    assert (report.files[0].rows, report.rejected) == (1, 1)


def test_the_command_prints_a_table_of_80_columns(tmp_path, logs):
    app = typer.Typer()
    app.command()(command)
    arguments = [*map(str, logs), "--out", str(tmp_path / "out")]
    printed = CliRunner().invoke(app, arguments).output
    assert "conn.0.log" in printed and "1 were rejected" in printed
    assert printed.split()[:7] == ["file,", "format", "read", "kept", "rejected", "devices", "apps"]
    assert max(map(len, printed.splitlines())) <= 80
    assert "Nothing new" in CliRunner().invoke(app, arguments).output
    again = CliRunner().invoke(app, [*arguments, "--json"]).output
    assert [file["skipped"] for file in json.loads(again)["files"]] == [True, True]


def test_apps_are_counted(tmp_path, shared_data):
    report = convert(sorted((shared_data / "ios").glob("*.db")), tmp_path / "out", device_id="phone")
    apps = {app for app in TelemetryDirectory(tmp_path / "out").read("activity")["app_id"].to_pylist() if app}
    assert report.files[0].apps == len(apps) > 5
    assert report.as_dict()["files"][0]["apps"] == len(apps)


def test_registry(logs):
    assert [reader(name).NAME for name in FORMATS] == list(FORMATS)
    assert detect(logs[0]).NAME == "zeek"


def test_a_real_day_twice(tmp_path, shared_data):
    paths = sorted((shared_data / "labelled" / "normal_b").iterdir())
    out = tmp_path / "out"
    report = convert(paths, out)
    assert report.tables == {"flows": 1974} and [file.rows for file in report.files] == [1974, 0, 0, 0]
    before = state(out)
    assert not convert(paths, out).changed
    assert state(out) == before
