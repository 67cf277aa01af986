import pytest
from flow_samples import eve, eve_flow, lines, load

from appcadence.errors import TelemetryError


def read(tmp_path, *rows, **options):
    path = tmp_path / "eve.json"
    path.write_bytes(lines(*rows))
    return load("suricata", path, **options)


def test_a_flow_event_becomes_a_flow(tmp_path):
    (flow,), bad = read(tmp_path, eve_flow(app_proto="tls"))
    assert not bad
    assert flow.pop("start").isoformat() == "2024-07-30T16:48:20.399198+00:00"
    assert flow == {
        "duration_seconds": 240.000358,
        "device_id": "10.0.0.5",
        "app_id": None,
        "app_attribution": "none",
        "dest_host": None,
        "dest_host_source": None,
        "dest_ip": "192.0.2.1",
        "dest_port": 443,
        "device_port": 50000,
        "transport": "tcp",
        "service": "tls",
        "outcome": "established",
        "bytes_out": 7626,
        "bytes_in": 10780,
        "time_resolution_seconds": 1e-6,
        "source": "suricata",
        "source_uid": "1",
        "source_app_id": None,
    }


@pytest.mark.parametrize(
    ("ts", "tc", "outcome"),
    [
        ("1f", "1b", "established"),
        ("02", "12", "established"),
        ("02", "00", "failed"),
        ("02", "14", "failed"),
        ("18", "18", "established"),
        ("18", "00", "unknown"),
        ("18", "14", "unknown"),
        ("zz", "00", "unknown"),
    ],
)
def test_outcome_of_tcp_from_the_flags_of_both_sides(tmp_path, ts, tc, outcome):
    assert read(tmp_path, eve_flow(ts=ts, tc=tc))[0][0]["outcome"] == outcome


@pytest.mark.parametrize(
    ("proto", "state", "back", "outcome"),
    [
        ("TCP", "new", 0, "failed"),
        ("TCP", "new", 60, "unknown"),
        ("TCP", "established", 60, "established"),
        ("TCP", "closed", 60, "established"),
        ("TCP", "closed", 0, "unknown"),
        ("UDP", "new", 0, "unknown"),
        ("UDP", "established", 60, "established"),
        ("UDP", "bypassed", 60, "established"),
    ],
)
def test_outcome_without_flags_from_the_state(tmp_path, proto, state, back, outcome):
    row = eve_flow(proto=proto, tcp=None, flow={"state": state, "bytes_toclient": back})
    assert read(tmp_path, row)[0][0]["outcome"] == outcome


def test_names_join_on_the_flow_in_any_order_of_files(tmp_path):
    flows = lines(*(eve_flow(i, app_proto="failed") for i in range(6)))
    names = lines(
        eve("tls", 0, tls={"sni": "API.Example.com."}),
        eve("tls", 1, tls={"version": "TLS 1.2"}),
        eve("quic", 2, quic={"sni": "q.example"}),
        eve("http", 3, http={"hostname": "www.example.com:8080"}),
        eve("http", 4, http={"hostname": "192.0.2.1"}),
        eve("alert", 5, tls={"sni": "alerts.example"}),
    )
    paths = [tmp_path / name for name in ("flows.json", "names.json")]
    for path, content in zip(paths, (flows, names), strict=True):
        path.write_bytes(content)
    for order in (paths, paths[::-1]):
        found, bad = load("suricata", *order)
        assert not bad
        hosts = [flow["dest_host"] for flow in found]
        assert hosts == ["api.example.com", None, "q.example", "www.example.com", None, None]
        assert [flow["service"] for flow in found] == ["tls", "tls", "quic", "http", "http", None]


ANSWER = {"rrname": "cdn.example", "rrtype": "A", "ttl": 29, "rdata": "192.0.2.1"}
ALIAS = {"rrname": "www.example", "rrtype": "CNAME", "ttl": 270, "rdata": "cdn.example"}
BACK = {"src_ip": "10.0.0.1", "src_port": 53, "dest_ip": "10.0.0.5", "dest_port": 40000, "proto": "UDP"}
ASKED = {"dest_ip": "10.0.0.1", "dest_port": 53, "proto": "UDP"}


