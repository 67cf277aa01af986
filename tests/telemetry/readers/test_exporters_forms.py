"""The forms in which exporters print the same flows, and what people make of the files."""

import json

import pytest
from flow_samples import load

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import detect

DEVICE, SERVER = "10.0.0.5", "192.0.2.1"
ARGUS = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes"
ARGUS_ROW = f"1732000000.250000,1.500000,tcp,{DEVICE},50000,   ->,{SERVER},443,RST,12,6000,1000"
NFDUMP = "ts,te,td,sa,da,sp,dp,pr,flg,fwd,stos,ipkt,ibyt,opkt,obyt"
SUMMARY = "Summary\nflows,bytes,packets,avg_bps,avg_pps,avg_bpp\n2,300,4,1,1,1"
PMACCT = "SRC_IP,DST_IP,SRC_PORT,DST_PORT,PROTOCOL,TIMESTAMP_START,TIMESTAMP_END,PACKETS,BYTES"


def write(tmp_path, *lines, name="log"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n")
    return path


def nfdump_row(day, source=f"{DEVICE},{SERVER},50000,443", sizes="3,300,0,0"):
    return f"2024-11-{day} 07:00:00,2024-11-{day} 07:00:02,1.500,{source},TCP,...AP.S.,0,0,{sizes}"


def pmacct_row(end, source=f"{DEVICE},{SERVER},50000,443"):
    return f"{source},tcp,2024-11-19 07:00:00.250000,{end},1,60"


def test_argus_counts_and_times_of_either_kind_say_the_same(tmp_path):
    header = ARGUS.replace("Dur", "LastTime").replace(
        "TotPkts,TotBytes,SrcBytes", "SrcPkts,DstPkts,SrcBytes,DstBytes"
    )
    row = ARGUS_ROW.replace("1.500000", "1732000001.750000").replace("12,6000,1000", "7,5,1000,5000")
    plain, _ = load("argus", write(tmp_path, ARGUS, ARGUS_ROW))
    flows, bad = load("argus", write(tmp_path, header, row))
    assert not bad and flows == plain
    known = ("duration_seconds", "outcome", "bytes_out", "bytes_in")
    assert [flows[0][name] for name in known] == [1.5, "established", 1000, 5000]


@pytest.mark.parametrize(
    ("proto", "kept"), [("2054", 0), ("34958", 0), ("6", 1), ("58", 1), ("llc", 0), ("eapol", 0)]
)
def test_what_is_not_ip_is_no_flow_also_as_a_number(tmp_path, proto, kept):
    flows, bad = load("argus", write(tmp_path, ARGUS, ARGUS_ROW.replace("tcp", proto)))
    assert not bad and len(flows) == kept


@pytest.mark.parametrize(
    ("format", "header", "rows"),
    [
        ("argus", ARGUS, [ARGUS_ROW, ARGUS_ROW.replace("443", "5223"), ARGUS_ROW.replace("50000", "50001")]),
        ("nfdump", NFDUMP, [nfdump_row(19), nfdump_row(20), nfdump_row(21)]),
        ("pmacct", PMACCT, [pmacct_row(f"2024-11-19 07:00:0{n}.000000") for n in (1, 2, 3)]),
    ],
)
@pytest.mark.parametrize("before", ["", "\ufeff"])
def test_tables_put_one_behind_the_other_are_one(tmp_path, format, header, rows, before):
    middle = [SUMMARY] if format == "nfdump" else []
    whole, bad = load(format, write(tmp_path, header, *rows))
    assert not bad and len(whole) == 3
    path = write(tmp_path, before + header, rows[0], *middle, before + header, *rows[1:], *middle)
    assert load(format, path) == (whole, [])
    wrong = rows[2].replace("192.0.2.1", "192.0.2")
    path = write(tmp_path, header, rows[0], header, rows[1], wrong)
    flows, ((_, line, reason),) = load(format, path)
    assert (len(flows), line, reason) == (2, 5, "an address is cut off or invalid")


def test_the_foot_of_a_table_may_stand_in_another_block_than_the_next_head(tmp_path, monkeypatch):
    monkeypatch.setattr("appcadence.telemetry.readers._lines.BLOCK_BYTES", 64)
    path = write(tmp_path, NFDUMP, nfdump_row(19), SUMMARY, NFDUMP, nfdump_row(20), nfdump_row(21), SUMMARY)
    flows, bad = load("nfdump", path)
    assert not bad and [flow["start"].day for flow in flows] == [19, 20, 21]


def test_a_record_of_both_directions_is_turned_to_who_opened_the_connection(tmp_path):
    turned = f"{SERVER},{DEVICE},443,50000"
    path = write(
        tmp_path, NFDUMP, nfdump_row(19, turned, "9,9000,3,300"), nfdump_row(20, sizes="3,300,9,9000")
    )
    flows, bad = load("nfdump", path)
    known = ("device_id", "dest_ip", "dest_port", "device_port", "bytes_out", "bytes_in", "outcome")
    assert not bad
    assert [[flow[name] for name in known] for flow in flows] == [
        [DEVICE, SERVER, 443, 50000, 300, 9000, "established"]
    ] * 2


@pytest.mark.parametrize(
    "end",
    ["0000-00-00 00:00:00.000000", "0000-00-00T00:00:00.000000Z", "0000-00-00 00:00:00", "0.000000", ""],
)
def test_packets_are_no_flows(tmp_path, end):
    rows = [pmacct_row(end), pmacct_row(end, f"{SERVER},{DEVICE},443,50000")]
    with pytest.raises(TelemetryError, match=r"2 have no end, so they are packets .*nfprobe sends flows"):
        convert([write(tmp_path, PMACCT, *rows)], tmp_path / "out")
    without = PMACCT.replace("TIMESTAMP_END,", "")
    with pytest.raises(TelemetryError, match="packets rather than flows"):
        convert(
            [write(tmp_path, without, *(row.replace(f"{end},1,", "1,") for row in rows))], tmp_path / "out"
        )
    path = write(tmp_path, PMACCT, *rows, pmacct_row("2024-11-19 07:00:01.750000"))
    report = convert([path], tmp_path / "out")
    assert report.fates == {"kept": 1, "packets": 2}


_FLOW = {"type": "FLOW", "sampled": 0, "export_sysid": 0, "label": "<none>"}


@pytest.mark.parametrize(
    ("said", "start"),
    [
        ("its CSV without a header line.*ra -r", ARGUS_ROW),
        (
            "its CSV without a header line.*ra -r",
            f"07:00:00.25, e        ,tcp,{DEVICE},1,->,{SERVER},2,3,4,FIN",
        ),
        ("its XML.*ra -r", '<?xml version ="1.0"?>\n<!--Generated by ra-->\n<ArgusDataStream'),
        (
            "its pipe format.*nfdump -r",
            "2|1732000000250|1732000001750|6|0|0|0|167772165|50000|0|0|0|3221225985",
        ),
        ("its CSV without a header line.*nfdump -r", nfdump_row(19)),
        ("its CSV without a header line.*nfdump -r", f"{nfdump_row(19)[50:]}\n{nfdump_row(19)}"),
        ("its CSV without a header line.*ra -r", f"{ARGUS_ROW[30:]}\n{ARGUS_ROW}"),
        ("without column names", f"0,1,9,60\n{pmacct_row('2024-11-19 07:00:01.750000')}"),
        ("nfdump's text for people", "Event time               Event  XEvent Proto      Src IP Addr:Port"),
        ("nfdump's text for people", "Top 10 IP Addr ordered by bytes:\nDate first seen"),
        ("nfdump's text for people", "\nFlow Record: \n  Flags        =              0x00 NETFLOW v9"),
        ("nfdump's text for people", "Date first seen             Duration     Proto      Src IP Addr:Port"),
        ("without records", "[\nNo matching flows\n]"),
        ("without records", f"{NFDUMP}\nNo matching flows\n{SUMMARY}"),
        ("sums of nfdump", json.dumps([_FLOW], indent=1, separators=(",", " : "))),
        ("pmacct's text", "SRC_IP          DST_IP          SRC_PORT  DST_PORT  PROTOCOL    PACKETS   BYTES"),
        ("pmacct's text", f"--START (812)--\n{PMACCT}"),
        ("Linux connections.*-o timestamp", f"tcp      6 119 TIME_WAIT src={DEVICE} dst={SERVER} sport=1"),
        ("Linux connections", f"    [NEW] udp      17 30 src={DEVICE} dst={SERVER} sport=1 dport=53"),
        ("Linux connections", f"ipv4     2 icmp     1 29 src={DEVICE} dst={SERVER} type=8 code=0 id=1"),
        ("Linux connections", f"-A -t 119 -u SEEN_REPLY,ASSURED -s {DEVICE} -d {SERVER} -p tcp"),
        ("Linux connections", '<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n<flow><meta'),
        ("Linux connections", f"Nov 19 07:00:00 fw [DESTROY] ORIG: SRC={DEVICE} DST={SERVER} PROTO=TCP"),
        ("Linux connections", f"timestamp=2024/11/19-07:00:00,orig.ip.saddr={DEVICE},orig.l4.sport=1"),
        (
            "activity log of a DHCP server.*dhcpd.leases",
            "Nov 19 07:00:00 fw dhcpd[12]: DHCPACK on 10.0.0.5 to 00:53:00:00:00:01",
        ),
        (
            "activity log of a DHCP server",
            "Nov 19 07:00:00 fw dnsmasq-dhcp[12]: DHCPREQUEST(br0) 10.0.0.5 00:53:00:00:00:01",
        ),
        (
            "activity log of a DHCP server",
            "2024-11-19 07:00:00.738 INFO  [kea-dhcp4.leases/26511.1401] DHCP4_LEASE_ALLOC",
        ),
        ("Linux connections", "===>PACKET BOUNDARY\norig.ip.saddr=5.0.0.10"),
        (
            "a firewall's packet log",
            '{"timestamp": "2024-11-19T07:00:00", "dvc": "Netfilter", "raw.pktlen": 60',
        ),
        ("packets as text", f"IP {DEVICE}.50000 > {SERVER}.443: Flags [S], seq 1, length 0"),
        ("packets as text", f" 00:00:00.000000 IP {DEVICE}.50000 > {SERVER}.443: UDP, length 5"),
        ("packets as text", "07:00:00.250000 IP (tos 0x0, ttl 64, id 89, proto UDP (17), length 538)"),
        ("packets as text", "07:00:00.250000 00:53:00:00:00:01 > ff:ff:ff:ff:ff:ff, ethertype IPv4 (0x0800)"),
        ("packets as text", "07:00:00.250000 ARP, Request who-has 10.0.0.1 tell 10.0.0.5, length 28"),
        ("packets as text", '{"index":{"_index":"packets-2024-11-19","_type":"doc"}}\n{"timestamp":"1"'),
        ("packets as text", f"1732000000.250000000\t{DEVICE}\t{SERVER}\t443\t60"),
        ("packets as text", f"frame.time_epoch,ip.src,ip.dst\n1732000000.25,{DEVICE},{SERVER}"),
        ("packets as text", f"    1   0.000000  {DEVICE} \u2192 {SERVER} TCP 66 50000 \u2192 443 [SYN]"),
        ("packets as text", f"   12 2024-11-19 07:00:00.250000  {DEVICE} -> {SERVER} TCP 66 50000"),
        ("packets as text", '<?xml version="1.0"?>\n<?xml-stylesheet type="text/xsl"?>\n<!-- by -->\n<pdml'),
        ("packets as text", '<?xml version="1.0" encoding="utf-8"?>\n<psml version="0">'),
        ("packets as text", "Frame 1: 552 bytes on wire (4416 bits), 552 bytes captured (4416 bits)"),
        ("packets as text", f"{'=' * 80}\nIPv4 Endpoints\nFilter:<No Filter>"),
    ],
)
def test_a_print_that_is_not_read_is_named(tmp_path, said, start):
    with pytest.raises(UnusableFile, match=said):
        detect(write(tmp_path, start))


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ("TCP_MISS/204", "established"),
        ("TCP_MISS/404", "established"),
        ("TCP_MISS/503", "failed"),
        ("TCP_DENIED/407", "failed"),
        ("TCP_DENIED_REPLY/403", "failed"),
        ("TCP_TUNNEL/200", "established"),
        ("TCP_MISS_ABORTED/000", None),
    ],
)
def test_what_a_proxy_denied_failed(tmp_path, result, outcome):
    row = f"1732000001.250   1000 {DEVICE} {result} 500 CONNECT api.example.com:443 - HIER_NONE/- -"
    (flow,), bad = load("squid", write(tmp_path, row))
    assert not bad and flow["outcome"] == (outcome or "unknown")
