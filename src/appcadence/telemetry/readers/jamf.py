"""Jamf Security Cloud's Network Traffic Stream: one JSON line a DNS lookup of a device.

Each lookup becomes a flow of service "dns" to the host that was asked for. That is context, not a
channel: what the device did with the answer is not in the stream, and no app, bytes, duration or port is.

**A cadence cannot be read from lookups alone.** The device keeps an answer for its TTL and asks again
only after it, so a beacon faster than the TTL shows as one lookup a TTL, whatever its own period. The TTL
is therefore kept as the `time_resolution_seconds` of the row: contacts with the host are known on no finer
grid. Lookups of other types (A, AAAA, HTTPS) for one contact are rows of their own.

Records of devices stated to run something else than iOS or iPadOS are passed over, as are events that are
no DNS lookups. The user's name and address, the account and the device's own address are not read. The
device is `deviceId`; `--devices` may map it to the name that other logs use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import choice, constant, translate
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _hosts, _json, _text
from appcadence.telemetry.readers._json_layout import fits
from appcadence.telemetry.readers._lines import Rows

NAME = "jamf"

RESOLUTION_SECONDS = 1e-3
_MAX_TTL = 2**31 - 1
_EXPECTED = "Jamf's Network Traffic Stream as JSON lines"
_PRODUCT = "Network Traffic Stream"
_TEXT = pa.string()
_WANTED = {
    "event": pa.struct(
        [
            ("metadata", pa.struct([("product", _TEXT)])),
            ("timestamp", _TEXT),
            ("device", pa.struct([("deviceId", _TEXT), ("osType", _TEXT)])),
            ("hostName", _TEXT),
            ("dns", pa.struct([("responseStatus", _TEXT), ("ttl", pa.int64())])),
            ("blocked", pa.bool_()),
        ]
    )
}


def sniff(path: Path, start: bytes) -> bool:
    """Whether the first objects are events of the stream; never raises."""
    return fits(start, _fits)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows of service "dns", and rejected events.

    Raises:
        UnusableFile: a file is missing, empty, damaged or no such stream.
    """
    for path in paths:
        parsed = _json.rows(path, _EXPECTED, _WANTED, _fits)
        yield from _flows.flows_of(path, parsed, partial(_finished, options=options))


def _fits(row: dict[str, Any]) -> bool:
    event = row.get("event")
    metadata = event.get("metadata") if isinstance(event, dict) else None
    return isinstance(metadata, dict) and metadata.get("product") == _PRODUCT


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    event = one_array(rows.table["event"])
    system = translate(pc.struct_field(event, ["device", "osType"]), lambda text: text.strip() or None)
    apple = pc.match_substring_regex(system.cast(_TEXT), "(?i)^i(pad)?_?os")
    mine = np.asarray(pc.fill_null(apple, True)) & np.asarray(pc.struct_field(event, "dns").is_valid())
    event, lines = event.filter(pa.array(mine)), rows.lines[mine]
    start, no_start = _text.times(pc.struct_field(event, "timestamp"))
    hosts = _hosts.parts(pc.struct_field(event, "hostName"))[0]
    status = pc.fill_null(pc.struct_field(event, ["dns", "responseStatus"]), "")
    blocked = np.asarray(pc.fill_null(pc.struct_field(event, "blocked"), False))
    ttl = pc.fill_null(pc.struct_field(event, ["dns", "ttl"]), 0)
    good = np.asarray(pc.equal(status, "NOERROR"))
    columns = {
        "start": start,
        "device": translate(
            pc.struct_field(event, ["device", "deviceId"]), lambda text: text.strip() or None
        ),
        "dest_host": hosts,
        "dest_host_source": _flows.observed(hosts),
        "service": constant(len(event), "dns"),
        "outcome": choice(
            _flows.OUTCOMES, np.select([blocked, good, np.asarray(pc.equal(status, ""))], [1, 0, 2], 1)
        ),
        "time_resolution_seconds": pa.array(np.maximum(ttl.to_numpy().astype(float), RESOLUTION_SECONDS)),
    }
    faults = [
        (no_start, "timestamp is not a time"),
        (np.asarray(pc.less(ttl, 0)), "dns.ttl is negative"),
        (np.asarray(pc.greater(ttl, _MAX_TTL)), "dns.ttl is longer than any (RFC 2181)"),
    ]
    return _flows.finished(
        columns, lines, options, NAME, RESOLUTION_SECONDS, clock="timestamp", addresses=False, also=faults
    )
