"""Rows set aside on disk while a log is read, and returned with all rows of a key together.

A few rows stay in memory. The rest goes into temporary files without a name, which vanish with the process,
however it ends. They lie where TMPDIR points to, and are as large as the rows.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa

from appcadence.errors import TelemetryError

HELD_ROWS = 1 << 20
"""Up to this many rows stay in memory, and are returned at once."""
PIECE_ROWS = 1 << 19
"""Of more rows, at most this many are returned at a time."""
_BUCKET_BITS = 7
_BATCH_ROWS = 1 << 16


@dataclass
class _Bucket:
    file: IO[bytes]
    writer: pa.RecordBatchStreamWriter
    rows: int = 0


class Spill:
    """Add tables of one schema, with a `key` of 64 well-mixed bits per row; then take the pieces, once."""

    def __init__(self) -> None:
        self.rows = 0
        self._first: list[pa.Table] = []
        """Rows held in memory, while there are no more than HELD_ROWS."""
        self._buckets: dict[int, _Bucket] = {}

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *error: object) -> None:
        for bucket in self._buckets.values():
            # Rows that could not be written are no longer needed.
            with contextlib.suppress(OSError):
                bucket.file.close()

    def add(self, rows: pa.Table) -> None:
        """Set n rows aside.

        Raises:
            TelemetryError: there is no room for them.
        """
        self.rows += len(rows)
        self._first.append(rows)
        if self.rows <= HELD_ROWS:
            return
        for held in self._first:
            self._set_aside(held)
        self._first.clear()

    def _set_aside(self, rows: pa.Table) -> None:
        number = np.asarray(rows["key"]) >> np.uint64(64 - _BUCKET_BITS)
        order = np.argsort(number.astype(np.uint8), kind="stable")
        rows = rows.take(pa.array(order)).combine_chunks()
        edges = np.searchsorted(number[order], np.arange((1 << _BUCKET_BITS) + 1))
        with room():
            for at in np.flatnonzero(np.diff(edges)).tolist():
                self._write(at, rows.slice(edges[at], edges[at + 1] - edges[at]))

    def pieces(self) -> Iterator[pa.Table]:
        """All rows, in an order that depends on nothing but the rows added.

        The rows of a key are in one piece, in the order in which they were added. Only if the keys of one of
        the 128 buckets have more than PIECE_ROWS rows in all are these cut into several pieces.

        Raises:
            TelemetryError: there is no room for what is still to be written.
        """
        if self._first:
            yield pa.concat_tables(self._first).combine_chunks()
            return
        held: list[pa.RecordBatch] = []
        count = 0
        for _, bucket in sorted(self._buckets.items()):
            if held and count + bucket.rows > PIECE_ROWS:
                yield _together(held)
                count = 0
            with room():
                bucket.writer.close()
                bucket.file.seek(0)
            for batch in pa.ipc.open_stream(bucket.file):
                if held and count + len(batch) > PIECE_ROWS:
                    yield _together(held)
                    count = 0
                held.append(batch)
                count += len(batch)
            bucket.file.close()
        if held:
            yield _together(held)

    def _write(self, number: int, rows: pa.Table) -> None:
        bucket = self._buckets.get(number)
        if bucket is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115
            bucket = self._buckets[number] = _Bucket(file, pa.ipc.new_stream(file, rows.schema))
        bucket.writer.write_table(rows, _BATCH_ROWS)
        bucket.rows += len(rows)


def _together(held: list[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(held)
    # Otherwise they would stay in memory while the table is used.
    held.clear()
    return table


@contextlib.contextmanager
def room() -> Iterator[None]:
    """Turn a lack of room for temporary files into a sentence."""
    try:
        yield
    except OSError as error:
        raise TelemetryError(
            f"cannot write temporary files in {tempfile.gettempdir()} ({error.strerror or error}); "
            "set TMPDIR to a directory with more room"
        ) from None
