"""Rows of a Zeek conn log written as lines of other formats, for the benchmark of the readers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from zlib import crc32

Row = dict[str, str]
FLAGS = {"SF": ("...AP.SF", "...AP.SF"), "S0": ("......S.", "........"), "REJ": ("......S.", "...A.R..")}


def number(text: str) -> int:
    return 0 if text == "-" else int(text)


def seconds(row: Row) -> float:
    return 0.0 if row["duration"] == "-" else float(row["duration"])


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").removesuffix("+00:00")


def ends(row: Row) -> dict[str, str | int]:
    found = {"src_ip": row["id.orig_h"], "src_port": int(row["id.orig_p"]), "dest_ip": row["id.resp_h"]}
    return found | {"dest_port": int(row["id.resp_p"]), "proto": row["proto"].upper()}


def suricata(row: Row, at: float) -> str:
    """A tls event before its flow, where Zeek saw TLS."""
    common = {"timestamp": f"{iso(at)}+0000", "flow_id": crc32(row["uid"].encode()), **ends(row)}
    sent, got = FLAGS.get(row["conn_state"], FLAGS["SF"])
    flow = {
        "pkts_toserver": number(row["orig_pkts"]),
        "pkts_toclient": number(row["resp_pkts"]),
        "bytes_toserver": number(row["orig_ip_bytes"]),
        "bytes_toclient": number(row["resp_ip_bytes"]),
        "start": f"{iso(at)}+0000",
        "end": f"{iso(at + seconds(row))}+0000",
        "age": int(seconds(row)),
        "state": "closed",
        "reason": "timeout",
    }
    flags = {f"tcp_flags_{way}": f"{mask(text):02x}" for way, text in (("ts", sent), ("tc", got))}
    text = json.dumps(common | {"event_type": "flow", "flow": flow, "tcp": flags}) + "\n"
    if row["service"] != "ssl":
        return text
    tls = {"sni": f"host{crc32(row['id.resp_h'].encode()) % 500}.example.com", "version": "TLS 1.3"}
    return json.dumps(common | {"event_type": "tls", "tls": tls}) + "\n" + text


def mask(flags: str) -> int:
    return sum(1 << (7 - place) for place, letter in enumerate(flags) if letter != ".")


def report(row: Row, at: float) -> str:
    said = {
        "device_id": row["id.orig_h"],
        "app": f"A1B2C3D4E5.com.example.app{int(row['id.resp_p']) % 50}",
        "open": f"{iso(at)[:-3]}Z",
        "close": f"{iso(at + seconds(row))[:-3]}Z",
        "host": f"host{crc32(row['id.resp_h'].encode()) % 500}.example.com",
        "address": row["id.resp_h"],
        "port": int(row["id.resp_p"]),
        "transport": "udp" if row["proto"] == "udp" else "tcp",
        "bytes_out": number(row["orig_bytes"]),
        "bytes_in": number(row["resp_bytes"]),
    }
    return json.dumps(said) + "\n"


def directions(row: Row) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Both ways of a connection: source, its port, destination, its port, flags, bytes."""
    one, two = (row["id.orig_h"], row["id.orig_p"]), (row["id.resp_h"], row["id.resp_p"])
    sent, got = FLAGS.get(row["conn_state"], FLAGS["SF"])
    yield *one, *two, sent, number(row["orig_ip_bytes"])
    if number(row["resp_pkts"]):
        yield *two, *one, got, number(row["resp_ip_bytes"])


def nfdump_json(row: Row, at: float) -> str:
    text = ""
    for source, port, dest, to, flags, size in directions(row):
        version = 6 if ":" in source else 4
        values = {
            "type": "FLOW",
            "sampled": 0,
            "export_sysid": 0,
            "first": iso(at)[:-3],
            "last": iso(at + seconds(row))[:-3],
            "received": iso(at + seconds(row) + 15)[:-3],
            "in_packets": 4,
            "in_bytes": size,
            "proto": 17 if row["proto"] == "udp" else 6,
            "tcp_flags": flags,
            "src_port": int(port),
            "dst_port": int(to),
            f"src{version}_addr": source,
            f"dst{version}_addr": dest,
        }
        body = ",\n".join(f'\t"{key}" : {json.dumps(value)}' for key, value in values.items())
        text += f"{{\n{body}\n}},\n"
    return text


NFDUMP_HEAD = "ts,te,td,sa,da,sp,dp,pr,flg,ipkt,ibyt,opkt,obyt\n"


def nfdump_csv(row: Row, at: float) -> str:
    first, last = (iso(time)[:19].replace("T", " ") for time in (at, at + seconds(row)))
    return "".join(
        f"{first},{last},{seconds(row):.3f},{source},{dest},{port},{to},{row['proto'].upper()},{flags},4,{size},0,0\n"
        for source, port, dest, to, flags, size in directions(row)
    )


