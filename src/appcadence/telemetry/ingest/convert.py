"""Native logs into a telemetry directory, adding only what is not there yet."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from appcadence._files import sha256, why_unreadable
from appcadence._types import Progress, silent
from appcadence.errors import AppcadenceError, TelemetryError, UnusableFile
from appcadence.telemetry.addresses import Network
from appcadence.telemetry.directory import SOURCES, DirectoryWriter, TelemetryDirectory, existing
from appcadence.telemetry.file_report import FileReport
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.ingest.aliases import alias_notes
from appcadence.telemetry.ingest.clocks import clock_notes
from appcadence.telemetry.ingest.conversion_report import ConversionReport, Tally
from appcadence.telemetry.ingest.folding import Folding
from appcadence.telemetry.ingest.late_records import Touched
from appcadence.telemetry.ingest.renaming import Renaming
from appcadence.telemetry.ingest.timeouts import timeout_notes
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers import FORMATS, INVENTORIES, Reader, ReadOptions, detect, reader
from appcadence.telemetry.readers._lines import pieces
from appcadence.telemetry.schema import FLOWS


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
    progress: Progress = silent,
) -> ConversionReport:
    """Convert native logs into a telemetry directory, or add them to one.

    Files whose content (SHA-256) was converted before are skipped; where nothing is new, nothing is
    touched. Logs that belong together (Zeek's conn and ssl, say) must be given in one call: names are
    not looked up in logs converted earlier. A file that cannot be used is passed over, whole, and its report
    says why; all that the others give is added, or nothing.

    Args:
        paths: files.
        out: the telemetry directory; made if absent.
        format: name of the format of all files; None = found out for each.
        local_nets: networks (CIDR) of the monitored devices.
        devices: which device had which address when: a table, or the CSV file with it.
        device_id: the device of every row; not together with `devices`.
        mapping: the mapping file of the format `table`.
        app_map: CSV file (app_name, app_id) for apps that a source knows by their display name.
        keyfile: a file with a key of at least 16 bytes: device ids and user-chosen host names become keyed
            hashes, the same in every call with this key.
        progress: told the share of the bytes that is done.

    Raises:
        TelemetryError: no file can be used, an argument is wrong, or `out` is neither a telemetry directory
            nor empty. Nothing is left behind.
    """
    out = Path(out)
    options = _options(local_nets, devices, device_id, mapping)
    renaming = Renaming.read(
        None if app_map is None else Path(app_map), None if keyfile is None else Path(keyfile)
    )
    chosen = reader(format) if format else None
    tallies = [_hashed(path) for path in map(Path, paths)]
    if not tallies:
        raise TelemetryError("no file to convert; give at least one")
    while True:
        try:
            return _converted(tallies, out, chosen, options, renaming, progress)
        except UnusableFile as error:
            if not {tally.path for tally in tallies if not tally.unusable} & set(error.paths):
                raise
            # Found out while it was read: once more without it, and without any other that ends too early.
            tallies = [_again(tally, error) for tally in tallies]


def _hashed(path: Path) -> Tally:
    tally = Tally(path, FileReport(path.name))
    try:
        tally.report.sha256 = sha256(path)
    except OSError as error:
        tally.pass_over(UnusableFile(f"{path} {why_unreadable(error, 'a log file')}", path))
    return tally


def _again(tally: Tally, error: UnusableFile) -> Tally:
    """The file for another attempt; unusable where this error says so, or where its gzip data is damaged."""
    fresh = Tally(tally.path, FileReport(tally.path.name, tally.report.sha256))
    try:
        if tally.unusable or tally.path in error.paths:
            raise tally.unusable or error
        if not tally.report.skipped:
            for _ in pieces(tally.path, "a log"):
                pass
    except UnusableFile as found:
        fresh.pass_over(found)
    return fresh


def _converted(
    tallies: Sequence[Tally],
    out: Path,
    chosen: Reader | None,
    options: ReadOptions,
    renaming: Renaming,
    progress: Progress,
) -> ConversionReport:
    """One attempt with the files that are not known to be unusable.

    Raises:
        UnusableFile: another one is.
    """
    touched = Touched()
    with DirectoryWriter(out, adding=True) as writer:
        before = existing(out)
        seen = _known(before)
        new: dict[Path, Tally] = {}
        groups: dict[str, tuple[Reader, list[Path]]] = {}
        for tally in tallies:
            report = tally.report
            report.skipped = not tally.unusable and report.sha256 in seen
            if report.skipped or tally.unusable:
                continue
            try:
                found = chosen or detect(tally.path)
            except UnusableFile as error:
                tally.pass_over(error)
                continue
            report.format = found.NAME
            groups.setdefault(found.NAME, (found, []))[1].append(tally.path)
            new[tally.path] = tally
            seen.add(report.sha256)
        if all(tally.unusable for tally in tallies):
            raise _none_usable(tallies)
        if not new:
            return ConversionReport(out, tuple(tally.report for tally in tallies))
        added = [tally.report for tally in new.values()]
        digest = hashlib.sha256("\n".join(sorted(report.sha256 for report in added)).encode())
        writer.conversion = digest.hexdigest()[:16]
        folding = Folding(before.names("inventory", "app_id") if before else ())
        _write(writer, groups.values(), new, touched, options, renaming, folding, progress)
        # Before the new rows count.
        changed_days = touched.changed(before) if before else ()
        writer.sources = [report.as_source() for report in added]
    return ConversionReport(
        out,
        tuple(tally.report for tally in tallies),
        dict(sorted(writer.rows.items())),
        _notes(added) or _checks(out, new.values(), touched.devices, options, renaming),
        changed_days,
    )


def _none_usable(tallies: Sequence[Tally]) -> TelemetryError:
    errors = [tally.unusable for tally in tallies if tally.unusable]
    arguments = {error.argument for error in errors}
    reasons = [str(error) for error in errors]
    said = f"none of the {len(errors):,} files can be used: {listed(reasons, separator='; ')}"
    return TelemetryError(
        said if len(errors) > 1 else reasons[0], *(arguments if len(arguments) == 1 else ())
    )


def _write(
    writer: DirectoryWriter,
    groups: Iterable[tuple[Reader, list[Path]]],
    new: Mapping[Path, Tally],
    touched: Touched,
    options: ReadOptions,
    renaming: Renaming,
    folding: Folding,
    progress: Progress,
) -> None:
    done, total = 0, sum(path.stat().st_size for path in new)
    # What names the installed apps comes first: other rows are counted for them.
    for found, files in sorted(groups, key=lambda group: group[0].NAME not in INVENTORIES):
        for table, batch in found.read(files, options):
            marks = batch.schema.metadata
            tally = new[Path(os.fsdecode(marks[b"file"]))]
            tally.report.read += int(marks[b"read"])
            batch = folding.apply(table, renaming.apply(batch))
            tally.add(table, batch)
            touched.add(table, batch)
            done += int(marks[b"size"])
            if len(batch):
                writer.write(table, batch)
            progress("Converting", done / max(total, 1))
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


def _notes(added: Collection[FileReport]) -> tuple[str, ...]:
    read, rejected = sum(file.read for file in added), sum(file.rejected for file in added)
    if any(file.rows for file in added):
        return ()
    if read == 0:
        what = listed(sorted({FORMATS[file.format] for file in added}))
        return (f"The files hold no {what}, which is what counts of their format.",)
    if read == rejected:
        return ("No row could be used; the table 'rejected' says why.",)
    return (
        f"None of the {read - rejected:,} usable rows is telemetry of a monitored device; for network logs "
        "give local_nets, the networks (CIDR) of your devices.",
    )


def _checks(
    out: Path, tallies: Collection[Tally], devices: set[str], options: ReadOptions, renaming: Renaming
) -> tuple[str, ...]:
    """Sentences about the directory as it now is, as far as they concern devices with new rows."""
    if not devices:
        return ()
    times = [time for tally in tallies for time in tally.span]
    first, last = min(times, default=None), max(times, default=None)
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
