"""Flows that are logged again count once: within a conversion, and between it and what the directory holds.

Among rows with one key (see `flow_keys`) the most complete one stays: the longest, then the one with the most
bytes. This matters because a sensor that records open connections writes them again and again. A new row that
completes one of the directory replaces it, and takes over its host name if it has none itself.

Memory grows only with the flows that are logged again: the keys of new flows are on disk, 8 bytes each (see
`key_runs`). About `MAX_ROWS` rows of repeated flows are held at a time; a flow with more rows than that is
left as it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._types import Ints, Mask, Structs
from appcadence.telemetry._spans import reaches
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.directory import DirectoryWriter, TelemetryDirectory, is_part, stored_rows
from appcadence.telemetry.ingest.flow_keys import (
    KEY_COLUMNS,
    SAME_START_US,
    SECOND_US,
    Keys,
    by_content,
    flow_keys,
)
from appcadence.telemetry.ingest.key_runs import RUN_KEYS, KeyRuns
from appcadence.telemetry.names import Codes
from appcadence.telemetry.schema import FLOWS

MAX_ROWS = 2_000_000
UNIQUE, STORED = -2, -1
"""Owners that are not logs: rows that need no check, and rows of the directory."""
_LONGER_SECONDS = 1.0
"""Two sensors see a connection end at almost the same time; a smaller difference completes nothing."""
_READ = (*KEY_COLUMNS, "dest_host_source")
_HOST = ("dest_host", "dest_host_source")
_ROW = np.dtype(
    [
        *(("key", "u8"), ("start", "i8"), ("seconds", "f8"), ("bytes", "i8"), ("place", "i8")),
        *(("owner", "i4"), ("file", "i4"), ("host", "i4"), ("how", "i4")),
    ]
)


@dataclass
class Settled:
    """The outcome for flows that were logged again."""

    left_out: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """For each log, by number: its rows that do not count, by reason (see `LEFT_OUT`)."""
    completed: int = 0
    """Flows of the directory that a longer record has replaced."""
    dropped: list[Ints] = field(default_factory=list)
    """Places of new rows to remove, ..."""
    replaced: dict[Path, list[Ints]] = field(default_factory=lambda: defaultdict(list))
    """... and of rows of the directory, by file."""
    named: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Host name and name source that a new row takes over, by its place."""