ARGUS_HEAD = "StartTime,Dur,Proto,SrcAddr,Sport,Dir,DstAddr,Dport,State,sTos,dTos,TotPkts,TotBytes,SrcBytes\n"


def argus(row: Row, at: float) -> str:
    sent, got = number(row["orig_ip_bytes"]), number(row["resp_ip_bytes"])
    start = iso(at).replace("-", "/").replace("T", " ")
    ends = f"{row['id.orig_h']},{row['id.orig_p']},  <->,{row['id.resp_h']},{row['id.resp_p']}"
    return f"{start},{seconds(row):.6f},{row['proto']},{ends},CON,0,0,8,{sent + got},{sent}\n"


TABLE_HEAD = "begin,seconds,client,host,address,port,proto,sent,received\n"
TABLE_MAP = """
[columns]
start = "begin"
duration_seconds = "seconds"
device_id = "client"
dest_host = "host"
dest_ip = "address"
dest_port = "port"
transport = "proto"
bytes_out = "sent"
bytes_in = "received"
"""


def host(row: Row) -> str:
    return f"host{crc32(row['id.resp_h'].encode()) % 500}.example.com"


def table(row: Row, at: float) -> str:
    sizes = f"{number(row['orig_bytes'])},{number(row['resp_bytes'])}"
    ends = f"{row['id.orig_h']},{host(row)},{row['id.resp_h']},{row['id.resp_p']},{row['proto']}"
    return f"{iso(at)[:-3]}Z,{seconds(row):.3f},{ends},{sizes}\n"


def zscaler(row: Row, at: float) -> str:
    event = {
        "time": datetime.fromtimestamp(at, UTC).strftime("%a %b %d %H:%M:%S %Y"),
        "tz": "GMT",
        "epochtime": str(int(at)),
        "external_devid": row["id.orig_h"],
        "eurl": f"{host(row)}/v1/ping",
        "useragent": "Mozilla/5.0",
        "serverip": row["id.resp_h"],
        "proto": "HTTPS",
        "action": "Allowed",
        "mobappname": "Mail",
        "deviceostype": "iOS",
        "reqsize": str(number(row["orig_bytes"])),
        "respsize": str(number(row["resp_bytes"])),
        "recordid": str(crc32(row["uid"].encode())),
    }
    return json.dumps({"sourcetype": "zscalernss-web", "event": event}) + "\n"


def jamf(row: Row, at: float) -> str:
    event = {
        "metadata": {"vendor": "Jamf", "product": "Network Traffic Stream"},
        "timestamp": f"{iso(at)[:-3]}Z",
        "device": {"deviceId": row["id.orig_h"], "osType": "IOS"},
        "hostName": host(row),
        "dns": {"recordType": "A", "responseStatus": "NOERROR", "ttl": 60},
        "blocked": False,
    }
    return json.dumps({"event": event}) + "\n"


def goflow2(row: Row, at: float) -> str:
    text = ""
    for source, port, dest, to, flags, size in directions(row):
        record = {
            "type": "IPFIX",
            "time_received_ns": int((at + 60) * 1e9),
            "time_flow_start_ns": int(at * 1e9),
            "time_flow_end_ns": int((at + seconds(row)) * 1e9),
            "bytes": size,
            "packets": 4,
            "src_addr": source,
            "dst_addr": dest,
            "proto": row["proto"].upper(),
            "src_port": int(port),
            "dst_port": int(to),
            "tcp_flags": mask(flags),
        }
        text += json.dumps(record) + "\n"
    return text


def ecs(row: Row, at: float) -> str:
    text = ""
    for source, port, dest, to, flags, size in directions(row):
        times = {"start": f"{iso(at)[:-3]}Z", "end": f"{iso(at + seconds(row))[:-3]}Z"}
        record = {
            "@timestamp": f"{iso(at + 60)[:-3]}Z",
            "event": times | {"duration": int(seconds(row) * 1e9)},
            "source": {"ip": source, "port": int(port), "bytes": size},
            "destination": {"ip": dest, "port": int(to)},
            "network": {"transport": row["proto"]},
            "netflow": {"tcp_control_bits": mask(flags)},
        }
        text += json.dumps(record) + "\n"
    return text


def pmacct(row: Row, at: float) -> str:
    text = ""
    for source, port, dest, to, flags, size in directions(row):
        record = {
            "event_type": "purge",
            "ip_src": source,
            "ip_dst": dest,
            "port_src": int(port),
            "port_dst": int(to),
            "ip_proto": row["proto"],
            "tcp_flags": str(mask(flags)),
            "timestamp_start": iso(at).replace("T", " "),
            "timestamp_end": iso(at + seconds(row)).replace("T", " "),
            "packets": 4,
            "bytes": size,
        }
        text += json.dumps(record) + "\n"
    return text


