"""Single fields of a Protocol Buffers message without its schema; every other field is skipped unread."""

from __future__ import annotations

import struct
from collections.abc import Mapping

VARINT, DOUBLE, BYTES = 0, 1, 2
"""Wire types: a whole number, eight bytes (read as a float), and bytes prefixed with their length."""
_FOUR_BYTES = 5

Value = int | float | bytes


def fields(data: bytes, wanted: Mapping[int, int]) -> dict[int, Value] | None:
    """The wanted fields (wire type by field number) of a message; of repeated fields, the last.

    None if the bytes are no valid message, or if a wanted field has another wire type.
    """
    found: dict[int, Value] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        start = at
        if wire == VARINT:
            value, at = _varint(data, at)
        elif wire == BYTES:
            size, start = _varint(data, at)
            at = start + size
        elif wire in (DOUBLE, _FOUR_BYTES):
            at += 8 if wire == DOUBLE else 4
        else:
            return None
        if key < 8 or not start < at + 1 <= len(data) + 1:
            return None
        if number in wanted:
            if wire != wanted[number]:
                return None
            if wire == VARINT:
                found[number] = value
            else:
                found[number] = data[start:at] if wire == BYTES else struct.unpack("<d", data[start:at])[0]
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and where the next field begins: beyond the data if the number does not end."""
    value = 0
    for place in range(10):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return 0, len(data) + 1
