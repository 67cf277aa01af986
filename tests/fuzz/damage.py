"""Damaged copies of good files, drawn by Hypothesis, which shrinks a failure to the few edits that cause it.

An edit is a tuple of numbers, so that an input costs few draws: what is done, at what place, how much of the
file it takes, and which value it uses.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

MAX_BYTES = 1 << 18
"""Inputs are cut here: what grows with the size of a file is measured elsewhere."""

_SCALE = 1 << 16
_LENGTHS = (1, 2, 3, 4, 8, 16, 64, 256)
_VALUE = re.compile(rb'[^\s,;|="{}\[\]:]+')
_NUMBER = re.compile(rb"-?\d[\d.]*")
_VALUES = (
    *(b"nan", b"NaN", b"inf", b"-Infinity", b"1e400", b"-1e308", b"1e-400", b"9" * 40, b"0x7f", b"1_0"),
    *(b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"-1", b"-0", b"1.5"),
    *(b"4102444800", b"99999999999", b"253402300800", b"1e18", b"65536", b"2147483648", b"00", b""),
    *(b"null", b"true", b"[]", b"{}", b'""', b'"\\ud800"', b'"x"', "\u0661".encode(), b"-", b"(empty)"),
    *(b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59", b"1970-01-01 00:00:00", b"24:00:00"),
)
_TOKENS = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1a"),
    *(
        b",",
        b";",
        b"\t",
        b"|",
        b'"',
        b"'",
        b"\\",
        b":",
        b"#",
        b"[",
        b"]",
        b"{",
        b"}",
        b"}{",
        b"=",
        b"<",
        b">",
    ),
    *(b"#fields\tts\n", b"#separator \\x2c\n", b"#path\tdns\n", b"#close\n", b"Summary\n", b"[apps.x]\n"),
    *(b"\\u0000", b"\\ud800", b"\xe2\x80\xa8", b"&a;", b"<!DOCTYPE x>", b"::", b"fe80::1%en0", b"../"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\x7f\xf8\0\0\0\0\0\0"),
)
_NESTING = tuple((part, depth) for depth in (3, 60, 1200, 40_000) for part in (b"[", b'{"a":', b"<array>"))

Edit = tuple[str, int, int, int]


class Content(bytes):
    """An input. Of the values it draws, Hypothesis keeps thousands whose type is `bytes`; not these."""


def _flip(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + bytes(byte ^ (1 << value % 8) for byte in content[at : at + 1]) + content[at + 1 :]


def _write(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + bytes([value]) * size + content[at + size :]


def _delete(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + content[at + size :]


def _truncate(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at]


def _insert(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + _TOKENS[value % len(_TOKENS)] + content[at:]


def _repeat(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + content[at : at + size] * (2 + value) + content[at + size :]


def _splice(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    return content[:at] + other[len(other) * value // 256 :]


def _number(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    found = _NUMBER.search(content, at) or _NUMBER.search(content)
    if found is None:
        return content
    return content[: found.start()] + _VALUES[value % len(_VALUES)] + content[found.end() :]


def _field(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    """A value between delimiters replaced, by one of another place of a log or by an odd one."""
    found, taken = _VALUE.search(content, at), _VALUE.search(other, len(other) * value // 256)
    if found is None or taken is None:
        return content
    new = taken[0] if size > 8 else _VALUES[value % len(_VALUES)]
    return content[: found.start()] + new + content[found.end() :]


def _nest(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    found = _NUMBER.search(content, at)
    at, end = found.span() if found else (at, at)
    part, depth = _NESTING[value % len(_NESTING)]
    return content[:at] + part * depth + content[end:]


def _swap_lines(content: bytes, other: bytes, at: int, size: int, value: int) -> bytes:
    lines = content.splitlines(keepends=True)
    if lines:
        one, two = at % len(lines), value % len(lines)
        lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


_EDITS: dict[str, Callable[[bytes, bytes, int, int, int], bytes]] = {
    "flip": _flip,
    "write": _write,
    "delete": _delete,
    "truncate": _truncate,
    "insert": _insert,
    "repeat": _repeat,
    "splice": _splice,
    "number": _number,
    "field": _field,
    "nest": _nest,
    "swap lines": _swap_lines,
}


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


_FORMS: dict[str, Callable[[bytes, int], bytes]] = {
    "plain": lambda content, at: content,
    "gzip": lambda content, at: _packed(content),
    "torn gzip": lambda content, at: _packed(content)[: 2 + at * 40 // _SCALE],
    "cut gzip": lambda content, at: _packed(content)[: -1 - at % 40],
    "flipped gzip": lambda content, at: _flip(_packed(content), b"", at % (20 + len(content)), 1, at),
    "two gzips": lambda content, at: _packed(content) + _packed(content[at % (1 + len(content)) :]),
    "bzip2": lambda content, at: bz2.compress(content, 1),
    "torn bzip2": lambda content, at: bz2.compress(content, 1)[: 4 + at * 40 // _SCALE],
    "xz": lambda content, at: lzma.compress(content, preset=0),
    "flipped xz": lambda content, at: _flip(lzma.compress(content, preset=0), b"", at % 60, 1, at),
    "line ends": lambda content, at: content.replace(b"\n", b"\r\n"),
    "utf-16": lambda content, at: content.decode("latin-1").encode("utf-16"),
    "utf-8 twice": lambda content, at: content.decode("latin-1").encode(),
    "mark": lambda content, at: b"\xef\xbb\xbf" + content,
}
_OFTEN_PLAIN = (*["plain"] * 16, *_FORMS)

_EDIT = st.tuples(
    st.sampled_from(tuple(_EDITS)),
    st.integers(0, _SCALE - 1),
    st.sampled_from(_LENGTHS),
    st.integers(0, 255),
)


def _damaged(seeds: Sequence[bytes], one: int, two: int, edits: list[Edit], form: str, at: int) -> Content:
    content = seeds[one]
    for kind, place, size, value in edits:
        content = _EDITS[kind](content, seeds[two], place * len(content) // _SCALE, size, value)[:MAX_BYTES]
    return Content(_FORMS[form](content, at))


def damaged(seeds: Sequence[bytes]) -> st.SearchStrategy[Content]:
    """Copies of the seeds after none to four edits, now and then compressed or encoded as a whole."""
    seed = st.integers(0, len(seeds) - 1)
    return st.builds(
        _damaged,
        st.just(seeds),
        seed,
        seed,
        st.lists(_EDIT, max_size=4),
        st.sampled_from(_OFTEN_PLAIN),
        st.integers(0, _SCALE - 1),
    )
