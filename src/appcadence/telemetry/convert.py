"""Native logs into a telemetry directory, adding only what is not there yet."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import TelemetryError
from appcadence.telemetry.directory import SOURCES, DirectoryWriter, TelemetryDirectory
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.readers import Network, Reader, ReadOptions, detect, reader
from appcadence.telemetry.renaming import Renaming
from appcadence.telemetry.schema import FLOWS

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_TIMES = ("start", "time", "first_seen", "snapshot_time")


@dataclass(frozen=True)
class FileReport:
    """What became of one file."""

    name: str
    """Base name, as it also stands in sources.json."""
    sha256: str
    format: str
    """Name of the format; empty where the file was skipped."""
    read: int = 0
    """Data rows in the file. Those neither kept nor rejected are no telemetry of a monitored device, or
    only name others."""
    rows: int = 0
    """Rows written to the telemetry tables."""
    rejected: int = 0
    """Rows that could not be used; they stand in the table `rejected`."""
    first: str | None = None
    """Earliest time of the rows, ISO 8601 UTC; likewise `last`."""
    last: str | None = None
    devices: int = 0
    """Distinct devices of the rows."""
    skipped: bool = False
    """The same content was converted before, or stands earlier in the same call."""


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did, file by file in the order given."""

    out: Path
    files: tuple[FileReport, ...]
    tables: Mapping[str, int] = field(default_factory=dict)
    """Rows added to each table."""
    notes: tuple[str, ...] = ()
    """What the user should know: plain sentences."""

    @property
    def changed(self) -> bool:
        """Whether anything was added to the directory."""
        return any(not file.skipped for file in self.files)

    @property
    def rejected(self) -> int:
        return sum(file.rejected for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        return {
            "out": str(self.out),
            "changed": self.changed,
            "files": [asdict(file) for file in self.files],
            "tables": dict(self.tables),
            "notes": list(self.notes),
        }


@dataclass
class _Tally:
    """Running figures of one file."""

    path: Path
    sha256: str
    format: str = ""
    skipped: bool = False
    read: int = 0
    rows: int = 0
    rejected: int = 0
    first: int | None = None
    last: int | None = None
    devices: set[str] = field(default_factory=set)

    def add(self, table: str, batch: pa.Table) -> None:
        if table == "rejected":
            self.rejected += len(batch)
            return
        self.rows += len(batch)
        if "device_id" in batch.column_names:
            self.devices.update(filter(None, pc.unique(batch["device_id"]).to_pylist()))
        column = next((name for name in _TIMES if name in batch.column_names), None)
        if column and len(batch):
            span = pc.min_max(batch[column].cast(pa.int64()))
            low, high = span["min"].as_py(), span["max"].as_py()
            self.first = low if self.first is None else min(self.first, low)
            self.last = high if self.last is None else max(self.last, high)

    def report(self) -> FileReport:
        return FileReport(
            name=self.path.name,
            sha256=self.sha256,
            format=self.format,
            read=self.read,
            rows=self.rows,
            rejected=self.rejected,
            first=_iso(self.first),
            last=_iso(self.last),
            devices=len(self.devices),
            skipped=self.skipped,
        )


def convert(
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    local_nets: Iterable[str | Network] = (),
    devices: Devices | str | Path | None = None,
    device_id: str | None = None,
    mapping: str | Path | None = None,
    app_map: str | Path | None = None,
    keyfile: str | Path | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Convert native logs into a telemetry directory, or add them to one.

    Files whose content (SHA-256) was converted before are skipped; where nothing is new, nothing is
    touched. Logs that belong together (Zeek's conn and ssl, say) must be given in one call: names are
    not looked up in logs converted earlier. Either all new files are added, or none.

    Args:
        paths: files, not directories.
        out: the telemetry directory; made if absent.
        format: name of the format of all files; None = found out for each.
        local_nets: networks (CIDR) of the monitored devices.
        devices: which device had which address when: a table, or the CSV file with it.
        device_id: the device of every row; not together with `devices`.
        mapping: the mapping file of the format `table`.
        app_map: CSV file (app_name, app_id) for apps that a source knows by their display name.
        keyfile: a file with a key of at least 16 bytes: device ids and user-chosen host names become keyed
            hashes, the same in every call with this key.
        progress: called with bytes done and bytes in all.

    Raises:
        TelemetryError: a file cannot be read or has no known format, an argument is wrong, or `out` is
            neither a telemetry directory nor empty. Nothing is left behind.
    """
    out = Path(out)
    options = _options(local_nets, devices, device_id, mapping)
    renaming = Renaming.read(
        None if app_map is None else Path(app_map), None if keyfile is None else Path(keyfile)
    )
    chosen = reader(format) if format else None
    tallies = [_Tally(path, _sha256(path)) for path in map(Path, paths)]
    if not tallies:
        raise TelemetryError("no file to convert; give at least one")
    seen = _known(out)
    new: dict[Path, _Tally] = {}
    for tally in tallies:
        tally.skipped = tally.sha256 in seen
        if not tally.skipped:
            new[tally.path] = tally
            seen.add(tally.sha256)
    if not new:
        return ConversionReport(out, tuple(tally.report() for tally in tallies))
    groups: dict[str, tuple[Reader, list[Path]]] = {}
    for path, tally in new.items():
        found = chosen or detect(path)
        tally.format = found.NAME
        groups.setdefault(found.NAME, (found, []))[1].append(path)
    digest = hashlib.sha256("\n".join(sorted(tally.sha256 for tally in new.values())).encode())
    with DirectoryWriter(out, conversion=digest.hexdigest()[:16]) as writer:
        _write(writer, groups.values(), new, options, renaming, progress)
        writer.sources = [_source(tally.report()) for tally in new.values()]
    return ConversionReport(
        out, tuple(t.report() for t in tallies), dict(sorted(writer.rows.items())), _notes(new.values())
    )


def _write(
    writer: DirectoryWriter,
    groups: Iterable[tuple[Reader, list[Path]]],
    new: Mapping[Path, _Tally],
    options: ReadOptions,
    renaming: Renaming,
    progress: Progress | None,
) -> None:
    done, total = 0, sum(path.stat().st_size for path in new)
    for found, files in groups:
        for table, batch in found.read(files, options):
            marks = batch.schema.metadata
            tally = new[Path(os.fsdecode(marks[b"file"]))]
            tally.read += int(marks[b"read"])
            batch = renaming.apply(batch)
            tally.add(table, batch)
            done += int(marks[b"size"])
            if len(batch):
                writer.write(table, batch)
            if progress:
                progress(done, total)
    if not set(writer.rows) - {"rejected"}:
        # An empty table says "converted, and nothing was there".
        writer.write("flows", FLOWS.empty())


def _options(
    local_nets: Iterable[str | Network],
    devices: Devices | str | Path | None,
    device_id: str | None,
    mapping: str | Path | None,
) -> ReadOptions:
    if devices is not None and device_id is not None:
        raise TelemetryError("give a device id or a table of devices, not both")
    if device_id is not None and not device_id.strip():
        raise TelemetryError("the device id is empty; give a name")
    nets = []
    for net in local_nets:
        try:
            nets.append(ipaddress.ip_network(net))
        except ValueError as error:
            raise TelemetryError(f"{net} is no network ({error}); expected CIDR such as 10.0.0.0/8") from None
    if devices is not None and not isinstance(devices, Devices):
        devices = Devices.read(devices)
    return ReadOptions(tuple(nets), devices, device_id, None if mapping is None else Path(mapping))


def _known(out: Path) -> set[str]:
    """Hashes of what is in the directory; refuses one that is in use for something else."""
    if not out.is_dir() or not any(out.iterdir()):
        return set()
    entries = TelemetryDirectory(out).sources
    try:
        return {str(entry["sha256"]) for entry in entries}
    except KeyError:
        raise TelemetryError(
            f"{out / SOURCES} lacks the sha256 of a file; remove {out} and convert again"
        ) from None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except IsADirectoryError:
        raise TelemetryError(f"{path} is a directory; give the log files themselves") from None
    except FileNotFoundError:
        raise TelemetryError(f"{path} does not exist; expected a log file") from None
    except OSError as error:
        raise TelemetryError(f"{path} cannot be read ({error.strerror}); expected a log file") from None


def _source(report: FileReport) -> dict[str, Any]:
    return {key: value for key, value in asdict(report).items() if key != "skipped"}


def _notes(tallies: Iterable[_Tally]) -> tuple[str, ...]:
    tallies = list(tallies)
    read, rejected = sum(t.read for t in tallies), sum(t.rejected for t in tallies)
    if any(t.rows for t in tallies):
        return ()
    if read == 0:
        return ("The files hold no rows.",)
    if read == rejected:
        return ("No row could be used; the table 'rejected' says why.",)
    return (
        f"None of the {read - rejected:,} usable rows is telemetry of a monitored device; for network logs "
        "give --local-net CIDR for your devices' network.",
    )


def _iso(micros: int | None) -> str | None:
    if micros is None:
        return None
    seconds, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat()