@pytest.mark.parametrize(
    ("ends", "dns"),
    [
        (BACK, {"type": "answer", "rrname": "www.example", "rrtype": "A", "ttl": 29, "rdata": "192.0.2.1"}),
        (BACK, {"version": 2, "type": "answer", "rrname": "www.example", "answers": [ALIAS, ANSWER]}),
        (
            ASKED,
            {"version": 3, "type": "response", "queries": [{"rrname": "www.example"}], "answers": [ANSWER]},
        ),
    ],
)
def test_dns_answers_of_all_versions_name_later_flows_until_their_ttl(tmp_path, ends, dns):
    query = eve("dns", 7, **ASKED, dns={"type": "query", "rrname": "other.example", "rrtype": "A"})
    answer = eve("dns", 7, **ends, dns=dns)
    starts = ["16:48:19.9", "16:48:20.0", "16:48:49.0", "16:48:49.1"]
    flows = [
        eve_flow(i, flow={"start": f"2024-07-30T{start}00000+0000", "end": None})
        for i, start in enumerate(starts)
    ]
    flows.append(eve_flow(9, src_ip="10.0.0.6"))
    found, bad = read(tmp_path, query, answer, *flows)
    assert not bad
    assert [f["dest_host"] for f in found] == [None, "www.example", "www.example", None, None]
    assert found[1]["dest_host_source"] == "passive"


def test_expanded_addresses_are_written_short(tmp_path):
    long = "fd00:0000:0000:0000:0000:0000:0000:0005"
    dest = "2001:0db8:0000:0000:0000:0000:0000:0001"
    dns = {"version": 2, "rrname": "six.example", "answers": [{"rrtype": "AAAA", "ttl": 60, "rdata": dest}]}
    answer = eve("dns", 7, **BACK | {"dest_ip": long}, dns=dns)
    (flow,), _ = read(tmp_path, answer, eve_flow(src_ip=long, dest_ip=dest))
    assert (flow["device_id"], flow["dest_ip"], flow["dest_host"]) == (
        "fd00::5",
        "2001:db8::1",
        "six.example",
    )


def test_only_flows_of_local_devices_and_no_other_events(tmp_path):
    rows = [eve_flow(1), eve_flow(2, src_ip="198.51.100.7"), eve("netflow", 3, netflow={"bytes": 1})]
    rows += [eve("stats", 4, stats={"flow": {"memcap": 0}}), eve_flow(5, proto="ICMP", dest_port=None)]
    flows, bad = read(tmp_path, *rows)
    assert not bad and [flow["source_uid"] for flow in flows] == ["1", "5"]
    assert (flows[1]["transport"], flows[1]["dest_port"]) == (None, None)
    assert {flow["device_id"] for flow in read(tmp_path, *rows, device_id="phone")[0]} == {"phone"}


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"flow": {"start": "soon"}}, "flow.start is not a time"),
        ({"flow": {"start": None}}, "flow.start is missing"),
        ({"flow": {"start": "1969-12-31T00:00:00Z"}}, "flow.start is outside 1970 to 2100"),
        ({"flow": {"end": "2024-02-30T00:00:00Z"}}, "flow.end is not a time"),
        ({"flow": {"end": "2024-07-30T16:00:00Z"}}, "the duration is negative or not finite"),
        ({"flow": {"bytes_toserver": -1}}, "a byte count is negative"),
        ({"flow": {"bytes_toserver": 1.5}}, "flow.bytes_toserver is not a whole number"),
        ({"dest_port": 65536}, "the port is out of range"),
        ({"dest_ip": None}, "an address is missing"),
        ({"tcp": []}, "tcp is not an object"),
    ],
)
def test_bad_events_are_rejected_with_file_line_and_reason(tmp_path, fault, reason):
    flows, bad = read(tmp_path, eve_flow(1), eve_flow(2, **fault), eve_flow(3))
    assert [flow["source_uid"] for flow in flows] == ["1", "3"]
    assert bad == [("eve.json", 2, reason)]


def test_a_bad_name_event_is_rejected_once_and_a_bad_line_too(tmp_path):
    rows = [eve_flow(1), eve("tls", 1, tls={"sni": 7}), eve("alert", 1, tls=5, tcp=5)]
    path = tmp_path / "eve.json"
    path.write_bytes(lines(*rows) + b"torn")
    flows, bad = load("suricata", path)
    assert len(flows) == 1
    assert bad == [("eve.json", 2, "tls.sni is not text"), ("eve.json", 4, "not a JSON object")]


def test_other_json_is_no_eve(tmp_path):
    with pytest.raises(TelemetryError, match="is not Suricata EVE JSON lines"):
        read(tmp_path, {"ts": 1.0, "uid": "C"})
