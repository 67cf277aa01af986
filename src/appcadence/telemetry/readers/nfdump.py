"""NetFlow and IPFIX records as nfdump prints them: `-o json`, `-o ndjson`, and CSV with a header line.

JSON may be the array of version 1.6 ("t_first", "t_last") and 1.7 ("first", "last"), or one object a line.
CSV is the legacy form of `-o csv` (ts, te, td, sa, da, ...) or the newer one (firstSeen, duration, ...).

A record is one direction. The two of a connection are made one flow: the same five-tuple, at most ten
seconds apart; all files of the call are looked at together, and each is read twice. Which end opened it
tell the SYNs, the times and, failing these, the ports (see `_pairs`). Only flows opened by a local address
count. Where the other direction was not exported, the bytes received are null. A record that carries both
directions itself (`out_bytes`) is taken so. Pieces cut by the exporter's active time-out stay pieces: the
feature step joins them.

Times are those of the machine that ran nfdump, without an offset, and are taken for UTC: run it with
`TZ=UTC`. The legacy CSV gives whole seconds. Bytes are those of IP packets, headers included. UDP to port
53 is taken for DNS. Events (NSEL, NAT) are passed over. The `application` of NBAR is a class of traffic,
not an app, and is not read. Some versions of 1.7 print the packets as "in_bytes" in `-o ndjson`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import Ints, one_array
from appcadence.telemetry.readers import ReadOptions, _csv, _flows, _hosts, _lines, _text, tagged
from appcadence.telemetry.readers._flows import Mask
from appcadence.telemetry.readers._json_records import parse_records
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers._pairs import Matches, Pairs, Record
from appcadence.telemetry.schema import NAME as WORD

NAME = "nfdump"

_EXPECTED = "nfdump's JSON or CSV with a header line"
_COUNTS = ("src_port", "dst_port", "in_bytes", "out_bytes")
_ADDRESSES = ("src4_addr", "src6_addr", "dst4_addr", "dst6_addr")
_JSON = (
    {name: pa.string() for name in ("first", "last", "t_first", "t_last")}
    | dict.fromkeys(("type", "tcp_flags", *_ADDRESSES), WORD)
    | {name: pa.int64() for name in ("proto", *_COUNTS)}
)
_CSV = {
    "first": ("ts", "firstseen"),
    "last": ("te", "lastseen"),
    "duration": ("td", "duration"),
    "proto": ("pr", "proto"),
    "source": ("sa", "srcaddr"),
    "dest": ("da", "dstaddr"),
    "src_port": ("sp", "srcport"),
    "dst_port": ("dp", "dstport"),
    "in_bytes": ("ibyt", "inbytes", "bytes"),
    "out_bytes": ("obyt", "outbytes"),
    "tcp_flags": ("flg", "flags", "tcpflags"),
}
_REQUIRED = ("first", "proto", "source", "dest", "src_port", "dst_port", "in_bytes")
_SYN, _ACK = 0x02, 0x10
_FLAGS = {letter: 1 << bit for bit, letter in enumerate("FSRPAUEC")}


def sniff(path: Path) -> bool:
    """Whether the file starts like a print of nfdump; never raises."""
    try:
        return _is_json(path) or bool(_choose(path, _csv.header(path, _EXPECTED)))
    except TelemetryError:
        return False


def read(paths: Sequence[Path], options: ReadOptions) -> Iterator[tuple[str, pa.Table]]:
    """Yield flows, and rejected records.

    Raises:
        TelemetryError: a file is missing, empty, damaged, or no print of nfdump.
    """
    pairs = Pairs()
    for path in paths:
        for parsed, size in _parsed(path):
            pairs.add(parsed.record)
            yield "flows", tagged(_flows.NONE, path, 0, size // 2)
    matches, done = pairs.match(), 0
    for path in paths:
        for parsed, size in _parsed(path):
            count = len(parsed.record.start)
            draft, lines, reasons = _finished(parsed, matches.piece(done, done + count), options)
            done += count
            rows = parsed.rows
            yield from _flows.bad_rows(path, [*rows.bad_lines, *lines], [*rows.reasons, *reasons])
            yield "flows", tagged(draft, path, rows.read, size - size // 2)


@dataclass(frozen=True)
class _Parsed:
    """Records of one block."""

    rows: Rows
    lines: Ints
    """Line of each record, events left out."""
    record: Record
    start: pa.Array
    """Microseconds; null where there is none or no time."""
    duration: pa.Array
    """Seconds, of this direction."""
    whole_seconds: Mask
    received: Ints
    """Bytes that the record itself gives for the other direction; 0 = none."""
    faults: list[tuple[Mask, str]]


def _is_json(path: Path) -> bool:
    """Whether it is one of the two forms of JSON; an empty array is.

    Raises:
        TelemetryError: it is JSON, yet none of nfdump's.
    """
    head = _lines.head(path, _EXPECTED).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith((b"[", b"{")):
        return False
    if b'"type"' in head and b'"sampled"' in head and (b'first"' in head or b'"EVENT"' in head):
        return True
    if head[1:].strip() == b"]" and head.startswith(b"["):
        return True
    raise TelemetryError(f"{path} is not {_EXPECTED}: no record of nfdump at its start")


def _choose(path: Path, names: Sequence[str]) -> dict[str, str]:
    known = {name.lower(): name for name in reversed(names)}
    chosen = {}
    for ours, theirs in _CSV.items():
        name = next((known[name] for name in theirs if name in known), None)
        if name is not None:
            chosen[ours] = name
        elif ours in _REQUIRED:
            raise TelemetryError(f"{path} is not {_EXPECTED}: it has no column {theirs[0]} or {theirs[1]}")
    return chosen


def _parsed(path: Path) -> Iterator[tuple[_Parsed, int]]:
    if _is_json(path):
        for rows, size in parse_records(path, _EXPECTED, _JSON):
            yield _from_json(rows), size
    else:
        for rows, size in _csv.read(path, _EXPECTED, lambda names: _choose(path, names), until=b"Summary"):
            yield _from_csv(rows), size


def _from_json(rows: Rows) -> _Parsed:
    is_flow = pc.fill_null(pc.equal(rows.table["type"].cast(pa.string()), "FLOW"), True)
    table, lines = rows.table.filter(is_flow), rows.lines[np.asarray(is_flow)]
    times = {
        name: pc.coalesce(one_array(table[name]), one_array(table[f"t_{name}"])) for name in ("first", "last")
    }
    ends = {
        name: pc.coalesce(*(one_array(table[f"{name}{v}_addr"]).cast(pa.string()) for v in (4, 6)))
        for name in ("src", "dst")
    }
    counts = {name: one_array(table[name]) for name in _COUNTS}
    proto = one_array(table["proto"]).cast(pa.string())
    return _put_together(rows, lines, times, None, ends, counts, proto, table["tcp_flags"], [])


def _from_csv(rows: Rows) -> _Parsed:
    table = rows.table

    def column(name: str) -> pa.Array:
        return one_array(table[name]) if name in table.column_names else pa.nulls(len(table), pa.string())

    faults, counts = [], {}
    proto = column("proto")
    _, tcp, udp = _flows.transports(proto)
    for name in _COUNTS:
        text = column(name)
        # ICMP has "8.0" for a port.
        text = pc.if_else(pa.array(tcp | udp), text, None) if name.endswith("port") else text
        counts[name], bad = _text.whole(text)
        faults.append((bad, f"{_CSV[name][0]} is not a whole number"))
    duration, bad = _text.number(column("duration"))
    if "last" not in table.column_names or "duration" not in table.column_names:
        faults.append((bad, "the duration is not a number of seconds"))
    times = {name: column(name) for name in ("first", "last")}
    ends = {"src": column("source"), "dst": column("dest")}
    return _put_together(rows, rows.lines, times, duration, ends, counts, proto, column("tcp_flags"), faults)


def _put_together(
    rows: Rows,
    lines: Ints,
    times: dict[str, pa.Array],
    duration: pa.Array | None,
    ends: dict[str, pa.Array],
    counts: dict[str, pa.Array],
    proto: pa.Array,
    flags: pa.Array | pa.ChunkedArray,
    faults: list[tuple[Mask, str]],
) -> _Parsed:
    start, no_start = _text.times(times["first"])
    end, no_end = _text.times(times["last"])
    lasted = pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6)
    # The legacy CSV rounds both times to the second, its duration not.
    duration = lasted if duration is None else pc.coalesce(duration, lasted)
    _, tcp, udp = _flows.transports(proto)
    begin = _numbers(start)
    length = np.asarray(pc.fill_null(duration, 0.0).to_numpy(zero_copy_only=False))
    known = np.where((length >= 0) & (length < _flows.LAST_SECOND), length, 0)
    record = Record(
        source=_flows.translate(ends["src"], _hosts.address),
        dest=_flows.translate(ends["dst"], _hosts.address),
        source_port=_port(counts["src_port"], tcp | udp),
        dest_port=_port(counts["dst_port"], tcp | udp),
        protocol=np.where(tcp, 6, np.where(udp, 17, 0)),
        start=begin,
        end=begin + np.rint(known * 1e6).astype(np.int64),
        size=_numbers(counts["in_bytes"], -1),
        flags=np.where(tcp, _bits(flags), 0),
    )
    out_of_range = [
        ((pc.fill_null(pc.less(counts[n], 0), False) if n.endswith("bytes") else _odd(counts[n])), n)
        for n in _COUNTS
    ]
    all_faults = [
        *faults,
        (no_start, "the first time is not a time"),
        (no_end, "the last time is not a time"),
        *((np.asarray(mask), f"{name} is out of range") for mask, name in out_of_range),
    ]
    fine = pc.fill_null(pc.match_substring(times["first"], "."), False)
    received = _numbers(counts["out_bytes"])
    return _Parsed(rows, lines, record, start, duration, ~np.asarray(fine), received, all_faults)


def _finished(
    parsed: _Parsed, matches: Matches, options: ReadOptions
) -> tuple[pa.Table, list[int], list[str]]:
    record = parsed.record
    tcp, udp = record.protocol == 6, record.protocol == 17
    both = matches.paired & ~np.asarray(parsed.start.is_null())
    start = pc.if_else(pa.array(both), pa.array(matches.start), parsed.start)
    duration = pc.if_else(pa.array(both), pa.array((matches.end - matches.start) / 1e6), parsed.duration)
    received = np.where(parsed.received > 0, parsed.received, matches.size)
    sent = record.size
    columns = {
        "start": start,
        "duration_seconds": duration,
        "device": record.source,
        "dest_ip": record.dest,
        "dest_port": pa.array(record.dest_port, mask=~(tcp | udp)),
        "transport": _flows.choice(_flows.TRANSPORTS, np.where(tcp, 0, np.where(udp, 1, -1))),
        "service": _flows.dns_by_port(pa.array(record.dest_port), udp),
        "outcome": _outcome(record.flags, matches, received > 0, tcp),
        "bytes_out": pa.array(sent, mask=sent < 0),
        "bytes_in": pa.array(received, mask=received < 0),
        "time_resolution_seconds": pa.array(np.where(parsed.whole_seconds, 1.0, 1e-3)),
    }
    draft = pa.table(columns | {"opened": pa.array(matches.opened)})
    draft, lines, reasons = _flows.screen(
        draft, parsed.lines, options, clock="the first time", also=parsed.faults
    )
    return _flows.canonical(draft.filter(draft["opened"]), options, NAME, 1e-3), lines, reasons


def _outcome(flags: Ints, matches: Matches, answered: Mask, tcp: Mask) -> pa.DictionaryArray:
    """TCP is established once the device acknowledged anything but a reset, or the other end sent a SYN."""
    acked = ((flags & _ACK) > 0) | (((matches.flags & _SYN) > 0) & matches.paired)
    refused = ~acked & ((flags & _SYN) > 0)
    by_tcp = np.select([acked, refused], [0, 1], 2)
    return _flows.choice(_flows.OUTCOMES, np.where(tcp, by_tcp, np.where(answered, 0, 2)))


def _numbers(column: pa.Array, default: int = 0) -> Ints:
    result: Ints = np.asarray(column.fill_null(default).to_numpy(zero_copy_only=False)).astype(np.int64)
    return result


def _port(column: pa.Array, ported: Mask) -> Ints:
    port = _numbers(column)
    result: Ints = np.where(ported & (port >= 0) & (port <= 65535), port, 0)
    return result


def _odd(column: pa.Array) -> pa.Array:
    return pc.fill_null(pc.or_(pc.less(column, 0), pc.greater(column, 65535)), False)


def _bits(flags: pa.Array | pa.ChunkedArray) -> Ints:
    """TCP flags from "...AP.SF" (the last is FIN), or a number in decimal or hexadecimal."""
    encoded = _flows.encode(flags)
    values = [_mask(value) for value in encoded.dictionary.to_pylist()]
    result: Ints = np.array([*values, 0], np.int64)[np.asarray(encoded.indices.fill_null(len(values)))]
    return result


def _mask(text: str) -> int:
    text = text.strip()
    try:
        return int(text, 0) & 0xFF
    except ValueError:
        return sum({_FLAGS.get(letter, 0) for letter in text.upper()})
