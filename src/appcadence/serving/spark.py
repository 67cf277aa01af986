"""The batch job's work on Spark, in two passes of the same functions over blocks of devices.

Spark's shuffle brings the flows of each block together, and its activity and notifications in one tagged
table beside them. The first pass turns them into windows; the driver gathers who met what first, as fleet
events and novelty need the whole fleet; the second pass measures. Inventory, history and detector are
broadcast. Workers read the telemetry directory under the path that the driver has; results go to the driver
alone, block by block.
"""

from __future__ import annotations

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from appcadence._files import replacing
from appcadence._types import Progress
from appcadence.errors import AppcadenceError
from appcadence.features import flows as coded
from appcadence.features.build import build
from appcadence.features.catalog import NAMES
from appcadence.features.columns import codes, codes_of
from appcadence.features.context import COLUMNS as CONTEXT_COLUMNS
from appcadence.features.extraction import Part, fill_novelty, frame, touching
from appcadence.features.families import novelty
from appcadence.features.grouping import scatter
from appcadence.features.history import History, Past
from appcadence.features.windows import APP_LEVEL
from appcadence.serving import measures
from appcadence.serving.batch import Bar, Engine, Half, Job, Measured, file_of, write_part
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.schema import DIRECTORY_TABLES, conform

_COLUMNS = {"flows": coded.COLUMNS, **CONTEXT_COLUMNS}
_KEYS = ["device_id", "app_id", "dest", "window_start", "window_end"]
_ROWS = "block int, tag string, piece int, rows binary"
_COUNTS = "device_id string, flows bigint, first_us bigint"
_WINDOWS = "block int, half int, rows binary, keys binary, past binary"
_SCORES = "number int, scores binary"
_BLOCKS_A_TASK = 16

Batches = Iterator[pa.RecordBatch]


def session() -> SparkSession:
    """The session of the surrounding Spark job, or what PYSPARK_SUBMIT_ARGS names; else this machine alone,
    with nothing that listens beyond the loopback."""
    builder = SparkSession.Builder().appName("appcadence")
    given = {"PYSPARK_SUBMIT_ARGS", "PYSPARK_GATEWAY_PORT"} & set(os.environ)
    if SparkSession.getActiveSession() is None and not given:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        quiet = {"ui.enabled": "false", "ui.showConsoleProgress": "false", "log.level": "ERROR"}
        for key, value in quiet.items():
            builder = builder.config(f"spark.{key}", value)
        builder = builder.master("local[*]")
    with _without_warnings():
        return builder.getOrCreate()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Spark warns of every pandas 3; here only its Arrow functions are used."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")
        yield


def engine(spark: SparkSession | None = None) -> Engine:
    """The engine that a session is; None = `session()`, when there is work.

    It raises AppcadenceError where Spark cannot start, or gives up.
    """

    def measured(job: Job, scratch: Path, progress: Progress) -> Measured:
        try:
            with _without_warnings():
                return _measured(spark or session(), job, scratch, progress)
        except (PySparkException, Py4JJavaError) as error:
            raise AppcadenceError(f"Spark failed: {_error_summary(error)}") from error

    return measured