class EachOnce:
    """Gathers the flows of a conversion batch by batch as they are written, then decides which count."""

    def __init__(self) -> None:
        self._keys = KeyRuns()
        self._written = 0
        self._low, self._high = np.iinfo(np.int64).max, np.iinfo(np.int64).min
        self._owners: list[int] = []
        self._first: list[int] = []
        """The log of each batch, and the place of its first row."""

    def add(self, flows: pa.Table, owner: int) -> None:
        """Add rows of a log (its number from 0, or UNIQUE), in the order in which they are written."""
        if not len(flows):
            return
        self._owners.append(owner)
        self._first.append(self._written)
        self._written += len(flows)
        if owner == UNIQUE:
            return
        self._keys.add(flow_keys(flows))
        low, high = pc.min_max(flows["start"].cast(pa.int64())).as_py().values()
        self._low, self._high = min(self._low, low), max(self._high, high)

    def settle(self, writer: DirectoryWriter, before: TelemetryDirectory | None) -> Settled:
        """Remove repeated flows from the new ones, and flows that these complete from the directory."""
        found = Settled()
        staged = writer.staged("flows")
        if staged is None or not self._keys.count:
            return found
        held = self._files_with_these_keys(before) if before else {}
        stored = np.sort(np.concatenate([np.empty(0, np.uint64), *held.values()]))
        wanted, count = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for keys in self._keys.parts():
            again = np.unique(np.concatenate([keys[1:][keys[1:] == keys[:-1]], _between(stored, keys)]))
            wanted.append(again)
            count.append(_count_of(again, keys) + _count_of(again, stored))
        for part in _parts(np.concatenate(wanted), np.concatenate(count)):
            self._decide(part, staged, list(held), found)
        for file, places in found.replaced.items():
            drop = np.sort(np.concatenate(places))
            found.completed += writer.change("flows", partial(_changed, drop, {}), file)
        drop = np.sort(np.concatenate([np.empty(0, np.int64), *found.dropped]))
        if len(drop) or found.named:
            writer.change("flows", partial(_changed, drop, found.named))
        return found

    def _files_with_these_keys(self, before: TelemetryDirectory) -> dict[Path, Keys]:
        """Files of the directory that share keys with new rows, and these keys."""
        found: dict[Path, Keys] = {}
        near: dict[Path, Keys] = {}
        for file in before.files("flows"):
            theirs = [flow_keys(rows) for _, rows in stored_rows(FLOWS, file, KEY_COLUMNS, self._may_overlap)]
            if theirs:
                near[file] = np.sort(np.concatenate(theirs))
            if sum(map(len, near.values())) > RUN_KEYS:
                found |= self._known(near)
                near.clear()
        return found | self._known(near)

    def _known(self, near: dict[Path, Keys]) -> dict[Path, Keys]:
        """The sorted keys of each file that new rows share; files without any are left out."""
        found: dict[Path, list[Keys]] = defaultdict(list)
        for keys in self._keys.parts() if near else ():
            for file, theirs in near.items():
                some = _between(theirs, keys)
                some = some[_among(some, keys)]
                if len(some):
                    found[file].append(some)
        return {file: np.concatenate(some) for file, some in found.items()}

    def _may_overlap(self, group: pq.RowGroupMetaData) -> bool:
        """Whether a row group may overlap the new rows in time."""
        return reaches(group, "start", self._low - SECOND_US, self._high + SECOND_US)

    def _decide(self, wanted: Keys, staged: Path, files: Sequence[Path], found: Settled) -> None:
        """Decide which rows with some sorted keys stay, and add the outcome to `found`."""
        host, how = Codes(), Codes()
        parts = []
        for number, file in enumerate([staged, *files], -1):
            for place, table in stored_rows(FLOWS, file, _READ, self._may_overlap):
                part = _rows(table, place, wanted, host, how)
                part["file"] = number
                if number < 0:
                    at = np.searchsorted(self._first, part["place"], "right") - 1
                    part["owner"] = np.array(self._owners)[at]
                    part = part[part["owner"] != UNIQUE]
                parts.append(part)
        rows = np.concatenate(parts)
        rows, group = _grouped(rows)
        fixed = np.array([*(not is_part(file) for file in files), False])
        stays = _most_complete(rows, group, fixed)
        winner = rows[stays][group]
        goes = np.arange(len(rows)) != stays[group]
        new = rows["owner"] >= 0
        shorter = rows["seconds"] < winner["seconds"] - _LONGER_SECONDS
        reasons = np.where(winner["owner"] == STORED, "stored", np.where(shorter, "interim", "twice"))
        found.dropped.append(rows["place"][goes & new])
        pairs = np.char.add(np.char.add(rows["owner"][goes & new].astype(str), " "), reasons[goes & new])
        for pair, count in zip(*np.unique(pairs, return_counts=True), strict=True):
            owner, reason = str(pair).split()
            found.left_out[int(owner)][reason] += int(count)
        completed = goes & ~new & (winner["owner"] != STORED) & ~fixed[rows["file"]]
        for number in np.unique(rows["file"][completed]).tolist():
            found.replaced[files[number]].append(rows["place"][completed & (rows["file"] == number)])
        gives = goes & (winner["owner"] != STORED) & (winner["host"] < 0) & (rows["host"] >= 0)
        hosts, hows = host.names, how.names
        for place, name, source in zip(
            winner["place"][gives].tolist(), rows["host"][gives], rows["how"][gives], strict=True
        ):
            found.named[place] = hosts[name], hows[source]


def _between(keys: Keys, those: Keys) -> Keys:
    """The sorted keys that lie between the first and last of others."""
    if not len(those):
        return keys[:0]
    return keys[np.searchsorted(keys, those[0]) : np.searchsorted(keys, those[-1], "right")]


