"""Parquet from a stream or from memory."""

from __future__ import annotations

from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(source: IO[bytes] | pa.BufferReader) -> pa.Table:
    """The table in an open file or in memory, read by this thread alone.

    Behind `pq.read_table`, a thread of Arrow's may let go of what belongs to Python after Python has ended,
    which aborts the process.

    Raises:
        pa.ArrowException, OSError: it is no Parquet file, or damaged.
    """
    with pq.ParquetFile(source) as file:
        return file.read(use_threads=False)
