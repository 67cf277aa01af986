"""Words between blanks as columns, in one pass over the bytes of all records."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask
from appcadence.telemetry.readers import _plain_text

_BLANK, _TAB, _DASH, _ZERO, _NINE = b" \t-09"
_MAX_DIGITS = 18


def columns(
    text: npt.NDArray[np.uint8],
    starts: Ints,
    ends: Ints,
    names: Sequence[str],
    wanted: Sequence[str],
    counts: Collection[str],
    dash: bool,
) -> dict[str, pa.Array]:
    """The wanted words by their places; a column in `counts` as whole numbers if all its words are."""
    found: dict[str, pa.Array] = dict.fromkeys(wanted, pa.nulls(len(starts), pa.string()))
    present = [name for name in wanted if name in names]
    places = [names.index(name) for name in present]
    keys = np.full(max(places, default=-1) + 1, -1)
    keys[places] = range(len(places))
    whole = np.array([name in counts for name in present], bool)
    # The first record already shows which columns are not numbers.
    for rows in (min(len(starts), 1), len(starts), len(starts)):
        shape = len(present), rows
        # Only memory that is written to is really used.
        numbers, letters = np.empty(shape, np.int64), np.empty((len(present), len(text)), np.uint8)
        offsets, empty = np.zeros((len(present), rows + 1), np.int32), np.ones(shape, bool)
        plain = _taken(text, starts[:rows], ends, keys, whole, dash, numbers, empty, offsets, letters)
        if plain.all() and rows == len(starts):
            break
        whole &= plain
    for key, name in enumerate(present):
        if whole[key]:
            found[name] = pa.array(numbers[key], mask=empty[key])
        else:
            found[name] = _plain_text.texts(letters[key], offsets[key], empty[key])
    return found


@compiled
def _taken(
    text: npt.NDArray[np.uint8],
    starts: Ints,
    ends: Ints,
    keys: Ints,
    whole: Mask,
    dash: bool,
    numbers: npt.NDArray[np.int64],
    empty: npt.NDArray[np.bool_],
    offsets: npt.NDArray[np.int32],
    letters: npt.NDArray[np.uint8],
) -> Mask:
    """Copy the words of each record into the rows of the arrays that `keys` gives; which rows are plain."""
    plain, written = np.ones(len(whole), np.bool_), np.zeros(len(whole), np.int64)
    for row in range(len(starts)):
        at, end, place = starts[row], ends[row], 0
        while at < end and place < len(keys):
            while at < end and (text[at] == _BLANK or text[at] == _TAB):
                at += 1
            first, key = at, keys[place]
            if key >= 0 and not whole[key]:
                to = written[key]
                while at < end and text[at] != _BLANK and text[at] != _TAB:
                    letters[key, to] = text[at]
                    to, at = to + 1, at + 1
                empty[key, row] &= at == first
                written[key] = to
            else:
                while at < end and text[at] != _BLANK and text[at] != _TAB:
                    at += 1
            place += at > first
            if key < 0 or at == first or not whole[key]:
                continue
            if at > first + 1 or text[first] != _DASH:
                negative = text[first] == _DASH
                first += negative
                number = np.int64(0)
                for step in range(first, at):
                    number = 10 * number + text[step] - _ZERO
                    plain[key] &= _ZERO <= text[step] <= _NINE
                plain[key] &= at - first <= _MAX_DIGITS
                numbers[key, row], empty[key, row] = -number if negative else number, False
            else:
                plain[key] &= dash
        for key in range(len(whole)):
            offsets[key, row + 1] = written[key]
    return plain
