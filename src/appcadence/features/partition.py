"""Features of telemetry larger than memory: spill coded flows, then work block by block.

First pass: pieces of the input are coded and written, in block order, to a scratch directory. Second pass:
each block is read, and its features are computed and spilled. Third pass: features that need the whole fleet
are filled in, table by table. Memory holds one piece and one block per thread, and the names and channels of
the fleet. Blocks that a killed run left in the scratch directory are not computed again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.npyio import NpzFile

from appcadence._cpus import usable_cpus
from appcadence._files import replacing, scratch
from appcadence._types import Progress, silent
from appcadence.features.build import windows_of
from appcadence.features.context import Contexts
from appcadence.features.extraction import Part, Source, coded_keys, fill_novelty, frame, keys_of, prepare
from appcadence.features.families import novelty
from appcadence.features.flows import Flows
from appcadence.features.history import CHANNEL, History, Past
from appcadence.features.selection import WHOLE, Selection
from appcadence.features.windows import Windows, window_seconds

BLOCK_FLOWS = 100_000
"""Flows of one block: about 80 MB per thread at the peak."""

_ROW_GROUP = 1 << 15
"""Least rows of a row group of the table: smaller ones cost time and space."""
_EXTRA, _PAST = "extra_", "past"
"""What the names of a block's own arrays in its file begin with, and the name of its past."""

T = TypeVar("T")


def write_features(
    source: Source,
    out: Path,
    window: str = "24h",
    history: History | None = None,
    columns: Sequence[str] | None = None,
    *,
    block_flows: int = BLOCK_FLOWS,
    progress: Progress = silent,
) -> int:
    """Write the feature table of `extract` to a Parquet file, completely or not at all; returns its row
    count.

    The scratch directory beside the file takes about 60 bytes per flow and 400 per window.

    Raises:
        TelemetryError, SchemaError, AppcadenceError: as `extract`, or another run is writing the same file.
    """
    seconds, selection = window_seconds(window), Selection.of(columns)
    past = selection.past(history)
    with scratch(out) as place, replacing(out, place) as whole:
        blocks = Blocks.of(
            source, seconds, past, place, selection=selection, block_flows=block_flows, progress=progress
        )
        schema = pa.Table.from_pandas(blocks.no_rows(), preserve_index=False).schema
        # A dictionary of float values only costs time.
        names = [field.name for field in schema if pa.types.is_dictionary(field.type)]
        rows = 0
        waiting: list[pa.Table] = []
        with pq.ParquetWriter(
            whole, schema, compression="zstd", compression_level=1, use_dictionary=names
        ) as writer:
            tables = in_order(lambda number: blocks.table(number, schema), len(blocks))
            for number, table in enumerate(tables, start=1):
                waiting.append(table)
                rows += len(table)
                if number == len(blocks) or sum(map(len, waiting)) >= _ROW_GROUP:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
                progress("writing", number / len(blocks))
    return rows


