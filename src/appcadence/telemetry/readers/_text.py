"""Text as numbers and times, by column; every result comes with a mask of faulty rows."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.names import Column
from appcadence.telemetry.readers import _iso_times, _plain_text
from appcadence.telemetry.readers._flows import LAST_SECOND, micros
from appcadence.telemetry.times import from_iso, to_micros

_TENTHS = np.array([10.0**-places for places in range(10)])
_WHOLE = r"^-?[0-9]{1,18}$"
_NUMBER = r"^-?[0-9]{1,19}(\.[0-9]*)?([eE][-+]?[0-9]{1,2})?$"
_DECIMAL = r"^-?[0-9]{1,19}(\.[0-9]*)?$"
_EPOCH = r"^[0-9]{1,11}(\.[0-9]+)?$"
_ISO = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?"
_ZONE = r"( ?(Z|z|UTC|GMT)|[-+][0-9]{2}(:?[0-9]{2})?)$"


def whole(text: Column) -> tuple[pa.Array, Mask]:
    """Whole numbers, null where text is missing or does not fit; and which rows are faulty."""
    plain = _plain_text.whole(one_array(text).cast(pa.string()))
    if plain is not None:
        return plain, np.zeros(len(plain), bool)
    return _cast(_stripped(text), _WHOLE, pa.int64())


def number(text: Column, exponents: bool = True) -> tuple[pa.Array, Mask]:
    """Numbers, null where text is missing or does not fit; and which rows are faulty."""
    plain = _plain_text.number(one_array(text).cast(pa.string()))
    if plain is not None:
        return plain, np.zeros(len(plain), bool)
    return _cast(_stripped(text), _NUMBER if exponents else _DECIMAL, pa.float64())


def in_thousands(text: Column) -> Mask:
    """Which texts may be whole numbers with points between thousands ("1.000") rather than decimals."""
    return _matches(_stripped(text), r"^[1-9][0-9]{0,2}(\.[0-9]{3})+$")


def iso_times(text: pa.StringArray, offset_seconds: int = 0) -> pa.Array | None:
    """As `times`, if all texts are plain ISO 8601; otherwise None."""
    clock, plain = _iso_times.read(text, offset_seconds)
    empty = np.asarray(text.is_null())
    return in_range(pa.array(clock, mask=empty)) if (plain | empty).all() else None


def times(text: Column, offset_seconds: int = 0) -> tuple[pa.Array, Mask]:
    """Times as microseconds since 1970, null where there is no time; and which rows are faulty.

    A time is a count of seconds since 1970 ("1539069039.898171") or ISO 8601 with "T" or a space, "-" or
    "/" in the date, any number of decimals, and any offset ("2018-07-05T15:51:50.666597-0400"). Without
    an offset the clock is taken to be `offset_seconds` ahead of UTC. A time outside 1970 to 2100 is -1.
    """
    texts = one_array(text).cast(pa.string())
    clock, plain = _iso_times.read(texts, offset_seconds)
    empty = np.asarray(texts.is_null())
    found = in_range(pa.array(clock, mask=~plain))
    if (plain | empty).all():
        return found, np.zeros(len(texts), bool)
    values = _stripped(pc.if_else(pa.array(plain), None, texts))
    rest, bad = _other_times(values, offset_seconds)
    return pc.coalesce(found, rest), bad


def _other_times(values: pa.Array, offset_seconds: int) -> tuple[pa.Array, Mask]:
    """Times as counts of seconds, and rarer forms of ISO 8601."""
    known = np.asarray(values.is_valid())
    epoch = _matches(values, _EPOCH)
    result = micros(pc.if_else(pa.array(epoch), values, None).cast(pa.float64()))
    if epoch.sum() == known.sum():
        return result, np.zeros(len(values), bool)
    iso = pc.replace_substring(values, "/", "-")
    rest = pa.array(_matches(iso, _ISO + "$") | _matches(iso, _ISO + _ZONE))
    iso = pc.if_else(rest, iso, None)
    zoned = _matches(iso, _ZONE)
    iso = pc.replace_substring_regex(iso, r" ?(Z|z|UTC|GMT)$", "Z")
    iso = pc.replace_substring(iso, ",", ".")
    iso = pc.replace_substring_regex(iso, r"(\.[0-9]{6})[0-9]+", r"\1")
    iso = pc.if_else(pa.array(zoned), iso, pc.binary_join_element_wise(iso, "Z", ""))
    parsed = _parsed(iso)
    if offset_seconds:
        parsed = pc.if_else(pa.array(zoned), parsed, pc.subtract(parsed, offset_seconds * 1_000_000))
    result = pc.coalesce(result, in_range(parsed))
    return result, known & np.asarray(result.is_null())


def named_times(text: Column, pattern: str, offset_seconds: int) -> tuple[pa.Array, Mask]:
    """As `times`, for texts of a `strptime` pattern; each distinct text is parsed once."""
    plain = _strptime(text, pattern, offset_seconds)
    if plain is not None:
        return plain, np.zeros(len(plain), bool)
    values = one_array(_stripped(text)).dictionary_encode()
    zone = timezone(timedelta(seconds=offset_seconds))
    found: list[int | None] = []
    for value in values.dictionary.to_pylist():
        try:
            time = datetime.strptime(value, pattern)
            found.append(to_micros(time if time.tzinfo else time.replace(tzinfo=zone)))
        except (ValueError, OverflowError):
            found.append(None)
    result = in_range(pc.take(pa.array(found, pa.int64()), values.indices))
    return result, np.asarray(values.is_valid()) & np.asarray(result.is_null())


@compiled
def _decimals(data: npt.NDArray[np.uint8], places: npt.NDArray[np.int32]) -> Ints:
    """(n,) how many digits follow the first "." or "," of each text."""
    found = np.zeros(len(places) - 1, np.int64)
    for row in range(len(found)):
        at, end = places[row], places[row + 1]
        while at < end and data[at] != 46 and data[at] != 44:
            at += 1
        at += 1
        while at < end and 48 <= data[at] <= 57:
            found[row] += 1
            at += 1
    return found


def has_zone(text: Column) -> pa.Array:
    """Which times carry an offset or zone, or are counts that need none."""
    return pc.or_(pc.match_substring_regex(text, _ZONE), pc.match_substring_regex(text, _EPOCH))


def is_local(text: pa.Array) -> bool:
    """Whether the first of the times carries neither offset nor zone, and is no count that needs none."""
    first = (text.drop_null() if text.null_count else text)[:1]
    return len(first) > 0 and not has_zone(first)[0].as_py()


def resolution(text: Column, finest: float) -> pa.Array:
    """The resolution of each time in seconds: 1 if the text has no decimals, otherwise at best `finest`."""
    values = one_array(text).cast(pa.string())
    _, offsets, data = values.buffers()
    places = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    count = _decimals(np.frombuffer(data or b"", np.uint8), places)
    return pa.array(np.maximum(_TENTHS[np.minimum(count, 9)], finest))


def _stripped(text: Column) -> pa.Array:
    values = pc.utf8_trim_whitespace(one_array(text).cast(pa.string()))
    return pc.if_else(pc.equal(values, ""), None, values)


def _matches(values: pa.Array, pattern: str) -> Mask:
    return np.asarray(pc.fill_null(pc.match_substring_regex(values, pattern), False))


def _strptime(text: Column, pattern: str, offset_seconds: int) -> pa.Array | None:
    """Times of a pattern if Arrow can read all of them, which is fast; otherwise None."""
    if re.search(r"%[^YmdHMSbBaA]", pattern):
        return None
    values = _stripped(text)
    try:
        clock = pc.strptime(values, pattern, "s").cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return in_range(pc.multiply(pc.subtract(clock, offset_seconds), 1_000_000))


def _cast(values: pa.Array, pattern: str, declared: pa.DataType) -> tuple[pa.Array, Mask]:
    fits = _matches(values, pattern)
    cast = pc.if_else(pa.array(fits), values, None).cast(declared)
    return cast, np.asarray(values.is_valid()) & ~fits


def _parsed(iso: pa.Array) -> pa.Array:
    try:
        return iso.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowInvalid:
        # The right form but no real time, such as the 30th of February.
        times = [from_iso(value or "") for value in iso.to_pylist()]
        return pa.array([None if time is None else to_micros(time) for time in times], pa.int64())


def in_range(micros: pa.Array) -> pa.Array:
    """Microseconds; -1 where they lie outside 1970 to 2100."""
    fits = pc.and_(pc.greater_equal(micros, 0), pc.less(micros, LAST_SECOND * 1_000_000))
    return pc.if_else(fits, micros, -1)
