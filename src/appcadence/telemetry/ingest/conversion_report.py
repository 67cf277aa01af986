"""What a conversion did, file by file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import UnusableFile
from appcadence.telemetry.file_report import FileReport
from appcadence.telemetry.ingest.collection import Collection
from appcadence.telemetry.ingest.late_records import ChangedDay
from appcadence.telemetry.readers import Reader
from appcadence.telemetry.schema import DIRECTORY_TABLES
from appcadence.telemetry.times import to_iso

_ENDS = ("end", "last_seen", "report_end")
"""Columns that say until when a row tells."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, file by file in the order given."""

    out: Path
    files: tuple[FileReport, ...]
    tables: Mapping[str, int] = field(default_factory=dict)
    """Rows added to each table."""
    notes: tuple[str, ...] = ()
    """What the user should know, in plain sentences."""
    collections: tuple[Collection, ...] = ()
    """Folders and archives among the inputs: which members were used, and which were not and why."""
    changed_days: tuple[ChangedDay, ...] = ()
    """Days that late records changed although the directory already held flows of them, or of a later day.
    Scores of these days must be computed again. Sorted; none in a new directory."""

    @property
    def changed(self) -> bool:
        """Whether anything was added to the directory."""
        return any(not file.skipped and not file.unusable for file in self.files)

    @property
    def rejected(self) -> int:
        return sum(file.rejected for file in self.files)

    @property
    def fates(self) -> dict[str, int]:
        """The rows read, by outcome: kept, rejected, and the reasons of `LEFT_OUT`; they add up."""
        counts = Counter({"kept": 0, "rejected": self.rejected})
        for file in self.files:
            counts.update(file.left_out, kept=file.kept)
        return {name: rows for name, rows in counts.items() if rows}

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        return {
            "out": str(self.out),
            "changed": self.changed,
            "files": [asdict(file) for file in self.files],
            "rows_read": self.fates,
            "tables": dict(self.tables),
            "notes": list(self.notes),
            "collections": [collection.as_dict() for collection in self.collections],
            "changed_days": [asdict(day) for day in self.changed_days],
        }


@dataclass
class Tally:
    """Counts what one file gives."""

    path: Path
    report: FileReport
    reader: Reader | None = None
    """The reader that knows the file, if it was detected."""
    device_id: str | None = None
    """The device named by the collection that the file comes from."""
    unusable: UnusableFile | None = None
    span: list[int] = field(default_factory=list)
    """First and last time so far, in microseconds."""
    faults: Counter[str] = field(default_factory=Counter)
    """Lines of the table `rejected`, by reason."""
    _devices: set[str] = field(default_factory=set)
    _apps: set[str] = field(default_factory=set)

    def pass_over(self, error: UnusableFile) -> None:
        said = str(error)
        if self.report.collection:
            # The path of a member's copy means nothing to the user.
            said = said.replace(str(self.path), f"{self.report.collection}: {self.report.name}")
        self.unusable = UnusableFile(said, *error.paths, argument=error.argument)
        self.report.unusable, self.report.argument = said, error.argument

    def add(self, table: str, batch: pa.Table) -> None:
        report = self.report
        if table == "rejected":
            counting = int(batch.schema.metadata[b"counting"])
            report.rejected += len(batch) - counting
            report.unnamed += counting
            reasons = batch["reason"].cast(pa.string())
            for found in pc.value_counts(reasons).to_pylist():
                self.faults[found["values"]] += found["counts"]
            return
        report.rows += len(batch)
        for name, found in (("device_id", self._devices), ("app_id", self._apps)):
            if name in batch.column_names:
                found.update(filter(None, pc.unique(batch[name]).to_pylist()))
        report.devices, report.apps = len(self._devices), len(self._apps)
        if len(batch):
            when = DIRECTORY_TABLES[table].when
            times = [batch[name].cast(pa.int64()) for name in (when, *_ENDS) if name in batch.column_names]
            low = pc.min(times[0]).as_py()
            high = max(last for one in times if (last := pc.max(one).as_py()) is not None)
            self.span = [min([low, *self.span]), max([high, *self.span])]
            report.first, report.last = map(to_iso, self.span)
