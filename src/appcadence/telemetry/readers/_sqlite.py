"""SQLite files of unknown origin: opened read-only, plain tables only, within time and size bounds.

Nothing in the file is executed: views, virtual tables, generated columns, triggers and indexes are not
used, and an authorizer refuses every statement except a plain SELECT. The file is opened as immutable. If a
`-wal` file with newer records lies beside it, SQLite reads both from a private copy, so that the given files
stay unchanged.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from appcadence._inputs import open_input
from appcadence.errors import UnusableFile
from appcadence.telemetry.readers import _lines
from appcadence.telemetry.readers._packed import START_BYTES, packing
from appcadence.telemetry.readers._spill import room

MAGIC = b"SQLite format 3\x00"
MAX_UNPACKED_BYTES = 4 << 30
"""A gzip file that unpacks to more is refused."""
TIME_LIMIT_SECONDS = 120.0
"""Per table; a well-formed table of millions of rows takes seconds."""
MAX_ROWS = 2_000_000
"""Per table; a device logs far fewer in the weeks that such a file covers."""
MAX_TEXT = 1_000
"""Longer text is cut here; no bundle id or version is as long."""
MAX_BLOB = 64
"""Bytes that are read from a blob."""

WAL = "-wal"
"""The suffix of a database's write-ahead log."""

_LOG_MAGIC, _LOG_HEAD, _PAGE_HEAD = b"\x37\x7f\x06", 32, 24
"""Of a write-ahead log: its magic bytes, and the header bytes before its first page and before each page."""
_SNIFF_SECONDS = 5.0
_MAX_VALUE_BYTES = 64 << 20
_STEPS = 10_000

Value = int | float | str | bytes | None


class Database:
    """The plain tables of one open file."""

    def __init__(self, path: Path, connection: sqlite3.Connection, expected: str, limit: float) -> None:
        self.path = path
        self._connection = connection
        self._expected = expected
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self.unread = ""
        """Which part of its write-ahead log cannot be read; empty if all can."""
        connection.text_factory = bytes
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON"):
            list(self._query(f"PRAGMA {pragma}", ()))
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        connection.set_authorizer(_plain_select)
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, _STEPS)
        query = "SELECT name, type = 'table' AND rootpage > 0 FROM sqlite_master"
        self._plain = {name: plain == 1 for name, plain in self._query(query, ())}

    @property
    def said(self) -> dict[tuple[Path, str], None]:
        """What the user should know about the file."""
        lost = f"its write-ahead log (-wal) {self.unread}: the newest records are missing"
        return {(self.path, lost): None} if self.unread else {}

    def columns(self, table: str) -> frozenset[str] | None:
        """Names of a table's stored columns; None if there is no plain table of that name."""
        if not self._plain.get(table.encode()):
            return None
        return frozenset(
            str(_value(row[1])) for row in self._query(f"PRAGMA table_info({_quoted(table)})", ())
        )

    def blob_columns(self, table: str) -> tuple[str, ...]:
        """Sorted names of a plain table's columns that are declared as BLOB."""
        if not self._plain.get(table.encode()):
            return ()
        declared = self._query(f"PRAGMA table_info({_quoted(table)})", ())
        return tuple(sorted(str(_value(row[1])) for row in declared if _value(row[2]) == "BLOB"))

    def holds(self, name: str) -> bool:
        """Whether anything has that name, plain table or not."""
        return name.encode() in self._plain

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        where: str = "",
        values: Sequence[str] = (),
        blobs: Sequence[str] = (),
    ) -> Iterator[tuple[int, list[Value]]]:
        """Row id and values of each row; an absent column is None, and so is a blob.

        There are no rows if there is no plain table of that name.

        `where` names a column whose value must be one of `values`. Text is cut after MAX_TEXT characters, and
        text that is not UTF-8 becomes empty. `blobs` are further columns of bytes, after the others: at most
        MAX_BLOB bytes of each, None if the value is no blob.

        Raises:
            UnusableFile: the file is damaged, or the table too large or too slow to read.
        """
        present = self.columns(table)
        if present is None:
            return
        plain = [_cell(column) if column in present else "NULL" for column in columns]
        picked = ", ".join([*plain, *map(_blob, blobs)])
        query = f"SELECT rowid, {picked} FROM main.{_quoted(table)} NOT INDEXED"
        if where:
            query += f" WHERE {_quoted(where)} IN ({', '.join('?' * len(values))})"
        for number, row in enumerate(self._query(query, values), 1):
            if number > MAX_ROWS:
                raise self._fault(f": table {table} has more than {MAX_ROWS:,} rows")
            cells = [_value(cell) for cell in row[1 : len(columns) + 1]]
            data = [cell if isinstance(cell, bytes) else None for cell in row[len(columns) + 1 :]]
            yield (row[0] if isinstance(row[0], int) else number), [*cells, *data]

    def _query(self, query: str, values: Sequence[str]) -> Iterator[tuple[object, ...]]:
        self._deadline = time.monotonic() + self._limit
        try:
            cursor = self._connection.execute(query, values)
            while rows := cursor.fetchmany(10_000):
                yield from rows
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # SQLite's own message may quote the file; its error code does not.
            code = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")
            if code == "SQLITE_INTERRUPT":
                raise self._fault(f" takes longer than {self._limit:g} s to read") from None
            raise self._fault(f" is a damaged SQLite database ({code})") from None

    def _fault(self, what: str) -> UnusableFile:
        return UnusableFile(f"{self.path}{what}; expected {self._expected}", self.path)


