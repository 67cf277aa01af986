"""Wanted fields of plain JSON objects, one per line, in one pass over their bytes.

Plain objects mean the same to every JSON reader: no repeated field, no escapes in names or wanted texts, no
wanted lists, and values of the wanted types. Any other block takes a slower path.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints
from appcadence.telemetry.readers import _plain_text

_KINDS = {pa.string(): 0, pa.int64(): 1, pa.float64(): 2, pa.bool_(): 3}
_TEXT, _WHOLE, _NUMBER, _TRUTH, _OBJECT, _OTHER = range(6)
_ROOT, _NONE = -1, -2
"""Nodes that are not wanted fields: the whole object, and unwanted parts."""
_ODD, _PLAIN, _NO_ROOM = range(3)
_SHARES = (8, 1)
"""Room for the longest field as a share of the text (1 / share): it seldom needs more than an eighth."""
_MAX_DEPTH, _MAX_KNOWN, _MAX_DIGITS = 16, 128, 18
_QUOTE, _BACKSLASH, _COLON, _COMMA, _MINUS, _PLUS, _DOT, _ZERO, _NINE, _END = b'"\\:,-+.09\n'
_OPEN, _CLOSE, _OPEN_LIST, _CLOSE_LIST, _SMALL_T, _SMALL_F, _SMALL_N, _SMALL_U, _SMALL_E, _LARGE_E = (
    b"{}[]tfnueE"
)
_ESCAPED = np.array([byte in b'"\\/bfnrt' for byte in range(256)])
_HEXADECIMAL = np.array([byte in b"0123456789abcdefABCDEF" for byte in range(256)])
_WORDS = np.frombuffer(b"true\0false\0null\0", np.uint8)


def columns(data: bytes, count: int, wanted: Mapping[str, pa.DataType]) -> dict[str, pa.Array] | None:
    """The wanted fields of `count` lines, each a plain object; None if any is not."""
    fields = [*_flattened(wanted.items(), _ROOT, itertools.count())]
    names = [name for name, _, _ in fields]
    parents, kinds = (np.array([field[i] for field in fields], np.int64) for i in (1, 2))
    found = _filled(np.frombuffer(data, np.uint8), count, names, parents, kinds)
    if found is None:
        return None
    places = itertools.count()
    return {name: _column(found, places, kind) for name, kind in wanted.items()}


def _flattened(
    wanted: Iterable[tuple[str, pa.DataType]], parent: int, places: Iterator[int]
) -> Iterator[tuple[bytes, int, int]]:
    """Name, parent and kind of every wanted field; the fields of an object follow it."""
    for name, kind in wanted:
        place, inner = next(places), pa.types.is_struct(kind)
        yield name.encode(), parent, _OBJECT if inner else _KINDS.get(kind, _OTHER)
        if inner:
            yield from _flattened(((field.name, field.type) for field in kind), place, places)


def _column(found: _Filled, places: Iterator[int], kind: pa.DataType) -> pa.Array:
    place = next(places)
    if pa.types.is_struct(kind):
        parts = [_column(found, places, field.type) for field in kind]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=pa.array(found.empty[place]))
    return found.column(place, kind)


@dataclass(frozen=True)
class _Filled:
    """The content of n lines, by field."""

    empty: npt.NDArray[np.bool_]
    """(fields, n) where there is no value."""
    slots: Ints
    """(fields,) the row of the field in the arrays below."""
    numbers: npt.NDArray[np.int64]
    """(slots, n) whole numbers and booleans."""
    letters: npt.NDArray[np.uint8]
    """(slots, room) the texts of all lines, back to back,"""
    offsets: npt.NDArray[np.int32]
    """(slots, n + 1) and where they begin and end."""

    def column(self, place: int, kind: pa.DataType) -> pa.Array:
        empty, slot = self.empty[place], self.slots[place]
        if kind not in _KINDS or empty.all():
            return pa.nulls(len(empty), kind)
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
            return pa.array(self.numbers[slot].astype(kind.to_pandas_dtype(), copy=False), mask=empty)
        texts = _plain_text.texts(self.letters[slot], self.offsets[slot], empty)
        found = _plain_text.number(texts) if pa.types.is_floating(kind) else None
        return texts.cast(kind) if found is None else found


def _filled(
    text: npt.NDArray[np.uint8], count: int, names: Sequence[bytes], parents: Ints, kinds: Ints
) -> _Filled | None:
    keys, ends = np.frombuffer(b"".join(names), np.uint8), np.cumsum([0, *map(len, names)])
    counted, written = np.isin(kinds, (_WHOLE, _TRUTH)), np.isin(kinds, (_TEXT, _NUMBER))
    slots = np.where(counted, np.cumsum(counted), np.cumsum(written)) - 1
    for share in _SHARES:
        filled = _Filled(
            np.ones((len(names), count), bool),
            slots,
            np.empty((counted.sum(), count), np.int64),
            np.empty((written.sum(), len(text) // share + 1), np.uint8),
            np.zeros((written.sum(), count + 1), np.int32),
        )
        to = filled.empty, filled.numbers, filled.letters, filled.offsets
        done = _scan(text, keys, ends, parents, kinds, slots, *to)
        if done != _NO_ROOM:
            return filled if done == _PLAIN else None
    return None


@compiled
def _blanks(text: npt.NDArray[np.uint8], at: int) -> int:
    while at < len(text) and (text[at] == 32 or text[at] == 9 or text[at] == 13):
        at += 1
    return at


@compiled
def _string(text: npt.NDArray[np.uint8], at: int) -> int:
    """Where a string that has begun ends; negative if it has escapes, 0 if it is invalid."""
    escapes, size = False, len(text)
    while at < size:
        byte = text[at]
        if byte == _QUOTE:
            return -at if escapes else at
        if byte < 32:
            return 0
        if byte == _BACKSLASH:
            escapes = True
            at += 1
            if at >= size:
                return 0
            if text[at] == _SMALL_U:
                if at + 4 >= size:
                    return 0
                for place in range(at + 1, at + 5):
                    if not _HEXADECIMAL[text[place]]:
                        return 0
                at += 4
            elif not _ESCAPED[text[at]]:
                return 0
        at += 1
    return 0


@compiled
def _number(text: npt.NDArray[np.uint8], at: int) -> int:
    """Where a number ends; negative if it is not whole, 0 if it is no number."""
    size, whole = len(text), True
    at += text[at] == _MINUS
    first = at
    while at < size and _ZERO <= text[at] <= _NINE:
        at += 1
    if at == first or (text[first] == _ZERO and at > first + 1):
        return 0
    if at < size and text[at] == _DOT:
        whole = False
        at += 1
        first = at
        while at < size and _ZERO <= text[at] <= _NINE:
            at += 1
        if at == first:
            return 0
    if at < size and (text[at] == _SMALL_E or text[at] == _LARGE_E):
        whole = False
        at += 1
        at += at < size and (text[at] == _MINUS or text[at] == _PLUS)
        first = at
        while at < size and _ZERO <= text[at] <= _NINE:
            at += 1
        if at == first:
            return 0
    return at if whole else -at


@compiled
def _word(text: npt.NDArray[np.uint8], at: int) -> int:
    """Where true, false or null ends; 0 if there is none."""
    place = 0 if text[at] == _SMALL_T else 5 if text[at] == _SMALL_F else 11
    while _WORDS[place]:
        if at >= len(text) or text[at] != _WORDS[place]:
            return 0
        at += 1
        place += 1
    return at


@compiled
def _same(one: npt.NDArray[np.uint8], at: int, other: npt.NDArray[np.uint8], place: int, length: int) -> bool:
    for step in range(length):  # noqa: SIM110
        if one[at + step] != other[place + step]:
            return False
    return True


@compiled
def _scan(
    text: npt.NDArray[np.uint8],
    keys: npt.NDArray[np.uint8],
    offsets: Ints,
    parents: Ints,
    kinds: Ints,
    slots: Ints,
    empty: npt.NDArray[np.bool_],
    numbers: npt.NDArray[np.int64],
    letters: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int32],
) -> int:
    """Fill in the wanted fields of each line (see `_Filled`) if all lines are plain."""
    size, row, at, rows = len(text), 0, 0, empty.shape[1]
    seen, written = np.full(len(kinds), -1), np.zeros(len(letters), np.int64)
    nodes, lists = np.empty(_MAX_DEPTH, np.int64), np.empty(_MAX_DEPTH, np.bool_)
    # The names of the previous line, which this one usually repeats, and their fields.
    known = np.zeros((4, _MAX_KNOWN), np.int64)
    while at < size:
        at = _blanks(text, at)
        if row == rows or at >= size or text[at] != _OPEN:
            return _ODD
        nodes[0], lists[0], depth, opened, place = _ROOT, False, 1, True, 0
        at += 1
        while depth:
            at = _blanks(text, at)
            if at >= size:
                return _ODD
            node, field = nodes[depth - 1], _NONE
            done = opened and text[at] == (_CLOSE_LIST if lists[depth - 1] else _CLOSE)
            if not done:
                if not lists[depth - 1]:
                    first, last = at + 1, 0
                    if text[at] == _QUOTE:
                        last = _string(text, first)
                    if last <= 0:
                        return _ODD
                    length = last - first
                    if node != _NONE:
                        if (
                            place < _MAX_KNOWN
                            and known[1, place] == length
                            and known[2, place] == node
                            and _same(text, first, text, known[0, place], length)
                        ):
                            field = known[3, place]
                        else:
                            for key in range(len(parents)):
                                if (
                                    parents[key] == node
                                    and offsets[key + 1] - offsets[key] == length
                                    and _same(text, first, keys, offsets[key], length)
                                ):
                                    field = key
                            if place < _MAX_KNOWN:
                                known[0, place], known[1, place] = first, length
                                known[2, place], known[3, place] = node, field
                        place += 1
                        if field >= 0:
                            if seen[field] == row:
                                return _ODD
                            seen[field] = row
                    at = _blanks(text, last + 1)
                    if at >= size or text[at] != _COLON:
                        return _ODD
                    at = _blanks(text, at + 1)
                    if at >= size:
                        return _ODD
                byte, kind = text[at], kinds[field] if field >= 0 else -1
                if byte in (_OPEN, _OPEN_LIST):
                    if depth == _MAX_DEPTH or (field >= 0 and (kind != _OBJECT or byte == _OPEN_LIST)):
                        return _ODD
                    if field >= 0:
                        empty[field, row] = False
                    nodes[depth], lists[depth], opened = field, byte == _OPEN_LIST, True
                    depth += 1
                    at += 1
                    continue
                first = at
                if byte == _QUOTE:
                    first += 1
                    end = _string(text, first)
                    fits = kind == _TEXT and end > 0
                    last = abs(end)
                    at = last + 1
                elif byte in (_SMALL_T, _SMALL_F, _SMALL_N):
                    end = last = at = _word(text, at)
                    fits = byte == _SMALL_N or kind == _TRUTH
                else:
                    end = _number(text, at)
                    last = at = abs(end)
                    fits = kind == _NUMBER or (kind == _WHOLE and end > 0)
                if end == 0 or (field >= 0 and not fits):
                    return _ODD
                if field >= 0 and byte != _SMALL_N:
                    empty[field, row], slot = False, slots[field]
                    if kind == _TRUTH:
                        numbers[slot, row] = byte == _SMALL_T
                    elif kind == _WHOLE:
                        value, negative = np.int64(0), text[first] == _MINUS
                        first += negative
                        if last - first > _MAX_DIGITS:
                            return _ODD
                        for step in range(first, last):
                            value = 10 * value + text[step] - _ZERO
                        numbers[slot, row] = -value if negative else value
                    else:
                        to = written[slot]
                        if to + last - first > letters.shape[1]:
                            return _NO_ROOM
                        for step in range(first, last):
                            letters[slot, to] = text[step]
                            to += 1
                        written[slot] = to
            else:
                depth -= 1
                at += 1
            opened = False
            # Close what ends here, and stop where the next value begins.
            while depth:
                at = _blanks(text, at)
                if at >= size:
                    return _ODD
                if text[at] == _COMMA:
                    at += 1
                    break
                if text[at] != (_CLOSE_LIST if lists[depth - 1] else _CLOSE):
                    return _ODD
                depth -= 1
                at += 1
        at = _blanks(text, at)
        if at < size and text[at] != _END:
            return _ODD
        at += 1
        for slot in range(len(letters)):
            places[slot, row + 1] = written[slot]
        row += 1
    return _PLAIN if row == rows else _ODD
