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
_FEW = 32
"""Most records of one key that are sorted by insertion."""


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
    key, greater, start, end = records.key, records.greater, records.start, records.end
    order, first = _ordered(key, start)
    group = np.cumsum(first) - 1
    by_greater = _openers(
        group,
        greater[order],
        start[order],
        records.flags[order],
        records.source_port[order],
        records.dest_port[order],
    )
    opened = np.empty(len(order), bool)
    opened[order] = greater[order] == by_greater[group]
    partner = _partners(order, first, greater, start, end)
    paired = partner >= 0
    return Matches(
        opened,
        paired,
        np.where(paired, np.minimum(start, start[partner]), start),
        np.where(paired, np.maximum(end, end[partner]), end),
        np.where(paired, records.size[partner], -1),
        np.where(paired, records.flags[partner], np.uint8(0)),
    )


def _ordered(key: Hashes, start: Ints) -> tuple[Ints, Mask]:
    """The order of n records by key and start, and which are the first of their key."""
    order = np.argsort(key)
    first = np.append(True, np.diff(key[order]) > 0)[: len(order)]
    most = np.diff(np.append(np.flatnonzero(first), len(order))).max(initial=0)
    if most > _FEW:
        order = np.lexsort((start, key))
    else:
        _by_start(order, first, start)
    return order, first


@compiled
def _by_start(order: Ints, first: Mask, start: Ints) -> None:
    """Sort the few records of each key by start, in place."""
    for place in range(len(order)):
        at = place
        while not first[at] and (
            start[order[at - 1]] > start[order[at]]
            or (start[order[at - 1]] == start[order[at]] and order[at - 1] > order[at])
        ):
            order[at - 1], order[at] = order[at], order[at - 1]
            at -= 1


def _end(addresses: pa.DictionaryArray, ports: Ints) -> Hashes:
    mixed = (hash_names(addresses) + ports.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


def _openers(
    group: Ints, greater: Mask, start: Ints, flags: npt.NDArray[np.uint8], source: Ints, dest: Ints
) -> Mask:
    """For each group, whether its greater end opened the connection; records are sorted by group and time.

    For TCP it is the end with the earlier SYN, otherwise the end that sent first. If both began in the same
    tick, or if the beginning was not recorded (no SYN, only the answered half, UDP from a well-known port),
    it is the end with the higher port.
    """
    count = int(group[-1]) + 1 if len(group) else 0
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    syn, never = (flags & _SYN) > 0, np.iinfo(np.int64).max
    tcp = np.zeros(count, bool)
    np.logical_or.at(tcp, group, flags > 0)
    counts = syn | ~tcp[group]
    first = np.full((2, count), never)
    for side in (0, 1):
        rows = counts & (greater == side)
        np.minimum.at(first[side], group[rows], start[rows])
    sides = np.zeros((2, count), bool)
    sides[greater.astype(int), group] = True
    answered = np.zeros(count, bool)
    np.logical_or.at(answered, group, (flags & _ACK) > 0)
    low, high = np.minimum(source[heads], dest[heads]), np.maximum(source[heads], dest[heads])
    unclear = (first[0] == first[1]) | (~sides.all(0) & answered) | (~tcp & (low < _WELL_KNOWN))
    by_port = np.where(source[heads] > dest[heads], greater[heads], ~greater[heads])
    by_time = np.where(first[0] == first[1], greater[heads], first[1] < first[0])
    result: Mask = np.where(unclear & (low < high), by_port, by_time)
    return result


@compiled
def _partners(order: Ints, first: Mask, greater: Mask, start: Ints, end: Ints) -> Ints:
    """The other direction of each record, -1 = none: each takes the first free record that is close enough.

    `order` sorts by five-tuple and start, `first` marks where a five-tuple begins. Free records always have
    the same direction, since two of opposite direction would have been matched, so one queue is enough.
    """
    partner = np.full(len(order), -1, np.int64)
    queue = np.empty(len(order), np.int64)
    head = tail = 0
    for place, at in enumerate(order):
        if first[place]:
            head = tail = 0
        while head < tail and greater[queue[head]] != greater[at]:
            other = queue[head]
            head += 1
            if end[other] + SLACK_MICROS >= start[at]:
                partner[at], partner[other] = other, at
                break
        if partner[at] < 0:
            queue[tail] = at
            tail += 1
    return partner
