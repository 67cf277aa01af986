"""Flows that are logged again: in one call, in several, by two sensors, while they are open."""

import gzip
import json
import os

import pytest
from flow_samples import eve, eve_flow, lines
from hypothesis import given
from hypothesis import strategies as st

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.ingest import each_once
from appcadence.telemetry.ingest.convert import convert

FIELDS = (
    "ts uid id.orig_h id.orig_p id.resp_h id.resp_p proto service duration orig_bytes resp_bytes conn_state"
)
HEAD = "#separator \\x09\n#path\tconn\n#fields\t" + "\t".join(FIELDS.split()) + "\n"


def row(uid="C1", ts=100.0, port=5000, seconds=1.0, sent=10, device="10.0.0.5"):
    return f"{ts:.6f}\t{uid}\t{device}\t{port}\t192.0.2.1\t443\ttcp\tssl\t{seconds}\t{sent}\t20\tSF\n"


def stored(out):
    rows = TelemetryDirectory(out).read("flows").to_pylist()
    return sorted((r["source_uid"], r["duration_seconds"], r["bytes_out"], r["dest_host"]) for r in rows)


@pytest.fixture
def conn(tmp_path):
    def write(name, *rows):
        (tmp_path / name).write_text(HEAD + "".join(rows))
        return tmp_path / name

    return write


def test_a_log_that_grows_counts_once(tmp_path, conn):
    out = tmp_path / "out"
    rows = [row(f"C{i}", i * 60.0, 5000 + i) for i in range(9)]
    convert([conn("conn.log", *rows[:4])], out)
    report = convert([conn("conn.log", *rows)], out)
    assert report.fates == {"kept": 5, "stored": 4} and report.tables == {"flows": 5}
    (day,) = report.changed_days
    assert (day.day, day.rows) == ("1970-01-01", 5)
    assert len(stored(out)) == 9
    # Nothing but what is there already: nothing is added, and that is no fault.
    report = convert([conn("conn.log", *rows[2:5])], out)
    assert report.fates == {"stored": 3} and (report.tables, report.changed_days) == ({"flows": 0}, ())


def test_a_log_beside_its_packed_copy_counts_once(tmp_path, conn):
    log = conn("conn.log", row("A"), row("B", 200.0))
    packed = tmp_path / "conn.log.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    report = convert([log, packed], tmp_path / "out")
    assert [file.rows for file in report.files] == [2, 0]
    assert [file.left_out for file in report.files] == [{}, {"twice": 2}]
    assert report.fates == {"kept": 2, "twice": 2}


def test_two_sensors_that_see_one_connection(tmp_path, conn):
    apart = [
        row("A"),
        row("B", 100.000004),
        row("C", 100.02),
        row("D", port=5001),
        row("E", device="10.0.0.6"),
        row("F").replace("\ttcp\t", "\tudp\t"),
    ]
    report = convert([conn("conn.log", *apart)], tmp_path / "out")
    assert report.fates == {"kept": 5, "twice": 1}
    assert [uid for uid, *_ in stored(tmp_path / "out")] == ["A", "C", "D", "E", "F"]


@pytest.mark.parametrize(
    ("first", "second", "fate"),
    [
        (100.0, 100.01, "stored"),
        (100.01, 100.0, "stored"),
        (100.0, 100.010001, "kept"),
        (100.010001, 100.0, "kept"),
        (100.999999, 101.0, "kept"),
    ],
)
def test_a_hundredth_of_a_second_apart_is_one_connection(conn, tmp_path, first, second, fate):
    convert([conn("mon", row("A", first))], tmp_path / "out")
    assert convert([conn("tue", row("B", second))], tmp_path / "out").fates == {fate: 1}


@pytest.mark.parametrize(("seconds", "sent", "stays"), [(61.0, 10, "A"), (61.001, 10, "B"), (60.0, 11, "B")])
def test_a_second_more_completes_nothing(conn, tmp_path, seconds, sent, stays):
    convert([conn("mon", row("A", seconds=60.0))], tmp_path / "out")
    convert([conn("tue", row("B", seconds=seconds, sent=sent))], tmp_path / "out")
    assert [uid for uid, *_ in stored(tmp_path / "out")] == [stays]


def test_an_id_alone_is_no_flow(tmp_path, conn):
    rows = [
        row("A", port="-"),
        row("A", 101.0, "-"),
        row("A", 100.005, "-"),
        row("A", port="-", device="10.0.0.6"),
        row("A", port="-"),
    ]
    assert convert([conn("conn.log", *rows)], tmp_path / "out").fates == {"kept": 4, "twice": 1}


def test_the_most_complete_record_stays(tmp_path, conn):
    out = tmp_path / "out"
    open_ = [row("A", seconds=60.0), row("A", seconds=120.0), row("A", seconds=120.0, sent=11)]
    report = convert([conn("night1", *open_)], out)
    assert report.fates == {"kept": 1, "interim": 1, "twice": 1}
    assert stored(out) == [("A", 120.0, 11, None)]
    assert convert([conn("night1b", row("A", seconds=90.0))], out).fates == {"stored": 1}
    report = convert([conn("night2", row("A", seconds=900.0, sent=70), row("B", 3000.0))], out)
    assert report.fates == {"kept": 2} and report.notes[0].startswith(
        "1 flows of the telemetry are completed"
    )
    assert stored(out) == [("A", 900.0, 70, None), ("B", 1.0, 10, None)]
    # Twice revised; and what nobody reads any more is cleared away a day later.
    convert([conn("night3", row("A", seconds=1900.0, sent=80))], out)
    assert stored(out) == [("A", 1900.0, 80, None), ("B", 1.0, 10, None)]
    files = set((out / "flows").iterdir())
    read = set(TelemetryDirectory(out).files("flows"))
    assert read < files
    for file in files:
        os.utime(file, (0, 0))
    convert([conn("night4", row("D", 9000.0))], out)
    assert set((out / "flows").iterdir()) == set(TelemetryDirectory(out).files("flows")) > read
    sources = json.loads((out / "sources.json").read_text())
    assert sources[0]["revisions"].keys() == {"flows"}


