"""The work of the batch job, whichever engine runs it, and the engine of the local machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather

from appcadence._files import replacing
from appcadence._types import Mask, Progress
from appcadence.config import Config
from appcadence.errors import TelemetryError
from appcadence.features.history import History
from appcadence.features.partition import Blocks, in_order
from appcadence.features.selection import Selection
from appcadence.models.fleet_events import FleetEvents, fleet_events
from appcadence.models.scores import EXPLAINED_ROWS, scored
from appcadence.serving import measures
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory

Telemetry = TelemetryDirectory | Mapping[str, pa.Table]


class Bar:
    """The score that a window needs to be among the first `EXPLAINED_ROWS` seen so far.

    Threads may overwrite each other's updates, which only lowers the bar.
    """

    def __init__(self) -> None:
        self._best = np.empty(0)

    @property
    def height(self) -> float:
        return float(self._best[0]) if len(self._best) == EXPLAINED_ROWS else -np.inf

    def raised(self, table: pa.Table) -> None:
        """Count the windows of a scores table."""
        seen = table["score"].filter(scored(table)).to_numpy()
        self._best = np.sort(np.append(self._best, seen))[-EXPLAINED_ROWS:]


class Half(NamedTuple):
    """The n windows of a block's channels, or of its apps."""

    frame: pd.DataFrame
    extra_columns: Mapping[str, npt.NDArray[Any]]
    """`measures.COLUMNS`, (n,) each."""
    event: Mask
    """(n,) whether each window belongs to a fleet event."""


@dataclass(frozen=True)
class Job:
    """What to score, with which scorer and settings."""

    telemetry: Telemetry
    scorer: Scorer
    past: History
    seconds: int
    """Length of a window."""
    span_us: tuple[int, int] | None
    """Only windows that begin in this span are scored; microseconds since the epoch."""
    block_flows: int
    settings: Config

    def events(self, after: History, keys: pd.DataFrame) -> FleetEvents:
        """The fleet events among windows whose contacts are in `after`."""
        return fleet_events(after, self.scorer.detector.reference.end_us, keys)

    def nothing(self) -> TelemetryError:
        """The error when there are no flows."""
        return TelemetryError("there are no flows to score" + (" in that span" if self.span_us else ""))

    def measured(self, halves: Sequence[Half], bar: Bar) -> list[pa.Table]:
        """The scores tables of a block's halves, without ranks and with `measures.COLUMNS` and `unit_p`.

        The halves are scored together, since `device_shift` depends on all windows of a device. Windows that
        score below the bar cannot rank among the first and get no reasons.
        """
        table, unit_p = self.scorer.detector.measure(
            pd.concat([half.frame for half in halves], ignore_index=True),
            self.settings,
            fleet_event=np.concatenate([half.event for half in halves]),
            explained_from=bar.height,
            version=self.scorer.version[:12],
        )
        bar.raised(table)
        for name in measures.COLUMNS:
            column = np.concatenate([half.extra_columns[name] for half in halves])
            table = table.append_column(name, pa.array(column))
        table = table.append_column("unit_p", pa.array(unit_p))
        ends = np.cumsum([0, *(len(half.frame) for half in halves)]).tolist()
        return [table.slice(start, end - start) for start, end in pairwise(ends)]


class Measured(NamedTuple):
    """The result of an engine."""

    files: list[Path]
    """Arrow files with the tables of `Job.measured`, in window order."""
    after: History
    """The history with the contacts of all windows."""
    events: FleetEvents


Engine = Callable[[Job, Path, Progress], Measured]
"""Runs a job in a scratch directory of its own, and resumes from what a killed run left there."""


def write_part(table: pa.Table, file: Any) -> None:
    """Write a table of `Job.measured` as an Arrow file."""
    feather.write_feather(table, file, compression="lz4")


def file_of(scratch: Path, number: int) -> Path:
    """The file of one of the tables."""
    return scratch / f"scores-{number:06d}.arrow"


def _whole(file: Path) -> bool:
    """Whether the file is complete: one cut off by a power failure lacks the schema at its end."""
    try:
        with pa.memory_map(str(file)) as stream:
            pa.ipc.open_file(stream)
            return True
    except (OSError, pa.ArrowInvalid):
        return False


def local(job: Job, scratch: Path, progress: Progress) -> Measured:
    """The engine of one machine: blocks in parallel on all cores."""
    blocks = Blocks.of(
        job.telemetry,
        job.seconds,
        job.past,
        scratch,
        selection=Selection.without(job.scorer.detector.excluded_families),
        block_flows=job.block_flows,
        span_us=job.span_us,
        extra_columns=measures.of_windows,
        progress=progress,
    )
    if not len(blocks):
        raise job.nothing()
    after = blocks.history()
    keys = [blocks.keys(i) for i in range(len(blocks))]
    found = job.events(after, pd.concat(keys, ignore_index=True))
    event = [found.windows[a:b] for a, b in pairwise(np.cumsum([0, *map(len, keys)]))]
    files = [file_of(scratch, i) for i in range(len(blocks))]
    bar = Bar()

    n_blocks = len(blocks) // 2

    def work(block: int) -> None:
        numbers = (block, n_blocks + block)
        if all(_whole(files[i]) for i in numbers):
            return
        halves = [Half(blocks.frame(i), blocks.extra_columns(i), event[i]) for i in numbers]
        for number, table in zip(numbers, job.measured(halves, bar), strict=True):
            with replacing(files[number], scratch, durable=False) as written:
                write_part(table, written)

    for done, _ in enumerate(in_order(work, n_blocks), start=1):
        progress("scoring", done / n_blocks)
    return Measured(files, after, found)
