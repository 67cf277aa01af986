"""ISO 8601 times of logs as microseconds, in one pass over their bytes."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask

_BLANK, _PLUS, _MINUS, _DOT, _COMMA, _SLASH, _COLON, _T, _Z, _SMALL_Z = b" +-.,/:TZz"
_UTC = re.compile(r"(?i)(z|gmt|utc|etc/utc)?")
_OFFSET = re.compile(r"(?:gmt|utc)?([-+])(\d\d?)(?::?(\d\d))?", re.IGNORECASE)
_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_DAY_MICROS = 86_400_000_000


def read(values: pa.StringArray, offset_seconds: int) -> tuple[Ints, Mask]:
    """(n,) microseconds since 1970 of texts with date, hours, minutes and seconds, and which texts are such.

    The form is "2018-07-05T15:51:50.666597-0400": "T" or a blank, "-" or "/", any number of decimals (six
    count), and "Z", an offset in hours and minutes, or none, which means a clock `offset_seconds` ahead of
    UTC. Other texts may still be times in other forms.
    """
    _, places, data = values.buffers()
    offsets = np.frombuffer(places, np.int32)[values.offset : values.offset + len(values) + 1]
    found: tuple[Ints, Mask] = _read(np.frombuffer(data or b"", np.uint8), offsets, offset_seconds)
    return found


def seconds_ahead(zone: str, never: int) -> int:
    """How many seconds a zone ("UTC" or an offset) is ahead of UTC; `never` if it is neither.

    >>> seconds_ahead("+0100", -1), seconds_ahead('"UTC-5:00"', -1), seconds_ahead("CET", -1)
    (3600, -18000, -1)
    """
    zone = zone.strip().strip('"')
    if _UTC.fullmatch(zone):
        return 0
    offset = _OFFSET.fullmatch(zone)
    if offset is None:
        return never
    seconds = int(offset[2]) * 3600 + int(offset[3] or 0) * 60
    return never if seconds >= 86_400 else -seconds if offset[1] == "-" else seconds


@compiled
def _number(data: npt.NDArray[np.uint8], at: int, digits: int) -> int:
    """The number in this many digits; -1 if there are other characters."""
    found = 0
    for place in range(at, at + digits):
        if not 48 <= data[place] <= 57:
            return -1
        found = 10 * found + data[place] - 48
    return found


@compiled
def _read(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], offset_seconds: int
) -> tuple[Ints, Mask]:
    micros = np.zeros(len(offsets) - 1, np.int64)
    good = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(micros)):
        at, end = offsets[row], offsets[row + 1]
        while at < end and data[at] == _BLANK:
            at += 1
        while at < end and data[end - 1] == _BLANK:
            end -= 1
        if end - at < 19:
            continue
        year, month, day = _number(data, at, 4), _number(data, at + 5, 2), _number(data, at + 8, 2)
        hour, minute, second = (
            _number(data, at + 11, 2),
            _number(data, at + 14, 2),
            _number(data, at + 17, 2),
        )
        mark, middle = data[at + 4], data[at + 10]
        if (
            (mark != _MINUS and mark != _SLASH)
            or data[at + 7] != mark
            or (middle != _T and middle != _BLANK)
            or data[at + 13] != _COLON
            or data[at + 16] != _COLON
            or not (1970 <= year < 2200 and 1 <= month <= 12 and 0 <= hour < 24)
            or not (0 <= minute < 60 and 0 <= second < 60)
        ):
            continue
        leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        if not 1 <= day <= _DAYS[month] + leap:
            continue
        at += 19
        fraction, scale = 0, 100_000
        if at < end and (data[at] == _DOT or data[at] == _COMMA):
            at += 1
            first = at
            while at < end and 48 <= data[at] <= 57:
                fraction += (data[at] - 48) * scale
                scale //= 10
                at += 1
            if at == first:
                continue
        ahead = offset_seconds
        if at < end:
            if end - at == 1 and (data[at] == _Z or data[at] == _SMALL_Z):
                ahead = 0
            elif data[at] == _PLUS or data[at] == _MINUS:
                wide = end - at == 6 and data[at + 3] == _COLON
                if not wide and end - at != 5:
                    continue
                hours, minutes = _number(data, at + 1, 2), _number(data, end - 2, 2)
                if not (0 <= hours < 24 and 0 <= minutes < 60):
                    continue
                ahead = hours * 3600 + minutes * 60
                if data[at] == _MINUS:
                    ahead = -ahead
            else:
                continue
        # Days since 1970 in a calendar that begins in March (H. Hinnant, "date algorithms").
        before = year - (month <= 2)
        of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
        days = before * 365 + before // 4 - before // 100 + before // 400 + of_year - 719_468
        seconds = hour * 3600 + minute * 60 + second - ahead
        micros[row] = days * _DAY_MICROS + seconds * 1_000_000 + fraction
        good[row] = True
    return micros, good