def test_a_completed_flow_keeps_the_name_it_had(tmp_path, conn):
    ssl = tmp_path / "ssl.log"
    ssl.write_text("#separator \\x09\n#path\tssl\n#fields\tts\tuid\tserver_name\n100\tA\ta.example\n")
    convert([conn("night1", row("A")), ssl], tmp_path / "out")
    convert([conn("night2", row("A", seconds=50.0), row("B", port=5001))], tmp_path / "out")
    named = {
        (flow["source_uid"], flow["duration_seconds"]): (flow["dest_host"], flow["dest_host_source"])
        for flow in TelemetryDirectory(tmp_path / "out").read("flows").to_pylist()
    }
    assert named == {("A", 50.0): ("a.example", "observed"), ("B", 1.0): ("a.example", "passive")}


MAP = """
[file]
[columns]
start = "time"
device_id = "who"
dest_host = "host"
dest_port = "port"
"""


def test_rows_that_only_their_content_tells_apart(tmp_path):
    (tmp_path / "map.toml").write_text(MAP)
    first = "time,who,host,port\n" + "2026-01-01T00:00:00Z,d1,a.example,443\n" * 3
    (tmp_path / "a.csv").write_text(first)
    (tmp_path / "b.csv").write_text(first + "2026-01-01T00:00:00Z,d1,a.example,443\n" * 2)

    def fates(*names):
        files = [tmp_path / name for name in names]
        return convert(files, tmp_path / "out", format="table", mapping=tmp_path / "map.toml").fates

    # Three of one second in one log are three; in another log they are the same three, and two more.
    assert fates("a.csv") == {"kept": 3}
    assert fates("b.csv") == {"kept": 2, "stored": 3}


def test_a_flow_id_belongs_to_one_sensor(tmp_path):
    other = {"src_ip": "10.0.0.6", "dest_ip": "192.0.2.2"}
    files = tmp_path / "s1.json", tmp_path / "s2.json"
    files[0].write_bytes(lines(eve("tls", 7, tls={"sni": "a.example"}), eve_flow(7)))
    # A name may stand in another file than its flow, and in the other direction.
    back = {"src_ip": "192.0.2.2", "dest_ip": "10.0.0.6"}
    files[1].write_bytes(lines(eve_flow(7, **other), eve_flow(8, src_port=50001)))
    (tmp_path / "s3.json").write_bytes(lines(eve("tls", 7, tls={"sni": "b.example"}, **back)))
    (tmp_path / "s4.json").write_bytes(lines(eve("tls", 8, tls={"sni": "c.example"})))
    report = convert([*files, tmp_path / "s3.json", tmp_path / "s4.json"], tmp_path / "out")
    assert report.fates == {"kept": 3}
    assert [host for *_, host in stored(tmp_path / "out")] == ["a.example", "b.example", "c.example"]


RECORD = st.tuples(
    st.integers(0, 2), st.sampled_from([0, 4, 1_000_000]), st.integers(0, 2), st.integers(0, 3)
)
"""Device, start in microseconds, port, length."""


@given(st.lists(st.lists(RECORD, max_size=9), min_size=1, max_size=4), st.integers(1, 20))
def test_any_order_of_logs_and_calls_ends_with_the_longest(tmp_path_factory, logs, most):
    place, longest, written = tmp_path_factory.mktemp("logs"), {}, 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(each_once, "MAX_ROWS", 4 * most + 40)
        for number, log in enumerate(logs):
            rows = []
            for device, start, port, length in log:
                key = f"10.0.0.{device}", 5000 + port, start // 10
                longest[key] = max(longest.get(key, 0.0), 10.0 * length)
                at, (address, own, _) = 100 + start / 1e6, key
                rows.append(row(f"C{written}", at, own, 10.0 * length, device=address))
                written += 1
            (place / f"{number}.log").write_text(HEAD + "".join(rows))
            report = convert([place / f"{number}.log"], place / "out")
            assert sum(report.fates.values()) == len(log)
    flows = TelemetryDirectory(place / "out").read("flows").to_pylist()
    found = {
        (flow["device_id"], flow["device_port"], flow["start"].second - 40): flow["duration_seconds"]
        for flow in flows
    }
    assert len(found) == len(flows)
    assert found == {
        (device, port, start // 100_000): seconds for (device, port, start), seconds in longest.items()
    }


def test_more_bytes_than_a_float_counts_exactly_are_a_flow_all_the_same(tmp_path):
    log = tmp_path / "conn.log"
    log.write_text(HEAD + row(uid="-", sent=10**18 + 1))
    convert([log], tmp_path / "out", local_nets=["10.0.0.0/8"])
    assert TelemetryDirectory(tmp_path / "out").read("flows")["bytes_out"].to_pylist() == [10**18 + 1]
