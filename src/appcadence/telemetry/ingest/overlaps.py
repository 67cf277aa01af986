"""Logs that a device keeps of itself overlap: successive exports repeat days. What they repeat counts once.

A row is known by its content and, where one log has several such rows, by its number among them: three pushes
of one minute stay three, and are three in the next export too. Intervals of one state are one where logs
overlap, so that a span which the end of one log cuts goes on in the next; of what the directory holds already
only the rest is added. Of a push that two kinds of log have, the finer record counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, Ints, Mask
from appcadence.telemetry._spans import pieces_within
from appcadence.telemetry.arrays import one_array
from appcadence.telemetry.device_times import MAX_DAYS
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.names import encode
from appcadence.telemetry.schema import DIRECTORY_TABLES, NAME, conform

_HELD_APART = ("accesses", "rejected", "verdicts")
"""Tables whose rows are not looked at here."""
_NO_KEY = {
    "time_resolution_seconds",
    "dest_host",
    "dest_host_source",
    "background_modes",
    "expected_hosts",
    "app_attribution",
}
"""Columns that tell no rows apart; a directory may fill in host names as it is read."""
_STATE = ("device_id", "app_id", "kind", "source", "source_app_id")

Interval = tuple[int, int, int, int]
"""Start, end, the number of the log (-1 = the directory), and the row in what is new, from 0."""
Key = tuple[str, str]
"""Device and app."""
Push = tuple[int, int]
"""When it came at the earliest and at the latest, in microseconds."""


class Overlaps:
    """The rows of one device's logs, held until all are there."""

    def __init__(self, before: TelemetryDirectory | None) -> None:
        self._before = before
        self._held: dict[str, list[pa.Table]] = {}

    def add(self, table: str, batch: pa.Table) -> bool:
        """Hold the rows of a batch; False where rows of this table are never repeated."""
        if table in _HELD_APART:
            return False
        if len(batch):
            self._held.setdefault(table, []).append(batch)
        return True

    def release(self) -> Iterator[tuple[str, pa.Table, int]]:
        """(table, rows of one log with its metadata, rows left out as repeated); then nothing is held."""
        for table, batches in self._held.items():
            files = list(dict.fromkeys(batch.schema.metadata[b"file"] for batch in batches))
            log = np.repeat(
                [files.index(batch.schema.metadata[b"file"]) for batch in batches], [len(b) for b in batches]
            )
            new = pa.concat_tables([conform(DIRECTORY_TABLES[table], batch) for batch in batches])
            new = new.unify_dictionaries().combine_chunks()
            old = self._known(table, new)
            rows, kept = (_intervals if table == "activity" else _events)(table, new, log, old)
            if table == "notifications":
                fresh = kept >= 0
                kept[fresh] = np.where(recorded_elsewhere(rows.filter(pa.array(fresh)), old), -1, kept[fresh])
            for number, file in enumerate(files):
                mine = rows.filter(pa.array(kept == number))
                marks = {"file": file, "read": "0", "size": "0"}
                yield (
                    table,
                    mine.replace_schema_metadata(marks),
                    max(int((log == number).sum()) - len(mine), 0),
                )
        self._held = {}

    def _known(self, table: str, new: pa.Table) -> pa.Table:
        """What the directory holds of the devices in the time of the new rows."""
        declared = DIRECTORY_TABLES[table]
        columns = [*_keys(table), *({"time_resolution_seconds"} if table == "notifications" else ())]
        empty = declared.empty().select(columns)
        if self._before is None or table not in self._before.tables():
            return empty
        low, high = pc.min_max(new[declared.when].cast(pa.int64())).as_py().values()
        early = low - MAX_DAYS * DAY_US if table == "activity" else low
        devices = pc.unique(new["device_id"].cast(pa.string()))
        late = high + MAX_DAYS * DAY_US if table == "activity" else high
        pieces = [empty]
        for piece in pieces_within(self._before, table, columns, declared.when, early, late):
            mine = pc.is_in(piece["device_id"].cast(pa.string()), devices)
            pieces.append(piece.select(columns).filter(mine))
        return pa.concat_tables(pieces).unify_dictionaries().combine_chunks()


def _keys(table: str) -> list[str]:
    return [column.name for column in DIRECTORY_TABLES[table].columns if column.name not in _NO_KEY]


def _events(table: str, new: pa.Table, log: Ints, old: pa.Table) -> tuple[pa.Table, Ints]:
    """The new rows, and the log of each: -1 for one that is repeated."""
    names = _keys(table)
    whole = pa.concat_tables([old.select(names), new.select(names)])
    owner = np.concatenate([np.full(len(old), -1), log])
    rows = pd.DataFrame({"code": _codes(whole, names), "owner": owner})
    # The number of each row among the equal rows of its log.
    rows["number"] = rows.groupby(["code", "owner"]).cumcount()
    # Of rows with one content and number the first log keeps it.
    rows = rows.sort_values("owner", kind="stable")
    repeated = rows.duplicated(["code", "number"]).sort_index().to_numpy()
    return new, np.where(repeated[len(old) :], -1, log)


