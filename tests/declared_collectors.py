"""Small logs of flow collectors, written by hand from the documentation of each format, with expected values.

Addresses and names are those set aside for documentation.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple


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


def as_lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


AT = "2024-11-19T07:00:00+00:00"
PHONE, SERVER = "10.8.0.21", "203.0.113.10"
HOST = {"dest_host": "api.example.com", "dest_host_source": "observed"}
TO = {"device_id": PHONE, "dest_ip": SERVER, "dest_port": 443, "transport": "tcp"}
BOTH = {"outcome": "established", "bytes_out": 1000, "bytes_in": 5000}

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
_TRACKED = f"src={PHONE} dst={SERVER} sport=50000 dport=443"
_BACK = f"src={SERVER} dst=198.51.100.7 sport=443 dport=50000"
_TRACKED_TO = {
    "start": "2024-11-19T07:00:00.500000+00:00",
    "duration_seconds": 1.0,
    "device_port": 50000,
} | TO
_ULOGD = {
    "timestamp": "2024-11-19T07:00:02",
    "dvc": "Netfilter",
    "orig.ip.protocol": 6,
    "orig.l4.sport": 50000,
    "orig.l4.dport": 443,
    "orig.raw.pktlen": 1000,
    "reply.raw.pktlen": 5000,
    "ct.event": 4,
    "flow.start.sec": 1731999600,
    "flow.start.usec": 250000,
    "flow.end.sec": 1731999602,
    "src_ip": PHONE,
    "dest_ip": SERVER,
    "reply.ip.daddr.str": "198.51.100.7",
}
_VPC = "2 123456789010 eni-1235b8ca123456789"


def _gcp(size: str, source: tuple[str, int], dest: tuple[str, int]) -> dict[str, Any]:
    (src_ip, src_port), (dest_ip, dest_port) = source, dest
    ends = {"src_ip": src_ip, "src_port": src_port, "dest_ip": dest_ip, "dest_port": dest_port}
    payload = {
        "bytes_sent": size,
        "packets_sent": "9",
        "connection": ends | {"protocol": 6},
        "start_time": "2024-11-19T07:00:00.250000000Z",
        "end_time": "2024-11-19T07:00:01.750000000Z",
        "reporter": "SRC",
        "src_instance": {"vm_name": "gateway", "zone": "europe-west6-a"},
    }
    name = "projects/p/logs/compute.googleapis.com%2Fvpc_flows"
    return {"insertId": "x", "jsonPayload": payload, "timestamp": "2024-11-19T07:00:07Z", "logName": name}


COLLECTED = {
    "goflow2": Sample(
        "goflow2",
        as_lines(
            _GOFLOW
            | {"src_addr": PHONE, "dst_addr": SERVER, "src_port": 50000, "dst_port": 443, "bytes": 1000},
            _GOFLOW
            | {"src_addr": SERVER, "dst_addr": PHONE, "src_port": 443, "dst_port": 50000, "bytes": 5000},
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **TO,
                **BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "goflow2 of version 1": Sample(
        "goflow2",
        as_lines(
            {
                "Type": "NETFLOW_V9",
                "TimeReceived": 1731999700,
                "TimeFlowStart": 1731999600,
                "TimeFlowEnd": 1731999615,
                "Bytes": 60,
                "SrcAddr": PHONE,
                "DstAddr": "203.0.113.53",
                "Proto": 17,
                "SrcPort": 50000,
                "DstPort": 53,
            }
        ),
        [
            {
                "start": AT,
                "duration_seconds": 15.0,
                **TO,
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
        as_lines(
            _ECS
            | {
                "source": {"ip": PHONE, "port": 50000, "bytes": 1000},
                "destination": {"ip": SERVER, "port": 443},
                "netflow": {"tcp_control_bits": 27, "type": "netflow_flow"},
            },
            _ECS
            | {
                "source": {"ip": SERVER, "port": 443, "bytes": 5000},
                "destination": {"ip": PHONE, "port": 50000},
                "netflow": {"tcp_control_bits": 27, "type": "netflow_flow"},
            },
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **TO,
                **BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "packetbeat": Sample(
        "ecs_flows",
        as_lines(
            *(
                _ECS
                | {
                    "flow": {"id": "EAT", "final": final},
                    "source": {"ip": PHONE, "port": 50000, "bytes": 1000},
                    "destination": {"ip": SERVER, "port": 443, "bytes": 5000},
                }
                for final in (False, True)
            )
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **TO,
                **BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "pmacct JSON": Sample(
        "pmacct",
        as_lines(
            {
                "event_type": "purge",
                "ip_src": PHONE,
                "ip_dst": SERVER,
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
                **TO,
                "outcome": "established",
                "bytes_out": 1000,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "pmacct CSV": Sample(
        "pmacct",
        as_text(
            "SRC_IP,DST_IP,SRC_PORT,DST_PORT,PROTOCOL,TIMESTAMP_START,TIMESTAMP_END,PACKETS,BYTES",
            f"{PHONE},{SERVER},50000,443,tcp,1731999600.250000,1731999601.750000,9,1000",
            f"{SERVER},{PHONE},443,50000,tcp,1731999600.300000,1731999600.900000,9,5000",
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **TO,
                **BOTH,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
    "conntrack": Sample(
        "conntrack",
        as_text(
            f"[1731999599.500000]\t    [NEW] tcp      6 120 SYN_SENT {_TRACKED} [UNREPLIED] {_BACK}",
            f"[1731999601.500000]\t[DESTROY] ipv4     2 tcp      6 116 TIME_WAIT {_TRACKED} packets=9 "
            f"bytes=1000 {_BACK} packets=9 bytes=5000 [ASSURED] delta-time=1",
            f"[1731999602.500000]\t[DESTROY] tcp      6 10 CLOSE {_TRACKED} packets=1 bytes=60 [UNREPLIED] "
            f"{_BACK} packets=1 bytes=40 delta-time=0 id=7",
            f"[1731999603.500000]\t[DESTROY] udp      17 {_TRACKED[:-3]}53 packets=1 bytes=60 [UNREPLIED] "
            f"{_BACK} packets=0 bytes=0 delta-time=2",
        ),
        [
            _TRACKED_TO | BOTH,
            _TRACKED_TO
            | {"start": "2024-11-19T07:00:02.500000+00:00", "duration_seconds": 0.0}
            | {"outcome": "failed", "bytes_out": 60, "bytes_in": 40},
            _TRACKED_TO
            | {"start": "2024-11-19T07:00:01.500000+00:00", "duration_seconds": 2.0, "dest_port": 53}
            | {"transport": "udp", "service": "dns", "bytes_out": 60, "bytes_in": 0},
        ],
    ),
    "conntrack of ulogd": Sample(
        "conntrack",
        as_lines(_ULOGD | {"ct.event": 1}, _ULOGD),
        [_TRACKED_TO | BOTH | {"start": AT, "duration_seconds": 2.0}],
    ),
    "aws_vpc": Sample(
        "aws_vpc",
        as_text(
            f"{_VPC} 10.8.0.21 203.0.113.10 50000 443 6 9 1000 1731999600 1731999660 ACCEPT OK",
            f"{_VPC} 203.0.113.10 10.8.0.21 443 50000 6 9 5000 1731999600 1731999660 ACCEPT OK",
            f"{_VPC} 10.8.0.21 203.0.113.11 50001 443 6 1 60 1731999600 1731999630 REJECT OK",
            f"{_VPC} - - - - - - - 1731999600 1731999660 - NODATA",
        ),
        [
            {"start": AT, "duration_seconds": 60.0, **TO, **BOTH},
            {
                "start": AT,
                "duration_seconds": 30.0,
                **TO,
                "dest_ip": "203.0.113.11",
                "outcome": "failed",
                "bytes_out": 60,
            },
        ],
    ),
    "aws_vpc with a header": Sample(
        "aws_vpc",
        as_text(
            "version srcaddr dstaddr srcport dstport protocol bytes start end tcp-flags action log-status",
            "5 10.8.0.21 203.0.113.10 50000 443 6 1000 1731999600 1731999660 19 ACCEPT OK",
        ),
        [
            {
                "start": AT,
                "duration_seconds": 60.0,
                **TO,
                "outcome": "established",
                "bytes_out": 1000,
            }
        ],
    ),
    "aws_vpc of Athena": Sample(
        "aws_vpc",
        as_text(
            '"version","account_id","srcaddr","dstaddr","srcport","dstport","protocol","bytes","start","end",'
            '"action","log_status"',
            '"2","1","10.8.0.21","203.0.113.10","50000","443","6","1000","1731999600","1731999660","ACCEPT","OK"',
            '"2","1","203.0.113.10","10.8.0.21","443","50000","6","5000","1731999600","1731999660","ACCEPT","OK"',
            '"2","1","","","","","","","1731999600","1731999660","","NODATA"',
        ),
        [{"start": AT, "duration_seconds": 60.0, **TO, **BOTH}],
    ),
    "gcp_vpc": Sample(
        "gcp_vpc",
        as_lines(
            _gcp("4000", (PHONE, 50000), (SERVER, 443)) | {"severity": "INFO"},
            _gcp("9000", (SERVER, 443), (PHONE, 50000)),
        ),
        [
            {
                "start": "2024-11-19T07:00:00.250000+00:00",
                "duration_seconds": 1.5,
                **TO,
                **BOTH,
                "bytes_out": 4000,
                "bytes_in": 9000,
                "time_resolution_seconds": 1e-3,
            }
        ],
    ),
}
