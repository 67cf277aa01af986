"""Which fields of which Zeek logs are read, and how a log is recognised by its fields."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

EXPECTED = "a Zeek log (TSV or JSON)"
STREAM = "stream"
"""Kind of a JSON log that mixes records of several kinds, each with its `_path`."""
OTHER = "other"
"""Kind of a Zeek log with nothing of use here, such as files.log."""

_TEXT = pa.string()
_WORD = pa.dictionary(pa.int32(), pa.string())
_NUMBER = pa.float64()
_COUNT = pa.int64()

WANTED: dict[str, dict[str, pa.DataType]] = {
    "conn": {
        "ts": _NUMBER,
        "uid": _TEXT,
        "id.orig_h": _WORD,
        "id.orig_p": _COUNT,
        "id.resp_h": _WORD,
        "id.resp_p": _COUNT,
        "proto": _WORD,
        "service": _WORD,
        "duration": _NUMBER,
        "orig_bytes": _COUNT,
        "resp_bytes": _COUNT,
        "conn_state": _WORD,
        "local_orig": pa.bool_(),
        "orig_l2_addr": _WORD,
        "history": _WORD,
    },
    "ssl": {"uid": _TEXT, "server_name": _WORD},
    "quic": {"uid": _TEXT, "server_name": _WORD},
    "http": {"uid": _TEXT, "host": _WORD},
    "dns": {
        "ts": _NUMBER,
        "id.orig_h": _WORD,
        "query": _WORD,
        "answers": pa.list_(pa.string()),
        "TTLs": pa.list_(pa.float64()),
    },
    OTHER: {},
}
"""Fields that are read from each kind of log, with their types."""

REQUIRED = {
    "conn": ("ts", "id.orig_h", "id.resp_h", "id.resp_p", "proto", "conn_state"),
    "ssl": ("uid",),
    "quic": ("uid",),
    "http": ("uid",),
    "dns": ("ts", "id.orig_h", "query"),
    OTHER: (),
}
"""Fields that a TSV log of that kind must have; JSON leaves out unset fields."""

# In this order: a quic log has a server_name too, a conn log has none of the others' fields.
_TRAITS = (
    ("dns", {"trans_id", "qclass", "qtype", "rcode", "rcode_name"}),
    ("http", {"trans_depth", "request_body_len", "response_body_len", "status_code"}),
    ("quic", {"client_initial_dcid", "client_scid", "server_scid", "client_protocol"}),
    ("ssl", {"cipher", "server_name", "established", "next_protocol", "ssl_history"}),
    ("conn", {"conn_state", "orig_pkts", "orig_ip_bytes", "missed_bytes", "orig_bytes"}),
)


_SAME = {"conn_long": "conn", "open_conn": "conn", "open_ssl": "ssl", "open_http": "http"} | {
    f"{kind}_red": kind for kind in ("conn", "ssl", "http", "dns")
}
"""Logs with the same fields as another kind: logs of open connections, with a record every so often; and
reduced logs of Corelight's sensors, which leave out records and fields."""


def kind_of(fields: Collection[str], path: str | None) -> str:
    """The kind of log, from its `#path` or `_path` if it has one, otherwise from its fields."""
    path = _SAME.get(path or "", path)
    if path in WANTED:
        return path
    if path is None:
        for kind, traits in _TRAITS:
            if traits & set(fields):
                return kind
    return OTHER
