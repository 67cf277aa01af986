"""Files that are recognised but not read: what each one is, and how to turn it into a log that is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from appcadence.telemetry.readers import _csv, _json_layout, _sqlite

_UNPACK = "unpack it first"
_POWERLOG = "give the PowerLog of a sysdiagnose"
_MAP = "read them with --format table --map FILE.toml"
_AS_NETFLOW = (
    "have the device export NetFlow or IPFIX to nfcapd and print it with TZ=UTC nfdump -r FILE -o ndjson"
)
_ZEEK = "give the capture to Zeek (zeek -r) or Suricata (suricata -r) and give their logs"
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (
        rb"PK\x03\x04[\s\S]{2}[\x01\x03\x05\x07\x09\x0b\x0d\x0f]",
        f"an encrypted zip archive; {_UNPACK} with its password (unzip, 7z x)",
    ),
    (rb"PK\x03\x04", f"a zip archive; {_UNPACK} (unzip)"),
    (rb"PK\x05\x06", "an empty zip archive"),
    (
        rb"AEA1|AA01|YAA1|\x04\x22\x4d\x18|\x1f\x9d|LZIP|xar!|MSCF|0707[0-7]{2}|bvx[-12n]",
        f"packed or encrypted in a way that is not read (Apple archive, lz4, compress, cpio ...); {_UNPACK}",
    ),
    (
        rb"\x37\x7f\x06[\x82\x83]|\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
        "the log that SQLite keeps beside a database (-wal or -journal); give the database, with this file "
        "beside it under its original name",
    ),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", f"a 7z or RAR archive; {_UNPACK} (7z x)"),
    (
        rb"[\s\S]{257}ustar",
        f"a tar archive; {_UNPACK} (tar -x) and give its logs (of a sysdiagnose, those in logs/powerlogs)",
    ),
    (
        rb"\xa1\xb2[\xc3\x3c][\xd4\x4d]|[\xd4\x4d][\xc3\x3c]\xb2\xa1|\x0a\x0d\x0d\x0a",
        "a packet capture; run Zeek (zeek -r) or Suricata (suricata -r) over it and give their logs",
    ),
    (
        rb" ?((\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d\.\d{6} |\d{9,10}\.\d{6} )?"
        rb"(IP6?|ARP,?|[0-9a-f]{2}(:[0-9a-f]{2}){5}) (\S+ > |> |\((tos|flowlabel|class|hlim) |Request )"
        rb'|"?No\."?,"?Time"?,"?Source"?,"?Destination|\s*(\[\s*)?\{\s*("index": ?\{)?"_index": ?"packets-'
        rb"|\s*={20,}\r?\n(\w+ (Conversations|Endpoints)|\| IO Statistics)|Frame \d+: \d+ bytes on wire"
        rb"|\d{9,10}\.\d{9}\t|\"?(frame|eth|ip|tcp|udp|_ws)\.\w[\w.]*\"?[,;\t ]"
        rb"|(<\?xml[^>]*>\s*)+(<!--[^>]*-->\s*)?<[pd]s?d?ml\b"
        rb"| *\d+[ \t]+(\d{4}-\d\d-\d\d )?[\d:]+\.\d{6,9}[ \t]+\S+[ \t]+(\xe2\x86\x92|->)[ \t]",
        f"packets as text (tcpdump, tshark or Wireshark); {_ZEEK}",
    ),
    (
        rb"\d{9,10}\.\d{1,6}\t",
        "columns without names, as zeek-cut prints them or as a Zeek log has them once its header lines are "
        "cut off; give the log with the lines from #separator to #types (zeek-cut -c keeps them)",
    ),
    (
        rb"\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\.\d+ +\[\*\*\]",
        "Suricata's or Snort's alerts as text; give eve.json with events of the type flow",
    ),
    (
        rb'[^\n]{0,300}"?\b_raw"?(,|\r?\n)',
        "a CSV export of Splunk, whose column _raw holds the records; export them as JSON or as raw events",
    ),
    (
        rb'\s*\{\s*"took":',
        "a search result of Elasticsearch or OpenSearch; give its records one a line: "
        "jq -c '.hits.hits[]._source' FILE",
    ),
    (
        rb'\s*\{\s*"events":\s*\[\s*\{[^{}]{0,4000}"(ingestionTime|eventId|logStreamName)"',
        "a response of CloudWatch Logs; give its messages one a line: jq -r '.events[].message' FILE",
    ),
    (
        rb'\s*\{\s*"records":\s*\[[\s\S]{0,4000}"flowTuples"',
        "a flow log of Azure (NSG or virtual network); write its tuples one a line with "
        f"jq -r '.. | .flowTuples? | .[]?' FILE and {_MAP} (tuples with B, C and E are parts of one flow)",
    ),
    (
        rb'\s*\{\s*"log":\s*\{\s*"(version|creator|entries|pages)"',
        "an HTTP archive (HAR) of a browser or a proxy such as Charles or mitmproxy; write its requests one "
        f"a line with jq -c '.log.entries[]' FILE and {_MAP}",
    ),
    (
        rb"[^\n]{0,300}%(ASA|FTD|PIX|FWSM)-+(\w+-)?\d-\d{6}: ",
        f"a system log of Cisco ASA or FTD, which spreads a connection over several lines; {_AS_NETFLOW}",
    ),
    (
        rb"[^\n]{0,200}\bfilterlog(\[\d+\])?: |[^\n]{0,300}\bIN=\S* OUT=\S* [^\n]{0,300}\bSRC="
        rb'|\{[^\n]{0,80}"dvc": ?"[^\n]{0,30} "raw\.pktlen"'
        rb"|[^\n]{0,300}\bin:\S+ out:\S+[^\n]{0,300}\bproto \w+",
        "a firewall's packet log (pfSense, OPNsense, iptables, UniFi or MikroTik), which shows where a "
        f"connection begins but neither its bytes nor its end; {_AS_NETFLOW}",
    ),
    (
        rb"\s*(\[(NEW|UPDATE|DESTROY)\] )?(ipv[46] +\d+ )?(tcp|udp|icmpv?6?|unknown) +\d+ [^\n]{0,40}\bsrc="
        rb"|-A -t \d+ -u |(<\?xml[^>]*>\s*)?<conntrack>|===>PACKET BOUNDARY|timestamp=[^\n,]*,orig\.ip\."
        rb"|[^\n]{0,100}\[(NEW|UPDATE|DESTROY)\] ORIG: SRC=",
        "Linux connections in a form that lacks some times, as conntrack lists or ulogd prints them; "
        "have conntrack log connections as they end (conntrack -E -e DESTROY -o timestamp, with the sysctls "
        "net.netfilter.nf_conntrack_acct=1 and nf_conntrack_timestamp=1), or ulogd's NFCT write JSON",
    ),
    (
        rb"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (\S+ )?dnsmasq(\[\d+\])?: ",
        "dnsmasq's log of lookups (Pi-hole), whose times have no year; a lookup is no connection, so give a "
        "log of connections, such as Zeek's",
    ),
    (
        rb"[^\n]{0,300}\b(DHCP(DISCOVER|OFFER|REQUEST|ACK)\b|kea-dhcp[46][.\[])|Internet Systems Cons",
        "the activity log of a DHCP server; give its leases (dhcpd.leases, dnsmasq.leases, kea-leases4.csv)",
    ),
    (
        rb"\s*Microsoft (Windows )?DHCP(v6)? Service Activity Log|ID,Date,Time,Description,IPv?6? Address,",
        "the activity log of Windows' DHCP server, whose times have no offset; give its leases as a table of "
        "which device had which address (--devices)",
    ),
    (
        rb'[^\n]{0,300}\bCheckPoint \d+ - \[(action|flags):"',
        "a syslog of Check Point's Log Exporter; have it write CEF or LEEF (cp_log_export set format cef)",
    ),
    (
        rb"[^\n]{0,100}\b(flows|ip_flow_start|ip_flow_end|cellular_firewall|vpn_firewall) [^\n]{0,100}\bsrc=",
        f"a flow log of Meraki, which has neither the bytes of a connection nor its end; {_AS_NETFLOW}",
    ),
    (
        rb"([2-9] )?\d{6,14} eni-[0-9a-z]+ ",
        "an AWS VPC flow log with fields of its own and no line that names them; put the log's format in "
        "front of it as its first line (account-id interface-id srcaddr ...)",
    ),
    (
        rb"\d{9,10}\.\d{3} +-?\d+ \S+ [^\n]{0,200}\b(TCP|UDP|NONE)_?[A-Z_]*/\d{3} ",
        "an access log of Squid in a format of its own; have Squid write its native format, the host that a "
        "TLS client names behind it (logformat ... %mt %ssl::>sni)",
    ),
    (
        rb'\S+ (\S+ \S+ )?\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "'
        rb"|\d{9,10}\.\d{3} [0-9a-f.:]+ \S+ \S+\r?\n",
        "an access log in a web server's format (common or combined), or a log of referrers or user agents, "
        "which has no durations; have Squid write its native format (access_log ... squid)",
    ),
    (
        rb"SRC_(IP|HOST) +DST_(IP|HOST) |--START \(\d+\)--",
        "pmacct's text for people, or its output between markers; print it with print_output: json",
    ),
    (rb"ts,te,td,pr,val,", "statistics of nfdump (-s); print the records with -o ndjson instead"),
    (
        rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} +(\d\d:\d\d:)?\d+\.\d{3} +[A-Z0-9]{2,8} +[0-9a-f.:]+ +->"
        rb"|\d{1,2}\|(\d{9,10}\|\d{1,3}\|\d{9,10}\|\d{1,3}|\d{12,13}\|\d{12,13})\|\d{1,3}\|"
        rb"|Date first seen|Date flow start|Event time +Event|Top \d+ [^\n]+ ordered by |\s*Flow Record: "
        rb"|Ident: [^\n]*\nFlows: "
        rb"|(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,){2}[\d.]+,[0-9a-f.:]+,[0-9a-f.:]+,[\d.]+,[\d.]+,\w+,",
        "nfdump's text for people, its pipe format or its CSV without a header line (-q); print the records "
        "with TZ=UTC nfdump -r FILE -o ndjson (-o json before 1.7.3)",
    ),
    (rb"[^\n]*\nNo matching flows", "output of nfdump without records, because none matched its filter"),
    (
        rb"\[\s*\{\s*\"type\" : \"FLOW\",\s*\"sampled\" : \d+,\s*\"export_sysid\" : \d+,\s*\"label\"",
        "sums of nfdump (-A) as JSON, which lack times and addresses; print the records without -A",
    ),
    (
        rb'\s*\{\s*"preview":[\s\S]{0,60000}"results":\s*\[',
        "a search result of Splunk; give its records one a line: jq -r '.results[]._raw' FILE",
    ),
    (
        rb"PAR1|Obj\x01|ORC",
        "a binary table (Parquet, Avro or ORC); Parquet is read with --format table --map FILE.toml, write "
        "others as CSV or JSON lines",
    ),
    (rb"%PDF-", "a PDF document; give the data that it was made from"),
    (
        rb"(<\?xml[^>]*>\s*)?<Types\b",
        "a part of an Office document; save the sheet as CSV",
    ),
    (
        rb"\x0c\xa5[\x01\x02]\x00|\xa5\x0c\x00[\x01\x02]",
        "a binary capture of nfcapd; print its records with TZ=UTC nfdump -r FILE -o ndjson",
    ),
    (
        rb"[\x80-\x8f][\s\S]{3,63}\xe5\x71\x2d\xcb",
        "a binary log of Argus; print its flows with TZ=UTC ra -r FILE -n -u -c , "
        "-s stime,dur,proto,saddr,sport,dir,daddr,dport,state,pkts,bytes,sbytes",
    ),
    (
        rb" *StartTime +(Flgs|Dur|Proto|SrcAddr)|(<\?xml[^>]*>\s*)?(<!--[^>]*-->\s*)?<ArgusDataStream"
        rb"|(\d\d:\d\d:\d\d|\d{10})\.\d+,([\d.]+,| [^,]{9},)(man|arp|udp|tcp|icmp),",
        "the text of Argus's ra for people, its XML or its CSV without a header line; print it with commas, "
        "dates and column names: TZ=UTC ra -r FILE -n -u -c , "
        "-s stime,dur,proto,saddr,sport,dir,daddr,dport,state,pkts,bytes,sbytes",
    ),
    (
        rb"[\s\S]{72}\x02\x00[\x01\x02]\xc0",
        "a Windows trace (ETW), which holds no telemetry of iOS apps; if it is a packet capture, convert it "
        "with etl2pcapng for Zeek or Suricata",
    ),
    (rb"ElfFile\x00", "a Windows event log, which holds no telemetry of iOS apps"),
    (
        rb"\x00\x10\x00\x00\x11\x00\x00|\xb0\xbb\x30\x00|\x99\x88\x77\x66",
        "part of a unified log archive (tracev3, timesync, uuidtext); export the archive on a Mac with "
        "log show --archive NAME.logarchive --style ndjson",
    ),
    (
        rb"(Filtering the log data[^\n]*\n|Skipping [^\n]*\n)*Timestamp +(Thread|\(process\)|Ty)",
        "a unified log without entries; run log show with an earlier --start",
    ),
    (
        rb"(default|info|debug|error|fault)\t\d\d:\d\d:\d\d\.\d+",
        "text copied from the Console app, whose times have no date; save the archive and export it with "
        "log show --archive NAME.logarchive --style ndjson",
    ),
    (
        rb"SourceFile\tSourceFilePosition\t",
        "the table of UnifiedLogReader; export the archive with log show --style ndjson on a Mac, or with "
        "unifiedlog_iterator as jsonl elsewhere",
    ),
    (
        rb"(?i)\s*(<!doctype html|<html)",
        "a web page, which servers send in place of a missing file; download the log again",
    ),
    (
        rb'\{[^\n]{0,2000}"bug_type": ?"\d+"',
        f"a crash or analytics report of iOS (.ips), which shows no connections; {_POWERLOG}",
    ),
    (
        rb'\s*[\[{][\s\S]{0,4000}"CFBundleIdentifier"\s*:',
        "a list of installed apps; give it to the inventory (appcadence inventory merge)",
    ),
    (
        rb'\{"stream": ?"com\.apple\.privacy\.accounting\.',
        "the record of app activity that iOS 15 kept before its App Privacy Report, which names no hosts; "
        "share an App Privacy Report",
    ),
    (
        rb'(\{"|\[\{"|")?(__container_type__|__type__)": ?"',
        "the output of Plaso; give the files that it was made from",
    ),
    (
        rb"UTC Timestamp,Plugin,Event,Description|[^\n]{0,300}\bwifi_in,wifi_out,",
        f"a table of MVT (a timeline, or bytes per process without their times); {_POWERLOG}, and "
        "give applications.json to the inventory",
    ),
    (
        rb'(\[connected[^\n]*\n)?(\{"msg": ?")?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d'
        rb"[^\n]{0,300}\[\d+\] <[A-Z][a-z]+>: ",
        "a live system log whose times have neither year nor UTC offset; collect the unified log with "
        "pymobiledevice3 syslog collect and export it on a Mac with log show --style ndjson",
    ),
)


_FRAME = re.compile(rb"(\d{1,5}) <\d{1,3}>")
_RUN_ON = re.compile(
    rb"<\d{1,3}>[^\n]*[^\s<:]<\d{1,3}>(1 )?(\d{4}-\d\d-\d\dT|[A-Z][a-z]{2} [ \d]\d )\d\d:\d\d:\d\d"
)
_FRAMED = (
    "syslog messages without line ends, each behind its length (octet counting of RFC 6587) or directly "
    "behind the one before; have the receiver write one a line"
)


def is_framed(start: bytes) -> bool:
    """Whether a file with this start holds syslog messages that no line ends separate."""
    if _RUN_ON.match(start):
        return True
    first = _FRAME.match(start)
    end = first.end(1) + 1 + int(first[1]) if first else 0
    return first is not None and start[end - 1 : end] != b"\n" and _FRAME.match(start, end) is not None


_USAGE_TEXT = re.compile(rb'\s*\[\s*\{[^{}]{0,2000}"(wifi|wwan)_in"|bplist[\s\S]*netUsageBaseline')
"""MVT's datausage.json and netusage.json; com.apple.osanalytics.addaily.plist of iOS itself."""
_USAGE = (
    "data usage (DataUsage.sqlite, netusage.sqlite): bytes per process since it first ran, without the times "
    "at which they moved, so they show no rhythm; give the PowerLog of a sysdiagnose, which has both"
)


