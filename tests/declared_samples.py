"""A small log in each declared format, written by hand after the format's documentation, and what it says.

Addresses and names are those set aside for documentation. `SECRET` stands where people are named.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from flow_samples import SECRET


class Sample(NamedTuple):
    """A log, and the flows that a person reads in it."""

    format: str
    content: bytes
    flows: list[dict[str, Any]]
    """By column; `start` as ISO 8601. What is not named is null, and see `REST`."""


REST: dict[str, Any] = {
    "app_attribution": "none",
    "outcome": "unknown",
    "time_resolution_seconds": 1.0,
}
"""What a column without a null says where a flow does not."""


def _lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


_AT = "2024-11-19T07:00:00+00:00"
_PHONE, _SERVER = "10.8.0.21", "203.0.113.10"
_HOST = {"dest_host": "api.example.com", "dest_host_source": "observed"}
_TO = {"device_id": _PHONE, "dest_ip": _SERVER, "dest_port": 443, "transport": "tcp"}
_BOTH = {"outcome": "established", "bytes_out": 1000, "bytes_in": 5000}

_GOFLOW = {
    "type": "IPFIX",
    "sampler_address": "192.0.2.1",
    "time_received_ns": 1731999700000000000,
    "time_flow_start_ns": 1731999600250000000,
    "time_flow_end_ns": 1731999601750000000,
    "etype": "IPv4",
    "proto": "TCP",
    "tcp_flags": 27,
}
_ECS = {
    "@timestamp": "2024-11-19T07:00:02.000Z",
    "event": {
        "action": "netflow_flow",
        "start": "2024-11-19T07:00:00.250Z",
        "end": "2024-11-19T07:00:01.750Z",
        "duration": 1500000000,
    },
    "network": {"transport": "tcp", "bytes": 6000},
}
_VPC = "2 123456789010 eni-1235b8ca123456789"
_PAN = (
    "1,2024/11/19 07:00:21,007051000012345,TRAFFIC,{kind},2562,2024/11/19 07:00:20,10.8.0.21,203.0.113.10,"
    f'198.51.100.7,203.0.113.10,"rule, out",{SECRET},,{{app}},vsys1,trust,untrust,ae1,ae2,Syslog,'
    "2024/11/19 07:00:20,4711,1,50000,443,40000,443,0x400053,tcp,{action},6000,1000,{back},20,"
    "2024/11/19 07:00:00,15,any,,71234,0x0,10.0.0.0-10.255.255.255,United States,,11,9,tcp-fin"
)
_FORTI = (
    'date=2024-11-19 time=07:00:15 devname="fw" devid="FG1" logid="{id}" type="{type}" subtype="forward" '
    'level="notice" vd="root" eventtime={at} tz="+0100" srcip=10.8.0.21 srcname="{secret}" srcport=50000 '
    'dstip=203.0.113.10 dstport=443 proto=6 action="{action}" policyname="a=b c" service="HTTPS" '
    'duration=15 sentbyte=1000 rcvdbyte=5000 sessionid=4711 app="SSL"'
)


def _forti(**more: str) -> str:
    values = {"id": "0000000013", "type": "traffic", "at": "1731999615", "secret": SECRET, "action": "close"}
    return _FORTI.format_map(values | more)


_FORTI_FLOW = {
    "start": _AT,
    "duration_seconds": 15.0,
    **_TO,
    **_BOTH,
    "service": "tls",
    "source_uid": "4711",
}
_WEB = {
    "datetime": "2024-11-19 07:00:00",
    "reason": "Allowed",
    "event_id": "77",
    "protocol": "HTTPS",
    "action": "Allowed",
    "transactionsize": "6000",
    "responsesize": "5000",
    "requestsize": "1000",
    "serverip": _SERVER,
    "ClientIP": "198.51.100.7",
    "user": SECRET,
    "url": f"api.example.com/{SECRET}",
    "vendor": "Zscaler",
    "hostname": "api.example.com",
    "devicehostname": "phone-1",
    "deviceowner": SECRET,
}
_FIELDS = {
    "time": "Tue Nov 19 07:00:00 2024",
    "login": SECRET,
    "proto": "HTTPS",
    "host": "api.example.com",
    "action": "Blocked",
    "reqsize": 1000,
    "respsize": 5000,
    "cip": "198.51.100.7",
    "sip": _SERVER,
    "devicename": "phone-1",
    "recordid": 77,
    "mobappname": "Mail",
}
_WEB_FLOW = {
    "start": _AT,
    "device_id": "phone-1",
    **_HOST,
    "dest_ip": _SERVER,
    "transport": "tcp",
    "service": "tls",
    **_BOTH,
    "source_uid": "77",
}

SAMPLES = {
    "goflow2": Sample(
        "goflow2",
        _lines(
            _GOFLOW
            | {"src_addr": _PHONE, "dst_addr": _SERVER, "src_port": 50000, "dst_port": 443, "bytes": 1000},
            _GOFLOW
            | {"src_addr": _SERVER, "dst_addr": _PHONE, "src_port": 443, "dst_port": 50000, "bytes": 5000},
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **_TO,
                **_BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "goflow2 of version 1": Sample(
        "goflow2",
        _lines(
            {
                "Type": "NETFLOW_V9",
                "TimeReceived": 1731999700,
                "TimeFlowStart": 1731999600,
                "TimeFlowEnd": 1731999615,
                "Bytes": 60,
                "SrcAddr": _PHONE,
                "DstAddr": "203.0.113.53",
                "Proto": 17,
                "SrcPort": 50000,
                "DstPort": 53,
            }
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                "dest_ip": "203.0.113.53",
                "dest_port": 53,
                "transport": "udp",
                "service": "dns",
                "bytes_out": 60,
            }
        ],
    ),
    "filebeat": Sample(
        "ecs_flows",
        _lines(
            _ECS
            | {
                "source": {"ip": _PHONE, "port": 50000, "bytes": 1000},
                "destination": {"ip": _SERVER, "port": 443},
                "netflow": {"tcp_control_bits": 27, "type": "netflow_flow"},
            },
            _ECS
            | {
                "source": {"ip": _SERVER, "port": 443, "bytes": 5000},
                "destination": {"ip": _PHONE, "port": 50000},
                "netflow": {"tcp_control_bits": 27, "type": "netflow_flow"},
            },
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **_TO,
                **_BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "packetbeat": Sample(
        "ecs_flows",
        _lines(
            *(
                _ECS
                | {
                    "flow": {"id": "EAT", "final": final},
                    "source": {"ip": _PHONE, "port": 50000, "bytes": 1000},
                    "destination": {"ip": _SERVER, "port": 443, "bytes": 5000},
                }
                for final in (False, True)
            )
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **_TO,
                **_BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "pmacct JSON": Sample(
        "pmacct",
        _lines(
            {
                "event_type": "purge",
                "ip_src": _PHONE,
                "ip_dst": _SERVER,
                "port_src": 50000,
                "port_dst": 443,
                "ip_proto": "tcp",
                "tcp_flags": "27",
                "timestamp_start": "2024-11-19 07:00:00.250000",
                "timestamp_end": "2024-11-19 07:00:01.750000",
                "packets": 9,
                "bytes": 1000,
            }
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **_TO,
                "outcome": "established",
                "bytes_out": 1000,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "pmacct CSV": Sample(
        "pmacct",
        _text(
            "SRC_IP,DST_IP,SRC_PORT,DST_PORT,PROTOCOL,TIMESTAMP_START,TIMESTAMP_END,PACKETS,BYTES",
            f"{_PHONE},{_SERVER},50000,443,tcp,1731999600.250000,1731999601.750000,9,1000",
            f"{_SERVER},{_PHONE},443,50000,tcp,1731999600.300000,0000-00-00 00:00:00.000000,9,5000",
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **_TO,
                **_BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "aws_vpc": Sample(
        "aws_vpc",
        _text(
            f"{_VPC} 10.8.0.21 203.0.113.10 50000 443 6 9 1000 1731999600 1731999660 ACCEPT OK",
            f"{_VPC} 203.0.113.10 10.8.0.21 443 50000 6 9 5000 1731999600 1731999660 ACCEPT OK",
            f"{_VPC} 10.8.0.21 203.0.113.11 50001 443 6 1 60 1731999600 1731999630 REJECT OK",
            f"{_VPC} - - - - - - - 1731999600 1731999660 - NODATA",
        ),
        [
            {"start": _AT, "duration_seconds": 60.0, **_TO, **_BOTH},
            {
                "start": _AT,
                "duration_seconds": 30.0,
                **_TO,
                "dest_ip": "203.0.113.11",
                "outcome": "failed",
                "bytes_out": 60,
            },
        ],
    ),
    "aws_vpc with a header": Sample(
        "aws_vpc",
        _text(
            "version srcaddr dstaddr srcport dstport protocol bytes start end tcp-flags action log-status",
            "5 10.8.0.21 203.0.113.10 50000 443 6 1000 1731999600 1731999660 19 ACCEPT OK",
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 60.0,
                **_TO,
                "outcome": "established",
                "bytes_out": 1000,
            }
        ],
    ),
    "squid": Sample(
        "squid",
        _text(
            f"1731999615.250  15000 10.8.0.21 TCP_TUNNEL/200 5000 CONNECT api.example.com:443 {SECRET} "
            "HIER_DIRECT/203.0.113.10 -",
            f"1731999616.000      0 10.8.0.21 TCP_DENIED/503 3800 GET http://bad.example.com/{SECRET}?q=1 - "
            "HIER_NONE/- text/html",
            "1731999617.000      0 10.8.0.21 NONE/400 3800 GET error:invalid-request - HIER_NONE/- text/html",
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 15.0,
                **_TO,
                **_HOST,
                "service": "tls",
                "outcome": "established",
                "bytes_in": 5000,
                "time_resolution_seconds": 1e-3,
            },
            {
                "start": "2024-11-19T07:00:16+00:00",
                "duration_seconds": 0.0,
                "device_id": _PHONE,
                "dest_host": "bad.example.com",
                "dest_host_source": "observed",
                "dest_port": 80,
                "transport": "tcp",
                "service": "http",
                "outcome": "failed",
                "bytes_in": 3800,
                "time_resolution_seconds": 1e-3,
            },
        ],
    ),
    "fortinet": Sample(
        "fortinet",
        _text(
            f"<189>{_forti()}",
            f"Nov 19 07:00:16 fw {_forti(at='1731999615000000000')}",
            f"<189>{_forti(type='event')}",
            f"<189>{_forti(id='0000000020', action='accept')}",
        ),
        [_FORTI_FLOW, _FORTI_FLOW],
    ),
    "fortinet by date": Sample(
        "fortinet",
        _text(
            _forti(action="deny").replace("eventtime=1731999615 ", "").replace("rcvdbyte=5000", "rcvdbyte=0")
        ),
        [_FORTI_FLOW | {"start": "2024-11-19T06:00:00+00:00", "outcome": "failed", "bytes_in": 0}],
    ),
    "paloalto": Sample(
        "paloalto",
        _text(
            _PAN.format(kind="end", app="ssl", action="allow", back=5000),
            f"<14>Nov 19 07:00:21 fw {_PAN.format(kind='drop', app='other', action='deny', back=0)},more",
            _PAN.format(kind="start", app="ssl", action="allow", back=0),
            "1,2024/11/19 07:00:21,007051000012345,THREAT,url,2562,2024/11/19 07:00:20,10.8.0.21",
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                **_BOTH,
                "service": "tls",
                "source_uid": "4711",
            },
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                "outcome": "failed",
                "bytes_out": 1000,
                "bytes_in": 0,
                "source_uid": "4711",
            },
        ],
    ),
    "paloalto exported": Sample(
        "paloalto",
        _text(
            "Domain,Receive Time,Type,Threat/Content Type,Generate Time,Source address,Destination address,"
            "Application,Session ID,Destination Port,IP Protocol,Action,Bytes Sent,Bytes Received,Start Time,"
            "Elapsed Time (sec)",
            "1,2024/11/19 07:00:21,TRAFFIC,end,2024/11/19 07:00:20,10.8.0.21,203.0.113.10,ssl,4711,443,tcp,"
            "allow,1000,5000,2024/11/19 07:00:00,15",
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                **_BOTH,
                "service": "tls",
                "source_uid": "4711",
            }
        ],
    ),
    "cef": Sample(
        "cef",
        _text(
            "Nov 19 07:00:15 fw CEF:0|Fortinet|Fortigate|v7.4.3|00013|traffic:forward close|3|"
            "deviceExternalId=F FTNTFGTeventtime=1731999615 src=10.8.0.21 spt=50000 dst=203.0.113.10 dpt=443 "
            f"proto=6 act=close suser={SECRET} app=HTTPS FTNTFGTduration=15 out=1000 in=5000 externalId=4711 "
            "FTNTFGTdstcountry=United States",
            "<14>1 2024-11-19T07:00:15Z fw CEF: 0|Palo Alto Networks|PAN-OS|11.0|end|TRAFFIC|1|"
            "start=Nov 19 2024 07:00:00 GMT rt=Nov 19 2024 07:00:15 src=10.8.0.21 dst=203.0.113.10 dpt=443 "
            "proto=tcp act=allow in=1000 out=5000 app=ssl",
            "CEF:0|Zscaler|NSSWeblog|5.7|Blocked|Blocked|3|act=Blocked app=HTTPS dhost=api.example.com "
            "dst=203.0.113.10 src=10.8.0.21 in=5000 out=1000 rt=Nov 19 2024 07:00:00 "
            rf"request=api.example.com/{SECRET}?a\=b suser={SECRET} externalId=77",
            r"CEF:0|Example \| Co|Audit|1|login|Login|3|suser=nobody src=10.8.0.21 rt=1731999600000",
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                **_BOTH,
                "service": "tls",
                "source_uid": "4711",
            },
            {"start": _AT, **_TO, **_BOTH, "service": "tls"},
            {
                "start": _AT,
                "device_id": _PHONE,
                **_HOST,
                "dest_ip": _SERVER,
                "transport": None,
                "service": "tls",
                "outcome": "failed",
                "bytes_out": 1000,
                "bytes_in": 5000,
                "source_uid": "77",
            },
        ],
    ),
    "leef": Sample(
        "leef",
        _text(
            "<13>Nov 19 07:00:15 nss LEEF:1.0|Zscaler|NSS|4.1|Allowed|cat=Allowed\t"
            "devTime=Nov 19 2024 07:00:00 GMT\tdevTimeFormat=MMM dd yyyy HH:mm:ss z\tsrc=10.8.0.21\t"
            f"dst=203.0.113.10\tsrcBytes=1000\tdstBytes=5000\tusrName={SECRET}\trecordid=77\t"
            f"hostname=api.example.com\tappproto=HTTPS\turl=api.example.com/{SECRET}"
        ),
        [
            {
                "start": _AT,
                "device_id": _PHONE,
                **_HOST,
                "dest_ip": _SERVER,
                "service": "tls",
                **_BOTH,
                "source_uid": "77",
            }
        ],
    ),
    "leef of version 2": Sample(
        "leef",
        _text(
            "LEEF:2.0|Example|Wall|1.0|deny|^|devTime=1731999600250^src=10.8.0.21^dst=203.0.113.10^"
            f"srcPort=50000^dstPort=443^proto=TCP^usrName={SECRET}^action=deny^srcBytes=60"
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                **_TO,
                "outcome": "failed",
                "bytes_out": 60,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "leef between bars": Sample(
        "leef",
        _text(
            "LEEF:1.0|Palo Alto Networks|PAN-OS Syslog Integration|11|allow|ReceiveTime=2024/11/19 07:00:15|"
            f"Type=TRAFFIC|Subtype=end|src=10.8.0.21|dst=203.0.113.10|RuleName =r|usrName={SECRET}|"
            "Application=ssl|srcPort=50000|dstPort=443|proto=tcp|action=allow|srcBytes=1000|dstBytes=5000|"
            "StartTime=2024/11/19 07:00:00|ElapsedTime=15|SessionID=4711"
        ),
        [
            {
                "start": _AT,
                "duration_seconds": 15.0,
                **_TO,
                **_BOTH,
                "service": "tls",
                "source_uid": "4711",
            }
        ],
    ),
    "umbrella": Sample(
        "umbrella",
        _text(
            '"2024-11-19 07:00:00","phone-1","phone-1,Site","10.8.0.21","198.51.100.7","Allowed","1 (A)",'
            '"NOERROR","api.example.com.","Infrastructure","Mobile Devices","Mobile Devices",""',
            f'"2024-11-19 07:01:00","{SECRET}, Jo (jo@example.com)","phone-2","10.8.0.22","198.51.100.7",'
            '"Blocked","28 (AAAA)","NOERROR","bad.example.com.","Malware","AD Users","AD Users","","1"',
            '"2024-11-19 07:02:00","phone-1", "phone-1", "10.8.0.21","198.51.100.7","Allowed","1 (A)", '
            '"NXDOMAIN","no.example.com.", "Infrastructure"',
        ),
        [
            {
                "start": _AT,
                "device_id": "phone-1",
                **_HOST,
                "service": "dns",
                "outcome": "established",
            },
            {
                "start": "2024-11-19T07:01:00+00:00",
                "device_id": "10.8.0.22",
                "dest_host": "bad.example.com",
                "dest_host_source": "observed",
                "service": "dns",
                "outcome": "failed",
            },
            {
                "start": "2024-11-19T07:02:00+00:00",
                "device_id": "phone-1",
                "dest_host": "no.example.com",
                "dest_host_source": "observed",
                "service": "dns",
                "outcome": "failed",
            },
        ],
    ),
    "pcapdroid": Sample(
        "pcapdroid",
        _text(
            "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,Proto,Status,Info,BytesSent,BytesRcvd,PktsSent,PktsRcvd,"
            "FirstSeen,LastSeen",
            "6,10.8.0.21,50000,203.0.113.10,443,10123,Mail,TLS,Closed,api.example.com,1000,5000,9,9,"
            "1731999600250,1731999601750",
            "17,10.8.0.21,50001,203.0.113.53,53,1051,Unknown,DNS,Unreachable,api.example.com,60,0,1,0,"
            "1731999600000,1731999600000",
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                "app_id": "Mail",
                "app_attribution": "process",
                **_HOST,
                **_TO,
                **_BOTH,
                "service": "tls",
                "time_resolution_seconds": 1e-3,
            },
            {
                "start": _AT,
                "duration_seconds": 0.0,
                "device_id": _PHONE,
                **_HOST,
                "dest_ip": "203.0.113.53",
                "dest_port": 53,
                "transport": "udp",
                "service": "dns",
                "outcome": "failed",
                "bytes_out": 60,
                "bytes_in": 0,
                "time_resolution_seconds": 1e-3,
            },
        ],
    ),
    "zscaler by its template": Sample(
        "zscaler", _lines({"sourcetype": "zscalernss-web", "event": _WEB}), [_WEB_FLOW]
    ),
    "zscaler without an envelope": Sample(
        "zscaler",
        _lines(_FIELDS),
        [_WEB_FLOW | {"outcome": "failed", "app_id": "Mail", "app_attribution": "display_name"}],
    ),
    "zscaler CSV": Sample(
        "zscaler",
        _text(",".join(_WEB), ",".join(_WEB.values())),
        [_WEB_FLOW],
    ),
    "zscaler CSV by default": Sample(
        "zscaler",
        _text(
            f'"Tue Nov 19 07:00:00 2024","{SECRET}","HTTPS","api.example.com/{SECRET}","Allowed","General",'
            '"Business","1000","5000","4","40","Business","Business","Business","None","None","0","None","None",'
            f'"HQ","Dept","198.51.100.7","203.0.113.10","GET","200","Agent","None","None","None","text","None",'
            f'"{SECRET}","phone-1","Software"'
        ),
        [{**_WEB_FLOW, "source_uid": None}],
    ),
    "zscaler between tabs": Sample(
        "zscaler",
        (
            "<14>Nov 19 07:00:01 nss 2024-11-19 07:00:00\t"
            + "\t".join(f"{k}={v}" for k, v in _WEB.items() if k != "datetime")
        ).encode()
        + b"\n",
        [_WEB_FLOW],
    ),
}