def _codes(table: pa.Table, names: Sequence[str]) -> Ints:
    """(n,) equal numbers for rows that are equal in the columns named."""
    code = np.zeros(len(table), np.int64)
    for name in names:
        column = one_array(table[name])
        if table.schema.field(name).type == NAME:
            values = np.asarray(encode(column).indices.fill_null(-1), np.int64)
        elif pa.types.is_boolean(column.type):
            values = np.asarray(column.cast(pa.int8()).fill_null(-1), np.int64)
        else:
            values = np.asarray(column.dictionary_encode().indices.fill_null(-1), np.int64)
        code = np.unique(code * (int(values.max(initial=0)) + 2) + values + 1, return_inverse=True)[1]
    return code.astype(np.int64)


def _intervals(table: str, new: pa.Table, log: Ints, old: pa.Table) -> tuple[pa.Table, Ints]:
    """The intervals of the new rows that the old ones do not cover, and the log of each."""
    state = _codes(pa.concat_tables([old.select(_STATE), new.select(_STATE)]), _STATE)
    both = pa.concat_tables([old.select(["start", "end"]), new.select(["start", "end"])])
    start = both["start"].cast(pa.int64()).to_pylist()
    end = pc.fill_null(both["end"].cast(pa.int64()), _OPEN).to_pylist()
    rows = zip(start, end, [-1] * len(old) + log.tolist(), range(-len(old), len(new)), strict=True)
    groups: dict[int, list[Interval]] = defaultdict(list)
    for code, row in zip(state.tolist(), rows, strict=True):
        groups[code].append(row)
    found = sorted((row for members in groups.values() for row in _merged(members)), key=lambda i: (i[3], i))
    picked = new.take(pa.array([row for *_, row in found], pa.int64()))
    for place, name in ((0, "start"), (1, "end")):
        times = [None if interval[place] == _OPEN else interval[place] for interval in found]
        column = pa.array(times, pa.int64()).cast(new[name].type)
        picked = picked.set_column(picked.column_names.index(name), new.schema.field(name), column)
    return picked, np.array([log for _, _, log, _ in found], np.int64)


_OPEN = np.iinfo(np.int64).max


def _merged(members: list[Interval]) -> Iterator[Interval]:
    """What new intervals of one state add; those of one log alone stay as they are."""
    members.sort()
    cluster: list[Interval] = []
    end = -1
    for member in members:
        if cluster and member[0] > end:
            yield from _added(cluster)
            cluster = []
        end = max(end, member[1]) if cluster else member[1]
        cluster.append(member)
    yield from _added(cluster)


def _added(cluster: list[Interval]) -> Iterator[Interval]:
    """Of intervals that touch each other: the whole of them, without what the directory has."""
    logs = {log for _, _, log, _ in cluster}
    if logs == {-1}:
        return
    if len(logs) == 1:
        yield from cluster
        return
    log, row = next((log, row) for _, _, log, row in cluster if row >= 0)
    start, last = cluster[0][0], max(end for _, end, _, _ in cluster)
    for first, end, owner, _ in cluster:
        if owner == -1:
            if first > start:
                yield start, first, log, row
            start = max(start, end)
    if start < last or (-1 not in logs and start == last):
        yield start, last, log, row


def recorded_elsewhere(new: pa.Table, old: pa.Table) -> Mask:
    """(n,) whether a push of the new notifications is one of another source, finer or in the directory.

    A PowerLog rounds pushes to the minute, the unified log has them to the microsecond. A record stands for
    the time from its stamp on as long as its resolution; where two of one app and of different sources meet,
    each with one other at most, they are one push, and the finer record of it counts. Pushes of unknown apps
    are never the same.
    """
    drop: Mask = np.zeros(len(new), bool)
    if len(set(new["source"].unique().to_pylist()) | set(old["source"].unique().to_pylist())) < 2:
        return drop
    kept: dict[Key, dict[str, list[Push]]] = defaultdict(lambda: defaultdict(list))
    for _, source, key, push in _pushes(old):
        kept[key][source].append(push)
    waiting: dict[Key, dict[str, list[tuple[Push, int]]]] = defaultdict(lambda: defaultdict(list))
    for row, source, key, push in _pushes(new):
        waiting[key][source].append((push, row))
    for key, by_source in waiting.items():
        for source, pushes in sorted(by_source.items(), key=_length):
            others = [push for name, held in kept[key].items() if name != source for push in held]
            same = _met(sorted(pushes), sorted(others))
            drop[list(same)] = True
            kept[key][source] += [push for push, row in pushes if row not in same]
    return drop


def _length(pushes: tuple[str, list[tuple[Push, int]]]) -> tuple[int, str]:
    """How long the first push of a source may have been under way: the finest source comes first."""
    source, (((first, last), _), *_) = pushes
    return last - first, source


def _pushes(table: pa.Table) -> Iterable[tuple[int, str, Key, Push]]:
    names = ("kind", "source", "device_id", "app_id")
    columns = [table[name].cast(pa.string()).to_pylist() for name in names]
    first = table["time"].cast(pa.int64()).to_pylist()
    length = table["time_resolution_seconds"].to_pylist()
    for row, (kind, source, device, app, time, seconds) in enumerate(
        zip(*columns, first, length, strict=True)
    ):
        if kind == "push_received" and app is not None:
            yield row, source, (device, app), (time, time + round(seconds * 1e6))


def _met(pushes: list[tuple[Push, int]], others: list[Push]) -> set[int]:
    """Rows of pushes that meet one of the others, each of which is met once."""
    found: set[int] = set()
    place = 0
    for (first, last), row in pushes:
        while place < len(others) and others[place][1] < first:
            place += 1
        if place < len(others) and others[place][0] <= last:
            found.add(row)
            place += 1
    return found
