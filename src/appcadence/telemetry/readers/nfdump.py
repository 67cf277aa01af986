"""NetFlow and IPFIX records as nfdump prints them: `-o json`, `-o ndjson`, and CSV with a header line.

JSON may be the array of version 1.6 ("t_first", "t_last") and 1.7 ("first", "last"), or one object per line.
CSV is the legacy form of `-o csv` (ts, te, td, sa, da, ...) or the newer one (firstSeen, duration, ...).

A record is one direction. The two records of a connection become one flow if they have the same five-tuple
and are at most ten seconds apart, over all files of the call. The SYNs, the times or, failing these, the
ports show which end opened it (see `_pairs`). Only flows opened by a local address count. If the other
direction was not exported, the bytes received are null. A record that carries both directions itself
(`out_bytes`, `-b` as CSV) is read as such. It is better to print plain records: version 1.7.1 loses the other
direction of `-b` and `-B` in JSON, and a sum over flows (`-A`) is not a flow. Pieces cut by the exporter's
active timeout stay pieces; the feature step joins them.

Each file is read once. The needed parts of records are set aside by five-tuple, on disk if there are more
than half a million (see `_spill`), and come back in pieces of half a million. Within a piece, flows keep the
order of the log; the overall order depends only on the logs. Memory does not grow with the logs. If the
five-tuples in one of 128 shares have more records than a piece holds, they are matched piece by piece in the
order of the logs: that takes one five-tuple with half a million records, or some 67 million records in all.

Times are local to the machine that ran nfdump, without an offset, and are taken for UTC: run it with
`TZ=UTC`. The legacy CSV gives whole seconds. Bytes are those of IP packets, headers included. UDP to port 53
is taken for DNS. Events (NSEL, NAT) are passed over. The `application` of NBAR is a class of traffic, not an
app, and is not read. Some versions of 1.7 print the packets as "in_bytes" in `-o ndjson`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Ints, Mask
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import choice, encode
from appcadence.telemetry.readers import (
    Batches,
    ReadOptions,
    _flows,
    _nfdump_records,
    _pairs,
    rejected,
    tagged,
)
from appcadence.telemetry.readers._columns import Columns
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers._pairs import Matches
from appcadence.telemetry.readers._spill import Spill

NAME = "nfdump"

_CLOCK = "first"
_AT_ONCE = 1 << 18
"""This many records are made into flows at a time."""
_SYN, _ACK = 0x02, 0x10


Parse = Callable[[Path], Iterator[tuple[Rows, pa.Table, Columns]]]
"""From a file to its original rows, block by block, their records (`_nfdump_records.RECORD`), and the columns
that these were made of."""


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file starts like output of nfdump; never raises."""
    return _nfdump_records.is_json(start) or _nfdump_records.is_csv(start)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected records.

    Raises:
        UnusableFile: a file is missing, empty, damaged, or no output of nfdump.
        TelemetryError: there is no room to set the records aside.
    """
    yield from paired(paths, options, _nfdump_records.parse, NAME, _CLOCK)


def paired(
    paths: Sequence[Path], options: ReadOptions, parse: Parse, name: str, clock: str, flagged: bool = True
) -> Batches:
    """As `read`, for one-direction records in any format, which `parse` yields file by file.

    Args:
        paths: the files.
        options: whose flows are wanted.
        parse: reads a file.
        name: of the format.
        clock: what the log calls the start.
        flagged: whether records always have TCP flags; otherwise, no flags means unknown.
    """
    with Spill() as spill:
        later = 0
        for number, path in enumerate(paths):
            for rows, records, get in parse(path):
                if get.local_times:
                    options.said[path, _flows.AS_UTC] = None
                yield from rejected(path, rows.bad)
                file = pa.array(np.full(len(records), number, np.int32))
                spill.add(records.append_column("file", file))
                later += rows.size - rows.size // 2
                yield "flows", tagged(_flows.NONE, path, rows.read, rows.size // 2, get.left_out)
        done = reported = 0
        for records in spill.pieces():
            records = _in_order(records)
            records, matches = _turned(records, _matched(records))
            for at in range(0, len(records), _AT_ONCE):
                files = np.asarray(records["file"].slice(at, _AT_ONCE))
                for file in np.unique(files).tolist():
                    first, last = at + np.searchsorted(files, [file, file + 1])
                    some = records.slice(first, last - first)
                    yield from _finished(
                        paths[file], some, matches.piece(first, last), options, name, clock, flagged
                    )
                done += len(files)
                share = later * done // spill.rows - reported
                reported += share
                yield "flows", tagged(_flows.NONE, paths[0], 0, share)
        if later > reported:
            yield "flows", tagged(_flows.NONE, paths[0], 0, later - reported)


def _in_order(records: pa.Table) -> pa.Table:
    """The records in the order of the logs."""
    file, line = (np.asarray(records[name]) for name in ("file", "line"))
    steps = np.diff(file)
    if ((steps > 0) | ((steps == 0) & (np.diff(line) > 0))).all():
        return records
    return records.take(pa.array(np.lexsort((line, file))))


def _faults(records: pa.Table) -> list[tuple[Mask, str]]:
    found = pc.unique(records["fault"].drop_null()).to_pylist()
    return [(np.asarray(pc.fill_null(pc.equal(records["fault"], reason), False)), reason) for reason in found]


def _finished(
    path: Path,
    records: pa.Table,
    matches: Matches,
    options: ReadOptions,
    name: str,
    clock: str,
    flagged: bool,
) -> Batches:
    """The flows and the rejected rows of some records of a file."""
    column = {name: one_array(records[name]) for name in records.column_names}
    protocol, flags, dest_port, device_port = (
        np.asarray(column[n]) for n in ("protocol", "flags", "dest_port", "source_port")
    )
    tcp, udp = protocol == 6, protocol == 17
    both = pa.array(matches.paired & ~np.asarray(column["start"].is_null()))
    received = np.asarray(column["received"])
    received = np.where(received > 0, received, matches.size)
    sent = np.asarray(column["size"])
    together = pa.array((matches.end - matches.start) / 1e6)
    draft = {
        "start": pc.if_else(both, pa.array(matches.start), column["start"]),
        "duration_seconds": pc.if_else(both, together, column["duration"]),
        "device": encode(column["source"]),
        "dest_ip": encode(column["dest"]),
        "dest_port": pa.array(dest_port, mask=~(tcp | udp)),
        "device_port": pa.array(device_port, mask=~(tcp | udp)),
        "transport": choice(_flows.TRANSPORTS, np.where(tcp, 0, np.where(udp, 1, -1))),
        "service": _flows.dns_by_port(pa.array(dest_port), udp),
        "outcome": _outcome(flags, matches, received > 0, tcp, flagged),
        "bytes_out": pa.array(sent, mask=sent < 0),
        "bytes_in": pa.array(received, mask=received < 0),
        "time_resolution_seconds": pc.if_else(column["whole_seconds"], 1.0, 1e-3),
    }
    aside = [(~matches.opened & matches.paired, "replies"), (~matches.opened, "answers")]
    lines = np.asarray(column["line"])
    how: dict[str, Any] = {"clock": clock, "also": _faults(records), "aside": aside}
    found = _flows.finished(draft, lines, options, name, 1e-3, **how)
    yield from rejected(path, found.bad, found.unnamed)
    yield "flows", tagged(found.flows, path, left_out=found.left_out)


def _matched(records: pa.Table) -> Matches:
    start = _nfdump_records.numbers(one_array(records["start"]))
    length = np.asarray(records["duration"].fill_null(0.0))
    known = np.where((length >= 0) & (length < _flows.LAST_SECOND), length, 0)
    end = start + np.rint(known * 1e6).astype(np.int64)
    same = ("key", "greater", "source_port", "dest_port", "size", "flags")
    taken = {name: np.asarray(records[name]) for name in same}
    # In a record of both directions, the SYN may be from either side.
    taken["flags"] = np.where(
        np.asarray(records["received"]) > 0, taken["flags"] & (0xFF ^ _SYN), taken["flags"]
    )
    return _pairs.match(_pairs.Records(**taken, start=start, end=end))


def _turned(records: pa.Table, matches: Matches) -> tuple[pa.Table, Matches]:
    """Turn records that carry both directions so that the source is the side that opened the connection.

    `nfdump -b` makes them from whichever direction it met first.
    """
    back = (np.asarray(records["received"]) > 0) & ~matches.opened & ~matches.paired
    if not back.any():
        return records, matches
    for one, other in (("source", "dest"), ("source_port", "dest_port"), ("size", "received")):
        places = [records.column_names.index(name) for name in (one, other)]
        ends = [records[name] for name in (one, other)]
        for place, (mine, theirs) in zip(places, (ends, ends[::-1]), strict=True):
            turned = pc.if_else(pa.array(back), theirs, mine)
            records = records.set_column(place, records.schema.field(place), turned)
    return records, replace(matches, opened=matches.opened | back)


def _outcome(flags: Ints, matches: Matches, answered: Mask, tcp: Mask, flagged: bool) -> pa.DictionaryArray:
    """TCP is established once the device acknowledged anything but a reset, or the other end sent a SYN. All
    else, and TCP in a log without flags, is established once it was answered."""
    acked = ((flags & _ACK) > 0) | (((matches.flags & _SYN) > 0) & matches.paired)
    refused = ~acked & ((flags & _SYN) > 0)
    by_tcp = np.select([acked, refused], [0, 1], 2)
    judged = tcp & (flagged | (flags > 0))
    return choice(_flows.OUTCOMES, np.where(judged, by_tcp, np.where(answered, 0, 2)))
