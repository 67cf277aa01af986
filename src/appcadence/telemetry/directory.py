"""Telemetry directories: canonical tables as Parquet, read lazily, written whole or not at all.

A table is `NAME.parquet`, a dataset `NAME/*.parquet`, or both. Converted parts are named
`NAME/converted-ID.parquet` and count only once `sources.json` lists their ID, so a killed conversion leaves
nothing that a reader would see. A later conversion that replaces rows of a part writes a new file
`NAME/converted-ID-LATER.parquet`, which `sources.json` lists as the revision; the old file stays for a day,
for readers that still use it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence._files import move, replacing, replacing_directory, scratch
from appcadence._inputs import read_json
from appcadence._parquet import column_of, open_parquet
from appcadence.errors import SchemaError, TelemetryError
from appcadence.telemetry import passive_names
from appcadence.telemetry.names import of_rows
from appcadence.telemetry.schema import DIRECTORY_TABLES, FLOWS, NAME, Table, conform

SOURCES = "sources.json"
_PART = "converted-"
_MAX_SOURCES_BYTES = 64 << 20
_KEPT_SECONDS = 86_400
"""How long a revised part is kept for runs that still read it."""


class TelemetryDirectory:
    """A directory of canonical tables, read on demand.

    Flows that lack a host name get the one that the fleet's records tie to their address, by the rule of
    `passive_names`; the files stay as they are. The names are gathered only if a flow with an address lacks
    one, in one pass over four columns.

    Raises:
        TelemetryError: the path is not a directory, or holds no canonical table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            wrong = "is not a directory" if self.path.exists() else "does not exist"
            raise TelemetryError(f"{self.path} {wrong}; expected a directory made by 'appcadence convert'")
        self.sources: list[dict[str, Any]] = _read_sources(self.path)
        """What was converted into this directory, one entry per source file."""
        self._committed = {(n, _part(entry, n)) for entry in self.sources for n in DIRECTORY_TABLES}
        self._names = passive_names.PassiveNames(self._records)
        self.unknown = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.name != SOURCES and entry.name.removesuffix(".parquet") not in DIRECTORY_TABLES
        )
        """Names of files that are not canonical tables and are ignored."""
        if not self.tables():
            raise TelemetryError(
                f"{self.path} holds no telemetry table; expected flows.parquet or flows/*.parquet"
            )

    def tables(self) -> tuple[str, ...]:
        """Names of the tables that are present."""
        return tuple(name for name in DIRECTORY_TABLES if self.files(name))

    def files(self, name: str) -> list[Path]:
        """The Parquet files of a table, in a fixed order."""
        single = self.path / f"{name}.parquet"
        parts = sorted((self.path / name).glob("*.parquet"))
        committed = [
            part for part in parts if not part.name.startswith(_PART) or (name, part.stem) in self._committed
        ]
        return ([single] if single.exists() else []) + committed

    def read(self, name: str) -> pa.Table:
        """The whole table in memory; an absent table is empty.

        Raises:
            TelemetryError: a file is not readable as Parquet.
            SchemaError: a file does not fit the declaration.
        """
        table = DIRECTORY_TABLES[name]
        parts = [_read_part(table, file) for file in self.files(name)]
        whole = pa.concat_tables(parts).unify_dictionaries() if parts else table.empty()
        return passive_names.complete(whole) if table is FLOWS else whole

    def names(self, name: str, column: str) -> set[str]:
        """The distinct names in a column of a table, without null."""
        found: set[str] = set()
        for read in self.pieces(name, [column]):
            found.update(read()[column].unique().drop_null().to_pylist())
        return found

    def pieces(self, name: str, columns: Sequence[str]) -> list[Callable[[], pa.Table]]:
        """Some columns of the table as independent reads, one per row group, for threads to share."""
        table = DIRECTORY_TABLES[name]
        named = table is FLOWS and not set(columns).isdisjoint(passive_names.FILLED)
        reads: list[Callable[[], pa.Table]] = []
        for read, group in self._groups(table):
            address, host = _known(group, "dest_ip"), _known(group, "dest_host")
            if named and address is not False and host is not True:
                reads.append(partial(self._named, read, columns))
            else:
                reads.append(partial(read, columns))
        return reads

    def scan(self, name: str, rows: int = 1_000_000) -> Iterator[pa.Table]:
        """The table in pieces of at most `rows` rows."""
        table = DIRECTORY_TABLES[name]
        for file in self.files(name):
            with _opened(table, file) as handle:
                for batch in handle.iter_batches(rows):
                    data = conform(table, batch, str(file))
                    yield self._names.fill(data) if table is FLOWS else data

    def _groups(
        self, table: Table
    ) -> Iterator[tuple[Callable[[Sequence[str]], pa.Table], pq.RowGroupMetaData]]:
        """A read of some columns of each row group, and the metadata of the group."""
        for file in self.files(table.name):
            with _opened(table, file) as handle:
                for group in range(handle.num_row_groups):
                    yield partial(_read_group, table, file, group), handle.metadata.row_group(group)

    def _named(self, read: Callable[[Sequence[str]], pa.Table], columns: Sequence[str]) -> pa.Table:
        data = self._names.fill(read([*columns, *passive_names.COLUMNS]))
        return data.select([name for name in data.column_names if name in columns])

    def _records(self) -> list[passive_names.Read]:
        """Reads of the flows that may tie a name to an address."""
        return [
            partial(read, passive_names.COLUMNS)
            for read, group in self._groups(FLOWS)
            if False not in (_known(group, "dest_ip"), _known(group, "dest_host"))
        ]


