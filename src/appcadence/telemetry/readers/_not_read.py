"""Files that are known and not read: what each is, and how to make of it what is read."""

from __future__ import annotations

import re
from pathlib import Path

from appcadence.telemetry.readers import _sqlite

_UNPACK = "unpack it first"
_KNOWN: tuple[tuple[bytes, str], ...] = (
    (
        rb"PK\x03\x04[\s\S]{2}[\x01\x03\x05\x07\x09\x0b\x0d\x0f]",
        f"an encrypted zip archive; {_UNPACK} with its password (unzip, 7z x)",
    ),
    (rb"PK\x03\x04", f"a zip archive; {_UNPACK} (unzip)"),
    (rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", f"a 7z or RAR archive; {_UNPACK} (7z x)"),
    (
        rb"[\s\S]{257}ustar",
        f"a tar archive; {_UNPACK} (tar -x) and give its logs, of a sysdiagnose those in logs/powerlogs",
    ),
    (
        rb"\xa1\xb2[\xc3\x3c][\xd4\x4d]|[\xd4\x4d][\xc3\x3c]\xb2\xa1|\x0a\x0d\x0d\x0a",
        "a packet capture; run Zeek (zeek -r) or Suricata (suricata -r) over it and give their logs",
    ),
    (rb"Date first seen|Date flow start", "nfdump's text for people; print the records with -o json"),
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
        rb" *StartTime +(Flgs|Dur|Proto|SrcAddr)",
        "the text of Argus's ra for people; print it with commas and dates: TZ=UTC ra -r FILE -n -u -c , "
        "-s stime,dur,proto,saddr,sport,dir,daddr,dport,state,pkts,bytes,sbytes",
    ),
    (
        rb"[\s\S]{72}\x02\x00[\x01\x02]\xc0",
        "a trace of Windows (ETW), which holds no telemetry of iOS apps; if it is a packet capture, make one "
        "that Zeek or Suricata reads with etl2pcapng",
    ),
    (rb"ElfFile\x00", "a Windows event log, which holds no telemetry of iOS apps"),
    (
        rb"\x00\x10\x00\x00\x11\x00\x00|\xb0\xbb\x30\x00|\x99\x88\x77\x66",
        "a part of a unified log archive (tracev3, timesync, uuidtext); write it as text on a Mac with "
        "log show --archive NAME.logarchive --style ndjson",
    ),
    (
        rb"(Filtering the log data[^\n]*\n|Skipping [^\n]*\n)*Timestamp +(Thread|\(process\)|Ty)",
        "a unified log without an entry; give log show an earlier --start",
    ),
    (
        rb"(\[connected[^\n]*\n)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d[^\n]{0,300}\[\d+\] <[A-Z][a-z]+>: ",
        "a live system log whose times have neither year nor UTC offset; collect the unified log with "
        "pymobiledevice3 syslog collect and write it on a Mac with log show --style ndjson",
    ),
)


_USAGE_TEXT = re.compile(rb'\s*\[\s*\{[^{}]{0,2000}"(wifi|wwan)_in"|bplist[\s\S]*netUsageBaseline')
"""MVT's datausage.json and netusage.json; com.apple.osanalytics.addaily.plist of iOS itself."""
_USAGE = (
    "data usage (DataUsage.sqlite, netusage.sqlite): bytes per process since it first ran, without the times "
    "at which they moved, so that no rhythm can be read; give the PowerLog of a sysdiagnose, which has both"
)


def named(start: bytes, path: Path | None = None) -> str | None:
    """What a file is that starts so, and what to do with it; None where that is not known. Never raises.

    With the path the tables of a database are looked at, too.
    """
    counts = path is not None and _sqlite.has_table(path, start, ("ZLIVEUSAGE",), "a database")
    if counts or _USAGE_TEXT.match(start):
        return _USAGE
    return next((what for pattern, what in _KNOWN if re.match(pattern, start)), None)