def _error_summary(error: Exception) -> str:
    """What went wrong: the last error that is named in what Spark prints, else its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    named = [line for line in lines if re.match(r"(Caused by: )?[\w.]+(Error|Exception)\b.*: ", line)]
    return named[-1] if named else lines[0]


def _measured(spark: SparkSession, job: Job, scratch: Path, progress: Progress) -> Measured:
    if isinstance(job.telemetry, Mapping):
        raise AppcadenceError("on Spark the telemetry must be a directory, which every worker reads")
    source = _Source(job.telemetry.path.resolve(), job.span_us)
    with _watched(spark, "reading", progress):
        counts = source.read(spark, ["flows"], _counted, _COUNTS).toArrow().to_pandas()
    counts = counts.groupby("device_id").agg({"flows": "sum", "first_us": "min"}).sort_index()
    if not len(counts):
        raise job.nothing()
    block_of = pd.Series(coded.blocks_of(counts["flows"].to_numpy(), job.block_flows), counts.index)
    n_blocks = int(block_of.iloc[-1]) + 1
    inventory, job = job.telemetry.read("inventory"), replace(job, telemetry={})
    shared = spark.sparkContext.broadcast((block_of, job, inventory))

    def blocked(table: pa.Table, tag: str, piece: int) -> pa.Table:
        return _by_block(shared.value[0], table, tag, piece)

    def extracted(flows: pa.Table, context: pa.Table) -> pa.Table:
        return _extracted(*shared.value[1:], flows, context)

    # As many partitions as blocks: there is far more to compute than to move.
    flows, around = (
        source.read(spark, names, blocked, _ROWS).repartition(n_blocks, "block").groupBy("block")
        for names in (["flows"], list(CONTEXT_COLUMNS))
    )
    windows = flows.cogroup(around).applyInArrow(extracted, _WINDOWS).persist(StorageLevel.DISK_ONLY)
    kept = [windows]
    try:
        with _watched(spark, "extracting", progress):
            met = windows.select("block", "half", "keys", "past").toArrow().sort_by("block").sort_by("half")
        keys = [_unpacked(packed) for packed in met["keys"]]
        pasts = [_unpacked(packed) for packed in met["past"] if packed.is_valid]
        after = _advanced(job.past, pasts, block_of.index)
        found = job.events(after, pd.concat([k.to_pandas() for k in keys], ignore_index=True))
        events = [found.windows[a:b] for a, b in pairwise(np.cumsum([0, *map(len, keys)]))]
        fleet = _Fleet.of(after, int(counts["first_us"].min()), job.seconds)
        known = spark.sparkContext.broadcast((job, fleet, [np.packbits(event) for event in events]))

        def scored(batches: Batches) -> Batches:
            return _scored(*known.value, n_blocks, batches)

        # Several blocks a task: it need not word what scores lower than 1,000 windows that it saw before.
        tasks = max(2 * spark.sparkContext.defaultParallelism, n_blocks // _BLOCKS_A_TASK)
        measured = windows.select("block", "half", "rows").coalesce(tasks).mapInArrow(scored, _SCORES)
        kept.append(measured.persist(StorageLevel.DISK_ONLY))
        with _watched(spark, "scoring", progress):
            measured.count()
        for row in measured.toLocalIterator():
            # What is there, a later run on one machine takes for whole.
            with replacing(file_of(scratch, row["number"]), scratch, durable=False) as written:
                written.write_bytes(row["scores"])
    finally:
        for held in kept:
            held.unpersist()
    return Measured([file_of(scratch, i) for i in range(2 * n_blocks)], after, found)


@dataclass(frozen=True)
class _Source:
    """A telemetry directory as every worker sees it."""

    path: Path
    span_us: tuple[int, int] | None

    def read(
        self, spark: SparkSession, names: list[str], of: Callable[[pa.Table, str, int], pa.Table], schema: str
    ) -> DataFrame:
        """What `of` makes of each row group, the name of its table and its number."""
        directory = TelemetryDirectory(self.path)
        count = sum(len(directory.pieces(name, ())) for name in names)

        def rows(batches: Batches) -> Batches:
            pieces = self._pieces(names)
            for batch in batches:
                for number in batch["id"].to_pylist():
                    name, piece = pieces[number]
                    yield from of(piece(), name, number).to_batches()

        # Few tasks: each gathers the fleet's host names once, where flows lack them.
        tasks = min(count, 4 * spark.sparkContext.defaultParallelism)
        return spark.range(0, count, 1, max(tasks, 1)).mapInArrow(rows, schema)

    def _pieces(self, names: list[str]) -> list[tuple[str, Callable[[], pa.Table]]]:
        directory = TelemetryDirectory(self.path)
        return [(n, partial(self._piece, p, n)) for n in names for p in directory.pieces(n, _COLUMNS[n])]

    def _piece(self, piece: Callable[[], pa.Table], name: str) -> pa.Table:
        if name == "flows" and self.span_us is not None:
            return touching(piece(), self.span_us)
        return piece()


def _counted(flows: pa.Table, tag: str, piece: int) -> pa.Table:
    """Flows of each device, and when the first started."""
    rows = pa.table(
        {"device_id": flows["device_id"].cast(pa.string()), "us": flows["start"].cast(pa.int64())}
    )
    return rows.group_by("device_id").aggregate([("us", "count"), ("us", "min")])


def _by_block(block_of: pd.Series, table: pa.Table, tag: str, piece: int) -> pa.Table:
    """Rows of devices with flows, those of each block packed: Spark moves them faster than one by one."""
    device = codes(table["device_id"], block_of.index)
    rows = np.flatnonzero(device >= 0)
    block = block_of.to_numpy()[device[rows]]
    order, offsets = scatter(block, int(block.max(initial=-1)) + 1)
    table = table.take(rows[order])
    found = np.flatnonzero(np.diff(offsets))
    packed = [_packed(_plain(table[offsets[b] : offsets[b + 1]])) for b in found]
    return pa.table(
        [
            pa.array(found, pa.int32()),
            pa.repeat(tag, len(found)),
            pa.repeat(pa.scalar(piece, pa.int32()), len(found)),
            pa.array(packed, pa.binary()),
        ],
        names=["block", "tag", "piece", "rows"],
    )


def _plain(table: pa.Table) -> pa.Table:
    """Names as texts: a slice would bring all names of its table along."""
    kinds = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(kinds))


def _extracted(job: Job, inventory: pa.Table, flows: pa.Table, context: pa.Table) -> pa.Table:
    """A block's windows in two rows: those of channels, with their devices' contacts, and those of apps."""
    parts: dict[str, list[pa.Table]] = {name: [] for name in _COLUMNS}
    for table in (flows.sort_by("piece"), context.sort_by("piece")):  # as on one machine
        for tag, rows in zip(table["tag"].to_pylist(), table["rows"], strict=True):
            parts[tag].append(_unpacked(rows))
    tables = {
        name: conform(DIRECTORY_TABLES[name], pa.concat_tables(rows), columns=_COLUMNS[name])
        for name, rows in parts.items()
        if rows
    }
    devices = pc.unique(tables["flows"]["device_id"].cast(pa.string())).to_pandas()
    own = job.past.contacts[job.past.contacts["device_id"].isin(devices)]
    past = replace(job.past, contacts=own.reset_index(drop=True))
    windows = build(tables | {"inventory": inventory}, job.seconds, past, job.span_us)
    extra_columns = measures.of_windows(windows)
    found = []
    n, both = windows.n_channels, Part.halves_of(windows)
    for half, (part, rows) in enumerate(zip(both, (slice(n), slice(n, None)), strict=True)):
        table = pa.Table.from_pandas(frame(part, windows, windows.context, job.seconds), preserve_index=False)
        for name in measures.COLUMNS:
            table = table.append_column(f"extra_{name}", pa.array(extra_columns[name][rows]))
        after = None
        if half == 0 and windows.compared is not None:
            after = _packed(windows.compared.channels.history().to_arrow())
        found.append((half, _packed(table), _packed(table.select(_KEYS)), after))
    block = flows["block"][0].as_py()
    halves, rows_, keys, pasts = zip(*found, strict=True)
    return pa.table(
        [pa.array([block, block], pa.int32()), pa.array(halves, pa.int32())]
        + [pa.array(column, pa.binary()) for column in (rows_, keys, pasts)],
        names=["block", "half", "rows", "keys", "past"],
    )


def _advanced(past: History, parts: list[pa.Table], devices: pd.Index) -> History:
    """The history with the rows of some devices replaced, in its own order."""
    rest = past.contacts[~past.contacts["device_id"].isin(devices)]
    rows = pd.concat([rest, *(part.to_pandas() for part in parts)], ignore_index=True)
    none = pd.Index([], dtype="object")
    return Past.of(replace(past, contacts=rows), none, none, none).history()


@dataclass(frozen=True)
class _Fleet:
    """Who met what first, and the names behind its codes."""

    devices: pd.Index
    apps: pd.Index
    dests: pd.Index
    fleet: novelty.Fleet
    seconds: int

    @classmethod
    def of(cls, after: History, first_us: int, seconds: int) -> _Fleet:
        none = pd.Index([], dtype="object")
        past = Past.of(after, none, none, none)
        return cls(past.devices, past.apps, past.dests, novelty.Fleet(past, [], first_us), seconds)

    def fill(self, windows: pd.DataFrame) -> pd.DataFrame:
        """Windows with what novelty needs the fleet for."""
        start = windows["window_start"].dt.as_unit("us").astype("int64").to_numpy()
        values = windows[list(NAMES)].to_numpy(np.float32, copy=True)
        device, app, dest = (
            codes_of(windows[name], names).astype(np.int32)
            for name, names in (("device_id", self.devices), ("app_id", self.apps), ("dest", self.dests))
        )
        dest = np.where(windows["dest"] == APP_LEVEL, -1, dest)
        part = Part.empty()._replace(device=device, app=app, dest=dest, start_us=start, values=values)
        fill_novelty(part, self.fleet, self.seconds)
        return pd.concat(
            [windows.drop(columns=list(NAMES)), pd.DataFrame(values, columns=list(NAMES), copy=False)], axis=1
        )


def _scored(job: Job, fleet: _Fleet, events: list[np.ndarray], n_blocks: int, batches: Batches) -> Batches:
    """The scores of blocks, each an Arrow file."""
    bar = Bar()
    # The halves of a block follow each other, in one batch or two.
    waiting: dict[int, Half] = {}
    for batch in batches:
        for block, half, packed in zip(*(batch[name] for name in ("block", "half", "rows")), strict=True):
            number = half.as_py() * n_blocks + block.as_py()
            rows = _unpacked(packed)
            extra_columns = {name: rows[f"extra_{name}"].to_numpy() for name in measures.COLUMNS}
            windows = fleet.fill(
                rows.drop_columns([f"extra_{name}" for name in measures.COLUMNS]).to_pandas()
            )
            event = np.unpackbits(events[number], count=len(windows)).astype(np.bool_)
            waiting[number] = Half(windows, extra_columns, event)
            numbers = (block.as_py(), n_blocks + block.as_py())
            if not all(i in waiting for i in numbers):
                continue
            tables = job.measured([waiting.pop(i) for i in numbers], bar)
            yield pa.record_batch(
                [pa.array(numbers, pa.int32()), pa.array(map(_packed, tables), pa.binary())],
                names=["number", "scores"],
            )


def _packed(table: pa.Table) -> bytes:
    file = io.BytesIO()
    write_part(table, file)
    return file.getvalue()


def _unpacked(packed: pa.BinaryScalar) -> pa.Table:
    return feather.read_table(pa.BufferReader(packed.as_buffer()))


@contextmanager
def _watched(spark: SparkSession, what: str, progress: Progress) -> Iterator[None]:
    """Tell the share of the running stages' tasks that are done."""
    tracker, over = spark.sparkContext.statusTracker(), threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            tasks = [(s.numCompletedTasks, s.numTasks) for s in stages if s is not None]
            if tasks:
                progress(what, sum(done for done, _ in tasks) / max(sum(total for _, total in tasks), 1))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
