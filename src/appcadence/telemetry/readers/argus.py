"""Argus flows as CSV with a header line (`ra -c ,`), among them the .binetflow files of the CTU data sets.

Columns are found by name, in any order and case: StartTime, Proto, SrcAddr, Sport, Dir, DstAddr, Dport, and
if present Dur or LastTime, State, TotPkts or SrcPkts and DstPkts, TotBytes, SrcBytes, DstBytes. Others,
including labels, are not read. The default columns of `ra` lack Dur and SrcBytes, so that neither durations
nor the bytes of each side are known. StartTime is a count of seconds since 1970, or a date with year and
time, in UTC if it has no offset: `ra` prints the local time of its machine, so export with `TZ=UTC` or with
`-u`. A row whose time has no date is rejected.

Only flows opened by a local address count. `<-` swaps source and destination. If Argus did not see who opened
the connection (`?`), it is the side with the local address, provided that the other has the lower port. UDP
to port 53 is taken for DNS. Bytes are those on the wire, headers included, so higher than Zeek's. Argus
exports a flow at each status interval; the feature step joins the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Mask
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.names import choice, translate, value_of
from appcadence.telemetry.readers import Batches, ReadOptions, _csv, _flows, _lines, _text
from appcadence.telemetry.readers._columns import Columns, seconds_between
from appcadence.telemetry.readers._lines import Rows

NAME = "argus"

RESOLUTION_SECONDS = 1e-6
_EXPECTED = "Argus CSV with a header line (StartTime, Dur, Proto, SrcAddr, ...)"
_REQUIRED = ("starttime", "proto", "srcaddr", "sport", "dir", "dstaddr", "dport")
_COUNTS = ("totpkts", "totbytes", "srcbytes", "dstbytes", "srcpkts", "dstpkts")
_COLUMNS = {name: (name,) for name in (*_REQUIRED, "lasttime", "dur", "state", *_COUNTS)}
_NO_FLOWS = ("man", "arp", "rarp", "llc", "eapol")
_OPEN = ("CON", "EST", "ACC", "FIN", "CLO", "RSP")


def sniff(path: Path, start: bytes) -> bool:
    """Whether the first line names the columns of Argus; never raises."""
    return _csv.fits(start, _COLUMNS, _REQUIRED)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected rows.

    Raises:
        UnusableFile: a file is missing, empty, damaged, or lacks a column.
    """
    for path in paths:
        choose = partial(_csv.choose, path, _EXPECTED, _COLUMNS, _REQUIRED)
        delimiter = _csv.delimiter(_lines.head(path, _EXPECTED))
        parsed = _csv.read(path, _EXPECTED, choose, delimiter)
        yield from _flows.flows_of(path, parsed, partial(_finished, options=options), options)


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    get = Columns(rows)
    get.keep(pa.array(value_of(get.text("proto"), _of_ip, True)))
    transport, tcp, udp = _flows.transports(get.text("proto"))
    packets, total, sent, answered, *either = (get.whole(name) for name in _COUNTS)
    packets = pc.coalesce(packets, pc.add(*either))
    start, undated = _text.times(get.raw("starttime"))
    get.local_times = _text.is_local(get.raw("starttime"))
    get.fault(undated, "starttime is not a time (export with ra -u)")
    ports = [_port(get, name, tcp | udp) for name in ("sport", "dport")]
    ends = [translate(get.text(name), canonical).cast(pa.string()) for name in ("srcaddr", "dstaddr")]
    turned = pa.array(_turned(get.text("dir"), ends, ports, options))
    answered = pc.coalesce(answered, pc.subtract(total, sent))
    port = pc.if_else(turned, *ports)
    columns = {
        "start": start,
        "duration_seconds": pc.coalesce(get.number("dur"), seconds_between(start, get.time("lasttime"))),
        "device": pc.if_else(turned, *ends[::-1]).dictionary_encode(),
        "dest_ip": pc.if_else(turned, *ends).dictionary_encode(),
        "dest_port": port,
        "device_port": pc.if_else(turned, *ports[::-1]),
        "transport": transport,
        "service": _flows.dns_by_port(port, udp),
        "outcome": _outcome(get.text("state"), packets, sent, answered, tcp),
        "bytes_out": pc.if_else(turned, answered, sent),
        "bytes_in": pc.if_else(turned, sent, answered),
    }
    return get.flows(columns, options, NAME, RESOLUTION_SECONDS, clock="starttime", addresses=True)


def _of_ip(proto: str) -> bool:
    """Whether a protocol runs over IP; `ra -nn` prints the EtherType of others as a number."""
    return int(proto) < 256 if proto.isdecimal() else proto.lower() not in _NO_FLOWS


def _port(get: Columns, name: str, ported: Mask) -> pa.Array:
    decimal = translate(get.text(name), _decimal).cast(pa.string())
    port, bad = _text.whole(pc.if_else(pa.array(ported), decimal, None))
    get.fault(bad, f"{name} is not a number (export with ra -n)")
    return port


def _decimal(text: str) -> str:
    try:
        return str(int(text, 16)) if text.lower().startswith("0x") else text
    except ValueError:
        return text


def _turned(
    arrow: pa.DictionaryArray, ends: Sequence[pa.Array], ports: Sequence[pa.Array], options: ReadOptions
) -> Mask:
    """Whether the destination opened the flow."""
    back = np.asarray(pc.fill_null(pc.equal(arrow, "<-"), False))
    unseen = np.asarray(pc.fill_null(pc.match_substring(arrow.cast(pa.string()), "?"), False))
    source, dest = (_flows.local(end, options) for end in ends)
    lower = np.asarray(pc.fill_null(pc.less(ports[0], ports[1]), False))
    result: Mask = back | (unseen & ~source & dest & lower)
    return result


def _outcome(
    state: pa.DictionaryArray, packets: pa.Array, sent: pa.Array, answered: pa.Array, tcp: Mask
) -> pa.DictionaryArray:
    judged = np.asarray(translate(state, _judged).cast(pa.string()).fill_null("unknown"))
    # A three-letter state only says that the flow was reset or timed out, so the packets must decide.
    both = np.asarray(pc.fill_null(pc.and_(pc.greater(sent, 0), pc.greater(answered, 0)), False))
    many = np.asarray(pc.fill_null(pc.greater(packets, 3), False))
    counted = np.asarray(packets.is_valid())
    reset = np.where(both & many, 0, np.where(counted, 1, 2))
    silent = np.where(both, 0, np.where(np.asarray(answered.is_valid()), 1, 2))
    codes = np.select(
        [judged == "reset", judged == "silent", judged == "established", judged == "failed"],
        [reset, silent, 0, 1],
        2,
    )
    return choice(_flows.OUTCOMES, np.where((codes == 1) & ~tcp, 2, codes))


def _judged(state: str) -> str:
    """The meaning of a state: "FSPA_FSPA" lists the TCP flags of both sides, "FIN" is the last state."""
    state = state.upper()
    if "_" not in state:
        if state in ("RST", "TIM"):
            return "reset" if state == "RST" else "silent"
        return "established" if state in _OPEN else "failed" if state in ("REQ", "INT") else "unknown"
    source, _, dest = state.partition("_")
    if not dest:
        return "failed" if "S" in source else "unknown"
    return "failed" if "S" in source and set(dest) <= {"R", "A"} else "established"
