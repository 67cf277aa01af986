"""Row groups of a table that overlap a span of time, by their Parquet statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq

from appcadence._parquet import column_of, open_parquet
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.times import to_micros


def pieces_within(
    source: TelemetryDirectory,
    name: str,
    columns: Sequence[str],
    when: str,
    first: int | None = None,
    last: int | None = None,
) -> Iterator[pa.Table]:
    """Some columns of a table, row group by row group, without those that lie wholly outside a span.

    A row group that overlaps the span is read whole, so it may include rows outside the span.

    Args:
        source: where the table is.
        name: of the table; an absent one has no pieces.
        columns: what to read.
        when: the time column.
        first: microseconds since the epoch; None = from the beginning. Likewise `last`, included.
    """
    reads = iter(source.pieces(name, columns))
    for file in source.files(name):
        with open_parquet(file) as handle:
            metadata = handle.metadata
        for group in range(metadata.num_row_groups):
            read = next(reads)
            if reaches(metadata.row_group(group), when, first, last) and len(piece := read()):
                yield piece


def reaches(group: pq.RowGroupMetaData, when: str, first: int | None, last: int | None) -> bool:
    """Whether a row group may hold rows of a span; see `pieces_within`."""
    found = None if (column := column_of(group, when)) is None else column.statistics
    if found is None or not found.has_min_max or not isinstance(found.min, datetime):
        return True
    # The statistics may be rounded down.
    before = first is not None and to_micros(found.max) + 1 < first
    return not before and (last is None or to_micros(found.min) <= last)
