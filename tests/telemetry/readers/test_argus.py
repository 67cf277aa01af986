import csv

import pytest
from flow_samples import load

HEADER = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes"
ROW = "1539069039.898171,0.5,tcp,10.0.0.5,50000,->,192.0.2.1,443,FIN,15,6642,630"


def read(tmp_path, *rows, header=HEADER, **options):
    path = tmp_path / "flows.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return load("argus", path, **options)


def row(**more):
    values = dict(zip(HEADER.split(","), ROW.split(","), strict=True))
    return ",".join((values | more).values())


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("mobile/android_24h.binetflow", {"10.8.0.69", "10.8.0.1"}),
        ("labelled/empire/flows.argus.csv", {"172.16.2.209"}),
        ("labelled/doorbell_events/flows.argus.csv", {"192.168.1.129", "192.168.2.50", "192.168.1.1"}),
    ],
)
def test_real_files_give_every_flow_of_their_devices(shared_data, name, devices):
    with (shared_data / name).open(newline="") as stream:
        rows = list(csv.DictReader(stream))

    def opener(entry):
        # Mid-stream records (<?>) of this phone's own long connections begin with the server's packets.
        return entry["DstAddr"] if "?" in entry["Dir"] and int(entry["Sport"]) == 5228 else entry["SrcAddr"]

    expected = [entry for entry in rows if opener(entry) in devices]
    flows, bad = load("argus", shared_data / name)
    assert not bad and len(flows) == len(expected)
    assert [flow["device_id"] for flow in flows] == [opener(entry) for entry in expected]
    out = sum(flow["bytes_out"] for flow in flows)
    total = sum(int(entry["TotBytes"]) for entry in expected)
    assert out + sum(flow["bytes_in"] for flow in flows) == total
    assert (
        abs(sum(flow["duration_seconds"] for flow in flows) - sum(float(e["Dur"]) for e in expected)) < 1e-3
    )


def test_a_real_phone(shared_data):
    flows, _ = load("argus", shared_data / "mobile" / "android_24h.binetflow")
    assert flows[0]["start"].isoformat() == "2019-04-04T16:23:00.325010+00:00"
    # 54 that the phone was seen to open, and 4 pieces of them that begin with a packet of the server.
    assert sum(flow["dest_port"] == 5228 for flow in flows) == 58
    assert sum(flow["duration_seconds"] > 600 for flow in flows) >= 243
    assert sum(flow["service"] == "dns" for flow in flows) == sum(flow["dest_port"] == 53 for flow in flows)


@pytest.mark.parametrize(
    ("start", "iso"),
    [
        ("1539069039.898171", "2018-10-09T07:10:39.898171+00:00"),
        ("2019/04/04 16:23:00.325010", "2019-04-04T16:23:00.325010+00:00"),
        ("2019-04-04T16:23:00+02:00", "2019-04-04T14:23:00+00:00"),
        ("2019-04-04 16:23:00.1234567 Z", "2019-04-04T16:23:00.123456+00:00"),
        ("16:23:00.325010", None),
        ("04/04 16:23:00", None),
        ("2019-02-30 16:23:00", None),
        ("2019-04-04 16:23:00 CEST", None),
    ],
)
def test_start_times(tmp_path, start, iso):
    flows, bad = read(tmp_path, row(StartTime=start), row())
    if iso is None:
        reason = "starttime is not a time (export with ra -u)"
        assert (len(flows), bad) == (1, [("flows.csv", 2, reason)])
    else:
        assert flows[0]["start"].isoformat() == iso


