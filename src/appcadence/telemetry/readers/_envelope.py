"""JSON records as pipelines hand them on: behind a syslog header, or inside a record of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from appcadence.telemetry.readers._lines import Block

Record = dict[str, Any]
Unwrap = Callable[[Record], Record | None]
"""The record inside a record; None where there is none."""

_HEADER = re.compile(
    rb"(?m)^(?:(?:<\d{1,3}>|[A-Z][a-z]{2} [ \d]\d |\d{4}-\d\d-\d\d[T ]\d\d:)[^\n{]{0,300}(?=\{)"
    rb"|-- [^\n]*)"
)
"""A syslog header, RFC 3164 or 5424, with or without its priority, or a time, before a JSON object; and the
lines that journalctl puts between entries ("-- Boot ... --")."""
_INNER = (
    *("suricata.eve", "event.original", "message", "log", "_source", "_raw", "result", "payload", "body"),
    *("zeek", "MESSAGE", "event", "@rawstring", "line", "short_message", "attributes.message"),
)
"""Fields in which shippers, collectors and exports keep the record they were given: Filebeat, Logstash,
Fluentd, Docker, Elasticsearch, Splunk, Vector, OpenTelemetry, journald, AWS Network Firewall, LogScale, Loki,
Graylog, Datadog. An object, or its text."""
_OF_OTHERS = {"event": "event_type"}
"""What the record in a field has, where other formats use the field for themselves (Zscaler, Jamf)."""
_BOM = b"\xef\xbb\xbf"
_decode = json.JSONDecoder().raw_decode
_MAX_DEEP = 3
"""Envelopes inside envelopes."""


def without_header(data: bytes) -> bytes:
    """Lines without the syslog headers before their JSON objects; other lines as they are."""
    return _HEADER.sub(b"", data)


def has_header(head: bytes) -> bool:
    """Whether the first line has a syslog header before a JSON object."""
    return _HEADER.match(head) is not None


def envelope(records: Iterable[Record]) -> Unwrap | None:
    """How to open the records of a file that begins with these; None where they are no envelopes.

    A record is one if a field of `_INNER` holds another record with a time of its own.
    """
    return next((unwrap for record in records if (unwrap := _opener(record))), None)


def unwrapped(block: Block, unwrap: Unwrap) -> Block:
    """A block with what the records hold in their place; what holds nothing stays, and so do line numbers."""
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
    inner: Any = record
    for name in (path,) if path in record else path.split("."):
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, str) and inner.lstrip()[:1] == "{":
        inner = object_of(inner.encode("utf-8", "replace"))
    if not isinstance(inner, dict) or len(inner) <= 2 or not _has_time(inner):
        return None
    return inner if path not in _OF_OTHERS or _OF_OTHERS[path] in inner else None


def _has_time(record: Record) -> bool:
    """Whether it is a record of its own, or holds one."""
    return any(name in record for name in ("ts", "timestamp", "event_type", "first", "t_first", "open")) or (
        _path(record) is not None or _tag(record) is not None
    )


def _tag(record: Record) -> str | None:
    """The log's name, where a record is that name and the record itself, as Zeek's Kafka writer tags it."""
    if len(record) == 1:
        ((name, inner),) = record.items()
        if isinstance(inner, dict) and "ts" in inner and re.fullmatch(r"[a-z][a-z0-9_]{1,30}", name):
            return name
    return None


def _untagged(record: Record) -> Record | None:
    name = _tag(record)
    return None if name is None else {"_path": name} | record[name]


def object_of(text: bytes) -> Record | None:
    """The JSON object of a line, None where it is none."""
    text = text.removeprefix(_BOM).strip(b" \t\r\n")
    # An exception takes longer than a look.
    if not text.startswith(b"{") or not text.endswith(b"}"):
        return None
    try:
        line = text.decode()
        row, end = _decode(line)
    except (ValueError, RecursionError):
        return None
    return row if end == len(line) else None
