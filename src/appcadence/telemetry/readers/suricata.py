"""Suricata's EVE JSON lines: `flow` events become flows, named by the tls, quic, http and dns events.

Reads any number of files, plain or gzip, rotated, in any order. Each is read twice, first for names, then for
flows. Events of other types (netflow, which has no outcome, alert, stats ...) are passed over. Names are
joined to flows by `flow_id` and both addresses. A DNS answer (version 1, 2 or 3) names later flows of the
same device to the address until its TTL has run out ("passive"). Only flows opened by a local address count,
as in Zeek's reader. URLs, user agents, certificates and the like are not read.

Bytes are those of whole packets, headers included, so higher than Zeek's. Suricata writes a flow event when
it drops the flow, so a flow that is still open at the end of the log is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import choice, translate, value_of
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _json, _text, rejected, tagged
from appcadence.telemetry.readers._columns import Columns, seconds_between
from appcadence.telemetry.readers._hosts import TOO_LONG, too_long
from appcadence.telemetry.readers._json_layout import check, fits
from appcadence.telemetry.readers._lines import Fault, Rows
from appcadence.telemetry.readers._midstream import turned
from appcadence.telemetry.readers.zeek_names import NAME_FIELDS, Names
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
    "src_port": _COUNT,
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
_NAMED = (
    ("tls", "sni", "ssl"),
    ("quic", "sni", "quic"),
    ("http", "hostname", "http"),
    ("dns", "rrname", "dns"),
)
"""Events that name hosts, the field with the name, and the equivalent Zeek log."""
_OWN = {"tls": "tls", "quic": "quic", "http": "http", "http2": "http", "dns": "dns", "doh2": "dns"}
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


def sniff(path: Path, start: bytes) -> bool:
    """Whether the first objects are EVE events; never raises."""
    return fits(start, _fits)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected events.

    Raises:
        UnusableFile: a file is missing, empty, damaged or holds no EVE events.
    """
    for path in paths:
        check(path, _EXPECTED, _fits)
    names = Names()
    for path in paths:
        for rows in _json.rows(path, _EXPECTED, _NAMES, adapt=partial(_only, ("tls", "quic", "http", "dns"))):
            bad = _gathered(names, rows)
            yield from rejected(path, bad, len(bad))
            yield "flows", tagged(_flows.NONE, path, 0, rows.size // 2)
    names.finish()
    for path in paths:
        finish = partial(_finished, names=names, options=options)
        yield from _flows.flows_of(path, _flow_events(path), finish, options)


def _flow_events(path: Path) -> Iterator[Rows]:
    for rows in _json.rows(path, _EXPECTED, _FLOWS, adapt=partial(_only, ("flow",))):
        mine = np.asarray(pc.fill_null(pc.equal(rows.table["event_type"].cast(pa.string()), "flow"), False))
        yield replace(
            rows,
            table=rows.table.filter(pa.array(mine)).combine_chunks(),
            lines=rows.lines[mine],
            read=int(mine.sum()) + len(rows.bad),
            size=rows.size - rows.size // 2,
        )


def _fits(row: dict[str, Any]) -> bool:
    kind = row.get("event_type")
    # Parsers of Apple's unified log have both fields, too, but write kinds in capitals.
    return isinstance(kind, str) and kind.islower() and isinstance(row.get("timestamp"), str)


def _only(types: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    return row if row.get("event_type") in types else {}


def _gathered(names: Names, rows: Rows) -> list[Fault]:
    """Add the names in some events; returns those that cannot be used."""
    # Lines that are no JSON are reported with the flows.
    bad = [(line, reason) for line, reason in rows.bad if reason != _json.NO_OBJECT]
    kinds = rows.table["event_type"].cast(pa.string())
    for event, field, kind in _NAMED:
        mine = pc.fill_null(pc.equal(kinds, event), False)
        part = rows.table.filter(mine)
        if not len(part):
            continue
        if kind == "dns":
            found, asked = _answers(part)
        else:
            asked = one_array(pc.struct_field(part[event], field)).dictionary_encode()
            found = pa.table({"uid": _identity(part), NAME_FIELDS[kind]: asked})
        names.add(kind, found)
        bad += [(line, TOO_LONG) for line in rows.lines[np.asarray(mine)][too_long(asked)].tolist()]
    return bad


def _answers(table: pa.Table) -> tuple[pa.Table, pa.Array]:
    """The answers of DNS events in Zeek's form, and the name that each event asks for."""
    dns = one_array(table["dns"])
    field = partial(pc.struct_field, dns)
    micros, _ = _text.times(table["timestamp"])
    # An answer comes from the resolver; version 3 gives the ends of the question.
    answered = np.asarray(pc.fill_null(pc.equal(table["src_port"], 53), False))
    ends = [translate(table[name], canonical).cast(pa.string()) for name in ("dest_ip", "src_ip")]
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
    data = translate(data, canonical).cast(pa.string())
    offsets = pa.array(np.arange(len(rows) + 1), pa.int32())
    seconds = pc.divide(micros.cast(pa.float64()), 1e6)
    columns = {
        "ts": seconds.take(rows),
        "id.orig_h": device.take(rows).dictionary_encode(),
        "query": name.take(rows).dictionary_encode(),
        "answers": pa.ListArray.from_arrays(offsets, data),
        "TTLs": pa.ListArray.from_arrays(offsets, ttl.cast(pa.float64())),
    }
    return pa.table(columns), name


def _finished(rows: Rows, names: Names, options: ReadOptions) -> _flows.Finished:
    table = rows.table
    flow = one_array(table["flow"])
    get = Columns(rows)
    start = get.time("flow.start")
    transport, tcp, udp = _flows.transports(table["proto"])
    columns = {
        "start": start,
        "duration_seconds": seconds_between(start, get.time("flow.end")),
        "device": translate(table["src_ip"], canonical),
        "dest_ip": translate(table["dest_ip"], canonical),
        "dest_port": pc.if_else(pa.array(tcp | udp), table["dest_port"], None),
        "device_port": pc.if_else(pa.array(tcp | udp), table["src_port"], None),
        "transport": transport,
        "service": translate(table["app_proto"], _service),
        "outcome": _outcome(table, tcp),
        "bytes_out": pc.struct_field(flow, "bytes_toserver"),
        "bytes_in": pc.struct_field(flow, "bytes_toclient"),
        "source_uid": table["flow_id"].cast(pa.string()),
        "identity": _identity(table),
    }
    turned(columns, tcp & _unopened(table), options)
    named = partial(names.named, uid="identity")
    how = {"clock": "flow.start", "addresses": True, "complete": named}
    return get.flows(columns, options, NAME, RESOLUTION_SECONDS, **how)


def _identity(table: pa.Table) -> pa.ChunkedArray:
    """Identifies a flow: two sensors may use the same flow_id, and give the two ends in any order."""
    ends = [pc.fill_null(table[name].cast(pa.string()), "") for name in ("src_ip", "dest_ip")]
    low, high = pc.min_element_wise(*ends), pc.max_element_wise(*ends)
    return pc.binary_join_element_wise(table["flow_id"].cast(pa.string()), low, high, " ")


def _unopened(table: pa.Table) -> Mask:
    """(n,) flows whose opening was not seen: the source sent no SYN, or one that was never answered."""
    flags = one_array(table["tcp"])
    both = [pc.struct_field(flags, name) for name in ("tcp_flags_ts", "tcp_flags_tc")]
    sent, got = (value_of(column, _hexadecimal, 0) for column in both)
    unanswered = ((got & _SYN) == 0) & ((got & _ACK) > 0)
    known: Mask = np.asarray(both[0].is_valid())
    return np.asarray(known & (((sent & _SYN) == 0) | unanswered), np.bool_)


def _service(app_proto: str) -> str | None:
    return None if app_proto in ("failed", "unknown", "") else _OWN.get(app_proto, app_proto)


def _outcome(table: pa.Table, tcp: Mask) -> pa.DictionaryArray:
    """From the TCP flags of both sides or, without flags, from the state and the bytes that came back."""
    flags = one_array(table["tcp"])
    ours, theirs = (pc.struct_field(flags, name) for name in ("tcp_flags_ts", "tcp_flags_tc"))
    known = np.asarray(ours.is_valid()) & np.asarray(theirs.is_valid())
    sent, got = (value_of(column, _hexadecimal, 0) for column in (ours, theirs))
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
    return choice(_flows.OUTCOMES, np.where(tcp & known, by_flags, by_state))


def _hexadecimal(text: str) -> int:
    try:
        return int(text, 16) & 0xFF
    except ValueError:
        return 0