@pytest.mark.parametrize(
    ("state", "more", "outcome"),
    [
        ("FSPA_FSPA", {}, "established"),
        ("SR_SA", {}, "established"),
        ("PA_PA", {"Dir": "<?>"}, "established"),
        ("S_", {}, "failed"),
        ("S_RA", {}, "failed"),
        ("PA_", {}, "unknown"),
        ("FIN", {}, "established"),
        ("REQ", {}, "failed"),
        ("RST", {"TotPkts": "12"}, "established"),
        ("RST", {"TotPkts": "2"}, "failed"),
        ("RST", {"TotPkts": ""}, "unknown"),
        ("TIM", {"TotBytes": "630"}, "failed"),
        ("TIM", {}, "established"),
        ("CON", {"Proto": "udp"}, "established"),
        ("INT", {"Proto": "udp"}, "unknown"),
        ("URP", {"Proto": "icmp", "Sport": "0x0008", "Dport": "0x7208"}, "unknown"),
    ],
)
def test_outcome(tmp_path, state, more, outcome):
    (flow,), bad = read(tmp_path, row(State=state, **more))
    assert not bad and flow["outcome"] == outcome


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"Dir": "  <->"}, ("10.0.0.5", "192.0.2.1", 443, 630, 6012)),
        ({"Dir": "<-"}, None),
        (
            {"Dir": " <-", "SrcAddr": "192.0.2.1", "DstAddr": "10.0.0.5", "Sport": "443", "Dport": "50000"},
            ("10.0.0.5", "192.0.2.1", 443, 6012, 630),
        ),
        (
            {"Dir": "<?>", "SrcAddr": "192.0.2.1", "DstAddr": "10.0.0.5", "Sport": "443", "Dport": "50000"},
            ("10.0.0.5", "192.0.2.1", 443, 6012, 630),
        ),
        ({"Dir": "?>", "SrcAddr": "192.0.2.1", "DstAddr": "10.0.0.5", "Sport": "50000", "Dport": "22"}, None),
        ({"SrcAddr": "192.0.2.1", "DstAddr": "10.0.0.5", "Sport": "443", "Dport": "50000"}, None),
        ({"Proto": "arp"}, None),
        ({"Proto": "man"}, None),
    ],
)
def test_who_opened_the_flow(tmp_path, more, kept):
    flows, bad = read(tmp_path, row(**more))
    names = ("device_id", "dest_ip", "dest_port", "bytes_out", "bytes_in")
    assert not bad and [tuple(flow[name] for name in names) for flow in flows] == ([kept] if kept else [])


def test_columns_are_known_by_name_in_any_order_and_case(tmp_path):
    header = HEADER.lower().split(",")[::-1]
    (flow,), _ = read(tmp_path, ",".join(row().split(",")[::-1]), header=",".join(header))
    assert flow["bytes_in"] == 6012
    nine = ",".join(HEADER.split(",")[:9])
    (flow,), _ = read(tmp_path, ",".join(row().split(",")[:9]), header=nine)
    assert (flow["bytes_out"], flow["bytes_in"], flow["outcome"]) == (None, None, "established")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"Dur": "x"}, "dur is not a number"),
        ({"Dur": "-1"}, "the duration is negative or not finite"),
        ({"Dport": "https"}, "dport is not a number (export with ra -n)"),
        ({"Dport": "70000"}, "the port is out of range"),
        ({"TotBytes": "1e3"}, "totbytes is not a whole number"),
        ({"TotBytes": "1"}, "a byte count is negative"),
        ({"StartTime": ""}, "starttime is missing"),
        ({"DstAddr": ""}, "an address is missing"),
        ({"State": "FIN,more"}, "13 columns instead of 12"),
    ],
)
def test_bad_rows_are_rejected_with_file_line_and_reason(tmp_path, fault, reason):
    flows, bad = read(tmp_path, row(), row(**fault), row())
    assert (len(flows), bad) == (2, [("flows.csv", 3, reason)])


def test_the_default_columns_of_ra(tmp_path):
    header = "StartTime,Flgs,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,TotPkts,TotBytes,State"
    line = "2019-04-04 16:23:00.325010, e        ,tcp,10.0.0.5,50000,   ->,192.0.2.1,443,15,6642,FIN"
    (flow,), bad = read(tmp_path, line, header=header)
    assert not bad and flow["start"].isoformat() == "2019-04-04T16:23:00.325010+00:00"
    known = ("device_id", "dest_ip", "dest_port", "outcome", "duration_seconds", "bytes_out", "bytes_in")
    assert [flow[name] for name in known] == ["10.0.0.5", "192.0.2.1", 443, "established", None, None, None]


def test_bytes_of_the_other_side_are_read_where_there_is_no_total(tmp_path):
    header = HEADER.replace("TotPkts,TotBytes", "DstBytes")
    flows, bad = read(tmp_path, ROW.replace("15,6642", "6012"), header=header)
    assert not bad and (flows[0]["bytes_out"], flows[0]["bytes_in"]) == (630, 6012)
