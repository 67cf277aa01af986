"""Zeek logs: connections become flows, named by the ssl, quic, http and dns logs beside them.

Reads TSV and JSON logs, plain or gzip, rotated, in any order, and copies with a plain header line.
Labels of labelled copies are not read. Only connections opened by a local address become flows: one in
`local_nets` if any are given; else one that the log calls local (`local_orig`); where the log does not
say, a private address (RFC 1918, RFC 4193). Link-local addresses are not private in this sense: what
stays on one link is service discovery, not an app's destination.

Names come from the logs given in the same call only (`telemetry.passive_names` names what is left, as a
directory is read). A name from a connection's own handshake or
request is "observed"; one from a DNS answer to the same device, whose TTL had not run out when the
connection began, is "passive".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers import ReadOptions, _flows, _lines, _zeek_json, _zeek_tsv, tagged
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers._zeek_fields import EXPECTED
from appcadence.telemetry.readers.zeek_names import KINDS, Names
from appcadence.telemetry.schema import FLOWS

NAME = "zeek"

RESOLUTION_SECONDS = 1e-6
_ESTABLISHED = {"SF", "S1", "S2", "S3", "RSTO", "RSTR"}
_FAILED_TCP = {"S0", "REJ", "RSTOS0", "SH"}


def sniff(path: Path) -> bool:
    """Whether the file starts like a Zeek log; reads its first 64 kB only and never raises."""
    try:
        _kind(path)
    except TelemetryError:
        return False
    return True


def read(paths: Sequence[Path], options: ReadOptions) -> Iterator[tuple[str, pa.Table]]:
    """Yield flows, and rejected rows, of any number of Zeek logs.

    All names are read before the first connection, so the order of the files does not matter. Logs of
    kinds that hold neither connections nor names are passed over.

    Raises:
        TelemetryError: a file is missing, empty, damaged or no Zeek log, or none is a conn log.
    """
    kinds = {path: _kind(path) for path in paths}
    if "conn" not in kinds.values():
        files = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
        raise TelemetryError(f"no connections in {files}; give the conn log as well")
    names = Names()
    for path, kind in kinds.items():
        if kind == "conn":
            continue
        for rows, size in _parsed(path, kind):
            if kind == "dns":
                names.add_answers(rows.table)
            elif kind in KINDS:
                names.add_connections(kind, rows.table)
            yield from _flows.bad_rows(path, rows.bad_lines, rows.reasons)
            yield "flows", tagged(FLOWS.empty(), path, rows.read, size)
    names.finish()
    for path, kind in kinds.items():
        if kind == "conn":
            for rows, size in _parsed(path, kind):
                flows, lines, reasons = _finished(rows, names, options)
                yield from _flows.bad_rows(path, [*rows.bad_lines, *lines], [*rows.reasons, *reasons])
                yield "flows", tagged(flows, path, rows.read, size)


def _kind(path: Path) -> str:
    head = _lines.head(path, EXPECTED)
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"{"):
        kind = _zeek_json.sniff_kind(head)
    elif head.startswith(b"#") or _zeek_tsv.plain_header(path, head):
        return _zeek_tsv.first_header(path, head).kind
    else:
        kind = None
    if kind is None:
        raise TelemetryError(f"{path} is not {EXPECTED}: it starts with neither #separator, #fields nor ts")
    return kind


def _parsed(path: Path, kind: str) -> Iterator[tuple[Rows, int]]:
    """The rows of a log, block by block, each with the bytes of the file read for it."""
    header = None
    for block in _lines.blocks(path, EXPECTED):
        if block.line == 1 and block.data.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"{"):
            header = None
        elif block.line == 1:
            header = _zeek_tsv.plain_header(path, block.data) or _zeek_tsv.Header(kind=kind)
        if header is None:
            yield _zeek_json.parse(block, kind), block.size
            continue
        size = block.size
        for after, rows in _zeek_tsv.parse(path, block, header):
            header = after
            if rows.read or size:
                yield rows, size
            size = 0


_DRAFT = {
    "uid": "source_uid",
    "id.orig_h": "device",
    "id.resp_h": "dest_ip",
    "duration": "duration_seconds",
    "orig_bytes": "bytes_out",
    "resp_bytes": "bytes_in",
}


def _finished(rows: Rows, names: Names, options: ReadOptions) -> tuple[pa.Table, list[int], list[str]]:
    table = rows.table.unify_dictionaries().combine_chunks()
    transport, tcp, udp = _flows.transports(table["proto"])
    columns = {_DRAFT[name]: table[name] for name in _DRAFT}
    columns["start"] = _flows.micros(table["ts"])
    columns["transport"] = transport
    # ICMP has no ports; Zeek puts its codes there.
    columns["dest_port"] = pc.if_else(pa.array(tcp | udp), table["id.resp_p"], None)
    columns["outcome"] = _outcome(one_array(table["conn_state"]), tcp)
    columns["service"] = _flows.translate(table["service"], _service_name)
    draft, lines, reasons = _flows.screen(
        pa.table(columns), rows.lines, options, clock="ts", stated=table["local_orig"]
    )
    return _flows.canonical(names.named(draft), options, NAME, RESOLUTION_SECONDS), lines, reasons


def _service_name(text: str) -> str | None:
    """One service of Zeek's comma-separated list: the outermost protocol worth telling apart."""
    parts = [part for part in text.lower().split(",") if part and not part.startswith("-")]
    for zeek, ours in (("quic", "quic"), ("gquic", "quic"), ("ssl", "tls")):
        if zeek in parts:
            return ours
    return parts[0] if parts else None


def _outcome(state: pa.DictionaryArray, tcp: npt.NDArray[np.bool_]) -> pa.DictionaryArray:
    names = state.dictionary.to_pylist()
    codes = np.array([0 if n in _ESTABLISHED else 1 if n in _FAILED_TCP else 2 for n in names] + [2])
    index = codes[np.asarray(state.indices.fill_null(len(names)))]
    return _flows.choice(_flows.OUTCOMES, np.where((index == 1) & ~tcp, 2, index))
