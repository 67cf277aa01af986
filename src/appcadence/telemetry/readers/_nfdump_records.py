"""Records of nfdump as tables of what a flow needs of them, block by block, from JSON or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import UnusableFile
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import Ints, Mask, one_array
from appcadence.telemetry.names import choice, translate, value_of
from appcadence.telemetry.readers import _csv, _flows, _json, _lines, _pairs, _text
from appcadence.telemetry.readers._json_layout import fits
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.schema import NAME as WORD

EXPECTED = "nfdump's JSON or CSV with a header line"
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
RECORD = pa.schema(
    [
        ("line", pa.int64()),
        ("fault", pa.string()),  # what is wrong with the record itself
        ("key", pa.uint64()),
        ("greater", pa.bool_()),
        ("source", pa.string()),
        ("dest", pa.string()),
        ("source_port", pa.uint16()),
        ("dest_port", pa.uint16()),
        ("protocol", pa.uint8()),  # 0 = neither TCP nor UDP
        ("start", pa.int64()),  # microseconds; null where there is none or no time
        ("duration", pa.float64()),  # seconds, of this direction
        ("whole_seconds", pa.bool_()),
        ("size", pa.int64()),  # -1 = not known
        ("received", pa.int64()),  # what the record itself gives for the other direction; 0 = nothing
        ("flags", pa.uint8()),  # of TCP
    ]
)
"""Columns of the records, one direction each."""
_FLAGS = {letter: 1 << bit for bit, letter in enumerate("FSRPAUEC")}


def is_json(start: bytes) -> bool:
    """Whether a file that starts so is a print in JSON; an empty array is."""
    return fits(start, _fits) or "".join(start.decode("ascii", "replace").split()) == "[]"


def is_csv(start: bytes) -> bool:
    """Whether a file that starts so is a print as CSV."""
    return _csv.fits(start, _CSV, _REQUIRED)


def _fits(row: dict[str, Any]) -> bool:
    timed = "first" in row or "t_first" in row or row.get("type") == "EVENT"
    return timed and "type" in row and "sampled" in row


def parse(path: Path) -> Iterator[tuple[Rows, pa.Table]]:
    """Block by block the rows as they stand, and their records (see RECORD).

    Events are no records. Text that is none of nfdump's stands in the bad lines of the rows, a value that
    does not fit in the column `fault`.

    Raises:
        UnusableFile: the file is missing, empty, damaged, or no print of nfdump.
    """
    start = _lines.head(path, EXPECTED)
    if is_json(start):
        for rows in _json.rows(path, EXPECTED, _JSON):
            yield rows, _from_json(rows)
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{")):
        raise UnusableFile(f"{path} is not {EXPECTED}: no record of nfdump at its start", path)
    else:
        choose = partial(_csv.choose, path, EXPECTED, _CSV, _REQUIRED)
        for rows in _csv.read(path, EXPECTED, choose, until=b"Summary"):
            yield rows, _from_csv(rows)


def _from_json(rows: Rows) -> pa.Table:
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
    return _put_together(lines, times, None, ends, counts, proto, table["tcp_flags"], [])


def _from_csv(rows: Rows) -> pa.Table:
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
    return _put_together(rows.lines, times, duration, ends, counts, proto, column("tcp_flags"), faults)


def _put_together(
    lines: Ints,
    times: dict[str, pa.Array],
    duration: pa.Array | None,
    ends: dict[str, pa.Array],
    counts: dict[str, pa.Array],
    proto: pa.Array,
    flags: pa.Array | pa.ChunkedArray,
    faults: list[tuple[Mask, str]],
) -> pa.Table:
    start, no_start = _text.times(times["first"])
    end, no_end = _text.times(times["last"])
    lasted = pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6)
    # The legacy CSV rounds both times to the second, its duration not.
    duration = lasted if duration is None else pc.coalesce(duration, lasted)
    _, tcp, udp = _flows.transports(proto)
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
    places = np.select([mask for mask, _ in all_faults], list(range(len(all_faults))), -1)
    source, dest = (translate(ends[name], canonical) for name in ("src", "dst"))
    ports = [_port(counts[name], tcp | udp) for name in ("src_port", "dst_port")]
    protocol = np.where(tcp, 6, np.where(udp, 17, 0))
    key, greater = _pairs.keys(source, dest, ports[0], ports[1], protocol)
    fine = pc.fill_null(pc.match_substring(times["first"], "."), False)
    columns = {
        "line": lines,
        "fault": choice([reason for _, reason in all_faults], places),
        "key": key,
        "greater": greater,
        "source": source,
        "dest": dest,
        "source_port": ports[0],
        "dest_port": ports[1],
        "protocol": protocol,
        "start": start,
        "duration": duration,
        "whole_seconds": ~np.asarray(fine),
        "size": numbers(counts["in_bytes"], -1),
        "received": numbers(counts["out_bytes"]),
        "flags": np.where(tcp, value_of(flags, _bits, 0), 0),
    }
    arrays = [one_array(pa.chunked_array([columns[f.name]])).cast(f.type) for f in RECORD]
    return pa.Table.from_arrays(arrays, schema=RECORD)


def numbers(column: pa.Array, default: int = 0) -> Ints:
    """(n,) whole numbers, the default where there is none."""
    result: Ints = np.asarray(column.fill_null(default).to_numpy(zero_copy_only=False)).astype(np.int64)
    return result


def _port(column: pa.Array, ported: Mask) -> Ints:
    port = numbers(column)
    result: Ints = np.where(ported & (port >= 0) & (port <= 65535), port, 0)
    return result


def _odd(column: pa.Array) -> pa.Array:
    return pc.fill_null(pc.or_(pc.less(column, 0), pc.greater(column, 65535)), False)


def _bits(text: str) -> int:
    """TCP flags from "...AP.SF" (the last is FIN), or a number in decimal or hexadecimal."""
    text = text.strip()
    try:
        return int(text, 0) & 0xFF
    except ValueError:
        return sum({_FLAGS.get(letter, 0) for letter in text.upper()})
