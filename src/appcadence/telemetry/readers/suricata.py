"""Suricata's EVE JSON lines: `flow` events become flows, named by the tls, quic, http and dns events.

Reads any number of files, plain or gzip, rotated, in any order; each is read twice, first for names, then
for flows. Events of other types (netflow, which has no outcome, alert, stats ...) are passed over. Names
join flows on `flow_id`; a DNS answer, of version 1, 2 or 3, names later flows of the same device to the
address until its TTL has run out ("passive"). Only flows opened by a local address count, as in Zeek's
reader. URLs, user agents, certificates and the like are not read.

The bytes are those of whole packets, headers included, so higher than Zeek's. A flow event is written
when Suricata lets go of the flow: one still open at the end of the log is not in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.arrays import Ints, one_array
from appcadence.telemetry.readers import ReadOptions, _flows, _hosts, _json, _lines, _text, tagged
from appcadence.telemetry.readers._flows import Mask
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers.zeek_names import Names
from appcadence.telemetry.schema import NAME as WORD

NAME = "suricata"

RESOLUTION_SECONDS = 1e-6
_EXPECTED = "Suricata EVE JSON lines"
_TEXT, _COUNT = pa.string(), pa.int64()
_ANSWER = [("rrtype", _TEXT), ("rdata", _TEXT), ("ttl", _COUNT)]
_NAMES = {
    "event_type": WORD,
    "timestamp": _TEXT,
    "flow_id": _COUNT,
    "src_ip": WORD,
    "src_port": _COUNT,
    "dest_ip": WORD,
    "tls": pa.struct([("sni", _TEXT)]),
    "quic": pa.struct([("sni", _TEXT)]),
    "http": pa.struct([("hostname", _TEXT)]),
    "dns": pa.struct(
        [
            ("rrname", _TEXT),
            *_ANSWER,
            ("answers", pa.list_(pa.struct(_ANSWER))),
            ("queries", pa.list_(pa.struct([("rrname", _TEXT)]))),
        ]
    ),
}
_FLOWS = {
    "event_type": WORD,
    "flow_id": _COUNT,
    "src_ip": WORD,
    "dest_ip": WORD,
    "dest_port": _COUNT,
    "proto": WORD,
    "app_proto": WORD,
    "flow": pa.struct(
        [
            ("bytes_toserver", _COUNT),
            ("bytes_toclient", _COUNT),
            ("start", _TEXT),
            ("end", _TEXT),
            ("state", _TEXT),
        ]
    ),
    "tcp": pa.struct([("tcp_flags_ts", _TEXT), ("tcp_flags_tc", _TEXT)]),
}
_OWN = {"tls": "tls", "quic": "quic", "http": "http", "http2": "http", "dns": "dns", "doh2": "dns"}
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


def sniff(path: Path) -> bool:
    """Whether the first lines are EVE events; never raises."""
    return _json.sniff(path, _EXPECTED, _fits)


def read(paths: Sequence[Path], options: ReadOptions) -> Iterator[tuple[str, pa.Table]]:
    """Yield flows, and rejected events.

    Raises:
        TelemetryError: a file is missing, empty, damaged or holds no EVE events.
    """
    for path in paths:
        _json.check(path, _EXPECTED, _fits)
    names = Names()
    for path in paths:
        for block in _lines.blocks(path, _EXPECTED):
            rows = _json.parse(block, _NAMES, partial(_only, ("tls", "quic", "http", "dns")))
            _add(names, rows.table)
            # What is no JSON is reported with the flows.
            bad = [i for i, reason in enumerate(rows.reasons) if reason != _json.NO_OBJECT]
            yield from _flows.bad_rows(path, [rows.bad_lines[i] for i in bad], [rows.reasons[i] for i in bad])
            yield "flows", tagged(_flows.NONE, path, 0, block.size // 2)
    names.finish()
    for path in paths:
        for block in _lines.blocks(path, _EXPECTED):
            rows = _json.parse(block, _FLOWS, partial(_only, ("flow",)))
            flows, lines, reasons = _finished(rows, names, options)
            yield from _flows.bad_rows(path, [*rows.bad_lines, *lines], [*rows.reasons, *reasons])
            yield "flows", tagged(flows, path, rows.read, block.size - block.size // 2)


def _fits(row: dict[str, Any]) -> bool:
    return isinstance(row.get("event_type"), str) and isinstance(row.get("timestamp"), str)


def _only(types: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    return row if row.get("event_type") in types else {}


def _add(names: Names, table: pa.Table) -> None:
    kinds = table["event_type"].cast(pa.string())
    for kind, field, ours in (("tls", "sni", "ssl"), ("quic", "sni", "quic"), ("http", "hostname", "http")):
        part = table.filter(pc.equal(kinds, kind))
        if len(part):
            host = one_array(pc.struct_field(part[kind], field)).dictionary_encode()
            column = "host" if ours == "http" else "server_name"
            names.add_connections(ours, pa.table({"uid": part["flow_id"].cast(pa.string()), column: host}))
    part = table.filter(pc.equal(kinds, "dns"))
    if len(part):
        _add_answers(names, part)


def _add_answers(names: Names, table: pa.Table) -> None:
    dns = one_array(table["dns"])
    field = partial(pc.struct_field, dns)
    micros, _ = _text.times(table["timestamp"])
    # An answer comes from the resolver; version 3 gives the ends of the question.
    answered = np.asarray(pc.fill_null(pc.equal(table["src_port"], 53), False))
    ends = [_flows.translate(table[name], _hosts.address).cast(pa.string()) for name in ("dest_ip", "src_ip")]
    device = pc.if_else(pa.array(answered), *ends)
    queries = field("queries")
    asked = pc.struct_field(pc.list_flatten(queries), "rrname")
    first = pc.fill_null(pc.list_value_length(queries), 0).to_numpy()
    place = np.cumsum(first) - first
    version3 = pc.take(asked, pa.array(place, mask=first == 0))
    name = pc.coalesce(field("rrname"), version3)
    answers = field("answers")
    parent = pc.list_parent_indices(answers)
    items = pc.list_flatten(answers)
    alone = pa.array(np.flatnonzero(np.asarray(field("rdata").is_valid())))
    rows = pa.concat_arrays([parent.cast(pa.int64()), alone.cast(pa.int64())])
    data = pa.concat_arrays([pc.struct_field(items, "rdata"), field("rdata").take(alone)])
    ttl = pa.concat_arrays([pc.struct_field(items, "ttl"), field("ttl").take(alone)])
    data = _flows.translate(data, _hosts.address).cast(pa.string())
    offsets = pa.array(np.arange(len(rows) + 1), pa.int32())
    seconds = pc.divide(micros.cast(pa.float64()), 1e6)
    names.add_answers(
        pa.table(
            {
                "ts": seconds.take(rows),
                "id.orig_h": device.take(rows).dictionary_encode(),
                "query": name.take(rows).dictionary_encode(),
                "answers": pa.ListArray.from_arrays(offsets, data),
                "TTLs": pa.ListArray.from_arrays(offsets, ttl.cast(pa.float64())),
            }
        )
    )


def _finished(rows: Rows, names: Names, options: ReadOptions) -> tuple[pa.Table, list[int], list[str]]:
    is_flow = np.asarray(pc.fill_null(pc.equal(rows.table["event_type"].cast(pa.string()), "flow"), False))
    table = rows.table.filter(pa.array(is_flow)).combine_chunks()
    flow = one_array(table["flow"])
    start, no_start = _text.times(pc.struct_field(flow, "start"))
    end, no_end = _text.times(pc.struct_field(flow, "end"))
    transport, tcp, udp = _flows.transports(table["proto"])
    columns = {
        "start": start,
        "duration_seconds": pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6),
        "device": _flows.translate(table["src_ip"], _hosts.address),
        "dest_ip": _flows.translate(table["dest_ip"], _hosts.address),
        "dest_port": pc.if_else(pa.array(tcp | udp), table["dest_port"], None),
        "transport": transport,
        "service": _flows.translate(table["app_proto"], _service),
        "outcome": _outcome(table, tcp),
        "bytes_out": pc.struct_field(flow, "bytes_toserver"),
        "bytes_in": pc.struct_field(flow, "bytes_toclient"),
        "source_uid": table["flow_id"].cast(pa.string()),
    }
    faults = [(no_start, "flow.start is not a time"), (no_end, "flow.end is not a time")]
    draft, lines, reasons = _flows.screen(
        pa.table(columns), rows.lines[is_flow], options, clock="flow.start", also=faults
    )
    return _flows.canonical(names.named(draft), options, NAME, RESOLUTION_SECONDS), lines, reasons


def _service(app_proto: str) -> str | None:
    return None if app_proto in ("failed", "unknown", "") else _OWN.get(app_proto, app_proto)


def _outcome(table: pa.Table, tcp: Mask) -> pa.DictionaryArray:
    """From the TCP flags of both sides; where there are none, from the state and the bytes that came back."""
    flags = one_array(table["tcp"])
    ours, theirs = (pc.struct_field(flags, name) for name in ("tcp_flags_ts", "tcp_flags_tc"))
    known = np.asarray(ours.is_valid()) & np.asarray(theirs.is_valid())
    sent, got = (_bits(column) for column in (ours, theirs))
    by_flags = np.select(
        [(got & _SYN) > 0, (sent & _SYN) > 0, (got & ~(_RST | _ACK)) > 0, (got == 0) | (sent == 0)],
        [0, 1, 0, 2],
        np.where(got & _RST, 2, 0),
    )
    flow = one_array(table["flow"])
    state = pc.fill_null(pc.struct_field(flow, "state"), "")
    back = np.asarray(pc.fill_null(pc.greater(pc.struct_field(flow, "bytes_toclient"), 0), False))
    fresh, open_ = (np.asarray(pc.is_in(state, pa.array(s))) for s in (["new"], ["established", "bypassed"]))
    closed = np.asarray(pc.equal(state, "closed"))
    by_state = np.select([open_, fresh & tcp, closed & back], [0, np.where(back, 2, 1), 0], 2)
    return _flows.choice(_flows.OUTCOMES, np.where(tcp & known, by_flags, by_state))


def _bits(text: pa.Array) -> Ints:
    encoded = _flows.encode(text)
    values = [_hexadecimal(value) for value in encoded.dictionary.to_pylist()]
    result: Ints = np.array([*values, 0], np.int64)[np.asarray(encoded.indices.fill_null(len(values)))]
    return result


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16) & 0xFF
    except ValueError:
        return 0
