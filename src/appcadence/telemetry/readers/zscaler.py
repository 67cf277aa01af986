"""Zscaler's NSS web logs as JSON lines ("sourcetype": "zscalernss-web"): one record a web transaction.

Which fields a feed has is the administrator's choice; all values are texts. Read are the time
(`epochtime`, else `time` where the feed's zone is UTC), the device (`external_devid`, else `devicename`,
else the client's address), the destination (`host`, else the host in `eurl` or `url`; `serverip` or
`sip`), `proto`, `reqsize`, `respsize`, `action`, `mobappname`, `deviceostype` and `recordid`.
No path or query of a URL is kept, and neither user, owner, user agent nor referrer is read. Records of
devices that are stated to run something else than iOS or iPadOS are passed over.

Limits: times are whole seconds and those of the log entry; there is no duration and no port, and one
connection gives as many records as it carried transactions (a tunnel that is not decrypted gives one).
Apple's push service fails under interception and is not in these logs. `mobappname` is the display name
of an app signature, not a bundle id: attribution "display_name". `appname` names the cloud service, not
the app on the device, and is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import Mask, one_array
from appcadence.telemetry.names import choice, constant, translate
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _hosts, _json, _text
from appcadence.telemetry.readers._json_layout import fits
from appcadence.telemetry.readers._lines import Rows

NAME = "zscaler"

RESOLUTION_SECONDS = 1.0
_EXPECTED = "Zscaler NSS web logs as JSON lines (sourcetype zscalernss-web)"
_SOURCETYPE = "zscalernss-web"
_FIELDS = (
    *("time", "epochtime", "tz", "external_devid", "devicename", "cltintip", "cltip", "cip"),
    *("host", "eurl", "url", "serverip", "sip", "proto", "reqsize", "respsize", "action"),
    *("mobappname", "deviceostype", "recordid"),
)
_WANTED = {"sourcetype": pa.string(), "event": pa.struct([(name, pa.string()) for name in _FIELDS])}
_NOTHING = {"", "none", "na", "n/a", "unknown", "null", "-"}
_SERVICES = {"https": "tls", "ssl": "tls", "tunnel_ssl": "tls", "http": "http", "ftp": "ftp", "dns": "dns"}


def sniff(path: Path, start: bytes) -> bool:
    """Whether the first objects are records of a web feed; never raises."""
    return fits(start, _fits)


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected records.

    Raises:
        UnusableFile: a file is missing, empty, damaged or no feed of web records.
    """
    for path in paths:
        parsed = _json.rows(path, _EXPECTED, _WANTED, _fits, _as_texts)
        yield from _flows.flows_of(path, parsed, partial(_finished, options=options))


def _fits(row: dict[str, Any]) -> bool:
    return row.get("sourcetype") == _SOURCETYPE and isinstance(row.get("event"), dict)


def _as_texts(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers of a feed whose format was written by hand, as texts."""
    event = row.get("event")
    if not isinstance(event, dict):
        return row
    numbers = {
        name: str(event[name])
        for name in _FIELDS
        if isinstance(event.get(name), int | float) and not isinstance(event[name], bool)
    }
    return row | {"event": event | numbers}


def _finished(rows: Rows, options: ReadOptions) -> _flows.Finished:
    kinds = pc.equal(rows.table["sourcetype"], _SOURCETYPE)
    event = one_array(rows.table["event"])
    system = _known(pc.struct_field(event, "deviceostype"))
    apple = pc.match_substring_regex(system.cast(pa.string()), "(?i)^i(pad)?os")
    mine = np.asarray(pc.and_(pc.fill_null(kinds, False), pc.fill_null(apple, True)))
    event, lines = event.filter(pa.array(mine)), rows.lines[mine]

    def known(*names: str) -> pa.DictionaryArray:
        fields = [_known(pc.struct_field(event, name)).cast(pa.string()) for name in names]
        return pc.coalesce(*fields).dictionary_encode()

    start, no_time, other_zone = _start(event)
    sizes = [_text.whole(known(name)) for name in ("reqsize", "respsize")]
    hosts, literal = _hosts.parts(known("host", "eurl", "url"))
    server = translate(known("serverip", "sip"), canonical).cast(pa.string())
    app = known("mobappname")
    action = translate(known("action"), lambda text: text.lower())
    columns = {
        "start": start,
        "device": known("external_devid", "devicename", "cltintip", "cltip", "cip"),
        "app_id": app,
        "app_attribution": choice(("display_name", "none"), np.asarray(app.is_null()).astype(int)),
        "dest_host": hosts,
        "dest_host_source": _flows.observed(hosts),
        "dest_ip": pc.coalesce(server, literal.cast(pa.string())),
        "transport": constant(len(event), "tcp"),
        "service": translate(known("proto"), lambda text: _SERVICES.get(text.lower())),
        "outcome": translate(
            pc.fill_null(action.cast(pa.string()), ""),
            lambda text: {"allowed": "established", "blocked": "failed"}.get(text, "unknown"),
        ),
        "bytes_out": sizes[0][0],
        "bytes_in": sizes[1][0],
        "source_uid": known("recordid").cast(pa.string()),
    }
    faults = [
        (other_zone, "time is not in UTC; add epochtime to the feed"),
        (no_time, "neither epochtime nor time is a time"),
        (sizes[0][1], "reqsize is not a whole number"),
        (sizes[1][1], "respsize is not a whole number"),
    ]
    return _flows.finished(
        columns, lines, options, NAME, RESOLUTION_SECONDS, clock="time", addresses=False, also=faults
    )


def _known(text: pa.Array) -> pa.DictionaryArray:
    """The texts that say anything."""
    return translate(text, lambda value: None if value.strip().lower() in _NOTHING else value.strip())


def _start(event: pa.StructArray) -> tuple[pa.Array, Mask, Mask]:
    """When, which rows have no readable time, and which only one of an unknown zone."""
    epoch, no_epoch = _text.whole(pc.struct_field(event, "epochtime"))
    seconds = _flows.micros(epoch.cast(pa.float64()))
    zone = _known(pc.struct_field(event, "tz")).cast(pa.string())
    utc = np.asarray(pc.fill_null(pc.match_substring_regex(zone, "(?i)^(gmt|utc|etc/utc)$"), True))
    named, no_named = _text.named_times(pc.struct_field(event, "time"), "%a %b %d %H:%M:%S %Y", 0)
    alone = np.asarray(seconds.is_null()) & np.asarray(pc.struct_field(event, "time").is_valid())
    time = pc.coalesce(seconds, pc.if_else(pa.array(utc), named, None))
    return time, np.asarray(time.is_null()) & (no_epoch | no_named), alone & ~utc
