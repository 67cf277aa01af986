"""The feature table of telemetry larger than memory: spill coded flows, then block by block.

First pass: pieces of the input are coded and written, in block order, to a scratch directory. Second pass:
each block is read, its features are computed and spilled. Third pass: what needs the whole fleet is filled
in, and the table is written row group by row group. Memory holds one piece and one block a thread, and the
names and channels of the fleet.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from appcadence.errors import AppcadenceError
from appcadence.features import novelty
from appcadence.features.extract import Part, Source, block_part, fill_novelty, frame, prepare
from appcadence.features.history import Contacts, History
from appcadence.features.windows import window_seconds

BLOCK_FLOWS = 100_000
"""Flows of one block: about 80 MB a thread at the peak."""


def write_features(
    source: Source,
    out: Path,
    window: str = "24h",
    history: History | None = None,
    *,
    block_flows: int = BLOCK_FLOWS,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> int:
    """Write the feature table of `extract` to a Parquet file, whole or not at all; returns its rows.

    The scratch directory lies beside the file and takes about 60 bytes a flow and 400 a window.

    Raises:
        TelemetryError, SchemaError, AppcadenceError: as `extract`; another run is writing the same file.
    """
    seconds = window_seconds(window)
    with _scratch(out) as scratch:
        whole = scratch / "table.parquet"
        rows = _write(source, whole, seconds, history, scratch, block_flows, progress)
        whole.replace(out)
    return rows


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """An empty directory beside the file, this run's alone; what a killed run left in it is removed."""
    path = out.with_name(f".{out.name}.scratch")
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AppcadenceError(
                f"another run is writing {out}; wait for it, or name another file"
            ) from None
        try:
            for left in path.iterdir():
                if left.name != "lock":
                    left.unlink()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _write(
    source: Source,
    out: Path,
    seconds: int,
    history: History | None,
    scratch: Path,
    block_flows: int,
    progress: Callable[[str, float], None],
) -> int:
    progress("reading", 0.0)
    flows, contexts = prepare(
        source,
        history,
        block_flows=block_flows,
        spill=scratch,
        progress=lambda share: progress("reading", share),
    )

    def work(block: int) -> Contacts | None:
        halves, contacts = block_part(flows, block, contexts, seconds)
        for half, part in enumerate(halves):
            for name, column in zip(Part._fields, part, strict=True):
                np.save(_file(scratch, half, block, name), column, allow_pickle=False)
        return contacts

    contacts: list[Contacts] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, known in enumerate(pool.map(work, range(flows.n_blocks)), start=1):
            contacts += [] if known is None else [known]
            progress("extracting", done / flows.n_blocks)
    fleet = None if contexts.past is None else novelty.Fleet(contexts.past, contacts)
    rows = 0
    # All channel windows, then all app windows, as `extract` has them.
    stored = [(half, block) for half in (0, 1) for block in range(flows.n_blocks)]
    schema = pa.Table.from_pandas(frame(Part.empty(), flows, contexts, seconds), preserve_index=False).schema
    # A dictionary of float values only costs time.
    names = [field.name for field in schema if pa.types.is_dictionary(field.type)]

    def ready(stored: tuple[int, int]) -> pa.Table:
        part = _read(scratch, *stored)
        if fleet is not None:
            fill_novelty(part, contexts, fleet, seconds)
        return pa.Table.from_pandas(frame(part, flows, contexts, seconds), schema, preserve_index=False)

    workers = os.cpu_count() or 1
    with (
        pq.ParquetWriter(
            out, schema, compression="zstd", compression_level=1, use_dictionary=names
        ) as writer,
        ThreadPoolExecutor(workers) as pool,
    ):
        # A few at a time: tables that wait to be written take memory.
        for first in range(0, len(stored), workers):
            for table in pool.map(ready, stored[first : first + workers]):
                writer.write_table(table)
                rows += len(table)
            progress("writing", min(first + workers, len(stored)) / len(stored))
    return rows


def _file(scratch: Path, half: int, block: int, name: str) -> Path:
    return scratch / f"block-{block:06d}-{half}-{name}.npy"


def _read(scratch: Path, half: int, block: int) -> Part:
    files = [_file(scratch, half, block, name) for name in Part._fields]
    part = Part._make([np.load(file, allow_pickle=False) for file in files])
    for file in files:
        file.unlink()
    return part
