import gzip
import ipaddress
import json
from pathlib import Path

import pyarrow as pa
import pytest
from flow_samples import sniffs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appcadence.errors import TelemetryError
from appcadence.telemetry.readers import ReadOptions, _lines, zeek
from appcadence.telemetry.schema import FLOWS, conform

IDS = ["ts", "uid", "id.orig_h", "id.orig_p", "id.resp_h", "id.resp_p"]
STATE = ["proto", "service", "duration", "orig_bytes", "resp_bytes", "conn_state", "local_orig"]
CONN = IDS + STATE
SSL = [*IDS, "version", "cipher", "server_name"]
HTTP = [*IDS, "trans_depth", "method", "host", "uri"]
DNS = [*IDS, "proto", "trans_id", "query", "qtype_name", "answers", "TTLs"]


def header(path: str, fields: list[str]) -> str:
    head = [
        "#separator \\x09",
        "#set_separator\t,",
        "#empty_field\t(empty)",
        "#unset_field\t-",
        f"#path\t{path}",
    ]
    return "\n".join([*head, "#fields\t" + "\t".join(fields), ""])


def conn(uid="C1", ts="1700000000.000001", orig="10.0.0.5", resp="192.0.2.1", **more) -> dict[str, str]:
    row = {
        "ts": ts,
        "uid": uid,
        "id.orig_h": orig,
        "id.orig_p": "5000",
        "id.resp_h": resp,
        "id.resp_p": "443",
        "proto": "tcp",
        "service": "-",
        "duration": "1.5",
        "orig_bytes": "10",
        "resp_bytes": "20",
        "conn_state": "SF",
        "local_orig": "-",
    }
    return row | {key.replace("__", "."): value for key, value in more.items()}


def tsv(path: str, fields: list[str], rows: list[dict[str, str]]) -> str:
    return header(path, fields) + "".join("\t".join(r.get(f, "-") for f in fields) + "\n" for r in rows)


