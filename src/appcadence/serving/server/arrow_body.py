"""Flows as an untrusted Arrow IPC stream or file."""

from __future__ import annotations

import struct

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import SchemaError
from appcadence.serving.server.wire import MAX_TEXT
from appcadence.telemetry.schema import FLOWS

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
_MAGIC = b"ARROW1\0\0"
_COMPRESSION, _HEADER, _DICTIONARY_DATA = 3, 2, 1
"""Numbers of fields in Arrow's `Message.fbs`: of RecordBatch, Message and DictionaryBatch."""
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError, struct.error)


def parse_flows(body: bytes, max_rows: int) -> pa.Table:
    """The declared columns of the flows in a body, validated as Arrow recommends for untrusted data.

    A body takes no more memory than its own bytes: compressed batches, and types whose values may overlap,
    are refused before they are read.

    Raises:
        SchemaError: the body is not such a stream, is too long, or is compressed.
    """
    # A file is the magic, a stream, and a footer that only random access needs.
    stream = pa.py_buffer(body.removeprefix(_MAGIC))
    try:
        _check_compression(stream)
        batches, rows = [], 0
        with pa.ipc.open_stream(stream) as reader:
            names = _columns(reader.schema)
            for batch in reader:
                rows += batch.num_rows
                if rows > max_rows:
                    raise SchemaError(f"the body holds more than {max_rows:,} flows; send fewer")
                batches.append(batch.select(names))
            schema = pa.schema([reader.schema.field(name) for name in names])
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)
        _check_lengths(table)
    except _BROKEN as error:
        if isinstance(error, SchemaError):
            raise
        raise SchemaError(f"the body is not a valid Arrow IPC stream of flows ({error})") from None
    return table


def _columns(schema: pa.Schema) -> list[str]:
    """The declared columns; others are not read."""
    names = [c.name for c in FLOWS.columns if c.name in schema.names]
    for name in names:
        if schema.names.count(name) > 1:
            raise SchemaError(f"the body has several columns {name!r}")
        kind = schema.field(name).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (_is_text(value) or pa.types.is_null(value) or pa.types.is_primitive(kind)):
            raise SchemaError(f"column {name!r} has the type {kind}; expected {FLOWS.column(name).type}")
    return names


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _check_lengths(table: pa.Table) -> None:
    for name in table.column_names:
        for chunk in table[name].chunks:
            values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
            if _is_text(values.type):
                longest = pc.max(pc.utf8_length(values)).as_py() or 0
                if longest > MAX_TEXT:
                    raise SchemaError(
                        f"column {name!r} has a text of {longest:,} characters; at most {MAX_TEXT:,}"
                    )


def _check_compression(stream: pa.Buffer) -> None:
    """Refuse compressed batches: a small one may claim any size, and is decompressed when read."""
    for message in pa.ipc.MessageReader.open_stream(stream):
        kind, data = message.type, bytes(message.metadata)
        if kind not in ("record batch", "dictionary"):
            continue
        header = _follow(data, _field(data, _follow(data, 0), _HEADER))
        if kind == "dictionary":
            header = _follow(data, _field(data, header, _DICTIONARY_DATA))
        if _field(data, header, _COMPRESSION):
            raise SchemaError("the Arrow batches are compressed; write them without compression")


def _follow(data: bytes, at: int) -> int:
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """The offset of a field of a FlatBuffers table; 0 = missing."""
    directory = table - int(struct.unpack_from("<i", data, table)[0])
    (size,) = struct.unpack_from("<H", data, directory)
    if 4 + 2 * number >= size:
        return 0
    offset = int(struct.unpack_from("<H", data, directory + 4 + 2 * number)[0])
    return table + offset if offset else 0