def _among(keys: Keys, wanted: Keys) -> Mask:
    """(n,) which keys are among the sorted wanted ones."""
    if not len(wanted):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    return np.asarray(wanted[at] == keys)


def _count_of(wanted: Keys, keys: Keys) -> Ints:
    """How often each wanted key occurs among the sorted keys."""
    return np.searchsorted(keys, wanted, "right") - np.searchsorted(keys, wanted, "left")


def _parts(wanted: Keys, count: Ints) -> Iterator[Keys]:
    """The keys in parts of about MAX_ROWS rows each."""
    few = count <= MAX_ROWS
    wanted, count = wanted[few], count[few]
    part = np.cumsum(count) // MAX_ROWS
    yield from (keys for keys in np.split(wanted, np.flatnonzero(np.diff(part)) + 1) if len(keys))


def _rows(table: pa.Table, place: int, wanted: Keys, host: Codes, how: Codes) -> Structs:
    """The facts about rows with some sorted keys that decide which one stays."""
    keys = flow_keys(table)
    at = np.flatnonzero(_among(keys, wanted))
    table = table.take(pa.array(at))
    rows = np.empty(len(at), _ROW)
    rows["key"], rows["place"], rows["owner"] = keys[at], at + place, STORED
    rows["start"] = table["start"].cast(pa.int64())
    rows["seconds"] = pc.fill_null(table["duration_seconds"], -1.0)
    both = (one_array(table[name]).fill_null(0).to_numpy() for name in ("bytes_out", "bytes_in"))
    rows["bytes"] = sum(both)
    rows["host"], rows["how"] = host.of(table["dest_host"]), how.of(table["dest_host_source"])
    return rows


def _grouped(rows: Structs) -> tuple[Structs, Ints]:
    """The rows sorted by flow, and the flow number of each."""
    rows = rows[np.lexsort((rows["place"], rows["file"], rows["owner"], rows["key"]))]
    # If only content distinguishes rows, the first in one log equals the first in another, and so on.
    place = np.arange(len(rows))
    first = np.append(True, (np.diff(rows["key"]) > 0) | (np.diff(rows["owner"]) != 0))[: len(rows)]
    number = place - np.maximum.accumulate(np.where(first, place, 0))
    number[~by_content(rows["key"])] = 0
    order = np.lexsort((rows["start"], number, rows["key"]))
    rows, number = rows[order], number[order]
    apart = (np.diff(rows["key"]) > 0) | (np.diff(number) != 0) | (np.diff(rows["start"]) > SAME_START_US)
    return rows, np.append(0, np.cumsum(apart))[: len(rows)]


def _most_complete(rows: Structs, group: Ints, fixed: Mask) -> Ints:
    """For each group, the place of the row that stays; a row in a fixed file is never replaced."""
    by_figures = (rows["place"], rows["owner"], -rows["bytes"], -rows["seconds"])
    first = np.append(True, np.diff(group) > 0)
    best = np.lexsort((*by_figures, group))[first]
    held = np.lexsort((*by_figures, rows["owner"] != STORED, group))[first]
    longer = rows["seconds"][best] > rows["seconds"][held] + _LONGER_SECONDS
    completes = (longer | (rows["bytes"][best] > rows["bytes"][held])) & ~fixed[rows["file"][held]]
    stays: Ints = np.where((rows["owner"][held] == STORED) & ~completes, held, best)
    return stays


def _changed(drop: Ints, named: dict[int, tuple[str, str]], place: int, rows: pa.Table) -> pa.Table:
    """The rows from a place on that stay, some with a host name that they take over."""
    for number, name in enumerate(_HOST):
        if named:
            taken_over = (
                named[at][number] if at in named else None for at in range(place, place + len(rows))
            )
            column = pc.coalesce(rows[name].cast(pa.string()), pa.array(taken_over, pa.string()))
            rows = rows.set_column(rows.column_names.index(name), name, column)
    low, high = np.searchsorted(drop, [place, place + len(rows)])
    stays = np.ones(len(rows), bool)
    stays[drop[low:high] - place] = False
    return rows.filter(pa.array(stays))
