"""The same records in every wrapping that pipelines give them are the same flows."""

import json

import pytest
from flow_samples import eve, eve_flow, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wrappings import IN_LINES, IN_RECORDS

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import detect
from appcadence.telemetry.readers._midstream import EPHEMERAL

CONN = [
    {
        **{"ts": 1732000000.25 + 60 * k, "uid": f"C{k}", "id.orig_h": "10.8.0.21", "id.orig_p": 50000 + k},
        **{"id.resp_h": "203.0.113.10", "id.resp_p": 443, "proto": "tcp", "service": "ssl", "duration": 1.5},
        **{"orig_bytes": 1000 + k, "resp_bytes": 5000, "conn_state": "SF", "local_orig": True},
        **{"history": "ShADadFf"},
    }
    for k in range(4)
]
SSL = [
    {"ts": row["ts"], "uid": row["uid"], "id.orig_h": "10.8.0.21", "server_name": "api.example"}
    for row in CONN
]
EVE = [eve("tls", k, tls={"sni": "api.example"}) for k in range(3)] + [eve_flow(k) for k in range(3)]


def nested(record):
    ids = {name[3:]: value for name, value in record.items() if name.startswith("id.")}
    return {name: value for name, value in record.items() if not name.startswith("id.")} | {"id": ids}


def quoted(record):
    return {name: str(v).lower() if isinstance(v, bool) else str(v) for name, v in record.items()}


OBJECTS = {
    "filebeat's module": lambda r: {"@timestamp": "2024-11-19T07:00:00Z", "suricata": {"eve": r}},
    "elasticsearch": lambda r: {"_index": "logs", "_id": "1", "_source": r},
} | {name: lambda r, wrap=wrap: wrap(json.dumps(r)) for name, wrap in IN_RECORDS.items()}


def written(path, records, line="{}"):
    path.write_text("".join(line.replace("{}", json.dumps(record)) + "\n" for record in records))
    return path


def read(path):
    found = detect(path)
    flows, bad = load(found.NAME, path)
    assert bad == []
    return found.NAME, sorted(flows, key=lambda row: (row["start"], row["source_uid"]))


@pytest.fixture
def plain(tmp_path):
    return {
        "conn": read(written(tmp_path / "conn.log", CONN)),
        "eve": read(written(tmp_path / "eve.json", EVE)),
    }


@pytest.mark.parametrize("wrapping", OBJECTS)
@pytest.mark.parametrize("log", ["conn", "eve"])
def test_a_record_inside_another_is_read(tmp_path, plain, wrapping, log):
    records = CONN if log == "conn" else EVE
    path = written(tmp_path / "wrapped.json", map(OBJECTS[wrapping], records))
    assert read(path) == plain[log]
    assert len(plain[log][1]) == (4 if log == "conn" else 3)


@pytest.mark.parametrize("line", IN_LINES)
@pytest.mark.parametrize("log", ["conn", "eve"])
def test_a_record_behind_a_syslog_header_is_read(tmp_path, plain, line, log):
    records = CONN if log == "conn" else EVE
    assert read(written(tmp_path / "wrapped.log", records, IN_LINES[line])) == plain[log]


def test_what_journalctl_writes_between_entries_is_no_record(tmp_path, plain):
    path = written(tmp_path / "journal.txt", EVE, "Nov 19 07:06:40 sensor suricata[12]: {}")
    first, rest = path.read_text().split("\n", 1)
    started = "-- Journal begins at Mon 2024-11-18 08:00:00 UTC. --"
    path.write_text(f"{started}\n{first}\n-- Boot 5f0c --\n{rest}")
    assert read(path) == plain["eve"]


def test_an_event_of_suricata_is_read_out_of_that_of_the_aws_network_firewall(tmp_path, plain):
    around = {"firewall_name": "f", "availability_zone": "eu-west-1a", "event_timestamp": "1732000000"}
    assert read(written(tmp_path / "firewall.log", [around | {"event": r} for r in EVE])) == plain["eve"]


def test_reduced_logs_of_corelight_are_logs_of_the_same_kind(tmp_path, plain):
    stream = [{"_path": "conn", **row} for row in CONN] + [{"_path": "ssl", **row} for row in SSL]
    whole = read(written(tmp_path / "whole.json", stream))
    reduced = [row | {"_path": f"{row['_path']}_red", "_write_ts": "2024-11-19T07:00:00Z"} for row in stream]
    assert read(written(tmp_path / "reduced.json", reduced)) == whole
    assert [row["dest_host"] for row in whole[1]] == ["api.example"] * 4


def test_lines_that_hold_no_record_are_named_by_their_number(tmp_path):
    path = written(tmp_path / "wrapped.log", CONN, IN_LINES["rfc 3164"])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "Feb 26 10:36:45 pfSense kernel: no object", *lines[1:]]) + "\n")
    flows, bad = load("zeek", path)
    assert len(flows) == 4 and [row[1] for row in bad] == [2]
    path = written(tmp_path / "wrapped.json", map(OBJECTS["a message"], CONN))
    path.write_text(path.read_text() + '{"@timestamp": "2024-11-19T07:00:00Z", "message": "started"}\n')
    flows, bad = load("zeek", path)
    assert len(flows) == 4 and [row[1] for row in bad] == [5]


@pytest.mark.parametrize("change", [nested, quoted])
def test_nested_ids_and_quoted_numbers_are_the_same(tmp_path, plain, change):
    assert read(written(tmp_path / "changed.log", map(change, CONN))) == plain["conn"]


