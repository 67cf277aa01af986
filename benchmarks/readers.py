"""Reading logs on one core, side by side with a parser that does nothing but parse the same file.

readers.py [--megabytes 200] [--runs 3] [--only NAME] [--log CONN.LOG]
readers.py --memory 1,5 [--only NAME]

The logs are made from a real Zeek conn log (TSV, by default of the captures beside the project): its rows
over and over, each time later and with other uids, written in every format. `read` is the reader alone, file
to Arrow tables; `convert` is the command, from the hash of the file to Parquet. The peer of tables is
pyarrow.csv (every column, in its type), that of JSON is orjson (in the `dev` extra; one `loads` a line, or
one for an array), that of words and key=value `split` and one regular expression a line; none keeps anything. Best of some runs, taken in turn; the process is held to one core.

With --memory, Zeek and nfdump logs of so many GB are converted, each in a process of its own, and the peak
of its resident memory is printed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from zlib import crc32

import orjson
import pyarrow as pa
import pyarrow.csv as pacsv

from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.readers import ReadOptions, reader

LOG = Path(__file__).resolve().parents[2] / "shared/data/labelled/normal_a/conn.log.labeled"
EVERYWHERE = ("0.0.0.0/0", "::/0")
"""So that every row becomes a flow."""
NUMBERS = {"time": float, "interval": float, "double": float, "port": int, "count": int}
LARGE = ("Zeek TSV", "Zeek JSON", "nfdump JSON", "nfdump CSV")
"""What --memory looks at."""
FLAGS = {"SF": ("...AP.SF", "...AP.SF"), "S0": ("......S.", "........"), "REJ": ("......S.", "...A.R..")}

Row = dict[str, str]


@dataclass(frozen=True)
class Form:
    """How a format is written and merely parsed."""

    reader: str
    write: Callable[[Row, float], str]
    """A row of Zeek's at some time, as lines of the format."""
    parse: Callable[[Path], None]
    head: str = ""
    tail: str = ""
    mapping: str = ""
    """Of the format `table`, in TOML."""


class Source:
    """The rows of a real conn log, as often as wanted."""

    def __init__(self, log: Path) -> None:
        lines = log.read_text().splitlines()
        header = {line.split("\t")[0]: line.split("\t")[1:] for line in lines if line.startswith("#")}
        types = dict(zip(header["#fields"], header["#types"], strict=True))
        # The labels of a labelled log are none of Zeek's.
        self.types = {name: kind for name, kind in types.items() if "label" not in name}
        self.rows = [dict(zip(types, line.split("\t"), strict=True)) for line in lines if line[0] != "#"]
        times = [float(row["ts"]) for row in self.rows]
        self.span = max(times) - min(times) + 60

    def repeated(self) -> Iterator[tuple[Row, float]]:
        """Each row with its time, over and over, each time later and with another end of its uid."""
        for again in itertools.count():
            for row in self.rows:
                yield row | {"uid": f"{row['uid'][:-5]}{again:05x}"}, float(row["ts"]) + again * self.span

    def tsv(self, row: Row, at: float) -> str:
        return f"{at:.6f}\t" + "\t".join([row[name] for name in self.types][1:]) + "\n"

    def json(self, row: Row, at: float) -> str:
        known = {
            name: NUMBERS.get(kind, str)(row[name]) for name, kind in self.types.items() if row[name] != "-"
        }
        known |= {
            name: row[name] == "T" for name, kind in self.types.items() if kind == "bool" and name in known
        }
        return json.dumps(known | {"ts": at}) + "\n"

    def forms(self) -> dict[str, Form]:
        head = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
        fields = "#fields\t" + "\t".join(self.types)

        def parse_tsv(path: Path) -> None:
            kinds = {"time": pa.float64(), "interval": pa.float64(), "port": pa.int64(), "count": pa.int64()}
            parse_csv(
                path, "\t", 6, {name: kinds.get(kind, pa.string()) for name, kind in self.types.items()}
            )

        return {
            "Zeek TSV": Form("zeek", self.tsv, parse_tsv, f"{head}{fields}\n"),
            "Zeek JSON": Form("zeek", self.json, parse_lines),
            "Suricata": Form("suricata", suricata, parse_lines),
            "content filter": Form("content_filter", report, parse_lines),
            "nfdump JSON": Form(
                "nfdump", nfdump_json, parse_array, "[\n", nfdump_json(self.rows[0], 1e9)[:-2] + "\n]\n"
            ),
            "nfdump CSV": Form("nfdump", nfdump_csv, parse_csv, NFDUMP_HEAD),
            "Argus": Form("argus", argus, parse_csv, ARGUS_HEAD),
            "table": Form("table", table, parse_csv, TABLE_HEAD, mapping=TABLE_MAP),
            "Zscaler": Form("zscaler", zscaler, parse_lines),
            "Jamf": Form("jamf", jamf, parse_lines),
            "GoFlow2": Form("goflow2", goflow2, parse_lines),
            "ECS flows": Form("ecs_flows", ecs, parse_lines),
            "pmacct JSON": Form("pmacct", pmacct, parse_lines),
            "AWS VPC": Form("aws_vpc", aws_vpc, parse_words),
            "Squid": Form("squid", squid, parse_words),
            "FortiGate": Form("fortinet", fortinet, parse_pairs),
            "Palo Alto": Form("paloalto", paloalto, parse_rows),
            "CEF": Form("cef", cef, parse_pairs),
            "LEEF": Form("leef", leef, parse_pairs),
            "Umbrella": Form("umbrella", umbrella, parse_rows),
            "PCAPdroid": Form("pcapdroid", pcapdroid, parse_csv, PCAPDROID_HEAD),
        }