class DirectoryWriter:
    """Writes canonical tables as a stream; nothing is visible until the `with` block ends well.

    With `adding`, the tables become parts with the id `conversion`, and the `sources` entries are recorded.
    Both must be set before the block ends, and a block that writes nothing changes nothing. Without it, the
    directory must be absent or empty. No other run writes into the directory during the block.

    Raises:
        TelemetryError: the target is a file, or is not empty and nothing is to be added.
        AppcadenceError: another run is writing into the directory.
    """

    def __init__(self, path: str | Path, *, adding: bool = False, private: bool = False) -> None:
        self.path = Path(path)
        self.adding, self.private = adding, private
        self.conversion = ""
        self.sources: list[dict[str, Any]] = []
        self.rows: dict[str, int] = {}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._revised: dict[tuple[str, str], Path] = {}

    def __enter__(self) -> DirectoryWriter:
        if self.path.exists() and not self.path.is_dir():
            raise TelemetryError(f"{self.path} is a file; give a directory to write into")
        with ExitStack() as stack:
            self._scratch = stack.enter_context(scratch(self.path))
            if not self.adding and self.path.is_dir() and any(self.path.iterdir()):
                raise TelemetryError(f"{self.path} is not empty; choose another directory or remove it first")
            self._own = stack.pop_all()
        return self

    def write(self, name: str, data: pa.Table | pa.RecordBatch) -> None:
        """Append rows to a table, with the same validation as when they are read."""
        declared = DIRECTORY_TABLES[name]
        table = conform(declared, of_rows(conform(declared, data)), str(self.path))
        if name not in self._writers:
            self._writers[name] = pq.ParquetWriter(self._staged(name), table.schema, compression="zstd")
        self._writers[name].write_table(table, row_group_size=1_000_000)
        self.rows[name] = self.rows.get(name, 0) + len(table)

    def staged(self, name: str) -> Path | None:
        """The rows of a table so far, as a file; None if there are none. Nothing is appended after it."""
        if name not in self._writers:
            return None
        self._writers[name].close()
        return self._staged(name)

    def change(self, name: str, change: Callable[[int, pa.Table], pa.Table], part: Path | None = None) -> int:
        """Change the appended rows of a table, or those of a part that an earlier conversion made.

        Args:
            name: of the table.
            change: returns the new form of some rows, given the place of the first in the file (from 0).
            part: the file of the part; None = the appended rows.

        Returns:
            How many rows were removed.
        """
        table, source = DIRECTORY_TABLES[name], part or self._staged(name)
        target = self._scratch / f"{name}.{part.stem if part else 'new'}.parquet"
        lost = 0
        with pq.ParquetWriter(target, table.schema, compression="zstd") as writer:
            for place, rows in stored_rows(table, source):
                kept = change(place, rows)
                lost += len(rows) - len(kept)
                writer.write_table(of_rows(conform(table, kept)), row_group_size=1_000_000)
        if part is not None:
            self._revised[name, part.stem] = target
        else:
            move(target, source, durable=False)
            self.rows[name] -= lost
        return lost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._own:
            for writer in self._writers.values():
                writer.close()
            if kind is not None or (self.adding and not self._writers):
                return
            if self.adding and self.path.is_dir():
                self._fill(self.path)
            else:
                with replacing_directory(self.path, self._scratch, private=self.private) as whole:
                    self._fill(whole)

    def _staged(self, name: str) -> Path:
        return self._scratch / f"{name}.parquet"

    def _fill(self, directory: Path) -> None:
        for name in self._writers:
            part = f"{name}/{_PART}{self.conversion}.parquet" if self.adding else f"{name}.parquet"
            (directory / part).parent.mkdir(exist_ok=True)
            move(self._staged(name), directory / part)
        if self.adding:
            entries = _read_sources(directory)
            self._revise(directory, entries)
            entries += [s | {"conversion": self.conversion} for s in self.sources]
            with replacing(directory / SOURCES, self._scratch) as file:
                file.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")

    def _revise(self, directory: Path, entries: Sequence[dict[str, Any]]) -> None:
        """Put revised parts beside the old ones, name them in the entries, and delete unread old parts."""
        listed = {(name, _part(entry, name)) for entry in entries for name in DIRECTORY_TABLES}
        for (name, stem), file in self._revised.items():
            old = directory / name / f"{stem}.parquet"
            os.utime(old)  # from now on nobody starts reading it
            for entry in entries:
                if _part(entry, name) == stem:
                    entry["revisions"] = entry.get("revisions", {}) | {name: self.conversion}
                    new = _part(entry, name)
            move(file, directory / name / f"{new}.parquet")
        unread = time.time() - _KEPT_SECONDS
        for name in DIRECTORY_TABLES:
            for part in (directory / name).glob(f"{_PART}*.parquet"):
                mine = part.stem == f"{_PART}{self.conversion}"
                if not mine and (name, part.stem) not in listed and part.stat().st_mtime < unread:
                    part.unlink()


