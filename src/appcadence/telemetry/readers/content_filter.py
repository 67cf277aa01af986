"""Reports of an on-device content filter, app proxy or per-app VPN: the only source of exact app names.

There is no common format for what such an agent writes down, so this is ours: JSON lines, plain or gzip,
one object a flow.

    {"device_id": "d1", "app": "A1B2C3D4E5.com.example.mail", "open": "2026-11-24T08:00:00.120Z",
     "close": "2026-11-24T08:00:04Z", "host": "imap.example.com", "address": "192.0.2.1", "port": 993,
     "transport": "tcp", "bytes_out": 512, "bytes_in": 2048, "outcome": "established"}

| key | |
|---|---|
| `device_id` | the device; may be absent where `--device-id` names it |
| `app` | `sourceAppIdentifier` or `sourceAppSigningIdentifier`; a team prefix ("A1B2C3D4E5.") is taken off; null = the system could not tell |
| `open`, `close` | ISO 8601, UTC where there is no offset; `close` is null while the flow is open |
| `host`, `address` | the remote end; at least one of them; a URL in `host` loses all but its host |
| `port`, `transport` | remote port; "tcp" or "udp" |
| `bytes_out`, `bytes_in` | sent and received by the app; NEFilterReport knows them when the flow is closed |
| `outcome` | established, failed or unknown; absent = established if bytes came back, else unknown |

Other keys are not read: keep URLs and user names out of the reports. The flow's `app_attribution` is
"exact". The team prefix is recognised by its form, ten capitals and digits; it is not kept.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.names import choice, translate
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _hosts, _json, _text
from appcadence.telemetry.readers._json_layout import fits
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.schema import NAME as WORD

NAME = "content_filter"

_FINEST_SECONDS = 1e-6
_EXPECTED = "content-filter reports as JSON lines (device_id, app, open, host ...)"
_TEAM = re.compile(r"^\.?([A-Z0-9]{10}\.)?")
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


def sniff(path: Path, start: bytes) -> bool:
    """Whether the first objects are reports; never raises."""
    return fits(start, _fits)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected reports.

    Raises:
        UnusableFile: a file is missing, empty, damaged or holds no reports.
    """
    for path in paths:
        parsed = _json.rows(path, _EXPECTED, _WANTED, _fits)
        yield from _flows.flows_of(path, parsed, partial(_finished, options=options))


def _fits(row: dict[str, Any]) -> bool:
    return "app" in row and "open" in row and ("host" in row or "address" in row)


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    table = rows.table.unify_dictionaries().combine_chunks()
    start, no_start = _text.times(table["open"])
    end, no_end = _text.times(table["close"])
    hosts, literal = _hosts.parts(table["host"])
    given = translate(table["address"], lambda text: canonical(text.strip("[]")))
    transport = translate(table["transport"], lambda text: text.strip().lower() or None)
    outcome = translate(table["outcome"], lambda text: text.strip().lower() or None)
    app = translate(table["app"], lambda text: _TEAM.sub("", text.strip()) or None)
    columns = {
        "start": start,
        "duration_seconds": pc.divide(pc.subtract(end, start).cast(pa.float64()), 1e6),
        "device": translate(table["device_id"], lambda text: text.strip() or None),
        "app_id": app,
        "app_attribution": choice(("exact", "none"), np.asarray(app.is_null()).astype(int)),
        "dest_host": hosts,
        "dest_host_source": _flows.observed(hosts),
        "dest_ip": pc.coalesce(given.cast(pa.string()), literal.cast(pa.string())),
        "dest_port": table["port"],
        "transport": transport,
        "outcome": _outcome(outcome, table["bytes_in"]),
        "bytes_out": table["bytes_out"],
        "bytes_in": table["bytes_in"],
        "time_resolution_seconds": _text.resolution(table["open"], _FINEST_SECONDS),
    }
    faults = [
        (no_start, "open is not an ISO time"),
        (no_end, "close is not an ISO time"),
        (_flows.outside(transport, _flows.TRANSPORTS), "transport is not tcp or udp"),
        (_flows.outside(outcome, _flows.OUTCOMES), "outcome is not established, failed or unknown"),
    ]
    return _flows.finished(
        columns, rows.lines, options, NAME, _FINEST_SECONDS, clock="open", addresses=False, also=faults
    )


def _outcome(stated: pa.DictionaryArray, received: pa.ChunkedArray) -> pa.Array:
    back = pc.if_else(pc.fill_null(pc.greater(received, 0), False), "established", "unknown")
    return pc.coalesce(stated.cast(pa.string()), back)