def parse_csv(
    path: Path, delimiter: str = ",", skip: int = 0, types: dict[str, pa.DataType] | None = None
) -> None:
    pacsv.read_csv(
        path,
        read_options=pacsv.ReadOptions(skip_rows=skip, column_names=types and list(types)),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=False if skip else '"'),
        convert_options=pacsv.ConvertOptions(column_types=types, null_values=["-", "(empty)", ""]),
    )


def parse_lines(path: Path) -> None:
    with path.open("rb") as lines:
        for line in lines:
            orjson.loads(line)


def parse_array(path: Path) -> None:
    orjson.loads(path.read_bytes())


def parse_words(path: Path) -> None:
    with path.open("rb") as lines:
        for line in lines:
            line.split()


PAIR = re.compile(rb'([\w.-]+)=("[^"]*"|[^\s"]*)')


def parse_pairs(path: Path) -> None:
    with path.open("rb") as lines:
        for line in lines:
            dict(PAIR.findall(line))


def parse_rows(path: Path) -> None:
    """Rows without a header line."""
    width = len(next(csv.reader([path.open().readline()])))
    parse_csv(path, types=dict.fromkeys(map(str, range(width)), pa.string()))


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
        f"{at:.3f} {int(seconds(row) * 1e3):6d} {row['id.orig_h']} TCP_TUNNEL/200 {number(row['resp_bytes'])} "
        f"CONNECT {host(row)}:443 - HIER_DIRECT/{row['id.resp_h']} -\n"
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
        f"{row['id.resp_h']},out,,,ssl,vsys1,trust,untrust,ae1,ae2,Syslog,{end},4711,1,{row['id.orig_p']},"
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


def make(path: Path, form: Form, source: Source, size: int) -> None:
    """A log of about `size` bytes."""
    with path.open("w") as out:
        out.write(form.head)
        left = size
        for row, at in source.repeated():
            left -= out.write(form.write(row, at))
            if left < 0:
                break
        out.write(form.tail)


def read(name: str, path: Path, mapping: Path) -> int:
    options = ReadOptions(local_nets=tuple(map(ip_network, EVERYWHERE)), mapping=mapping)
    return sum(len(batch) for table, batch in reader(name).read([path], options) if table == "flows")


def whole(name: str, path: Path, out: Path, mapping: Path) -> None:
    report = convert([path], out, format=name, local_nets=EVERYWHERE, mapping=mapping)
    if report.rejected:
        raise SystemExit(f"{name}: {report.rejected} rows of the benchmark's log were rejected")
    shutil.rmtree(out)


def measured(step: Callable[[], object]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def compare(source: Source, forms: dict[str, Form], size: int, runs: int, scratch: Path) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    print(f"one core, {size / 1e6:.0f} MB a log, best of {runs}; MB/s; ratio: read against parser")
    print(f"{'':<16}{'M flows':>8}{'read':>8}{'convert':>9}{'parser':>8}{'ratio':>7}")
    path, out, mapping = scratch / "log", scratch / "out", scratch / "map.toml"
    for name, form in forms.items():
        make(path, form, source, size)
        mapping.write_text(form.mapping)
        flows, megabytes = read(form.reader, path, mapping), path.stat().st_size / 1e6
        steps = (
            partial(read, form.reader, path, mapping),
            partial(whole, form.reader, path, out, mapping),
            partial(form.parse, path),
        )
        times = [[measured(step) for step in steps] for _ in range(runs)]
        ours, all_of_it, parser = (min(column) for column in zip(*times, strict=True))
        print(
            f"{name:<16}{flows / 1e6:>8.2f}{megabytes / ours:>8.0f}{megabytes / all_of_it:>9.0f}"
            f"{megabytes / parser:>8.0f}{ours / parser:>7.2f}",
            flush=True,
        )


def memory(source: Source, forms: dict[str, Form], sizes: list[float], scratch: Path) -> None:
    command = [Path(sys.executable).with_name("appcadence"), "convert", "--out", scratch / "out"]
    nets = itertools.chain.from_iterable(("--local-net", net) for net in EVERYWHERE)
    print(f"{'':<12}{'GB':>6}{'seconds':>9}{'MB/s':>7}{'peak MB':>9}")
    for name, size in itertools.product([n for n in LARGE if n in forms], sizes):
        path = scratch / "conn.log"
        make(path, forms[name], source, int(size * 1e9))
        begin = time.perf_counter()
        process = subprocess.Popen([*command, *nets, path], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        if status:
            raise SystemExit(f"converting {size} GB of {name} failed")
        shutil.rmtree(scratch / "out")
        print(
            f"{name:<12}{size:>6.1f}{took:>9.1f}{1e3 * size / took:>7.0f}{usage.ru_maxrss / 1e3:>9.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="one of the formats")
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--memory", help="sizes in GB, such as 1,5")
    options = parser.parse_args()
    if not options.log.exists():
        raise SystemExit(f"{options.log} does not exist; give a Zeek conn log (TSV) with --log")
    source = Source(options.log)
    forms = {n: form for n, form in source.forms().items() if options.only in (None, n)}
    with tempfile.TemporaryDirectory() as scratch:
        if options.memory:
            memory(source, forms, [float(size) for size in options.memory.split(",")], Path(scratch))
        else:
            compare(source, forms, int(options.megabytes * 1e6), options.runs, Path(scratch))


if __name__ == "__main__":
    main()
