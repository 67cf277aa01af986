"""Files that no reader takes: each is named for what it is, with the way out."""

import gzip
import json
import sqlite3

import pytest
from ios_files import PUSHES, powerlog

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import detect

TIMES = "1732000000.250000"
STARTS = {
    "packets as text .*zeek -r": [
        "07:00:00.123456 IP 10.0.0.5.50000 > 203.0.113.7.443: Flags [S], seq 1, length 0",
        f"{TIMES} IP6 fe80::1 > ff02::1: ICMP6, router advertisement, length 56",
        '"No.","Time","Source","Destination","Protocol","Length","Info"',
        json.dumps([{"_index": "packets-2024-11-19", "_source": {"layers": {}}}], indent=2),
        f"{'=' * 80}\nTCP Conversations\nFilter:<No Filter>",
    ],
    "columns without names.*from #separator to #types": [
        f"{TIMES}\tC8Tful1TvM3Zf5x8fl\t10.0.0.5\t50000\t203.0.113.7\t443\ttcp",
        f"{TIMES}\t10.0.0.5\t203.0.113.7",
    ],
    "alerts as text; give eve.json": ["11/19/2024-07:00:00.123456  [**] [1:2013028:4] ET POLICY [**]"],
    "a CSV export of Splunk": ['"_raw","_time",host\n"{""ts"":1}","x","y"', "_time,host,_raw\nx,y,z"],
    "search result of Elasticsearch.*hits.hits": [json.dumps({"took": 3, "hits": {"hits": []}}, indent=1)],
    "CloudWatch Logs.*events\\[\\].message": [
        json.dumps({"events": [{"logStreamName": "eni-1-all", "message": "2 1 eni-1 - - NODATA"}]}, indent=4)
    ],
    "a flow log of Azure.*flowTuples": [
        json.dumps({"records": [{"time": "x", "properties": {"flows": [{"flows": [{"flowTuples": []}]}]}}]}),
        json.dumps({"records": [{"flowRecords": {"flows": [{"flowGroups": [{"flowTuples": []}]}]}}]}),
    ],
    "an HTTP archive.*log.entries": [json.dumps({"log": {"version": "1.2", "entries": []}}, indent=2)],
    "Cisco ASA.*nfcapd": [
        "Nov 19 2024 07:00:00 fw : %ASA-6-302014: Teardown TCP connection 1 for outside:203.0.113.7/443",
        "<166>Nov 19 2024 07:00:00: %FTD-6-302013: Built outbound TCP connection 1",
    ],
    "a firewall's packet log.*nfcapd": [
        "Nov 19 07:00:00 pf filterlog[50519]: 4,,,1000000103,igb1,match,pass,in,4,0x0,,64,0,0,DF,6,tcp",
        "Nov 19 07:00:00 UDM [LAN_LOCAL-4000-A]IN=br0 OUT=eth8 MAC=x SRC=10.0.0.5 DST=203.0.113.7 PROTO=TCP",
        "firewall,info forward: in:bridge out:ether1, proto TCP (SYN), 10.0.0.5:50000->203.0.113.7:443",
    ],
    "Windows' DHCP server.*--devices": ["\t\tMicrosoft DHCP Service Activity Log\n\nEvent ID  Meaning"],
    "Check Point's Log Exporter.*CEF": [
        '<134>1 2024-11-19T07:00:00Z gw CheckPoint 16700 - [action:"Accept"; src:"10.0.0.5"]'
    ],
    "a flow log of Meraki.*nfcapd": [
        f"<134>1 {TIMES} MX84 flows allow src=10.0.0.5 dst=203.0.113.7 protocol=udp sport=50000 dport=443"
    ],
    "VPC flow log .*no line that names them": [
        "123456789012 eni-069abc ACCEPT 10.0.0.5 203.0.113.7 50000 443 6 1732000000 1732000060"
    ],
    "Squid in a format of its own.*ssl::>sni": [
        f"{TIMES[:14]}    104 10.0.0.5 50000 TCP_TUNNEL/200 904 123 CONNECT a.example.com:443 - HIER_DIRECT"
    ],
    "a list of installed apps.*inventory merge": [
        json.dumps({"com.example.a": {"CFBundleIdentifier": "com.example.a"}}, indent=1)
    ],
    "names no hosts.*App Privacy Report": [
        json.dumps({"stream": "com.apple.privacy.accounting.stream.tcc", "tccService": "kTCCServiceCamera"})
    ],
    "dnsmasq's log of lookups": ["Nov 19 07:00:00 dnsmasq[812]: query[A] api.example.com from 10.0.0.5"],
    "access log in a web server's format.*Squid": [
        '10.0.0.5 - - [19/Nov/2024:07:00:00 +0000] "CONNECT api.example.com:443 HTTP/1.1" 200 9512',
        '10.0.0.5 [19/Nov/2024:07:00:00 +0000] "Example/7.8"',
        f"{TIMES[:14]} 10.0.0.5 - api.example.com:443\n",
    ],
    "statistics of nfdump": ["ts,te,td,pr,val,fl,flP,ipkt,ipktP,ibyt,ibytP,ipps,ipbs,ibpp"],
    "nfdump's text for people, its pipe format .*-o ndjson": [
        "2024-11-19 07:00:00.250     00:00:01.500 TCP  10.0.0.5:50000 ->  203.0.113.7:443   12   3456   1",
        "2024-11-19 07:00:00.250        1.500 TCP  10.0.0.5:50000 ->  203.0.113.7:443   12   3456   1",
        "1|1616440785|148|1616440817|420|6|0|0|0|3232235946|49911",
    ],
    "a search result of Splunk.*results": [
        json.dumps({"preview": False, "fields": [], "results": [{"_raw": "x"}]})
    ],
    "a binary table .*CSV": ["PAR1\x15\x04\x15", "Obj\x01\x04\x14avro.codec"],
    "a PDF document": ["%PDF-1.7"],
    "an Office document; save the sheet as CSV": ['<?xml version="1.0"?>\n<Types xmlns="x">'],
    "the Console app.*log show": ["default\t07:00:00.000000+0900\tapsd\tmessage"],
    "UnifiedLogReader.*log show": ["SourceFile\tSourceFilePosition\tContinuousTime\tTimeUtc"],
    "a web page.*download the log again": ["<!DOCTYPE html>\n<html>", "\n<HTML><body>Sign in"],
    "columns Flow ID, Src IP, Src Port, .* [.]{3}; .*--map FILE.toml; the known formats": [
        "Flow ID,Src IP,Src Port,Dst IP,Dst Port,Protocol,Timestamp,Flow Duration,Label\na,b,c"
    ],
    "columns sIP, dIP, sPort; if": ["  sIP|  dIP|sPort\n10.0.0.5|203.0.113.7|50000"],
    "fields Datetime, DeviceID, QueryName; if": [json.dumps({"Datetime": 1, "DeviceID": 2, "QueryName": 3})],
    "without column names; .*name its columns": ["10.0.0.5 203.0.113.7 50000 443 6 20 4249 1731999600"],
    "a property list; .*inventory merge": ['<?xml version="1.0"?>\n<!DOCTYPE plist PUBLIC "x">\n<plist/>'],
    "no known format; the known formats": ["Summary of what we saw on 10.0.0.5", "{}", "a,b"],
}
CASES = [(start, said) for said, starts in STARTS.items() for start in starts]


