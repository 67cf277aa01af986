"""Logs that a device keeps about itself overlap, because successive exports repeat days. Repeats count once.

A row is identified by its content and, if one log has several such rows, by its number among them: three
pushes in one minute stay three, and are the same three in the next export. Overlapping intervals of one state
in several logs are merged, so that a span cut by the end of one log continues in the next; only what the
directory lacks is added. If two kinds of log have the same push, the finer record counts.
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
"""Tables whose rows are not checked here."""
_NO_KEY = {
    "time_resolution_seconds",
    "dest_host",
    "dest_host_source",
    "background_modes",
    "expected_hosts",
    "app_attribution",
}
"""Columns that do not distinguish rows; a directory may fill in host names as it is read."""
_STATE = ("device_id", "app_id", "kind", "source", "source_app_id")

Interval = tuple[int, int, int, int]
"""Start, end, the number of the log (-1 = the directory), and the number of the new row, from 0."""
Key = tuple[str, str]
"""Device and app."""
Push = tuple[int, int]
"""The earliest and latest time at which it may have arrived, in microseconds."""


class Overlaps:
    """The rows of one device's logs, held until all are there."""

    def __init__(self, before: TelemetryDirectory | None) -> None:
        self._before = before
        self._held: dict[str, list[pa.Table]] = {}

    def add(self, table: str, batch: pa.Table) -> bool:
        """Hold the rows of a batch; False if rows of this table are never repeated."""
        if table in _HELD_APART:
            return False
        if len(batch):
            self._held.setdefault(table, []).append(batch)
        return True

    def release(self) -> Iterator[tuple[str, pa.Table, int]]:
        """Yield (table, rows of one log with metadata, count of repeats left out), then hold nothing."""
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
        """The rows of the directory with the devices and times of the new rows."""
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
    """The new rows, and the log of each; -1 for a repeated row."""
    names = _keys(table)
    whole = pa.concat_tables([old.select(names), new.select(names)])
    owner = np.concatenate([np.full(len(old), -1), log])
    rows = pd.DataFrame({"code": _codes(whole, names), "owner": owner})
    # The number of each row among the equal rows of its log.
    rows["number"] = rows.groupby(["code", "owner"]).cumcount()
    # Among rows with the same content and number, the first log keeps its row.
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
    """What new intervals of one state add; intervals that no other log touches stay as they are."""
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
    """The union of intervals that touch each other, without what the directory has."""
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
    """(n,) which new pushes another source also has, in a finer record or already in the directory.

    A PowerLog rounds pushes to the minute, the unified log has them to the microsecond. A record covers the
    time from its timestamp to the end of its resolution. If two records of one app from different sources
    overlap, they are one push, and the finer one counts; each record is matched at most once. Pushes of
    unknown apps are never the same.
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
        for source, pushes in sorted(by_source.items(), key=_span_of):
            others = [push for name, held in kept[key].items() if name != source for push in held]
            same = _overlapping(sorted(pushes), sorted(others))
            drop[list(same)] = True
            kept[key][source] += [push for push, row in pushes if row not in same]
    return drop


def _span_of(pushes: tuple[str, list[tuple[Push, int]]]) -> tuple[int, str]:
    """A sort key: the time span of the first push of a source, so that the finest source comes first."""
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


def _overlapping(pushes: list[tuple[Push, int]], others: list[Push]) -> set[int]:
    """Rows of pushes that overlap one of the others, each of which is matched once."""
    found: set[int] = set()
    place = 0
    for (first, last), row in pushes:
        while place < len(others) and others[place][1] < first:
            place += 1
        if place < len(others) and others[place][0] <= last:
            found.add(row)
            place += 1
    return found
