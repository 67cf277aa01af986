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

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.telemetry.names import constant, translate
from appcadence.telemetry.readers import ReadOptions, _flows, _text
from appcadence.telemetry.readers._columns import Columns, JsonFlows
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
_NOTHING = {"none", "na", "n/a", "unknown", "null", "-"}
_OUTCOMES = {"allowed": "established", "blocked": "failed"}
_SERVICES = {"https": "tls", "ssl": "tls", "tunnel_ssl": "tls", "http": "http", "ftp": "ftp", "dns": "dns"}


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
    get = Columns(rows, _NOTHING)
    get.keep(pc.fill_null(pc.equal(get.raw("sourcetype"), _SOURCETYPE), False))
    get.keep_ios("event.deviceostype")

    def known(*names: str) -> pa.DictionaryArray:
        return get.text(*(f"event.{name}" for name in names))

    action = pc.fill_null(known("action").cast(pa.string()), "")
    columns = {
        "start": _start(get),
        "device": known("external_devid", "devicename", "cltintip", "cltip", "cip"),
        **get.app(known("mobappname"), "display_name"),
        **get.destination(known("host", "eurl", "url"), known("serverip", "sip")),
        "transport": constant(len(action), "tcp"),
        "service": translate(known("proto"), lambda text: _SERVICES.get(text.lower())),
        "outcome": translate(action, lambda text: _OUTCOMES.get(text.lower(), "unknown")),
        "bytes_out": get.whole("event.reqsize"),
        "bytes_in": get.whole("event.respsize"),
        "source_uid": known("recordid").cast(pa.string()),
    }
    return get.flows(columns, options, NAME, RESOLUTION_SECONDS, clock="time")


def _start(get: Columns) -> pa.Array:
    """When; a time alone counts only where the feed's zone is UTC."""
    epoch, no_epoch = _text.whole(get.raw("event.epochtime"))
    seconds = _flows.micros(epoch.cast(pa.float64()))
    utc = pc.match_substring_regex(get.text("event.tz").cast(pa.string()), "(?i)^(gmt|utc|etc/utc)$")
    utc = pc.fill_null(utc, True)
    named, no_named = _text.named_times(get.raw("event.time"), "%a %b %d %H:%M:%S %Y", 0)
    alone = pc.and_(seconds.is_null(), get.raw("event.time").is_valid())
    time = pc.coalesce(seconds, pc.if_else(utc, named, None))
    get.fault(pc.and_not(alone, utc), "time is not in UTC; add epochtime to the feed")
    get.fault(np.asarray(time.is_null()) & (no_epoch | no_named), "neither epochtime nor time is a time")
    return time


_READER = JsonFlows(_EXPECTED, _WANTED, _fits, _finished, _as_texts)
sniff, read = _READER.sniff, _READER.read
