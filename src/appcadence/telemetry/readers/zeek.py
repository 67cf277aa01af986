"""Zeek logs: connections become flows, named by the ssl, quic, http and dns logs beside them.

Reads TSV and JSON logs, plain or gzip, rotated, in any order, and copies with a plain header line.
Labels of labelled copies are not read. Only connections opened by a local address become flows: one in
`local_nets` if any are given; else one that the log calls local (`local_orig`); where the log does not
say, a private address (RFC 1918, RFC 4193). Link-local addresses are not private in this sense: what
stays on one link is service discovery, not an app's destination.

Names come from the logs given in the same call only. A name from a connection's own handshake or
request is "observed"; one from a DNS answer to the same device, whose TTL had not run out when the
connection began, is "passive".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.readers import ReadOptions, _lines, _zeek_json, _zeek_tsv, rejected, tagged
from appcadence.telemetry.readers._zeek_fields import EXPECTED, Rows
from appcadence.telemetry.readers.zeek_names import KINDS, SERVICES, Names
from appcadence.telemetry.schema import FLOWS, TIME
from appcadence.telemetry.schema import NAME as WORD

NAME = "zeek"

RESOLUTION_SECONDS = 1e-6
_LAST_SECOND = 4_102_444_800.0
"""2100-01-01: a later time is a fault of the log."""
_ESTABLISHED = {"SF", "S1", "S2", "S3", "RSTO", "RSTR"}
_FAILED_TCP = {"S0", "REJ", "RSTOS0", "SH"}
_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


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
            yield from _bad(path, rows.bad_lines, rows.reasons)
            yield "flows", tagged(FLOWS.empty(), path, rows.read, size)
    names.finish()
    for path, kind in kinds.items():
        if kind == "conn":
            for rows, size in _parsed(path, kind):
                flows, lines, reasons = _flows(rows, names, options)
                yield from _bad(path, [*rows.bad_lines, *lines], [*rows.reasons, *reasons])
                yield "flows", tagged(flows, path, rows.read, size)


def _bad(path: Path, lines: Sequence[int], reasons: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    if lines:
        order = np.argsort(lines, kind="stable")
        yield "rejected", rejected(path, [lines[i] for i in order], [reasons[i] for i in order])


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


def _flows(rows: Rows, names: Names, options: ReadOptions) -> tuple[pa.Table, list[int], list[str]]:
    table = rows.table.unify_dictionaries().combine_chunks()
    reasons = _faults(table)
    bad = np.flatnonzero(reasons)
    lines, why = rows.lines[bad].tolist(), [_REASONS[code - 1] for code in reasons[bad]]
    keep = (reasons == 0) & _local(table, options)
    table = table.filter(pa.array(keep)).combine_chunks()
    micros = np.rint(_numbers(table["ts"]) * 1e6).astype(np.int64)
    start = pa.array(micros).cast(TIME)
    codes, kinds = names.of_connections(one_array(table["uid"]))
    observed = codes >= 0
    passive = names.of_addresses(table["id.orig_h"], table["id.resp_h"], micros)
    codes = np.where(observed, codes, passive)
    hosts = _hosts(codes, names.hosts)
    tcp, udp = (
        np.asarray(pc.fill_null(pc.equal(table["proto"].cast(pa.string()), p), False)) for p in ("tcp", "udp")
    )
    word = partial(_words, len(table))
    flows = {
        "start": start,
        "duration_seconds": table["duration"],
        "device_id": _devices(table["id.orig_h"], start, options),
        "app_attribution": word("none"),
        "dest_host": hosts,
        "dest_host_source": _choice(
            ("observed", "passive"), np.where(codes < 0, -1, np.where(observed, 0, 1))
        ),
        "dest_ip": table["id.resp_h"],
        # ICMP has no ports; Zeek puts its codes there.
        "dest_port": pc.if_else(pa.array(tcp | udp), table["id.resp_p"], None).cast(pa.int32()),
        "transport": _choice(("tcp", "udp"), np.where(tcp, 0, np.where(udp, 1, -1))),
        "service": _service(one_array(table["service"]), kinds),
        "outcome": _outcome(one_array(table["conn_state"]), tcp),
        "bytes_out": table["orig_bytes"],
        "bytes_in": table["resp_bytes"],
        "time_resolution_seconds": pa.array(np.full(len(table), RESOLUTION_SECONDS)),
        "source": word("zeek"),
        "source_uid": table["uid"],
    }
    return pa.table(flows), lines, why


_REASONS = (
    "ts is missing",
    "ts is outside 1970 to 2100",
    "an address is missing",
    "the port is out of range",
    "the duration is negative or not finite",
    "a byte count is negative",
)


def _faults(table: pa.Table) -> npt.NDArray[np.int64]:
    """1 + the place in _REASONS of what is wrong with each row, 0 where nothing is."""
    ts, duration = _numbers(table["ts"]), _numbers(table["duration"])
    known = np.asarray(table["duration"].is_valid())
    counts = [table[name].fill_null(0).to_numpy() for name in ("id.resp_p", "orig_bytes", "resp_bytes")]
    nowhere = [np.asarray(table[name].is_null()) for name in ("id.orig_h", "id.resp_h")]
    conditions = [
        np.asarray(table["ts"].is_null()),
        ~((ts >= 0) & (ts < _LAST_SECOND)),
        nowhere[0] | nowhere[1],
        (counts[0] < 0) | (counts[0] > 65535),
        known & ~((duration >= 0) & np.isfinite(duration)),
        (counts[1] < 0) | (counts[2] < 0),
    ]
    return np.select(conditions, [np.int64(i + 1) for i in range(len(conditions))], np.int64(0))


def _local(table: pa.Table, options: ReadOptions) -> npt.NDArray[np.bool_]:
    nets = options.local_nets or _PRIVATE
    encoded = one_array(table["id.orig_h"])
    inside = np.array([_within(value, nets) for value in encoded.dictionary.to_pylist()] + [False])
    result: npt.NDArray[np.bool_] = inside[np.asarray(encoded.indices.fill_null(len(inside) - 1))]
    if not options.local_nets:
        stated = one_array(table["local_orig"])
        result = np.where(np.asarray(stated.is_valid()), np.asarray(stated.fill_null(False)), result)
    return result


def _within(address: str, nets: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in net for net in nets)


def _devices(addresses: pa.ChunkedArray, start: pa.Array, options: ReadOptions) -> pa.Array | pa.ChunkedArray:
    if options.device_id is not None:
        return _words(len(start), options.device_id)
    return options.devices.lookup(addresses, start) if options.devices else addresses


def _hosts(codes: npt.NDArray[np.int32], hosts: Sequence[str]) -> pa.DictionaryArray:
    used = np.unique(codes[codes >= 0])
    return _choice([hosts[code] for code in used], np.where(codes < 0, -1, np.searchsorted(used, codes)))


def _service(service: pa.DictionaryArray, kinds: npt.NDArray[np.int8]) -> pa.DictionaryArray:
    """The service Zeek saw; what a name log proves comes first."""
    stated = [_service_name(value) for value in service.dictionary.to_pylist()]
    values = list(dict.fromkeys([*SERVICES, *(value for value in stated if value)]))
    codes = np.array([values.index(value) if value else -1 for value in stated] + [-1])
    index = codes[np.asarray(service.indices.fill_null(len(stated)))]
    # A proxied connection is in the http log too, but is TLS once Zeek says so.
    proven = (kinds >= 0) & ~((kinds == KINDS.index("http")) & (index >= 0))
    return _choice(values, np.where(proven, kinds, index))


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
    return _choice(("established", "failed", "unknown"), np.where((index == 1) & ~tcp, 2, index))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(column.to_numpy(), np.float64)


def _words(count: int, value: str) -> pa.DictionaryArray:
    return _choice((value,), np.zeros(count, np.int32))


def _choice(values: Sequence[str], codes: npt.NDArray[np.integer]) -> pa.DictionaryArray:
    """A word a row: values[code], null where the code is -1."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string())).cast(WORD)
