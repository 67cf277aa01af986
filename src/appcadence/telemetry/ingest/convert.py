"""Native logs into a telemetry directory, adding only what is not there yet."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appcadence._files import sha256
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.telemetry.directory import SOURCES, DirectoryWriter, TelemetryDirectory, existing
from appcadence.telemetry.ingest.aliases import alias_notes
from appcadence.telemetry.ingest.clocks import clock_notes
from appcadence.telemetry.ingest.conversion_report import ConversionReport, FileReport, Tally
from appcadence.telemetry.ingest.identity import Devices
from appcadence.telemetry.ingest.late_records import Touched
from appcadence.telemetry.ingest.renaming import Renaming
from appcadence.telemetry.ingest.timeouts import timeout_notes
from appcadence.telemetry.readers import Network, Reader, ReadOptions, detect, reader
from appcadence.telemetry.schema import FLOWS

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


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
    tallies = [Tally(path, _sha256(path)) for path in map(Path, paths)]
    if not tallies:
        raise TelemetryError("no file to convert; give at least one")
    touched = Touched()
    with DirectoryWriter(out, adding=True) as writer:
        before = existing(out)
        seen = _known(before)
        new: dict[Path, Tally] = {}
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
        writer.conversion = digest.hexdigest()[:16]
        _write(writer, groups.values(), new, touched, options, renaming, progress)
        # Before the new rows count.
        changed_days = touched.changed(before) if before else ()
        writer.sources = [_source(tally.report()) for tally in new.values()]
    return ConversionReport(
        out,
        tuple(t.report() for t in tallies),
        dict(sorted(writer.rows.items())),
        _notes(new.values()) or _checks(out, new.values(), touched.devices, options, renaming),
        changed_days,
    )


def _write(
    writer: DirectoryWriter,
    groups: Iterable[tuple[Reader, list[Path]]],
    new: Mapping[Path, Tally],
    touched: Touched,
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
            touched.add(table, batch)
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


def _known(directory: TelemetryDirectory | None) -> set[str]:
    """Hashes of what was converted into the directory."""
    if directory is None:
        return set()
    try:
        return {str(entry["sha256"]) for entry in directory.sources}
    except KeyError:
        path = directory.path
        raise TelemetryError(
            f"{path / SOURCES} lacks the sha256 of a file; remove {path} and convert again"
        ) from None


def _sha256(path: Path) -> str:
    try:
        return sha256(path)
    except IsADirectoryError:
        raise TelemetryError(f"{path} is a directory; give the log files themselves") from None
    except FileNotFoundError:
        raise TelemetryError(f"{path} does not exist; expected a log file") from None
    except OSError as error:
        raise TelemetryError(f"{path} cannot be read ({error.strerror}); expected a log file") from None


def _source(report: FileReport) -> dict[str, Any]:
    return {key: value for key, value in asdict(report).items() if key != "skipped"}


def _notes(tallies: Iterable[Tally]) -> tuple[str, ...]:
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


def _checks(
    out: Path, tallies: Collection[Tally], devices: set[str], options: ReadOptions, renaming: Renaming
) -> tuple[str, ...]:
    """Sentences about the directory as it now is, as far as they concern devices with new rows."""
    if not devices:
        return ()
    first = min((t.first for t in tallies if t.first is not None), default=None)
    last = max((t.last for t in tallies if t.last is not None), default=None)
    leases = options.devices.leases if options.devices else {}
    renamed = {renaming.device(a): {renaming.device(name) for name in names} for a, names in leases.items()}
    try:
        directory = TelemetryDirectory(out)
        return (
            *alias_notes(directory, devices, renamed),
            *clock_notes(directory, devices, first, last),
            *timeout_notes(directory, devices, first, last),
        )
    except AppcadenceError as error:
        # The new rows are in, whatever ails the others.
        return (f"Clocks and device names were not checked: {error}",)
