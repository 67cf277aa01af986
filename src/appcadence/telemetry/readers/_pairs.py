"""The two directions of a connection, exported as separate records, joined into one flow again.

Records are matched by a 64-bit hash of the five-tuple, and by time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._compiled import compiled
from appcadence._types import Ints, Mask
from appcadence.telemetry.readers.zeek_names import Hashes, hash_names

SLACK_MICROS = 10_000_000
"""Records this close together may match: an answer may begin after the request has ended."""
_SYN, _ACK = 0x02, 0x10
_WELL_KNOWN = 1024
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Records:
    """n records of one direction each, by column."""

    key: Hashes
    """The five-tuple, the same for both directions."""
    greater: Mask
    """Which of the two directions it is."""
    source_port: Ints
    dest_port: Ints
    start: Ints
    end: Ints
    """Microseconds."""
    size: Ints
    """Bytes; -1 = not known."""
    flags: npt.NDArray[np.uint8]
    """TCP flags of all packets; 0 if there are none."""


@dataclass(frozen=True)
class Matches:
    """For each of n records:"""

    opened: Mask
    """whether its source opened the connection;"""
    paired: Mask
    """whether the other direction was found;"""
    start: Ints
    """start and end of both directions together;"""
    end: Ints
    size: Ints
    """bytes of the other direction, -1 = not known;"""
    flags: npt.NDArray[np.uint8]
    """and its TCP flags."""

    def piece(self, start: int, stop: int) -> Matches:
        """The matches of a range of records."""
        return Matches(*(getattr(self, f.name)[start:stop] for f in fields(self)))


def keys(
    source: pa.DictionaryArray, dest: pa.DictionaryArray, source_port: Ints, dest_port: Ints, protocol: Ints
) -> tuple[Hashes, Mask]:
    """The `key` and `greater` of n records; a null address counts as an address of its own."""
    one, other = _end(source, source_port), _end(dest, dest_port)
    key = (one ^ other) * np.uint64(256) + (one + other) + protocol.astype(np.uint64)
    # Whether the source is the greater end is all that distinguishes the directions of a key.
    return key, one > other


def match(records: Records) -> Matches:
    """Who opened each connection, and what the other direction carried."""
    r = records
    key = pa.array(r.key).dictionary_encode().indices.to_numpy().astype(np.int64)
    # By first appearance, and in the order of the log: nearly by start.
    order = np.sort(key << 32 | np.arange(len(key))) & 0xFFFF_FFFF
    opened, partner = _matched(order, key, r.greater, r.source_port, r.dest_port, r.start, r.end, r.flags)
    paired = partner >= 0
    return Matches(
        opened,
        paired,
        np.where(paired, np.minimum(r.start, r.start[partner]), r.start),
        np.where(paired, np.maximum(r.end, r.end[partner]), r.end),
        np.where(paired, r.size[partner], -1),
        np.where(paired, r.flags[partner], np.uint8(0)),
    )


def _end(addresses: pa.DictionaryArray, ports: Ints) -> Hashes:
    mixed = (hash_names(addresses) + ports.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


@compiled
def _matched(  # type: ignore[no-untyped-def]
    order, key, greater, source, dest, start, end, flags
):
    """(n,) whether each record's source opened the connection, and the record's other direction, -1 = none.

    `order` (n,) has the records of a key together. Each record takes the first free one that is close enough.
    """
    n = len(order)
    opened, partner = np.empty(n, np.bool_), np.full(n, -1, np.int64)
    queue = np.empty(n, np.int64)
    lo = 0
    while lo < n:
        hi = lo + 1
        while hi < n and key[order[hi]] == key[order[lo]]:
            hi += 1
        group = order[lo:hi]
        _sort_by_start(group, start)
        by_greater = _opened_by_greater(group, greater, source, dest, start, flags)
        # Free records always have the same direction, since two of opposite direction would have been
        # matched, so one queue is enough.
        head = tail = 0
        for at in group:
            opened[at] = greater[at] == by_greater
            while head < tail and partner[at] < 0 and greater[queue[head]] != greater[at]:
                other = queue[head]
                head += 1
                if end[other] + SLACK_MICROS >= start[at]:
                    partner[at], partner[other] = other, at
            if partner[at] < 0:
                queue[tail] = at
                tail += 1
        lo = hi
    return opened, partner


@compiled
def _sort_by_start(group: Ints, start: Ints) -> None:
    """Sort the records of a key by start, in place: Shell's sort, with Knuth's steps."""
    step = 1
    while step < len(group) // 3:
        step = 3 * step + 1
    while step > 0:
        for place in range(step, len(group)):
            at, row = place, group[place]
            while at >= step:
                other = group[at - step]
                if start[other] < start[row] or (start[other] == start[row] and other < row):
                    break
                group[at] = other
                at -= step
            group[at] = row
        step //= 3


@compiled
def _opened_by_greater(group, greater, source, dest, start, flags):  # type: ignore[no-untyped-def]
    """Whether the greater end of a key opened its connections; its records are sorted by start.

    For TCP it is the end with the earlier SYN, otherwise the end that sent first. If both began in the same
    tick, or if the beginning was not recorded (no SYN, only the answered half, UDP from a well-known port),
    it is the end with the higher port.
    """
    seen = 0
    for at in group:
        seen |= flags[at]
    mine = theirs = _NEVER
    one_way, head = True, group[0]
    for at in group:
        one_way &= greater[at] == greater[head]
        if not seen or flags[at] & _SYN:
            if greater[at]:
                mine = min(mine, start[at])
            else:
                theirs = min(theirs, start[at])
    answered = one_way and seen & _ACK
    low, high = min(source[head], dest[head]), max(source[head], dest[head])
    if low < high and (mine == theirs or answered or (not seen and low < _WELL_KNOWN)):
        return greater[head] == (source[head] > dest[head])
    return greater[head] if mine == theirs else mine < theirs