def write(tmp_path: Path, name: str, text: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(*paths: Path, **options) -> tuple[list[dict], list[tuple]]:
    flows, bad = [], []
    for name, batch in zeek.read(paths, ReadOptions(**options)):
        if name == "flows":
            flows += conform(FLOWS, batch).to_pylist()
        else:
            bad += [(row["file"], row["line"], row["reason"]) for row in batch.to_pylist()]
    return flows, bad


def test_a_connection_becomes_a_flow(tmp_path):
    path = write(tmp_path, "conn.log", tsv("conn", CONN, [conn(service="ssl")]))
    (flow,), bad = load(path)
    assert not bad
    assert flow["start"].isoformat() == "2023-11-14T22:13:20.000001+00:00"
    del flow["start"]
    assert flow == {
        "duration_seconds": 1.5,
        "device_id": "10.0.0.5",
        "app_id": None,
        "app_attribution": "none",
        "dest_host": None,
        "dest_host_source": None,
        "dest_ip": "192.0.2.1",
        "dest_port": 443,
        "device_port": 5000,
        "transport": "tcp",
        "service": "tls",
        "outcome": "established",
        "bytes_out": 10,
        "bytes_in": 20,
        "time_resolution_seconds": 1e-6,
        "source": "zeek",
        "source_uid": "C1",
        "source_app_id": None,
    }


@pytest.mark.parametrize(
    ("state", "proto", "outcome"),
    [(s, "tcp", "established") for s in ("SF", "S1", "S2", "S3", "RSTO", "RSTR")]
    + [(s, "tcp", "failed") for s in ("S0", "REJ", "RSTOS0", "SH")]
    + [(s, "tcp", "unknown") for s in ("RSTRH", "SHR", "OTH", "-")]
    + [("S0", "udp", "unknown"), ("SF", "udp", "established")],
)
def test_outcome(tmp_path, state, proto, outcome):
    path = write(tmp_path, "conn.log", tsv("conn", CONN, [conn(conn_state=state, proto=proto)]))
    assert load(path)[0][0]["outcome"] == outcome


def test_unset_values_are_null_and_icmp_has_no_port(tmp_path):
    row = conn(duration="-", orig_bytes="-", resp_bytes="-", proto="icmp")
    (flow,), _ = load(write(tmp_path, "conn.log", tsv("conn", CONN, [row])))
    names = ("duration_seconds", "bytes_out", "bytes_in", "transport", "dest_port", "service")
    assert [flow[name] for name in names] == [None] * 6


def test_names_join_on_uid_in_any_order_of_files(tmp_path):
    rows = [conn(f"C{i}") for i in range(5)]
    ssl = [
        {"uid": "C0", "server_name": "API.Example.com."},
        {"uid": "C1", "server_name": "192.0.2.1"},
        {"uid": "C2"},
        {"uid": "C2", "server_name": "second.example"},
    ]
    http = [{"uid": "C0", "host": "proxy.example"}, {"uid": "C3", "host": "www.example.com:8080"}]
    paths = [
        write(tmp_path, "a.log", tsv("conn", CONN, rows)),
        write(tmp_path, "b.log", tsv("ssl", SSL, ssl)),
        write(tmp_path, "c.log", tsv("http", HTTP, http)),
    ]
    for order in (paths, paths[::-1]):
        flows, _ = load(*order)
        hosts = [flow["dest_host"] for flow in flows]
        assert hosts == ["api.example.com", None, "second.example", "www.example.com", None]
        assert [flow["service"] for flow in flows] == ["tls", "tls", "tls", "http", None]
        assert [flow["dest_host_source"] for flow in flows] == [
            "observed",
            None,
            "observed",
            "observed",
            None,
        ]


def test_quic_names_from_json(tmp_path):
    quic = {"ts": 1.0, "uid": "C1", "server_name": "q.example", "client_scid": "x"}
    flows, _ = load(
        write(tmp_path, "conn.log", tsv("conn", CONN, [conn(proto="udp")])),
        write(tmp_path, "quic.log", json.dumps(quic)),
    )
    assert (flows[0]["dest_host"], flows[0]["service"]) == ("q.example", "quic")


def test_dns_answers_name_later_flows_of_the_same_device(tmp_path):
    def answer(ts, query, answers, ttls, device="10.0.0.5"):
        names = ("ts", "id.orig_h", "query", "answers", "TTLs", "trans_id")
        return dict(zip(names, (ts, device, query, answers, ttls, "1"), strict=True))

    dns = [
        answer("100.0", "One.example", "cname.example,192.0.2.1,192.0.2.2", "900.0,60.0,30.0"),
        answer("150.0", "two.example", "192.0.2.1", "10.0"),
        answer("100.0", "odd.example", "192.0.2.7", "-"),
        answer("100.0", "v6.example", "2001:db8::1", "60.0"),
    ]
    cases = [
        ("99.0", "192.0.2.1", "10.0.0.5", None),
        ("160.000000", "192.0.2.1", "10.0.0.5", "two.example"),
        ("149.0", "192.0.2.1", "10.0.0.5", "one.example"),
        ("160.1", "192.0.2.1", "10.0.0.5", None),
        ("120.0", "192.0.2.2", "10.0.0.5", "one.example"),
        ("131.0", "192.0.2.2", "10.0.0.5", None),
        ("120.0", "192.0.2.2", "10.0.0.6", None),
        ("120.0", "192.0.2.7", "10.0.0.5", None),
        ("120.0", "2001:db8::1", "10.0.0.5", "v6.example"),
    ]
    rows = [conn(f"C{i}", ts, orig, resp) for i, (ts, resp, orig, _) in enumerate(cases)]
    rows.append(conn("D", "1.0", service="dns", proto="udp"))
    conn_path = write(tmp_path, "conn.log", tsv("conn", CONN, rows))
    flows, bad = load(write(tmp_path, "dns.log", tsv("dns", DNS, dns)), conn_path)
    assert not bad
    assert [flow["dest_host"] for flow in flows] == [*(case[3] for case in cases), None]
    assert {flow["dest_host_source"] for flow in flows if flow["dest_host"]} == {"passive"}
    assert flows[-1]["service"] == "dns"
    as_json = [
        {
            "ts": float(r["ts"]),
            "id.orig_h": r["id.orig_h"],
            "query": r["query"],
            "trans_id": 1,
            "answers": r["answers"].split(","),
            "TTLs": [float(t) for t in r["TTLs"].split(",")] if r["TTLs"] != "-" else None,
        }
        for r in dns
    ]
    json_path = write(tmp_path, "dns.json", "\n".join(map(json.dumps, as_json)))
    assert load(json_path, conn_path)[0] == flows


def test_only_flows_of_local_devices(tmp_path):
    origins = ["10.0.0.5", "8.8.8.8", "fd00::1", "fe80::1", "172.16.0.1", "172.32.0.1"]
    rows = [conn(str(i), orig=orig) for i, orig in enumerate(origins)]
    rows += [conn("T", orig="8.8.4.4", local_orig="T"), conn("F", orig="10.0.0.6", local_orig="F")]
    path = write(tmp_path, "conn.log", tsv("conn", CONN, rows))
    assert [f["source_uid"] for f in load(path)[0]] == ["0", "2", "4", "T"]
    nets = (ipaddress.ip_network("8.8.8.0/24"), ipaddress.ip_network("fe80::/10"))
    assert [f["source_uid"] for f in load(path, local_nets=nets)[0]] == ["1", "3"]
    assert {f["device_id"] for f in load(path, device_id="phone")[0]} == {"phone"}


BAD = [
    ({"ts": "-"}, "ts is missing"),
    ({"ts": "yesterday"}, "ts is not a number"),
    ({"ts": "-1.0"}, "ts is outside 1970 to 2100"),
    ({"ts": "4102444800.0"}, "ts is outside 1970 to 2100"),
    ({"id__resp_p": "65536"}, "the port is out of range"),
    ({"id__orig_h": "-"}, "an address is missing"),
    ({"duration": "-0.1"}, "the duration is negative or not finite"),
    ({"duration": "inf"}, "the duration is negative or not finite"),
    ({"duration": "2678400.5"}, "the flow lasts longer than 31 days"),
    ({"ts": "4102444799.0", "duration": "2"}, "the flow ends after 2100"),
    ({"service": "s" * 256}, "service is longer than 255 characters"),
    ({"orig_bytes": "-1"}, "a byte count is negative"),
    ({"resp_bytes": "many"}, "resp_bytes is not a number"),
]


@pytest.mark.parametrize(("fault", "reason"), BAD)
def test_bad_rows_are_rejected_with_file_line_and_reason(tmp_path, fault, reason):
    rows = [conn("A"), conn("B", **fault), conn("C")]
    flows, bad = load(write(tmp_path, "conn.log", tsv("conn", CONN, rows)))
    assert [flow["source_uid"] for flow in flows] == ["A", "C"]
    assert bad == [("conn.log", 8, reason)]


def test_a_torn_last_line_keeps_the_good_rows(tmp_path):
    text = tsv("conn", CONN, [conn("A"), conn("B")])
    flows, bad = load(write(tmp_path, "conn.log", text[: text.rindex("443")]))
    assert [flow["source_uid"] for flow in flows] == ["A"]
    assert bad == [("conn.log", 8, "6 columns instead of 13")]


def test_concatenated_logs_may_change_their_fields(tmp_path):
    text = (
        tsv("conn", CONN, [conn("A")])
        + "#close\t2023\n"
        + tsv("conn", CONN[::-1], [conn("B"), conn("C", ts="x")])
    )
    flows, bad = load(write(tmp_path, "conn.log", text))
    assert [flow["source_uid"] for flow in flows] == ["A", "B"]
    assert bad == [("conn.log", 16, "ts is not a number")]


def test_a_header_only_log_is_valid(tmp_path):
    assert load(write(tmp_path, "conn.log", header("conn", CONN) + "#close\t2023\n")) == ([], [])


def test_small_blocks_give_the_same_rows(tmp_path, monkeypatch):
    rows = [conn(f"C{i}", ts=f"{1000 + i}.5") for i in range(50)]
    rows[20]["ts"] = "x"
    text = tsv("conn", CONN, rows[:30]) + "#close\n" + tsv("conn", CONN, rows[30:])
    plain, packed = (
        write(tmp_path, "conn.log", text),
        write(tmp_path, "conn.log.gz", gzip.compress(text.encode())),
    )
    whole = load(plain)
    assert len(whole[0]) == 49
    for size in (1, 100, 1000):
        monkeypatch.setattr(_lines, "BLOCK_BYTES", size)
        flows, bad = load(plain)
        assert (flows, bad) == whole
        assert load(packed)[0] == flows


@pytest.mark.parametrize("clock", [float, lambda ts: "2023-11-14T22:13:20.000001Z"])
def test_json_equals_tsv(tmp_path, clock):
    rows = [conn("A"), conn("B", local_orig="F", duration="-"), conn("C", local_orig="T", orig="1.2.3.4")]
    counts = ("id.orig_p", "id.resp_p", "orig_bytes", "resp_bytes")

    def value(name, text):
        if name == "ts":
            return clock(text)
        return int(text) if name in counts else text == "T" if name == "local_orig" else text

    objects = [{k: value(k, v) for k, v in row.items() if v != "-" and k != "duration"} for row in rows]
    for target, row in zip(objects, rows, strict=True):
        if row["duration"] != "-":
            target["duration"] = float(row["duration"])
    lines = [json.dumps(o | {"extra": {"deep": [1]}}) for o in objects]
    expected = load(write(tmp_path, "conn.log", tsv("conn", CONN, rows)))
    assert load(write(tmp_path, "conn.json", "\n".join(lines) + "\n")) == expected
    lines.insert(1, '{"ts": tru')
    lines.insert(2, '{"ts": 1, "uid": 7}')
    flows, bad = load(write(tmp_path, "conn.json", "\n".join(lines)))
    assert flows == expected[0]
    assert bad == [("conn.json", 2, "not a JSON object"), ("conn.json", 3, "uid is not text")]


def test_other_zeek_logs_are_passed_over(tmp_path):
    weird = write(tmp_path, "weird.log", header("weird", ["ts", "uid", "name"]) + "1.0\tC\tx\n")
    assert sniffs("zeek", weird)
    flows, _ = load(weird, write(tmp_path, "conn.log", tsv("conn", CONN, [conn()])))
    assert len(flows) == 1
    with pytest.raises(TelemetryError, match=r"no connections in .*weird\.log"):
        load(weird)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"\x00\x01\x02\xff" * 100, "is not a Zeek log"),
        (b"a,b,c\n1,2,3\n", "is not a Zeek log"),
        (b'{"event": "x"}\n', "is not a Zeek log"),
        (b"1.0\tC1\n", "is not a Zeek log"),
        (b"#separator \\x09\n1.0\tC1\n", "has no #fields line"),
        (b"#separator \\x09\n#path\tconn\n#fields\tts\tuid\n", "conn log lacks the field id.orig_h"),
        (gzip.compress(tsv("conn", CONN, [conn()] * 500).encode())[:-30], "is cut off inside its gzip data"),
        (b"\x1f\x8bxxxxxxxxxxxxxxxxxx", "is damaged gzip"),
        (tsv("conn", CONN, []) + tsv("ssl", SSL, []), "changes from conn to ssl"),
    ],
)
def test_files_that_cannot_be_read_are_one_sentence(tmp_path, content, message):
    path = tmp_path / "conn.log"
    if content is not None:
        write(tmp_path, "conn.log", content)
    with pytest.raises(TelemetryError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


word = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r"), min_size=1).filter(
    lambda text: text not in ("-", "(empty)") and not text.startswith("#")
)
flow_rows = st.builds(
    lambda uid, micros, port, size, duration: conn(
        uid,
        f"{micros // 10**6}.{micros % 10**6:06d}",
        id__resp_p=str(port),
        orig_bytes=str(size),
        duration=duration,
    ),
    uid=word,
    # No flow may end after 2100.
    micros=st.integers(0, 3_102_444_800_000_000 - 1),
    port=st.integers(0, 65535),
    size=st.integers(0, 10**17),
    duration=st.floats(0, 31 * 86_400).map(lambda value: f"{value:.6f}"),
)
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@relaxed
@given(rows=st.lists(flow_rows, max_size=20))
def test_round_trip(tmp_path, rows):
    flows, bad = load(write(tmp_path, "conn.log", tsv("conn", CONN, rows)))
    assert not bad
    assert [f["source_uid"] for f in flows] == [r["uid"] for r in rows]
    assert [f["bytes_out"] for f in flows] == [int(r["orig_bytes"]) for r in rows]
    assert [f["duration_seconds"] for f in flows] == [float(r["duration"]) for r in rows]
    assert [f["dest_port"] for f in flows] == [int(r["id.resp_p"]) for r in rows]
    starts = pa.array([f["start"] for f in flows], pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
    assert starts == [int(r["ts"].replace(".", "")) for r in rows]


START = tsv("conn", CONN, [conn()]).encode()
prefixes = [
    b"",
    START,
    START[:-1],
    b"#fields\t",
    b"#separator ",
    b'{"ts":1,"uid":"a",',
    b"ts|uid|id.orig_h|",
    b"\x1f\x8b",
]


@relaxed
@given(prefix=st.sampled_from(prefixes), noise=st.binary(max_size=200))
def test_hostile_bytes_never_raise_anything_else(tmp_path, prefix, noise):
    path = write(tmp_path, "conn.log", prefix + noise)
    try:
        load(path)
    except TelemetryError as error:
        assert str(error)
    assert sniffs("zeek", path) in (True, False)