@pytest.mark.parametrize(("unit", "name"), [(1e3, "milliseconds"), (1e6, "microseconds")])
def test_times_in_finer_units_are_the_same_instants(tmp_path, plain, unit, name):
    records = [row | {"ts": round(row["ts"] * unit)} for row in CONN]
    assert read(written(tmp_path / f"{name}.log", records)) == plain["conn"]


@pytest.mark.parametrize("tag", [False, True])
def test_a_stream_of_several_logs_is_read_with_its_names(tmp_path, plain, tag):
    def told(path, record):
        return {path: record} if tag else {"_path": path} | record

    weird = {"ts": 1732000000.0, "uid": "C0", "name": "odd", "id.orig_h": "10.8.0.21"}
    stream = [
        told(path, row)
        for pair in zip(CONN, SSL, strict=True)
        for path, row in zip(("conn", "ssl"), pair, strict=True)
    ]
    path = written(tmp_path / "all.log", [told("weird", weird), *stream])
    name, flows = read(path)
    apart = [written(tmp_path / "c.log", CONN), written(tmp_path / "ssl.log", SSL)]
    both, bad = load("zeek", *apart)
    assert (name, bad) == ("zeek", []) and {row["dest_host"] for row in flows} == {"api.example"}
    assert flows == sorted(both, key=lambda row: row["start"])
    # A line of no log counts as faulty, once.
    path.write_text(path.read_text() + '{"_path": "conn", "ts": "no time"}\nnothing\n')
    flows, bad = load("zeek", path)
    assert len(flows) == 4 and [row[1] for row in bad] == [10, 11]


def test_a_message_of_words_is_no_envelope(tmp_path):
    path = written(tmp_path / "app.log", [{"message": "hello", "level": "info", "ts": 1.0}] * 3)
    with pytest.raises(TelemetryError, match="no known format"):
        detect(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_hostile_envelopes_raise_nothing_else(tmp_path, data):
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "message",
                        "log",
                        "_source",
                        "suricata",
                        "eve",
                        "conn",
                        "ts",
                        "id",
                        "_path",
                        "event",
                        "original",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
    more = st.dictionaries(st.sampled_from(["message", "id", "_path", "log"]), values, max_size=2)
    records = [row | data.draw(more) for row in CONN]
    records += data.draw(st.lists(values, max_size=3))
    path = tmp_path / "hostile.json"
    header = data.draw(st.sampled_from(["{}", *IN_LINES.values()]))
    path.write_text("".join(header.replace("{}", json.dumps(record)) + "\n" for record in records))
    try:
        flows, bad = load("zeek", path)
    except TelemetryError as error:
        assert "\n" not in str(error)
    else:
        assert len(flows) + len(bad) <= len(records)


@pytest.mark.parametrize(
    ("ends", "history", "opened"),
    [
        ((("17.57.144.10", 5223), ("10.8.0.21", 51000)), "DadA", True),
        ((("17.57.144.10", 5223), ("10.8.0.21", 51000)), "ShADad", False),  # opened from outside
        ((("17.57.144.10", 5223), ("10.8.0.21", 51000)), "^dA", False),  # Zeek has turned it already
        ((("17.57.144.10", 51000), ("10.8.0.21", 443)), "DadA", False),  # a service on the phone
        ((("17.57.144.10", 5223), ("10.8.0.21", EPHEMERAL - 1)), "DadA", False),
        ((("17.57.144.10", 5223), ("17.57.144.11", 51000)), "DadA", False),  # nobody's
    ],
)
def test_a_connection_picked_up_half_way_is_turned(tmp_path, ends, history, opened):
    (source, port), (dest, dest_port) = ends
    row = CONN[0] | {"id.orig_h": source, "id.orig_p": port, "id.resp_h": dest, "id.resp_p": dest_port}
    row |= {"history": history, "conn_state": "OTH", "local_orig": False}
    flows, _ = load("zeek", written(tmp_path / "conn.log", [CONN[1], row]))
    mine = [flow for flow in flows if flow["source_uid"] == "C0"]
    assert len(mine) == opened
    if opened:
        (flow,) = mine
        assert (flow["device_id"], flow["dest_ip"], flow["dest_port"]) == (dest, source, port)
        assert (flow["bytes_out"], flow["bytes_in"]) == (5000, 1000)


@pytest.mark.parametrize(
    ("flags", "opened"),
    [(("1a", "18"), True), (("18", "18"), True), (("1b", "1b"), False), (("02", "00"), False)],
)
def test_an_event_picked_up_half_way_is_turned(tmp_path, flags, opened):
    row = eve_flow(7, *flags, src_ip="203.0.113.10", src_port=443, dest_ip="10.8.0.21", dest_port=50000)
    flows, _ = load("suricata", written(tmp_path / "eve.json", [eve_flow(1), row]))
    mine = [flow for flow in flows if flow["source_uid"] == "7"]
    assert len(mine) == opened
    assert not opened or (mine[0]["device_id"], mine[0]["dest_port"]) == ("10.8.0.21", 443)


@pytest.mark.parametrize("field", ["id.orig_h", "id.resp_h"])
def test_a_cut_address_is_no_address(tmp_path, field):
    flows, bad = load("zeek", written(tmp_path / "conn.log", [CONN[0], CONN[1] | {field: "10.8."}]))
    assert len(flows) == 1 and [row[1:] for row in bad] == [(2, "an address is cut off or invalid")]


def test_an_endless_uid_costs_no_flow(tmp_path):
    flows, bad = load("zeek", written(tmp_path / "conn.log", [CONN[0] | {"uid": "C" * 300}]))
    assert bad == [] and [flow["source_uid"] for flow in flows] == [None]
