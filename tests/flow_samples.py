"""Small logs of each format for reader tests.

Only the nfdump ones were printed by the real tool (nfpcapd and nfdump 1.7.1). The rest is written by hand
from public documentation and samples; no user's file is among them.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import ReadOptions, reader
from appcadence.telemetry.readers._lines import head
from appcadence.telemetry.schema import FLOWS, conform

SECRET = "canary-7f3a9"
"""Stands in every personal field of the samples; must stand nowhere in what is read."""


def load(name: str, *paths: Path, **options: Any) -> tuple[list[dict[str, Any]], list[tuple[str, int, str]]]:
    """The flows and the rejected rows (file, line, reason) that a reader makes of some files."""
    flows: list[dict[str, Any]] = []
    bad: list[tuple[str, int, str]] = []
    for table, batch in reader(name).read(paths, ReadOptions(**options)):
        if table == "flows":
            flows += conform(FLOWS, batch).to_pylist()
        else:
            bad += [(row["file"], row["line"], row["reason"]) for row in batch.to_pylist()]
    return flows, bad


def sniffs(name: str, path: Path) -> bool:
    """Whether a reader takes a file for its own."""
    try:
        start = head(path, "a log")
    except UnusableFile:
        return False
    return reader(name).sniff(path, start)


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def eve(event_type: str, flow_id: int = 1, **more: Any) -> dict[str, Any]:
    row = {
        "timestamp": "2024-07-30T16:48:20.000000+0000",
        "flow_id": flow_id,
        "event_type": event_type,
        "src_ip": "10.0.0.5",
        "src_port": 50000,
        "dest_ip": "192.0.2.1",
        "dest_port": 443,
        "proto": "TCP",
    }
    return row | more


def eve_flow(flow_id: int = 1, ts: str = "1f", tc: str = "1b", **more: Any) -> dict[str, Any]:
    flow = {
        "pkts_toserver": 74,
        "bytes_toserver": 7626,
        "bytes_toclient": 10780,
        "start": "2024-07-30T16:48:20.399198+0000",
        "end": "2024-07-30T16:52:20.399556+0000",
        "age": 240,
        "state": "closed",
        "reason": "timeout",
    } | more.pop("flow", {})
    tcp = {"tcp": {"tcp_flags": ts, "tcp_flags_ts": ts, "tcp_flags_tc": tc, "state": "closed"}}
    return eve("flow", flow_id, flow=flow) | tcp | more


def report(**more: Any) -> dict[str, Any]:
    row = {
        "device_id": "d1",
        "app": "A1B2C3D4E5.com.example.mail",
        "open": "2026-11-24T08:00:00.120Z",
        "close": "2026-11-24T08:00:04Z",
        "host": "IMAP.example.com",
        "address": "192.0.2.1",
        "port": 993,
        "transport": "tcp",
        "bytes_out": 512,
        "bytes_in": 2048,
        "outcome": "established",
        "url": f"https://imap.example.com/{SECRET}",
        "user": SECRET,
    }
    return row | more


def nss(**more: Any) -> dict[str, Any]:
    event = {
        "time": "Mon Oct 16 22:55:48 2023",
        "tz": "GMT",
        "epochtime": "1697496948",
        "external_devid": "d1",
        "login": SECRET,
        "deviceowner": SECRET,
        "eurl": f"user:{SECRET}@www.example.com/{SECRET}?q={SECRET}",
        "b64url": SECRET,
        "ereferer": SECRET,
        "useragent": SECRET,
        "serverip": "192.0.2.1",
        "proto": "HTTPS",
        "action": "Allowed",
        "appname": "General Browsing",
        "mobappname": "Mail",
        "deviceostype": "iOS",
        "reqsize": "1300",
        "respsize": "10500",
        "recordid": "77",
    }
    return {"sourcetype": "zscalernss-web", "event": event | more}


def lookup(**more: Any) -> dict[str, Any]:
    event = {
        "signatureId": {"id": "3", "name": "DNS Lookup"},
        "metadata": {"schemaVersion": "1.0", "vendor": "Jamf", "product": "Network Traffic Stream"},
        "timestamp": "2024-02-02T06:26:04.273Z",
        "account": {"customerId": SECRET},
        "device": {"deviceId": "d1", "osType": "IOS", "externalId": SECRET},
        "destination": {"ips": []},
        "source": {"ip": "198.51.100.7"},
        "hostName": "S.example.com",
        "dns": {"recordType": "HTTPS", "responseStatus": "NOERROR", "ttl": 101, "category": "Custom"},
        "blocked": False,
        "user": {"email": SECRET, "name": SECRET},
    }
    return {"event": event | more}


def nf(
    source: str, dest: str, first: float, last: float, size: int, proto: int = 6, flags: str = "...AP.SF"
) -> dict[str, Any]:
    """A record of nfdump 1.7; ends are "address:port", times in seconds after 22:13:20."""

    def clock(seconds: float) -> str:
        time = datetime(2023, 11, 14, 22, 13, 20) + timedelta(milliseconds=round(seconds * 1000))
        return time.isoformat(timespec="milliseconds")

    (src, sp), (dst, dp) = (end.rsplit(":", 1) for end in (source, dest))
    return {
        "type": "FLOW",
        "sampled": 0,
        "export_sysid": 0,
        "first": clock(first),
        "last": clock(last),
        "received": "2026-11-24T15:12:45.215",
        "in_packets": 4,
        "in_bytes": size,
        "proto": proto,
        "tcp_flags": flags,
        "src_port": int(sp),
        "dst_port": int(dp),
        f"src{6 if ':' in src else 4}_addr": src,
        f"dst{6 if ':' in dst else 4}_addr": dst,
        "username": SECRET,
    }


def nf_array(*records: dict[str, Any]) -> bytes:
    """As `nfdump -o json` prints them."""
    bodies = (",\n".join(f'\t"{k}" : {json.dumps(v)}' for k, v in record.items()) for record in records)
    return ("[\n" + ",\n".join(f"{{\n{body}\n}}" for body in bodies) + "]\n").encode()


ARGUS = (
    b"StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,TotPkts,TotBytes,SrcBytes,srcUdata\n"
    b"1539069039.898171,0.770147,tcp,172.16.2.209,49319,->,192.0.2.107,443,FIN,15,6642,630,%b\n"
    b"1539069041.754437,0.187615,udp,172.16.2.209,49320,<->,192.0.2.107,53,CON,2,188,105,%b\n"
) % (SECRET.encode(), SECRET.encode())

MAP = """
[columns]
start = "begin"
end = "finish"
device_id = "client"
dest_host = "url"
bytes_out = "sent"
outcome = "action"
dest_port = "port"
[constants]
transport = "tcp"
source = "gateway"
[values.outcome]
allow = "established"
deny = "failed"
[time]
offset = "+02:00"
[units]
bytes = "kB"
[file]
delimiter = ";"
"""
TABLE = (
    "begin;finish;client;url;sent;action;port;user\n"
    f"2024-01-01 02:00:00;2024-01-01 02:00:05.5;d1;https://{SECRET}@a.example/{SECRET}?x;1.5;Allow;443;{SECRET}\n"
    f'2024-01-01 02:01:00;;d1;"b.example:8443";;deny;8443;{SECRET}\n'
).encode()

PERSONAL = {"url": f"/{SECRET}", "http_user_agent": SECRET, "http_refer": SECRET, "cookie": SECRET}
SAMPLES: dict[str, bytes] = {
    "suricata": lines(
        eve("http", 1, http={"hostname": "www.example.com"} | PERSONAL),
        eve("tls", 2, tls={"sni": "api.example.com", "subject": SECRET}),
        eve_flow(1, metadata={"flowvars": [SECRET]}),
        eve_flow(2, src_port=50001),
    ),
    "content_filter": lines(report(), report(close=None)),
    "zscaler": lines(nss(), nss(epochtime="1697496950")),
    "jamf": lines(lookup(), lookup(hostName="t.example.com")),
    "nfdump": nf_array(
        nf("10.0.0.5:50000", "192.0.2.1:443", 0.25, 1.25, 260),
        nf("192.0.2.1:443", "10.0.0.5:50000", 0.269, 1.269, 620),
        nf("10.0.0.5:50001", "192.0.2.2:443", 3, 4, 100),
    ),
    "argus": ARGUS,
    "table": TABLE,
}
"""A log of two flows in each format."""