def aws_vpc(row: Row, at: float) -> str:
    protocol = 17 if row["proto"] == "udp" else 6
    return "".join(
        f"2 123456789010 eni-1235b8ca123456789 {source} {dest} {port} {to} {protocol} 4 {size} {int(at)} "
        f"{int(at + seconds(row))} ACCEPT OK\n"
        for source, port, dest, to, _, size in directions(row)
    )


def squid(row: Row, at: float) -> str:
    return (
        f"{at:.3f} {int(seconds(row) * 1e3):6d} {row['id.orig_h']} TCP_TUNNEL/200 "
        f"{number(row['resp_bytes'])} CONNECT {host(row)}:443 - HIER_DIRECT/{row['id.resp_h']} -\n"
    )


def fortinet(row: Row, at: float) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return (
        f'<189>date={when:%Y-%m-%d} time={when:%H:%M:%S} devname="fw" devid="FG1" logid="0000000013" '
        f'type="traffic" subtype="forward" level="notice" vd="root" eventtime={int(at * 1e9)} tz="+0000" '
        f'srcip={row["id.orig_h"]} srcport={row["id.orig_p"]} srcintf="lan" dstip={row["id.resp_h"]} '
        f'dstport={row["id.resp_p"]} dstintf="wan" proto={17 if row["proto"] == "udp" else 6} action="close" '
        f'policyid=1 service="HTTPS" duration={int(seconds(row))} sentbyte={number(row["orig_bytes"])} '
        f'rcvdbyte={number(row["resp_bytes"])} app="SSL" appcat="Network.Service"\n'
    )


def paloalto(row: Row, at: float) -> str:
    start, end = (
        datetime.fromtimestamp(time, UTC).strftime("%Y/%m/%d %H:%M:%S") for time in (at, at + seconds(row))
    )
    sent, got = number(row["orig_bytes"]), number(row["resp_bytes"])
    return (
        f"1,{end},007051000012345,TRAFFIC,end,2562,{end},{row['id.orig_h']},{row['id.resp_h']},192.0.2.1,"
        f"{row['id.resp_h']},out,,,ssl,vsys1,trust,untrust,ae1,ae2,Syslog,{end},{crc32(row['uid'].encode())},1,{row['id.orig_p']},"
        f"{row['id.resp_p']},40000,443,0x400053,{row['proto']},allow,{sent + got},{sent},{got},20,{start},"
        f"{int(seconds(row))},any,,71234,0x0,Reserved,United States,,11,9,tcp-fin\n"
    )


def cef(row: Row, at: float) -> str:
    return (
        "CEF:0|Example|Wall|1.0|13|traffic:forward close|3|deviceExternalId=F "
        f"start={int(at * 1e3)} end={int((at + seconds(row)) * 1e3)} src={row['id.orig_h']} "
        f"spt={row['id.orig_p']} dst={row['id.resp_h']} dpt={row['id.resp_p']} dhost={host(row)} "
        f"proto={row['proto']} act=close app=HTTPS out={number(row['orig_bytes'])} "
        f"in={number(row['resp_bytes'])} externalId={crc32(row['uid'].encode())} destCountry=United States\n"
    )


def leef(row: Row, at: float) -> str:
    return (
        f"LEEF:1.0|Example|Wall|1.0|close|devTime={int(at * 1e3)}\tsrc={row['id.orig_h']}\t"
        f"dst={row['id.resp_h']}\tsrcPort={row['id.orig_p']}\tdstPort={row['id.resp_p']}\t"
        f"proto={row['proto']}\thostname={host(row)}\tsrcBytes={number(row['orig_bytes'])}\t"
        f"dstBytes={number(row['resp_bytes'])}\taction=close\tsev=3\n"
    )


def umbrella(row: Row, at: float) -> str:
    when = datetime.fromtimestamp(at, UTC)
    return (
        f'"{when:%Y-%m-%d %H:%M:%S}","phone-{crc32(row["id.orig_h"].encode()) % 500}","phone","10.8.0.21",'
        f'"192.0.2.1","Allowed","1 (A)","NOERROR","{host(row)}.","Infrastructure","Mobile Devices",'
        f'"Mobile Devices",""\n'
    )


PCAPDROID_HEAD = (
    "IPProto,SrcIP,SrcPort,DstIp,DstPort,UID,App,Proto,Status,Info,BytesSent,BytesRcvd,PktsSent,PktsRcvd,"
    "FirstSeen,LastSeen\n"
)


def pcapdroid(row: Row, at: float) -> str:
    return (
        f"{17 if row['proto'] == 'udp' else 6},{row['id.orig_h']},{row['id.orig_p']},{row['id.resp_h']},"
        f"{row['id.resp_p']},10123,Mail,TLS,Closed,{host(row)},{number(row['orig_bytes'])},"
        f"{number(row['resp_bytes'])},9,9,{int(at * 1e3)},{int((at + seconds(row)) * 1e3)}\n"
    )
