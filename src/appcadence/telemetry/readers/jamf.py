"""Jamf Security Cloud's Network Traffic Stream: one JSON line a DNS lookup of a device.

Each lookup becomes a flow of service "dns" to the host that was asked for. That is context, not a
channel: what the device did with the answer is not in the stream, and no app, bytes, duration or port is.

**A cadence cannot be read from lookups alone.** The device keeps an answer for its TTL and asks again
only after it, so a beacon faster than the TTL shows as one lookup a TTL, whatever its own period. The TTL
is therefore kept as the `time_resolution_seconds` of the row: contacts with the host are known no
finer. Lookups of other types (A, AAAA, HTTPS) for one contact are rows of their own.

Records of devices stated to run something else than iOS or iPadOS are passed over, as are events that are
no DNS lookups. The user's name and address, the account and the device's own address are not read. The
device is `deviceId`; `--devices` may map it to the name that other logs use.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.names import choice, constant
from appcadence.telemetry.readers import ReadOptions, _flows
from appcadence.telemetry.readers._columns import Columns, JsonFlows
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


def _fits(row: dict[str, Any]) -> bool:
    event = row.get("event")
    metadata = event.get("metadata") if isinstance(event, dict) else None
    return isinstance(metadata, dict) and metadata.get("product") == _PRODUCT


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    get = Columns(rows)
    get.keep_ios("event.device.osType")
    # Of other events not even the struct of a lookup is there.
    get.keep(pc.or_(get.raw("event.dns.ttl").is_valid(), get.raw("event.dns.responseStatus").is_valid()))
    status = pc.fill_null(get.raw("event.dns.responseStatus"), "")
    refused = pc.fill_null(get.raw("event.blocked"), False)
    codes = np.select([refused, pc.equal(status, "NOERROR"), pc.equal(status, "")], [1, 0, 2], 1)
    ttl = pc.fill_null(get.raw("event.dns.ttl"), 0)
    get.fault(pc.less(ttl, 0), "event.dns.ttl is negative")
    get.fault(pc.greater(ttl, _MAX_TTL), "event.dns.ttl is longer than any (RFC 2181)")
    host = get.destination(get.text("event.hostName"))
    columns = {
        "start": get.time("event.timestamp"),
        "device": get.text("event.device.deviceId"),
        "dest_host": host["dest_host"],
        "dest_host_source": host["dest_host_source"],
        "service": constant(len(ttl), "dns"),
        "outcome": choice(_flows.OUTCOMES, codes),
        "time_resolution_seconds": pa.array(np.maximum(ttl.to_numpy().astype(float), RESOLUTION_SECONDS)),
    }
    return get.flows(columns, options, NAME, RESOLUTION_SECONDS, clock="event.timestamp")


_READER = JsonFlows(_EXPECTED, _WANTED, _fits, _finished)
sniff, read = _READER.sniff, _READER.read
