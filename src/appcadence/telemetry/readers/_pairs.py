"""Two directions of one connection, exported as records of their own, made one flow again.

The records of all files are held as arrays, 50 bytes each, and matched once: by the five-tuple, of which a
64-bit hash is kept, and by time.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence.telemetry.arrays import Ints
from appcadence.telemetry.readers._flows import encode
from appcadence.telemetry.readers.zeek_names import Hashes, hash_text

SLACK_MICROS = 10_000_000
"""Records this near to each other belong together: an answer may begin after the question has ended."""
_SYN, _ACK = 0x02, 0x10
_WELL_KNOWN = 1024
_SHARE_BITS = 4
"""The records are matched in so many shares (a power of two), so that the arrays in between stay small."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Record:
    """Records of one direction each, column by column."""

    source: pa.DictionaryArray
    dest: pa.DictionaryArray
    source_port: Ints
    dest_port: Ints
    protocol: Ints
    start: Ints
    end: Ints
    size: Ints
    """Bytes; -1 = not known."""
    flags: Ints
    """TCP flags of all packets; 0 if there are none."""


@dataclass(frozen=True)
class Matches:
    """For each record, in the order in which they were added:"""

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
        """The matches of some records in a row."""
        return Matches(*(getattr(self, f.name)[start:stop] for f in fields(self)))


class Pairs:
    """Collects records, then matches them: add everything, then call `match` once."""

    def __init__(self) -> None:
        self._parts: list[tuple[npt.NDArray[np.generic], ...]] = []

    def add(self, record: Record) -> None:
        one = _end(record.source, record.source_port)
        other = _end(record.dest, record.dest_port)
        key = (one ^ other) * np.uint64(256) + (one + other) + record.protocol.astype(np.uint64)
        # The greater end, so that the two directions of a key differ in one bit.
        greater = one > other
        flags = record.flags.astype(np.uint8)
        ports = (record.source_port.astype(np.int32), record.dest_port.astype(np.int32))
        self._parts.append((key, greater, record.start, record.end, record.size, flags, *ports))

    def match(self) -> Matches:
        """Who opened each connection, and what the other direction carried."""
        types = (np.uint64, bool, np.int64, np.int64, np.int64, np.uint8, np.int32, np.int32)
        columns = [list(column) for column in zip(*self._parts, strict=True)] or [[] for _ in types]
        self._parts = []
        # Column by column, so that none but the one at hand is held twice.
        key, greater, start, end, size, flags, source_port, dest_port = (
            np.concatenate([np.empty(0, t), *columns.pop(0)]) for t in types
        )
        opened = np.empty(len(key), bool)
        partner = np.full(len(key), -1, np.int64)
        share = key >> np.uint64(64 - _SHARE_BITS)
        for number in range(1 << _SHARE_BITS):
            rows = np.flatnonzero(share == number)
            ends = (a[rows] for a in (key, greater, start, end, flags, source_port, dest_port))
            opened[rows], found = _matched(*ends)
            partner[rows[found >= 0]] = rows[found[found >= 0]]
        del key, greater, share, source_port, dest_port
        paired = partner >= 0
        return Matches(
            opened,
            paired,
            np.where(paired, np.minimum(start, start[partner]), start),
            np.where(paired, np.maximum(end, end[partner]), end),
            np.where(paired, size[partner], -1),
            np.where(paired, flags[partner], np.uint8(0)),
        )


def _matched(
    key: Hashes, greater: Mask, start: Ints, end: Ints, flags: Ints, source_port: Ints, dest_port: Ints
) -> tuple[Mask, Ints]:
    """Of each record whether its source opened the connection, and the place of its other direction or -1."""
    order = np.lexsort((start, key))
    first = np.ones(len(order), bool)
    first[1:] = key[order][1:] != key[order][:-1]
    group = np.cumsum(first) - 1
    by_greater = _openers(
        group, greater[order], start[order], flags[order], source_port[order], dest_port[order]
    )
    opened = np.empty(len(order), bool)
    opened[order] = greater[order] == by_greater[group]
    partner = np.full(len(order), -1, np.int64)
    offsets = np.append(np.flatnonzero(first), len(order))
    one, two = order[offsets[:-1]], order[np.minimum(offsets[:-1] + 1, max(len(order) - 1, 0))]
    pair = np.diff(offsets) == 2
    near = pair & (greater[one] != greater[two]) & _near(start, end, one, two)
    partner[one[near]], partner[two[near]] = two[near], one[near]
    for at in np.flatnonzero(np.diff(offsets) > 2):
        _sweep(order[offsets[at] : offsets[at + 1]], greater, start, end, partner)
    return opened, partner


def _end(addresses: pa.DictionaryArray, ports: Ints) -> Hashes:
    encoded = encode(addresses)
    hashes = np.append(hash_text(encoded.dictionary), np.uint64(0))
    address = hashes[np.asarray(encoded.indices.fill_null(len(hashes) - 1))]
    mixed = (address + ports.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    result: Hashes = mixed ^ (mixed >> np.uint64(31))
    return result


def _openers(group: Ints, greater: Mask, start: Ints, flags: Ints, source: Ints, dest: Ints) -> Mask:
    """For each group whether its greater end opened the connection; records are sorted by group and time.

    Of TCP the end did whose SYN is the earlier, of the rest the end that sent first. Where both began in the
    same tick, where the beginning was not recorded (no SYN, only the half that was answered, UDP from a
    well-known port), it is the end with the higher port.
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


def _near(start: Ints, end: Ints, one: Ints, two: Ints) -> Mask:
    result: Mask = (start[one] <= end[two] + SLACK_MICROS) & (start[two] <= end[one] + SLACK_MICROS)
    return result


def _sweep(members: Ints, greater: Mask, start: Ints, end: Ints, partner: Ints) -> None:
    """Pair the records of one five-tuple, sorted by start, each with the first free one of the other side."""
    free: tuple[list[int], list[int]] = ([], [])
    for at in members.tolist():
        others = free[not greater[at]]
        while others and end[others[0]] + SLACK_MICROS < start[at]:
            others.pop(0)
        if others:
            partner[at] = others.pop(0)
            partner[partner[at]] = at
        else:
            free[int(greater[at])].append(at)
