"""Zeek logs: connections become flows, named by the ssl, quic, http and dns logs beside them.

Reads TSV and JSON logs, plain or gzip, rotated, in any order, and copies with a plain header line. Labels of
labelled copies are not read. Only connections opened by a local address become flows: an address in
`local_nets` if any are given, otherwise one that the log calls local (`local_orig`) or, if the log does not
say, a private one (RFC 1918, RFC 4193). Link-local addresses are not private in this sense: traffic that
stays on one link is service discovery, not an app's destination.

Names come only from logs given in the same call (`telemetry.passive_names` adds names when a directory is
read). A name from a connection's own handshake or request is "observed"; a name from a DNS answer to the same
device, whose TTL had not run out when the connection began, is "passive".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.errors import UnusableFile
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.leases import HardwareAddresses
from appcadence.telemetry.listing import listed
from appcadence.telemetry.names import choice, translate, value_of
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _lines, _zeek_json, _zeek_tsv
from appcadence.telemetry.readers._hosts import TOO_LONG, too_long
from appcadence.telemetry.readers._json_layout import blocks
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers._midstream import turned
from appcadence.telemetry.readers._zeek_fields import EXPECTED, STREAM
from appcadence.telemetry.readers.zeek_names import NAME_FIELDS, Names

NAME = "zeek"

RESOLUTION_SECONDS = 1e-6
_ESTABLISHED = {"SF", "S1", "S2", "S3", "RSTO", "RSTR"}
_FAILED_TCP = {"S0", "REJ", "RSTOS0", "SH"}


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file starts like a Zeek log; never raises."""
    return _zeek_tsv.is_text(start) or _zeek_json.sniff_kind(start) is not None


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected rows, of any number of Zeek logs.

    All names are read before the first connection, so the order of the files does not matter. Logs of
    kinds without connections or names are passed over.

    Raises:
        UnusableFile: a file is missing, empty, damaged or no Zeek log, or no file is a conn log.
    """
    kinds = {path: _kind(path) for path in paths}
    if not {"conn", STREAM} & {*kinds.values()}:
        files = listed([str(path) for path in paths])
        raise UnusableFile(f"there are no connections in {files}; give the conn log as well", *paths)
    names = Names()
    finish = partial(_finished, names=names, options=options)
    for path, kind in kinds.items():
        if kind != "conn":
            for part, rows in _parsed(path, kind):
                if part != "conn":
                    gather = partial(_gathered, names=names, kind=part)
                    yield from _flows.flows_of(path, [rows], gather, options)
    names.finish()
    for path, kind in kinds.items():
        if kind in ("conn", STREAM):
            connections = (rows for part, rows in _parsed(path, kind) if part == "conn")
            yield from _flows.flows_of(path, connections, finish, options)


def hardware_addresses(path: Path, found: HardwareAddresses) -> None:
    """Add the MAC addresses of a log, if its connections have any.

    Raises:
        UnusableFile: as `read`.
    """
    if b"orig_l2_addr" not in _lines.head(path, EXPECTED):
        return
    for part, rows in _parsed(path, _kind(path)):
        if part == "conn":
            start = _flows.micros(rows.table["ts"])
            opened, macs = (one_array(rows.table[name]) for name in ("id.orig_h", "orig_l2_addr"))
            found.add(opened, macs, start)


def _kind(path: Path) -> str:
    start = _lines.head(path, EXPECTED)
    if _zeek_tsv.is_text(start):
        return _zeek_tsv.kind(path, start)
    kind = _zeek_json.sniff_kind(start)
    if kind is None:
        raise UnusableFile(
            f"{path} is not {EXPECTED}: it starts with neither #separator, #fields nor ts", path
        )
    return kind


def _parsed(path: Path, kind: str) -> Iterator[tuple[str, Rows]]:
    """The rows of a log in parts, each with its kind."""
    if _zeek_tsv.is_text(_lines.head(path, EXPECTED)):
        yield from ((kind, rows) for rows in _zeek_tsv.rows(path, kind))
        return
    for block in blocks(path, EXPECTED):
        found = _zeek_json.parts(block) if kind == STREAM else {kind: block}
        yield from ((part, _zeek_json.parse(some, part)) for part, some in found.items())


def _gathered(rows: Rows, names: Names, kind: str) -> _flows.Finished:
    """Add the names of a log that is no conn log; it gives no flows."""
    if kind not in NAME_FIELDS:
        return _flows.Finished(_flows.NONE, [], {"other_kind": len(rows.table)})
    names.add(kind, rows.table)
    bad = [(line, TOO_LONG) for line in rows.lines[too_long(rows.table[NAME_FIELDS[kind]])].tolist()]
    return _flows.Finished(_flows.NONE, bad, {"names": len(rows.table) - len(bad)})


_DRAFT = {
    "uid": "source_uid",
    "id.orig_h": "device",
    "id.resp_h": "dest_ip",
    "duration": "duration_seconds",
    "orig_bytes": "bytes_out",
    "resp_bytes": "bytes_in",
}


def _finished(rows: Rows, names: Names, options: ReadOptions) -> _flows.Finished:
    table = rows.table.unify_dictionaries().combine_chunks()
    transport, tcp, udp = _flows.transports(table["proto"])
    columns = {_DRAFT[name]: table[name] for name in _DRAFT}
    columns["start"] = _flows.micros(table["ts"])
    columns["transport"] = transport
    # ICMP has no ports; Zeek puts its codes there.
    for name, field in (("dest_port", "id.resp_p"), ("device_port", "id.orig_p")):
        columns[name] = pc.if_else(pa.array(tcp | udp), table[field], None)
    columns["outcome"] = _outcome(table["conn_state"], tcp)
    columns["service"] = translate(table["service"], _service_name)
    unopened = tcp & value_of(table["history"], lambda text: not {"S", "^"} & set(text), False)
    flipped = turned(columns, unopened, options)
    return _flows.finished(
        columns,
        rows.lines,
        options,
        NAME,
        RESOLUTION_SECONDS,
        complete=names.named,
        clock="ts",
        stated=pc.if_else(pa.array(flipped), None, table["local_orig"]),
    )


def _service_name(text: str) -> str | None:
    """One service from Zeek's comma-separated list: the outermost protocol of interest."""
    parts = [part for part in text.lower().split(",") if part and not part.startswith("-")]
    for zeek, ours in (("quic", "quic"), ("gquic", "quic"), ("ssl", "tls")):
        if zeek in parts:
            return ours
    return parts[0] if parts else None


def _outcome(state: pa.ChunkedArray, tcp: Mask) -> pa.DictionaryArray:
    codes = value_of(state, lambda name: 0 if name in _ESTABLISHED else 1 if name in _FAILED_TCP else 2, 2)
    return choice(_flows.OUTCOMES, np.where((codes == 1) & ~tcp, 2, codes))
