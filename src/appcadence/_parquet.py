"""Untrusted Parquet: every file is checked against limits before anything is decompressed."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence._inputs import open_input

DAMAGE = (
    *(ValueError, LookupError, TypeError, OSError, ArithmeticError, MemoryError, EOFError, AttributeError),
    *(NotImplementedError, RecursionError, zlib.error, zipfile.BadZipFile, pa.ArrowException),
)
"""Exceptions that damaged tables and arrays may raise when they are read or used."""
MAX_COLUMNS = 1000
MAX_RATIO = 1000
"""Most bytes that one byte of a column may decompress to, beyond `_FREE_BYTES`."""
MAX_ROWS_PER_BYTE = 20
"""Of the whole file, beyond `_FREE_ROWS`: null and repeated values take memory but almost no file space."""
_FREE_BYTES, _FREE_ROWS = 64 << 20, 1_000_000


def read_parquet(source: IO[bytes] | pa.BufferReader) -> pa.Table:
    """The table in an open file or in memory, read only by this thread.

    Threads of Arrow that read ahead or in parallel may release what is Python's after Python has ended,
    which aborts the process.

    Raises:
        pa.ArrowException, OSError: it is not a Parquet file, is damaged, or exceeds a limit.
    """
    with _opened(source, pre_buffer=False) as file:
        source.seek(0, 2)
        _check(file.metadata, file.schema_arrow, source.tell())
        table = file.read(use_threads=False)
        table.validate(full=True)
        return table


def read_file(file: Path, **options: Any) -> pa.Table:
    """`pq.read_table` of a regular file whose stated sizes are within the limits.

    It is opened once: given a path, Arrow opens it several times, and another may take its place meanwhile.

    Raises:
        pa.ArrowException, OSError: as `read_parquet`.
    """
    open_input(file).close()  # a pipe would block
    with pa.OSFile(os.fsencode(file)) as source:
        with _opened(source) as parquet:
            _check(parquet.metadata, parquet.schema_arrow, source.size())
        return pq.read_table(source, **options)


def open_parquet(file: Path, *, read_dictionary: list[str] | None = None) -> pq.ParquetFile:
    """A file to read from, checked as in `read_file`; `read_dictionary` has columns to read as such."""
    with open_input(file) as stream:  # a pipe would block
        size = stream.seek(0, 2)
    opened = _opened(file, read_dictionary=read_dictionary)
    try:
        _check(opened.metadata, opened.schema_arrow, size)
    except BaseException:
        opened.close()
        raise
    return opened


def column_of(group: pq.RowGroupMetaData, name: str) -> pq.ColumnChunkMetaData | None:
    """The metadata of a column in a row group; None if it is missing."""
    columns = map(group.column, range(group.num_columns))
    return next((column for column in columns if column.path_in_schema == name), None)


def _opened(source: Any, **options: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(source, **options)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a column name is not valid text ({error})") from None


def _check(found: pq.FileMetaData, schema: pa.Schema, size: int) -> None:
    if found.num_columns > MAX_COLUMNS:
        raise pa.ArrowInvalid(f"it has {found.num_columns:,} columns; at most {MAX_COLUMNS:,} are read")
    if twice := [name for name, times in Counter(schema.names).items() if times > 1]:
        raise pa.ArrowInvalid(f"it has the column {twice[0]!r} more than once")
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    if max(rows, found.num_rows) > _FREE_ROWS + MAX_ROWS_PER_BYTE * size or min(rows, found.num_rows) < 0:
        raise pa.ArrowInvalid(
            f"it claims {max(rows, found.num_rows):,} rows in {size:,} bytes; at most {MAX_ROWS_PER_BYTE} "
            f"per byte are read"
        )
    for group in (group for group in groups if group.total_byte_size > _FREE_BYTES):
        for column in map(group.column, range(group.num_columns)):
            whole, packed = column.total_uncompressed_size, min(column.total_compressed_size, size)
            if whole > _FREE_BYTES + MAX_RATIO * packed:
                raise pa.ArrowInvalid(
                    f"column {column.path_in_schema} unpacks from {packed:,} to {whole:,} bytes; at most "
                    f"{MAX_RATIO:,} to 1 is read"
                )