def existing(path: Path) -> TelemetryDirectory | None:
    """An existing telemetry directory; None if it is absent, empty, or left by a killed conversion only.

    Raises:
        TelemetryError: the directory is used for something else.
    """
    left = (file for file in path.rglob("*") if not file.is_dir())
    if all(file.name.startswith(_PART) and file.parent.name in DIRECTORY_TABLES for file in left):
        return None
    return TelemetryDirectory(path)


def write_directory(path: str | Path, tables: Mapping[str, pa.Table]) -> None:
    """Write whole tables as a new telemetry directory."""
    with DirectoryWriter(path) as writer:
        for name, table in tables.items():
            writer.write(name, table)


def read_tables(source: TelemetryDirectory, names: Sequence[str]) -> dict[str, pa.Table]:
    """Several tables of a directory, absent ones left out."""
    present = source.tables()
    return {name: source.read(name) for name in names if name in present}


def unify(tables: Iterable[pa.Table]) -> pa.Table:
    """One table from many, with one dictionary per column."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def stored_rows(
    table: Table,
    file: Path,
    columns: Sequence[str] | None = None,
    wanted: Callable[[pq.RowGroupMetaData], bool] = lambda group: True,
) -> Iterator[tuple[int, pa.Table]]:
    """The rows of a file unchanged, one row group at a time, each with the place of its first row.

    Raises:
        TelemetryError: the file is not readable as Parquet.
        SchemaError: it does not fit the declaration.
    """
    names = [column.name for column in table.columns] if columns is None else columns
    place = 0
    with _opened(table, file) as handle:
        groups = [handle.metadata.row_group(number) for number in range(handle.num_row_groups)]
    for number, group in enumerate(groups):
        if wanted(group):
            yield place, _read_group(table, file, number, names)
        place += group.num_rows


def _opened(table: Table, file: Path) -> pq.ParquetFile:
    with _readable(file):
        with open_parquet(file) as handle:
            schema = handle.schema_arrow
        _check_columns(table, file, schema)
        names = [c.name for c in table.columns if c.type == NAME and c.name in schema.names]
        return open_parquet(file, read_dictionary=names)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise TelemetryError(f"{file} is not a readable Parquet file ({error})") from None


def _check_columns(table: Table, file: Path, schema: pa.Schema) -> None:
    """Raise SchemaError if a column holds lists or objects instead of plain values."""
    for column in table.columns:
        if column.name in schema.names:
            kind = schema.field(column.name).type
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if pa.types.is_nested(kind) and not pa.types.is_nested(column.type):
                raise SchemaError(f"{file}: column {column.name!r} is {kind}; expected {column.type}")


def _read_part(table: Table, file: Path) -> pa.Table:
    with _opened(table, file) as handle, _readable(file):
        wanted = [c.name for c in table.columns if c.name in handle.schema_arrow.names]
        return conform(table, handle.read(wanted), str(file))


def _read_group(table: Table, file: Path, group: int, columns: Sequence[str]) -> pa.Table:
    with _opened(table, file) as handle, _readable(file):
        present = [name for name in handle.schema_arrow.names if name in columns]
        return conform(table, handle.read_row_group(group, present, use_threads=False), str(file), columns)


def _known(group: pq.RowGroupMetaData, name: str) -> bool | None:
    """Whether a column's values are all known (True) or none is (False); None = some, or undetermined."""
    if (column := column_of(group, name)) is None:
        return False
    found = column.statistics
    if found is None or not found.has_null_count:
        return None
    return {0: True, group.num_rows: False}.get(found.null_count)


def _read_sources(path: Path) -> list[dict[str, Any]]:
    file = path / SOURCES
    if not file.exists():
        return []
    try:
        entries: list[dict[str, Any]] = read_json(file, _MAX_SOURCES_BYTES)
        if not isinstance(entries, list) or not all(map(_is_source, entries)):
            raise ValueError("it is no list of files, each with its conversion")
    except (ValueError, OSError) as error:
        raise TelemetryError(f"{file} is damaged ({error}); remove it and convert again") from None
    return entries


def _is_source(entry: Any) -> bool:
    known = isinstance(entry, dict) and isinstance(entry.get("conversion"), str)
    return known and isinstance(entry.get("revisions", {}), dict) and isinstance(entry.get("key"), str | None)


def _part(entry: Mapping[str, Any], name: str) -> str:
    """The stem of the latest revision of a part of a table that a conversion made."""
    revision = entry.get("revisions", {}).get(name)
    return f"{_PART}{entry['conversion']}" + (f"-{revision}" if revision else "")


def is_part(file: Path) -> bool:
    """Whether a conversion made the file, so that a later one may revise it."""
    return file.name.startswith(_PART)