@contextmanager
def opened(
    path: Path, expected: str, limit: float | None = None, *, newest: bool = True
) -> Iterator[Database]:
    """The database in a file, plain or packed (unpacked to a temporary file while it is open).

    Records in a `-wal` file beside a plain one are part of it, unless `newest` is false. `limit` applies to
    each query, in seconds [default: TIME_LIMIT_SECONDS].

    Raises:
        UnusableFile: the file is missing, empty, no SQLite database, damaged, or too large when unpacked.
        TelemetryError: there is no room to unpack it.
    """
    if not _lines.head(path, expected).startswith(MAGIC):
        raise UnusableFile(f"{path} is not an SQLite database; expected {expected}", path)
    with path.open("rb") as stream:
        packed = packing(stream.read(START_BYTES)) is not None
    log = write_ahead_log(path) if newest and not packed else None
    copied = packed or log is not None
    with tempfile.TemporaryDirectory(prefix="appcadence-") if copied else nullcontext("") as folder:
        file = Path(folder, "copy") if copied else path
        if packed:
            _unpack(path, file, expected)
        elif log is not None:
            _check_size(path, path, expected)
            _copy(path, file, expected)
            _copy(log, Path(folder, f"copy{WAL}"), expected)
        with _connected(file, path, expected, limit or TIME_LIMIT_SECONDS, log is None) as database:
            if log is not None:
                database.unread = _unread(Path(folder))
            yield database


def write_ahead_log(path: Path) -> Path | None:
    """The `-wal` file beside a database, if there is one that is not empty."""
    beside = path.with_name(path.name + WAL)
    try:
        return beside if beside.is_file() and beside.stat().st_size > 0 else None
    except OSError:
        return None


