"""JSON records as pipelines pass them on: behind a syslog header, or inside another record."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from appcadence.telemetry.readers._lines import Block

Record = dict[str, Any]
Unwrap = Callable[[Record], Record | None]
"""Takes the record out of a record; None if there is none."""

_HEADER = re.compile(
    rb"(?m)^(?:(?:<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\d[T ]\d\d:)[^\n{]{0,300}(?=\{)"
    rb"|-- [^\n]*)"
)
"""A syslog header (RFC 3164 or 5424, with or without priority) or a time before a JSON object; and the lines
that journalctl puts between entries ("-- Boot ... --")."""
_INNER = (
    *("suricata.eve", "event.original", "message", "log", "_source", "_raw", "result", "payload", "body"),
    *("zeek", "MESSAGE", "event", "@rawstring", "line", "short_message", "attributes.message", "msg"),
)
"""Fields in which shippers, collectors and exports store the record they received: Filebeat, Logstash,
Fluentd, Docker, Elasticsearch, Splunk, Vector, OpenTelemetry, journald, AWS Network Firewall, LogScale, Loki,
Graylog, Datadog, rsyslog. It is an object, or its text."""
_TIMES = ("ts", "timestamp", "event_type", "first", "t_first", "open", "@timestamp")
_FLOW_TIMES = ("time_received_ns", "time_flow_start_ns", "TimeReceived", "timestamp_start", "stamp_inserted")
"""Fields of an object that is a record of its own rather than a part of the surrounding record."""
_OF_OTHERS = {"event": ("ts", "event_type", "@timestamp", *_FLOW_TIMES)}
"""The same for a field that other formats use for themselves (Zscaler, Jamf)."""
_WHOLE = ("_source",)
"""Fields that hold a record, whatever it contains."""
_LINES = (
    *("message", "event.original", "log", "_raw", "MESSAGE", "event", "@rawstring", "line", "short_message"),
    *("payload", "body", "attributes.message", "result._raw", "msg"),
)
"""Fields in which the same tools store a line that is not JSON."""
_JSON_TEXT = re.compile(r"\s*(\{|\[\s*[\[{\"])")
_FEWEST = 20
"""Fewest characters of such a line."""
_BOM = b"\xef\xbb\xbf"
_AROUND = b" \t\r\n\x1e"
"""Bytes allowed around an object; 1E begins one in a JSON text sequence (RFC 7464)."""
_decode = json.JSONDecoder().raw_decode
_MAX_DEEP = 3
"""Deepest nesting of envelopes."""


def without_header(data: bytes) -> bytes:
    """Lines without the syslog headers before their JSON objects; other lines are unchanged."""
    return _HEADER.sub(b"", data)


def has_header(head: bytes) -> bool:
    """Whether the first line has a syslog header before a JSON object."""
    return _HEADER.match(head) is not None


def envelope(records: Iterable[Record]) -> Unwrap | None:
    """How to unwrap the records of a file that begins with these; None if they are not envelopes.

    A record is an envelope if a field of `_INNER` holds another record with a time of its own.
    """
    return next((unwrap for record in records if (unwrap := _opener(record))), None)


def unwrapped(block: Block, unwrap: Unwrap) -> Block:
    """A block with each record replaced by the one inside it, if any; line numbers stay."""
    lines = []
    for text in block.data.split(b"\n"):
        record = object_of(text)
        inner = None if record is None else unwrap(record)
        lines.append(text if inner is None else json.dumps(inner).encode())
    return replace(block, data=b"\n".join(lines))


def _opener(record: Record) -> Unwrap | None:
    path = _path(record)
    if path is not None:
        return lambda record: _opened(record, _MAX_DEEP)
    if _tag(record):
        return _untagged
    return None


def _opened(record: Record, deep: int) -> Record | None:
    path = _path(record) if deep else None
    if path is None:
        return _untagged(record) or record if deep < _MAX_DEEP else None
    inner = _inside(record, path)
    return None if inner is None else _opened(inner, deep - 1)


def _path(record: Record) -> str | None:
    """The field of `_INNER` that holds a record."""
    return next((name for name in _INNER if _inside(record, name) is not None), None)


def _inside(record: Record, path: str) -> Record | None:
    inner = _value_at(record, path)
    written = isinstance(inner, str) and inner.lstrip()[:1] == "{"
    if written:
        inner = object_of(inner.encode("utf-8", "replace"))
    if not isinstance(inner, dict) or not inner:
        return None
    if written or path in _WHOLE:
        return inner
    times = _OF_OTHERS.get(path, (*_TIMES, *_FLOW_TIMES))
    own = len(inner) > 2 and any(name in inner for name in times)
    return inner if own or (path not in _OF_OTHERS and _has_record(inner)) else None


def _value_at(record: Record, path: str) -> Any:
    found: Any = record
    for name in (path,) if path in record else path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _has_record(record: Record) -> bool:
    """Whether it contains another record."""
    return _path(record) is not None or _tag(record) is not None


def line_field(records: Iterable[Record]) -> str:
    """The field in which the first records of a file hold a line that is not JSON; empty if there is none."""
    for record in records:
        for path in _LINES:
            text = _value_at(record, path)
            if isinstance(text, str) and len(text) >= _FEWEST and not _JSON_TEXT.match(text):
                return path
    return ""


def lines_in(block: Block, field: str) -> Block:
    """A block with each record replaced by the line inside it, if any."""
    lines = []
    for text in block.data.split(b"\n"):
        line = _value_at(object_of(text) or {}, field)
        if isinstance(line, str):
            # A value with a line end in it is still one record.
            text = line.strip("\r\n").replace("\n", " ").encode("utf-8", "replace")
        lines.append(text)
    return replace(block, data=b"\n".join(lines))


def _tag(record: Record) -> str | None:
    """The log's name, if the only field is that name with the record in it, as Zeek's Kafka writer does."""
    if len(record) == 1:
        ((name, inner),) = record.items()
        if isinstance(inner, dict) and "ts" in inner and re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name):
            return name
    return None


def _untagged(record: Record) -> Record | None:
    name = _tag(record)
    return None if name is None else {"_path": name} | record[name]


def object_of(text: bytes) -> Record | None:
    """The JSON object of a line; None if it is not one."""
    text = text.removeprefix(_BOM).strip(_AROUND)
    # This check is faster than an exception.
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return None
    try:
        line = text.decode()
        row, end = _decode(line)
    except (ValueError, RecursionError):
        return None
    return row if end == len(line) else None
