"""Records of nfdump from JSON or CSV, block by block, as tables of the columns that flows need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints, Mask
from appcadence.errors import UnusableFile
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import Column, choice, translate, value_of
from appcadence.telemetry.readers import _csv, _flows, _json, _lines, _pairs, _text
from appcadence.telemetry.readers._columns import Columns, seconds_between
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
    "src_addr": ("sa", "srcaddr"),
    "dst_addr": ("da", "dstaddr"),
    "src_port": ("sp", "srcport"),
    "dst_port": ("dp", "dstport"),
    "in_bytes": ("ibyt", "inbytes", "bytes"),
    "out_bytes": ("obyt", "outbytes"),
    "tcp_flags": ("flg", "flags", "tcpflags"),
}
_REQUIRED = ("first", "proto", "src_addr", "dst_addr", "src_port", "dst_port", "in_bytes")
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
    """Whether a file with this start is output in JSON; an empty array counts."""
    return fits(start, _fits) or "".join(start.decode("ascii", "replace").split()) == "[]"


def is_csv(start: bytes) -> bool:
    """Whether a file with this start is output as CSV."""
    return _csv.fits(start, _CSV, _REQUIRED) and b"\nNo matching flows" not in start


def _fits(row: dict[str, Any]) -> bool:
    timed = "first" in row or "t_first" in row or row.get("type") == "EVENT"
    return timed and "type" in row and not {"sampled", "export_sysid", "in_packets"}.isdisjoint(row)


def parse(path: Path) -> Iterator[tuple[Rows, pa.Table, Columns]]:
    """Yield the original rows block by block, their records (see RECORD), and the columns of these.

    Events are not records. Text that nfdump did not write is among the bad lines of the rows; a value that
    does not fit is reported in the column `fault`.

    Raises:
        UnusableFile: the file is missing, empty, damaged, or no output of nfdump.
    """
    start = _lines.head(path, EXPECTED)
    if is_json(start):
        found = _json.rows(path, EXPECTED, _JSON)
    elif start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{")):
        raise UnusableFile(f"{path} is not {EXPECTED}: it does not start with a record of nfdump", path)
    else:
        choose = partial(_csv.choose, path, EXPECTED, _CSV, _REQUIRED)
        found = _csv.read(path, EXPECTED, choose, _csv.delimiter(start), until=b"Summary")
    for rows in found:
        get = Columns(rows)
        yield rows, _records(get), get


def _records(get: Columns) -> pa.Table:
    get.keep(pc.fill_null(pc.equal(get.raw("type").cast(pa.string()), "FLOW"), True))
    _, tcp, udp = _flows.transports(get.raw("proto"))
    start, stamp = _time(get, "first", "t_first")
    lasted = seconds_between(start, _time(get, "last", "t_last")[0])
    # The legacy CSV rounds both times to the second, but not its duration.
    duration = pc.coalesce(get.number("duration"), lasted)
    source, dest = (
        translate(get.text(name, f"{name[:3]}4_addr", f"{name[:3]}6_addr"), canonical)
        for name in ("src_addr", "dst_addr")
    )
    # ICMP has "8.0" in place of a port.
    ports = [_port(get, name, tcp | udp) for name in ("src_port", "dst_port")]
    sizes = [get.whole(name) for name in ("in_bytes", "out_bytes")]
    for name, size in zip(("in_bytes", "out_bytes"), sizes, strict=True):
        get.fault(pc.fill_null(pc.less(size, 0), False), f"{name} is out of range")
    flags = np.where(tcp, value_of(get.raw("tcp_flags"), tcp_flags, 0), 0)
    return record_table(
        get, (source, dest), ports, (tcp, udp), start, duration, pc.match_substring(stamp, "."), sizes, flags
    )


def record_table(
    get: Columns,
    ends: Sequence[Column],
    ports: Sequence[Ints],
    protocols: Sequence[Mask],
    start: pa.Array,
    duration: pa.Array,
    finer: pa.Array,
    sizes: Sequence[pa.Array],
    flags: Ints,
) -> pa.Table:
    """Records (see RECORD) of n rows, with their faults.

    Args:
        get: the rows.
        ends: addresses of source and destination.
        ports: theirs, 0 = none.
        protocols: which rows are TCP and which UDP.
        start: microseconds.
        duration: seconds.
        finer: whether times are finer than whole seconds.
        sizes: bytes of this direction, and of the other if a record has both.
        flags: of TCP.
    """
    tcp, udp = protocols
    places = np.select([mask for mask, _ in get.faults], list(range(len(get.faults))), -1)
    protocol = np.where(tcp, 6, np.where(udp, 17, 0))
    key, greater = _pairs.keys(ends[0], ends[1], ports[0], ports[1], protocol)
    columns = {
        "line": get.lines,
        "fault": choice([reason for _, reason in get.faults], places),
        "key": key,
        "greater": greater,
        "source": ends[0],
        "dest": ends[1],
        "source_port": ports[0],
        "dest_port": ports[1],
        "protocol": protocol,
        "start": start,
        "duration": duration,
        "whole_seconds": pc.invert(finer),
        "size": numbers(sizes[0], -1),
        "received": numbers(sizes[1]),
        "flags": flags,
    }
    arrays = [one_array(pa.chunked_array([columns[f.name]])).cast(f.type) for f in RECORD]
    return pa.Table.from_arrays(arrays, schema=RECORD)


def _time(get: Columns, *names: str) -> tuple[pa.Array, pa.Array]:
    """A time, and its text; `-o csv-fast` counts milliseconds."""
    written = pc.coalesce(*(get.raw(name) for name in names))
    get.local_times |= _text.is_local(pc.replace_substring_regex(written[:1], r"^[0-9]{13}$", "0"))
    plain = _text.iso_times(written)
    if plain is not None:
        return plain, written
    written = pc.replace_substring_regex(written, r"^([0-9]{10})([0-9]{3})$", r"\1.\2")
    micros, bad = _text.times(written)
    get.fault(bad, f"{names[0]} is not a time")
    return micros, written


def numbers(column: pa.Array, default: int = 0) -> Ints:
    """(n,) whole numbers; the default where there is none."""
    result: Ints = np.asarray(column.fill_null(default).to_numpy(zero_copy_only=False)).astype(np.int64)
    return result


def _port(get: Columns, name: str, ported: Mask) -> Ints:
    port = numbers(get.whole(name, ported))
    fits = (port >= 0) & (port <= 65535)
    get.fault(~fits, f"{name} is out of range")
    return np.where(fits, port, 0)


def tcp_flags(text: str) -> int:
    """TCP flags from "...AP.SF" (the last is FIN), or a number in decimal or hexadecimal."""
    text = text.strip()
    try:
        return int(text, 0) & 0xFF
    except ValueError:
        return sum({_FLAGS.get(letter, 0) for letter in text.upper()})
