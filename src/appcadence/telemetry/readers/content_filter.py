"""Reports of an on-device content filter, app proxy or per-app VPN: the only source of exact app names.

There is no common format for what such an agent writes down, so this is ours: JSON lines, plain or gzip,
one object a flow.

    {"device_id": "d1", "app": "A1B2C3D4E5.com.example.mail", "open": "2026-11-24T08:00:00.120Z",
     "close": "2026-11-24T08:00:04Z", "host": "imap.example.com", "address": "192.0.2.1", "port": 993,
     "transport": "tcp", "bytes_out": 512, "bytes_in": 2048, "outcome": "established"}

| key | |
|---|---|
| `device_id` | the device; may be absent where `--device-id` names it |
| `app` | `sourceAppIdentifier` or `sourceAppSigningIdentifier`; a team prefix ("A1B2C3D4E5.") is taken off, an extension counts for its app; null = the system could not tell |
| `open`, `close` | ISO 8601, UTC where there is no offset, or seconds since 1970; `close` is null while the flow is open |
| `host`, `address` | the remote end; at least one of them; a URL in `host` loses all but its host |
| `port`, `transport` | remote port; "tcp" or "udp" |
| `bytes_out`, `bytes_in` | sent and received by the app; NEFilterReport knows them when the flow is closed |
| `outcome` | established, failed or unknown; absent = established if bytes came back, else unknown |

Other keys are not read: keep URLs and user names out of the reports. The flow's `app_attribution` is
"exact", but "process" for system processes that work for others. A team prefix is known by its form, ten
capitals and digits.
"""  # noqa: E501

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.readers import ReadOptions, _flows, _text
from appcadence.telemetry.readers._columns import Columns, JsonFlows, seconds_between
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.schema import NAME as WORD

NAME = "content_filter"

_FINEST_SECONDS = 1e-6
_EXPECTED = "content-filter reports as JSON lines (device_id, app, open, host ...)"
_WANTED = {
    "device_id": WORD,
    "app": WORD,
    "open": pa.string(),
    "close": pa.string(),
    "host": WORD,
    "address": WORD,
    "port": pa.int64(),
    "transport": WORD,
    "bytes_out": pa.int64(),
    "bytes_in": pa.int64(),
    "outcome": WORD,
}


def _fits(row: dict[str, Any]) -> bool:
    return "app" in row and "open" in row and ("host" in row or "address" in row)


def _times_as_text(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: str(row[name]) for name in ("open", "close") if type(row.get(name)) in (int, float)}
    return row | numbers


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    get = Columns(rows)
    start = get.time("open")
    received = get.raw("bytes_in")
    answered = pc.if_else(pc.fill_null(pc.greater(received, 0), False), "established", "unknown")
    columns = {
        "start": start,
        "duration_seconds": seconds_between(start, get.time("close")),
        "device": get.text("device_id"),
        **get.app(get.text("app"), "exact"),
        **get.destination(get.text("host"), get.text("address")),
        "dest_port": get.raw("port"),
        "transport": get.word("transport", _flows.TRANSPORTS),
        "outcome": pc.coalesce(get.word("outcome", _flows.OUTCOMES), answered),
        "bytes_out": get.raw("bytes_out"),
        "bytes_in": received,
        "time_resolution_seconds": _text.resolution(get.raw("open"), _FINEST_SECONDS),
    }
    return get.flows(columns, options, NAME, _FINEST_SECONDS, clock="open")


_READER = JsonFlows(_EXPECTED, _WANTED, _fits, _finished, _times_as_text)
sniff, read = _READER.sniff, _READER.read