def in_order(work: Callable[[int], T], count: int) -> Iterator[T]:
    """Results of work(0), work(1), ... on all cores, at most one per core ahead to limit memory."""
    workers = usable_cpus()
    with ThreadPoolExecutor(workers) as pool:
        ahead = deque(pool.submit(work, number) for number in range(min(workers + 1, count)))
        try:
            for number in range(len(ahead), count + len(ahead)):
                done = ahead.popleft().result()
                if number < count:
                    ahead.append(pool.submit(work, number))
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Blocks:
    """The feature table in pieces: the channel windows of each block, then the app windows of each block."""

    flows: Flows
    contexts: Contexts
    seconds: int
    scratch: Path
    pasts: list[Past]
    """The history of each block, including the contacts of its windows; empty without history."""
    fleet: novelty.Fleet | None
    selection: Selection
    _dictionaries: dict[str, pa.Array] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        source: Source,
        seconds: int,
        history: History | None,
        scratch: Path,
        *,
        selection: Selection = WHOLE,
        block_flows: int = BLOCK_FLOWS,
        span_us: tuple[int, int] | None = None,
        extra_columns: Callable[[Windows], dict[str, np.ndarray]] = lambda windows: {},
        progress: Progress = silent,
    ) -> Blocks:
        """Read the telemetry and compute the selected features of all blocks; with a span, only its windows.

        `extra_columns` computes further arrays with one value per window, which the blocks return.

        Raises:
            TelemetryError, SchemaError: see `appcadence.features.extraction.load`.
        """
        progress("reading", 0.0)
        coded = scratch / "coded"
        shutil.rmtree(coded, ignore_errors=True)
        coded.mkdir()
        flows, contexts = prepare(
            source,
            history,
            block_flows=block_flows,
            spill=coded,
            span_us=span_us,
            around=selection.tables(history),
            progress=progress,
        )
        # What a killed run left is in its codes.
        kept = scratch / f"blocks-{_codes(flows, selection)}"
        for other in scratch.glob("blocks-*"):
            if other != kept:
                shutil.rmtree(other)
        kept.mkdir(exist_ok=True)

        def work(block: int) -> Past | None:
            files = [_file(kept, half, block) for half in (0, 1)]
            if not all(map(_whole, files)):
                windows = windows_of(flows, contexts, seconds, span_us, block)
                n, others = windows.n_channels, extra_columns(windows)
                past = {} if windows.compared is None else {_PAST: windows.compared.channels.rows}
                # The second holds the past, and is there only when all is.
                halves = Part.halves_of(windows, selection)
                for file, part, rows, more in zip(
                    files, halves, (slice(n), slice(n, None)), ({}, past), strict=True
                ):
                    extra = {_EXTRA + name: values[rows] for name, values in others.items()}
                    _store(file, part._asdict() | extra | more)
            if contexts.past is None:
                return None
            with np.load(files[1], allow_pickle=False) as stored:
                return replace(contexts.past, rows=stored[_PAST])

        pasts: list[Past] = []
        for done, past in enumerate(in_order(work, flows.n_blocks), start=1):
            pasts += [] if past is None else [past]
            progress("extracting", done / flows.n_blocks)
        shutil.rmtree(coded)
        fleet = None
        if selection.fleetwide:
            fleet = novelty.Fleet.of(contexts, [past.contacts() for past in pasts])
        return cls(flows, contexts, seconds, kept, pasts, fleet, selection)

    def __len__(self) -> int:
        return 2 * self.flows.n_blocks

    def frame(self, number: int) -> pd.DataFrame:
        """One of the tables, with the columns of `extract`."""
        return frame(self._part(number), self.flows, self.contexts, self.seconds, self.selection)

    def table(self, number: int, schema: pa.Schema) -> pa.Table:
        """The same in Arrow, with the schema of `no_rows`; faster than through a DataFrame."""
        part = self._part(number)
        columns = []
        for name, keys in coded_keys(part, self.flows, self.contexts, self.seconds).items():
            kind = schema.field(name).type
            if isinstance(keys, tuple):
                codes = pa.array(keys[0], kind.index_type, mask=keys[0] < 0)
                words = self._words(name, keys[1], kind.value_type)
                columns.append(pa.DictionaryArray.from_arrays(codes, words))
            else:
                columns.append(pa.array(keys, kind))
        values = np.ascontiguousarray(self.selection.shown(part.values).T)
        known = np.packbits(~np.isnan(values), axis=1, bitorder="little")
        for column, valid in zip(values, known, strict=True):
            buffers = [pa.py_buffer(valid), pa.py_buffer(column)]
            columns.append(pa.Array.from_buffers(pa.float32(), len(column), buffers))
        return pa.Table.from_arrays(columns, schema=schema)

    def _words(self, name: str, names: pd.Index[Any], kind: pa.DataType) -> pa.Array:
        """The names of a column, made once for all tables."""
        if name not in self._dictionaries:
            self._dictionaries[name] = pa.array(names, kind)
        return self._dictionaries[name]

    def _part(self, number: int) -> Part:
        with self._stored(number) as stored:
            part = Part._make([stored[name] for name in Part._fields])
        fill_novelty(part, self.fleet, self.seconds)
        return part

    def keys(self, number: int) -> pd.DataFrame:
        """One of the tables without its features."""
        with self._stored(number) as stored:
            columns = [stored[name] for name in Part._fields[:-1]]
        part = Part._make([*columns, np.empty((len(columns[0]), 0), np.float32)])
        return keys_of(part, self.flows, self.contexts, self.seconds)

    def extra_columns(self, number: int) -> dict[str, np.ndarray]:
        """The results of `extra_columns` for the windows of one of the tables."""
        with self._stored(number) as stored:
            names = [name for name in stored.files if name.startswith(_EXTRA)]
            return {name.removeprefix(_EXTRA): stored[name] for name in names}

    def _stored(self, number: int) -> NpzFile:
        file = _file(self.scratch, *divmod(number, self.flows.n_blocks))
        stored: NpzFile = np.load(file, allow_pickle=False)
        return stored

    def no_rows(self) -> pd.DataFrame:
        """A table with no windows."""
        return frame(Part.empty(self.selection), self.flows, self.contexts, self.seconds, self.selection)

    def history(self) -> History:
        """The history with the contacts of all windows added.

        Raises:
            ValueError: there was no history.
        """
        if self.contexts.past is None:
            raise ValueError("no history was given")
        return self.contexts.past.with_devices(self.pasts).history()


def _file(directory: Path, half: int, block: int) -> Path:
    return directory / f"{block:06d}-{half}.npz"


def _store(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(file, file.parent, durable=False) as written, written.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _whole(file: Path) -> bool:
    """Whether the file is complete: one cut off by a power failure lacks the names at its end."""
    try:
        with np.load(file, allow_pickle=False):
            return True
    except (OSError, ValueError, EOFError, BadZipFile):
        return False


def _codes(flows: Flows, selection: Selection) -> str:
    """The meaning of the codes and columns in the file of a block."""
    digest = hashlib.sha256(f"{flows.n_blocks} {CHANNEL}".encode() + selection.wanted.tobytes())
    for names in (flows.devices, flows.apps, flows.dests):
        for name in names:
            digest.update(str(name).encode("utf-8", "surrogatepass") + b"\0")
        digest.update(b"\1")
    return digest.hexdigest()[:16]