def named(start: bytes, path: Path | None = None) -> str | None:
    """What a file with this start is, and what to do with it; None if that is not known.

    With the path, the tables of a database are checked, too.
    """
    counts = path is not None and _sqlite.has_table(path, start, ("ZLIVEUSAGE",), "a database")
    if counts or _USAGE_TEXT.match(start):
        return _USAGE
    if is_framed(start):
        return _FRAMED
    # The first line may be the end of a longer one.
    texts = (start, start.partition(b"\n")[2])
    return next((what for text in texts for pattern, what in _KNOWN if re.match(pattern, text)), None)


_MAX_NAMES, _MAX_NAME = 8, 40
_BARE = re.compile(
    rb"([^\n]*\n)?(?=([^\n]*\b\d{1,3}(\.\d{1,3}){3}\b){2})"
    rb'("[^"\n]*"|[^\s,;|"]+)([ ,;|\t]+("[^"\n]*"|[^\s,;|"]+)){5}'
)
"""A line of at least six values, two of them addresses: the first, or the second if that was cut."""
_NAME_THEM = f"if its rows are connections, name its columns in a mapping ([file] names) and {_MAP}"


def described(start: bytes) -> str:
    """What an unknown file with this start looks like, and what may help; empty if that is unclear.

    Never raises.
    """
    if start.startswith(_sqlite.MAGIC):
        return (
            "it is an SQLite database, damaged or of another kind; of an iPhone's databases, the PowerLog "
            "(CurrentPowerlog.PLSQL) and knowledgeC.db are read"
        )
    if start.startswith(b"bplist") or re.match(rb"\s*<\?xml[\s\S]{0,200}<!DOCTYPE plist", start):
        return "it is a property list; give lists of apps to appcadence inventory merge"
    if held := re.match(rb'\s*\{[^\[\]{}]*"([\w@.-]{1,40})":\s*\[\s*\{', start):
        name = held[1].decode()
        what = f"it looks like one JSON object whose list {name} holds the records"
        return f"{what}; give these one a line: jq -c '.{name}[]' FILE"
    record: Mapping[str, Any] = next(islice(_json_layout.first_objects(start), 1), {})
    names, what = [*_fields(record)], "JSON objects with the fields"
    if not names:
        tables = [_csv.header(start, delimiter) for delimiter in ",;\t|"]
        names, what = max(tables, key=len), "a table with the columns"
    if not (record or len(names) >= 3) or not all(re.match(r"[A-Za-z_@\"]", name) for name in names[:3]):
        return f"it looks like a table without column names; {_NAME_THEM}" if _BARE.match(start) else ""
    shown = ", ".join(name[:_MAX_NAME] for name in names[:_MAX_NAMES])
    more = " ..." if len(names) > _MAX_NAMES else ""
    return f"it looks like {what} {shown}{more}; if they are connections, {_MAP}"


def _fields(record: Mapping[str, Any]) -> Iterator[str]:
    """The names of a JSON object's fields; those of an object inside it are paths."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value)
        else:
            yield name
