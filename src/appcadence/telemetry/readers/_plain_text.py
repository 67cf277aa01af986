"""Fast paths for plainly written text, one pass over the bytes of a column; other text takes slower paths."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask

_BLANK, _MINUS, _DOT, _ZERO, _NINE = b" -.09"
_EXACT = 1 << 53
"""Whole numbers up to here are exact as floats, and their quotients by powers of ten the nearest ones."""
_TENS = 10.0 ** np.arange(19)


def whole(values: pa.StringArray) -> pa.Array | None:
    """Whole numbers of at most 18 digits, null where a text is blank; None if any text is no such number."""
    numbers, _, empty, plain = _digits(*_bytes(values), np.asarray(values.is_null()), False)
    return pa.array(numbers, mask=empty) if plain else None


def number(values: pa.StringArray) -> pa.Array | None:
    """As `whole`, but a decimal point is allowed; None also if a number has too many digits."""
    digits, decimals, empty, plain = _digits(*_bytes(values), np.asarray(values.is_null()), True)
    if not plain or (len(digits) and np.abs(digits).max() > _EXACT):
        return None
    return pa.array(digits / _TENS[decimals], mask=empty)


def says_all(values: pa.StringArray, nothing: Collection[str]) -> bool:
    """True only if every text surely has a value, without blanks around it; words in `nothing` have none."""
    firsts = np.zeros(256, np.bool_)
    firsts[[byte for word in nothing for byte in (word[:1] + word[:1].upper()).encode()]] = True
    longest = max(map(len, nothing), default=0)
    return bool(_says_all(*_bytes(values), np.asarray(values.is_null()), firsts, longest))


def _bytes(values: pa.StringArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    _, places, data = values.buffers()
    offsets = np.frombuffer(places or bytes(4), np.int32)
    return np.frombuffer(data or b"", np.uint8), offsets[values.offset : values.offset + len(values) + 1]


@compiled
def _digits(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], null: Mask, point: bool
) -> tuple[Ints, npt.NDArray[np.int8], Mask, bool]:
    """The digits of each number, how many are decimals, which texts are blank, and whether all are plain."""
    count = len(null)
    digits, decimals = np.zeros(count, np.int64), np.zeros(count, np.int8)
    empty = null.copy()
    for row in range(count):
        if null[row]:
            continue
        at, end = offsets[row], offsets[row + 1]
        while at < end and data[at] == _BLANK:
            at += 1
        while at < end and data[end - 1] == _BLANK:
            end -= 1
        if at == end:
            empty[row] = True
            continue
        negative = data[at] == _MINUS
        at += negative
        first, found, dot = at, np.int64(0), end
        while at < end:
            byte = data[at]
            if _ZERO <= byte <= _NINE:
                found = 10 * found + byte - _ZERO
            elif point and byte == _DOT and dot == end and at > first:
                dot = at
            else:
                return digits, decimals, empty, False
            at += 1
        width = end - first - (dot < end)
        # A negative zero is a float of its own.
        if not 0 < width <= 18 or (point and negative and found == 0):
            return digits, decimals, empty, False
        digits[row] = -found if negative else found
        decimals[row] = max(end - dot - 1, 0)
    return digits, decimals, empty, True


@compiled
def _says_all(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int32],
    null: Mask,
    firsts: Mask,
    longest: int,
) -> bool:
    for row in range(len(offsets) - 1):
        at, end = offsets[row], offsets[row + 1]
        if null[row]:
            continue
        if at == end or not 32 < data[at] < 127 or not 32 < data[end - 1] < 127:
            return False
        # The length in bytes is at least that in letters.
        if firsts[data[at]] and end - at <= 4 * longest:
            return False
    return True


def spans(text: npt.NDArray[np.uint8], firsts: Ints, lasts: Ints) -> pa.StringArray:
    """Parts of a text, each from its first place to before its last; null where the first is below 0."""
    lengths = np.where(firsts >= 0, lasts - firsts, 0)
    offsets = np.zeros(len(firsts) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    gathered = np.empty(int(offsets[-1]), np.uint8)
    _gather(text, firsts, lengths, gathered)
    return texts(gathered, offsets, firsts < 0)


def texts(letters: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], null: Mask) -> pa.StringArray:
    """Texts stored back to back in `letters`, between (n + 1,) offsets; null where (n,) `null` is true."""
    valid = np.packbits(~null, bitorder="little") if null.any() else None
    arrays = (valid, offsets, letters[: offsets[-1]])
    buffers = [None if array is None else pa.py_buffer(array) for array in arrays]
    return pa.Array.from_buffers(pa.string(), len(null), buffers)


@compiled
def _gather(text: npt.NDArray[np.uint8], firsts: Ints, lengths: Ints, out: npt.NDArray[np.uint8]) -> None:
    at = 0
    for row in range(len(firsts)):
        first = firsts[row]
        for step in range(lengths[row]):
            out[at] = text[first + step]
            at += 1