@pytest.mark.parametrize(("start", "said"), CASES)
def test_a_file_is_named_for_what_it_is(tmp_path, start, said):
    path = tmp_path / "log"
    path.write_text(start + "\n")
    with pytest.raises(UnusableFile, match=f"log is .*{said}"):
        detect(path)


OF_PHONES = [
    (
        b'{"app_name":"Chat","timestamp":"2024-06-17 05:34:59.00 +0900","bug_type":"309"}\n{}',
        r"report .*\.ips",
    ),
    (b'{"bug_type":"211","timestamp":"2024-06-17 00:00:59.00 +0900"}\n', "no connections; .* PowerLog"),
    (b'{"__container_type__": "event", "data_type": "ios:app_privacy:network"}\n', "Plaso; give the files"),
    (b"UTC Timestamp,Plugin,Event,Description\n", "table of MVT"),
    (b"first_isodate,isodate,proc_name,bundle_id,proc_id,wifi_in,wifi_out,wwan_in\n", "table of MVT"),
    (b'{"msg":"Jun 17 05:34:59 iPhone apsd(X)[102] <Notice>: m"}\n', "live system log"),
    (b"AEA1" + bytes(60), "packed or encrypted .* unpack it first"),
    (b"\x04\x22\x4d\x18" + bytes(60), "packed or encrypted"),
    (b"PK\x05\x06" + bytes(18), "empty zip archive"),
    (b"\x37\x7f\x06\x82" + bytes(60), "SQLite keeps beside a database .* give the database"),
]


@pytest.mark.parametrize(("content", "said"), OF_PHONES)
def test_a_file_of_a_phone_is_named_for_what_it_is(tmp_path, content, said):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UnusableFile, match=f"file is .*{said}"):
        detect(path)


def test_a_database_that_is_none_of_those_read_is_named(tmp_path):
    path = tmp_path / "sms.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE message (id INTEGER, text TEXT)")
    connection.close()
    with pytest.raises(UnusableFile, match=r"an SQLite database, damaged or of another kind; .*PLSQL"):
        detect(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_database_that_cannot_be_opened_says_why(tmp_path, packed):
    path = powerlog(tmp_path / "p.PLSQL", {PUSHES: ("timestamp REAL, BundleID TEXT", [])})
    whole = path.read_bytes()
    for content, said in (
        (whole[:-100], r"is cut off inside its SQLite data; expected a PowerLog \(\.PLSQL\) or a knowledgeC"),
        (whole[:100] + b"\xff" * (len(whole) - 100), "is a damaged SQLite database"),
    ):
        path.write_bytes(gzip.compress(content) if packed else content)
        with pytest.raises(UnusableFile, match=rf"p\.PLSQL {said}"):
            detect(path)