def _unread(folder: Path) -> str:
    """What SQLite left out of the write-ahead log of the open copy, in words; empty if it used all.

    It skips everything after the first damaged page. Pages left from an earlier round of the log have other
    salts and are no loss.
    """
    index, log = folder / "copy-shm", folder / f"copy{WAL}"
    size = log.stat().st_size - _LOG_HEAD
    taken = int.from_bytes(index.read_bytes()[16:20], sys.byteorder) if index.exists() else 0
    with log.open("rb") as stream:
        start = stream.read(_LOG_HEAD)
        page = int.from_bytes(start[8:12], "big")
        if start[:3] != _LOG_MAGIC or not 512 <= page <= 65_536:
            return "is damaged from its beginning and was not read" if size > 0 else ""
        pages = -(-size // (page + _PAGE_HEAD))
        lost = pages - taken
        for number in range(taken, pages) if taken else ():
            stream.seek(_LOG_HEAD + number * (page + _PAGE_HEAD) + 8)
            if stream.read(8) != start[16:24]:
                lost = number - taken
                break
    if lost <= 0:
        return ""
    return f"is damaged or unfinished: {lost:,} of its {taken + lost:,} pages were not read"


def has_table(path: Path, start: bytes, tables: Sequence[str], expected: str) -> bool:
    """Whether a file with this start is an SQLite database with any of some tables.

    Their names may be anywhere in the file, so a packed one is unpacked, or only in its write-ahead log.

    Raises:
        TelemetryError: there is no room to unpack it.
    """
    if not start.startswith(MAGIC):
        return False
    try:
        for newest in (False, True) if write_ahead_log(path) else (False,):
            with opened(path, expected, _SNIFF_SECONDS, newest=newest) as database:
                if any(database.holds(table) for table in tables):
                    return True
    except (UnusableFile, OSError):
        pass
    return False


def fault(path: Path, start: bytes, expected: str) -> UnusableFile | None:
    """Why a file with this start cannot be opened as a database; None if it can, or is none.

    Raises:
        TelemetryError: there is no room to unpack it.
    """
    if start.startswith(MAGIC):
        try:
            with opened(path, expected, _SNIFF_SECONDS, newest=False):
                pass
        except UnusableFile as found:
            return found
    return None


def _unpack(path: Path, target: Path, expected: str) -> None:
    size = 0
    with room(), target.open("wb") as out:
        for data, _ in _lines.pieces(path, expected):
            size += len(data)
            if size > MAX_UNPACKED_BYTES:
                raise UnusableFile(
                    f"{path} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes; expected {expected}", path
                )
            out.write(data)


def _copy(path: Path, target: Path, expected: str) -> None:
    with room(), open_input(path) as source, target.open("wb") as out:
        left = MAX_UNPACKED_BYTES
        while data := source.read(min(1 << 20, left + 1)):
            left -= len(data)
            if left < 0:
                raise UnusableFile(
                    f"{path} is larger than {MAX_UNPACKED_BYTES:,} bytes; expected {expected}", path
                )
            out.write(data)


@contextmanager
def _connected(file: Path, path: Path, expected: str, limit: float, whole: bool) -> Iterator[Database]:
    """`whole`: there is no write-ahead log, which would make the size unknown and SQLite write beside it."""
    if whole:
        _check_size(file, path, expected)
    uri = f"{file.resolve().as_uri()}?mode=ro{'&immutable=1' if whole else ''}"
    try:
        connection = sqlite3.connect(uri, uri=True)
    except sqlite3.Error as error:
        raise UnusableFile(f"{path} cannot be opened ({error}); expected {expected}", path) from None
    with closing(connection):
        yield Database(path, connection, expected, limit)


def _check_size(file: Path, path: Path, expected: str) -> None:
    """Refuse a file that ends before its last page, which SQLite would read as if it were whole."""
    with file.open("rb") as stream:
        head = stream.read(100)
    number = partial(int.from_bytes, byteorder="big")
    page = number(head[16:18])
    size = number(head[28:32]) * (65_536 if page == 1 else page)
    # Old versions of SQLite do not store the number of pages; these two fields are equal if it is stored.
    if len(head) < 100 or (head[24:28] == head[92:96] and file.stat().st_size < size):
        raise UnusableFile(f"{path} is cut off inside its SQLite data; expected {expected}", path)


def _plain_select(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    allowed = (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ)
        or (action == sqlite3.SQLITE_FUNCTION and second in ("typeof", "substr"))
        or (action == sqlite3.SQLITE_PRAGMA and first == "table_info")
    )
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _cell(column: str) -> str:
    name = _quoted(column)
    text = f"WHEN 'text' THEN substr({name}, 1, {MAX_TEXT})"
    return f"CASE typeof({name}) {text} WHEN 'blob' THEN NULL ELSE {name} END"


def _blob(column: str) -> str:
    name = _quoted(column)
    return f"CASE typeof({name}) WHEN 'blob' THEN substr({name}, 1, {MAX_BLOB}) END"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _value(cell: object) -> Value:
    if not isinstance(cell, bytes):
        return cell if isinstance(cell, int | float) else None
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return ""
