"""Records of one line each as columns: words between blanks, key=value in several dialects, CEF, LEEF, and
tables behind a prefix or of uneven width.

A record may follow a syslog header. The fields are found in one pass over the bytes. A line that is not UTF-8
does not affect the others.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask
from appcadence.telemetry.readers import _csv, _plain_text, _words
from appcadence.telemetry.readers._declaration import Layout
from appcadence.telemetry.readers._lines import Block, Fault, Rows, line_ends

MAX_PREFIX = 1000
"""Characters of a line within which its record begins and shows its kind."""
_BOM = b"\xef\xbb\xbf"
_BLANK, _TAB, _EQUALS, _QUOTE, _BACKSLASH, _COMMA, _PIPE, _SEMICOLON = b' \t="\\,|;'
_SAFE = re.compile(r"\[\^[^\]\\]*\\n[^\]\\]*\]|\\[dSw.|/]")
_BEYOND = re.compile(r"\\|\[\^|\(\?(?![:=!])|\$|\n")
"""Parts of a pattern that may look past the end of a line or before its start, apart from the safe ones."""
_IN_A_ROW = 8192
_MAX_MISSED = 100
"""After this many mismatches plus a quarter of all lines, the rest is checked line by line."""
_KV, _PAIRS, _CEF = range(3)
_LEEF_DELIMITER = re.compile(rb"LEEF:2\.\d\|(?:[^|]*\|){4}(?:(?:0x|x)([0-9A-Fa-f]{2,4})|([^\w\s|=]))\|")


def rows(
    block: Block,
    layout: Layout,
    names: Sequence[str],
    wanted: Sequence[str],
    counts: Collection[str] = (),
    dash: bool = False,
) -> Rows:
    """The records of a block, each wanted field as text, and the lines that are no records.

    Lines that do not match `layout.of_kind` are read but are neither records nor bad. `names` are the column
    names of words and tables. Words in `counts` may be returned as whole numbers, with "-" as null if `dash`.
    """
    if block.first:
        block = replace(block, data=block.data.removeprefix(_BOM))
    data = block.data
    starts, ends, numbers, bad = _whole_lines(block)
    read = len(numbers) + len(bad)
    kept = np.ones(len(starts), bool)
    groups: dict[str, pa.Array] = {}
    if layout.starts or layout.of_kind:
        starts, found, kept, groups = _find_records(data, starts, ends, layout, wanted)
        bad += [(number, "no such record") for number in numbers[~found].tolist()]
    starts, ends, numbers = starts[kept], ends[kept], numbers[kept]
    if layout.syntax == "csv":
        return _table(block, layout, names, wanted, (starts, ends, numbers), bad, read)
    unnamed = [name for name in wanted if name not in groups]
    columns = _columns(data, starts, ends, layout, names, unnamed, counts, dash)
    columns |= groups
    table = pa.table(columns or {"row": pa.nulls(len(numbers))})
    return Rows(table, numbers, read, bad, block.size)


def first_lines(head: bytes, count: int = 20) -> list[str]:
    """The first characters of the first non-blank lines of a file."""
    lines = head.removeprefix(_BOM).split(b"\n")[: 5 * count]
    texts = (line.decode("utf-8", "replace").strip("\r ") for line in lines)
    return [text for text in texts if text][:count]


@cache
def _in_bytes(pattern: re.Pattern[str]) -> re.Pattern[bytes]:
    return re.compile(pattern.pattern.encode(), re.MULTILINE)


def _whole_lines(block: Block) -> tuple[Ints, Ints, Ints, list[Fault]]:
    """Where non-blank lines begin and end, their numbers, and the lines that are not UTF-8."""
    text = np.frombuffer(block.data, np.uint8)
    ends = line_ends(block.data)
    if len(ends) < block.count:
        ends = np.append(ends, len(text))
    starts = np.concatenate(([0], ends[:-1] + 1)).astype(np.int64) if len(ends) else ends
    numbers = block.lines
    returned = np.full(len(ends), b"\r" in block.data)
    while returned.any():
        returned = (ends > starts) & (text[np.maximum(ends - 1, 0)] == 13)
        ends = ends - returned
    kept, bad = ends > starts, np.zeros(len(ends), bool)
    try:
        block.data.isascii() or block.data.decode()
    except UnicodeDecodeError:
        bad = kept & ~_decodable(block.data, starts, ends)
    good = kept & ~bad
    return (
        starts[good],
        ends[good],
        numbers[good],
        [(number, "not UTF-8") for number in numbers[bad].tolist()],
    )


def _decodable(data: bytes, starts: Ints, ends: Ints) -> Mask:
    def fits(line: bytes) -> bool:
        try:
            line.decode()
        except UnicodeDecodeError:
            return False
        return True

    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    return np.fromiter((fits(data[a:b]) for a, b in spans), bool, len(starts))


def _find_records(
    data: bytes, starts: Ints, ends: Ints, layout: Layout, wanted: Sequence[str]
) -> tuple[Ints, Mask, Mask, dict[str, pa.Array]]:
    """Where records begin, which lines are records, which records are of the kind, and named groups."""
    lasts = np.minimum(ends, starts + MAX_PREFIX)
    short = bool((lasts == ends).all())
    moved, found = starts.copy(), np.ones(len(starts), bool)
    names = [name for name in layout.starts.groupindex if name in wanted] if layout.starts else []
    texts: list[list[bytes | None]] = [[] for _ in names]
    if layout.starts:
        rest = np.arange(len(starts))
        if short and not names:
            rest = np.flatnonzero(~_matching(data, starts, layout.starts, at_once=True))
        search = _in_bytes(layout.starts).search
        begins = []
        # Matches are not kept, because so many objects would cost more than the search.
        for start, last in zip(starts[rest].tolist(), lasts[rest].tolist(), strict=True):
            match = search(data, start, last)
            begins.append(match.end() if match else -1)
            for name, values in zip(names, texts, strict=True):
                values.append(match[name] if match else None)
        moved[rest] = begins
        found = moved >= 0
    kept = found
    if layout.of_kind:
        kept = found & (moved == starts)
        if short:
            kept &= _matching(data, starts, layout.of_kind)
        rest = np.flatnonzero(found & ~kept)
        search = _in_bytes(layout.of_kind).search
        spans = zip(moved[rest].tolist(), lasts[rest].tolist(), strict=True)
        kept[rest] = [search(data, at, last) is not None for at, last in spans]
    groups = {
        name: pa.array(values, pa.binary()).cast(pa.string()).filter(pa.array(kept))
        for name, values in zip(names, texts, strict=True)
    }
    return moved, found, kept, groups


def _matching(data: bytes, starts: Ints, pattern: re.Pattern[str], at_once: bool = False) -> Mask:
    """Lines that surely match a pattern at their start; with `at_once`, the match must be empty.

    Usually these are all lines, so runs of lines are matched at once.
    """
    found = np.zeros(len(starts), bool)
    run = _in_a_row(pattern, at_once)
    if run is None or b"\r" in data:
        return found
    place = missed = 0
    while place < len(starts) and missed <= _MAX_MISSED + place // 4:
        start = int(starts[place])
        match = run.match(data, start)
        if match and match.end() > start:
            stop = int(np.searchsorted(starts, match.end()))
            found[place:stop], place = True, stop
        else:
            place, missed = place + 1, missed + 1
    return found


@cache
def _in_a_row(pattern: re.Pattern[str], at_once: bool) -> re.Pattern[bytes] | None:
    """A pattern for runs of lines; None if the original might look past the end of a line."""
    if pattern.groups or _BEYOND.search(_SAFE.sub("", pattern.pattern)):
        return None
    # Atomic, so that it matches the same as it would alone.
    line = f"^(?>{pattern.pattern}){'^' if at_once else ''}.*+\\n"
    return re.compile(f"(?:{line}){{1,{_IN_A_ROW}}}".encode(), re.MULTILINE)


def _table(
    block: Block,
    layout: Layout,
    names: Sequence[str],
    wanted: Sequence[str],
    lines: tuple[Ints, Ints, Ints],
    bad: list[Fault],
    read: int,
) -> Rows:
    """The rows of a table without a header line."""
    starts, ends, numbers = lines
    whole = block
    if len(starts) < block.count or (np.append(-1, ends[:-1]) + 1 != starts).any():
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        data = b"\n".join([block.data[start:end] for start, end in spans])
        first = int(numbers[0]) if len(numbers) else 1
        whole = Block(data, first, max(len(numbers) - 1, 0), numbers=numbers)
    places = {name: names.index(name) for name in wanted if name in names}
    dialect = _csv.Dialect(layout.delimiter, ragged=True)
    width = max(_width(whole.data, dialect), *(place + 1 for place in places.values()), 1)
    found = _csv.rows(whole, places, width, dialect)
    return Rows(found.table, found.lines, read, [*bad, *found.bad], block.size)


def _width(data: bytes, dialect: _csv.Dialect) -> int:
    try:
        end = data.find(b"\n")
        return len(_csv.split(data[: len(data) if end < 0 else end], dialect))
    except csv.Error:
        return 0


def _columns(
    data: bytes,
    starts: Ints,
    ends: Ints,
    layout: Layout,
    names: Sequence[str],
    wanted: Sequence[str],
    counts: Collection[str],
    dash: bool,
) -> dict[str, pa.Array]:
    text = np.frombuffer(data, np.uint8)
    if layout.syntax == "words":
        return _words.columns(text, starts, ends, names, wanted, counts, dash)
    keys = [name.encode() for name in wanted]
    offsets = np.cumsum([0, *map(len, keys)]).astype(np.int64)
    packed = np.frombuffer(b"".join(keys), np.uint8)
    mode, delimiter = {"kv": _KV, "cef": _CEF}.get(layout.syntax, _PAIRS), layout.delimiter
    separator = ord(delimiter)
    if layout.syntax == "leef":
        separator = _leef_separator(data, starts, ends)
        mode = _CEF if separator == _BLANK else _PAIRS
    firsts, lasts = (np.full((len(wanted), len(starts)), -1, np.int64) for _ in range(2))
    _find(text, starts, ends, packed, offsets, separator, mode, firsts, lasts)
    return {name: _plain_text.spans(text, firsts[i], lasts[i]) for i, name in enumerate(wanted)}


def _leef_separator(data: bytes, starts: Ints, ends: Ints) -> int:
    """The separator of LEEF attributes: from the header, otherwise tabs, "|" or blanks."""
    if not len(starts):
        return _TAB
    line = data[data.rfind(b"\n", 0, int(starts[0])) + 1 : int(ends[0])]
    if said := _LEEF_DELIMITER.search(line):
        return int(said[1], 16) & 0xFF if said[1] else said[2][0]
    body = data[int(starts[0]) : int(ends[0])]
    if b"\t" in body:
        return _TAB
    return _PIPE if re.search(rb"\w=[^|]*\|\w+=", body) else _BLANK


@compiled
def _is_escaped(text: npt.NDArray[np.uint8], at: int, end: int) -> bool:
    """Whether a value begins with a quotation mark that surrounding CSV or JSON doubled or escaped."""
    if at + 2 >= end or text[at + 1] != _QUOTE:
        return False
    after = text[at + 2]
    doubled = text[at] == _QUOTE and after != _BLANK and after != _TAB and after != _COMMA
    return bool(doubled or text[at] == _BACKSLASH)


@compiled
def _find(
    text: npt.NDArray[np.uint8],
    starts: Ints,
    ends: Ints,
    keys: npt.NDArray[np.uint8],
    offsets: Ints,
    separator: int,
    mode: int,
    firsts: Ints,
    lasts: Ints,
) -> None:
    """Find where the value of each wanted key begins and ends in each record; repeated keys are ignored."""
    for row in range(len(starts)):
        at, end = starts[row], ends[row]
        if mode == _KV:
            while at < end:
                while at < end and (
                    text[at] == _BLANK or text[at] == _TAB or text[at] == _COMMA or text[at] == _SEMICOLON
                ):
                    at += 1
                key_first = at
                while at < end and text[at] != _EQUALS and text[at] != _BLANK and text[at] != _TAB:
                    at += 1
                if at >= end or text[at] != _EQUALS:
                    continue
                key_last = at
                at += 1
                if _is_escaped(text, at, end):
                    mark = text[at]
                    at += 2
                    first = at
                    while at + 1 < end and not (text[at] == mark and text[at + 1] == _QUOTE):
                        at += 1
                    last = at
                    at += 2
                elif at < end and text[at] == _QUOTE:
                    at += 1
                    first = at
                    while at < end and text[at] != _QUOTE:
                        at += 2 if text[at] == _BACKSLASH else 1
                    at = min(at, end)
                    last = at
                    at += 1
                else:
                    first = at
                    while at < end and text[at] != _BLANK and text[at] != _TAB and text[at] != _COMMA:
                        at += 1
                    last = at
                _put(text, keys, offsets, key_first, key_last, first, last, row, firsts, lasts)
        elif mode == _PAIRS:
            while at < end:
                while at < end and (text[at] == _BLANK or text[at] == separator):
                    at += 1
                key_first, key_last = at, -1
                while at < end and text[at] != separator:
                    if text[at] == _EQUALS and key_last < 0:
                        key_last = at
                    at += 1
                if key_last > 0:
                    name_last = key_last
                    while name_last > key_first and text[name_last - 1] == _BLANK:
                        name_last -= 1
                    _put(text, keys, offsets, key_first, name_last, key_last + 1, at, row, firsts, lasts)
        else:
            # A value continues until a blank before the next key.
            key_first, key_last, value_first, word = -1, -1, -1, at
            while at <= end:
                if at < end and text[at] == _BACKSLASH:
                    at = min(at + 2, end)
                    continue
                if at < end and (text[at] == _BLANK or text[at] == _TAB):
                    word = at + 1
                elif at >= end or (text[at] == _EQUALS and word != key_first and at > word):
                    if key_first >= 0:
                        last = end if at >= end else word
                        while last > value_first and text[last - 1] == _BLANK:
                            last -= 1
                        _put(text, keys, offsets, key_first, key_last, value_first, last, row, firsts, lasts)
                    key_first, key_last, value_first = word, at, at + 1
                at += 1


@compiled
def _put(
    text: npt.NDArray[np.uint8],
    keys: npt.NDArray[np.uint8],
    offsets: Ints,
    key_first: int,
    key_last: int,
    first: int,
    last: int,
    row: int,
    firsts: Ints,
    lasts: Ints,
) -> None:
    length = key_last - key_first
    for key in range(len(offsets) - 1):
        if offsets[key + 1] - offsets[key] != length or firsts[key, row] >= 0:
            continue
        same = True
        for step in range(length):
            if text[key_first + step] != keys[offsets[key] + step]:
                same = False
                break
        if same:
            firsts[key, row], lasts[key, row] = first, last
            return
