"""Conversion of native logs into a telemetry directory, adding only what is not there yet."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from appcadence._types import Progress, silent
from appcadence.errors import AppcadenceError, TelemetryError, UnusableFile
from appcadence.telemetry.addresses import Network
from appcadence.telemetry.directory import (
    SOURCES,
    DirectoryWriter,
    TelemetryDirectory,
    existing,
    stored_rows,
)
from appcadence.telemetry.identity import Devices
from appcadence.telemetry.ingest.advice import notes, nothing_kept
from appcadence.telemetry.ingest.aliases import alias_notes
from appcadence.telemetry.ingest.clocks import clock_notes
from appcadence.telemetry.ingest.conversion_report import ConversionReport, Tally
from appcadence.telemetry.ingest.each_once import UNIQUE, EachOnce
from appcadence.telemetry.ingest.folding import Folding
from appcadence.telemetry.ingest.identities import identified
from appcadence.telemetry.ingest.inputs import again, inputs
from appcadence.telemetry.ingest.late_records import TOUCHING, Touched
from appcadence.telemetry.ingest.overlaps import Overlaps
from appcadence.telemetry.ingest.renaming import Renaming
from appcadence.telemetry.ingest.timeouts import timeout_notes
from appcadence.telemetry.listing import listed
from appcadence.telemetry.readers import INVENTORIES, ON_DEVICE, Reader, ReadOptions, detect, reader
from appcadence.telemetry.readers._strangers import Strangers
from appcadence.telemetry.schema import FLOWS


def convert(
    paths: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    local_nets: str | Iterable[str | Network] = (),
    devices: Devices | str | Path | None = None,
    device_id: str | None = None,
    mapping: str | Path | None = None,
    app_map: str | Path | None = None,
    keyfile: str | Path | None = None,
    strict: bool = False,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert native logs into a telemetry directory, or add them to one.

    Files whose content (SHA-256) was converted before are skipped; if nothing is new, nothing is touched.
    Logs that belong together (such as Zeek's conn and ssl) must be given in one call: names are not looked up
    in logs converted earlier. A file that cannot be used is passed over whole, and its report says why. The
    rows of the other files are added all together or not at all. Of a folder or an archive, the members with
    a known format are used; a sysdiagnose names its device. Rows that several logs of a device repeat count
    once.

    Args:
        paths: one or several of files, plain or packed (gzip, bzip2, xz, zstd), folders, archives (tar, plain
            or packed, zip), patterns such as "logs/*.log"; "-" is standard input.
        out: the telemetry directory; made if absent.
        format: name of the format of all files; None = detected for each.
        local_nets: one or several networks (CIDR) of the monitored devices.
        devices: which device had which address, and when: a table, or the CSV file with it.
        device_id: the device of every row; not together with `devices`. Without it, the id of a sysdiagnose
            is its kind of device ("iPhone").
        mapping: the mapping file of the format `table`.
        app_map: CSV file (app_name, app_id) for apps that a source knows by display name.
        keyfile: a file with a key of at least 16 bytes: device ids and user-chosen host names become keyed
            hashes, the same in every call with this key.
        strict: stop at the first file that cannot be used instead of passing it over.
        progress: called with the share of the bytes that is done.

    Raises:
        TelemetryError: no file can be used, an argument is wrong, or `out` is neither a telemetry directory
            nor empty. Nothing is left behind.
        UnusableFile: a file cannot be used, and `strict` is asked for.
    """
    out = Path(out)
    options = _options(local_nets, devices, device_id, mapping)
    renaming = Renaming.read(
        None if app_map is None else Path(app_map),
        None if keyfile is None else Path(keyfile),
        options.local_nets,
    )
    chosen = reader(format) if format else None
    given = [Path(path) for path in ((paths,) if isinstance(paths, str | Path) else paths)]
    with tempfile.TemporaryDirectory(prefix="appcadence-") as copies:
        tallies, collections = inputs(given, Path(copies), chosen, options)
        if not tallies:
            raise TelemetryError("no file to convert; give at least one")
        while True:
            if strict and (error := next((t.unusable for t in tallies if t.unusable), None)):
                raise error
            try:
                report = _converted(tallies, out, chosen, options, renaming, progress, strict)
                return replace(
                    report,
                    collections=collections,
                    notes=(*report.notes, *(_shared_names(tallies, renaming) if report.changed else ())),
                )
            except UnusableFile as error:
                if strict or not {tally.path for tally in tallies if not tally.unusable} & set(error.paths):
                    raise
                # The fault showed only during reading: try again without this file and others cut off.
                tallies = [again(tally, error) for tally in tallies]


def _shared_names(tallies: Iterable[Tally], renaming: Renaming) -> Iterator[str]:
    """A sentence if device ids come from the names of sysdiagnoses, which many devices share."""
    used = sorted({renaming.device(t.device_id) for t in tallies if t.device_id and not t.unusable})
    if used:
        yield (
            f"The device id {listed(used)} comes from the name of a sysdiagnose, which other devices of its "
            "kind share; if there are several, give the id of each device."
        )


def _converted(
    tallies: Sequence[Tally],
    out: Path,
    chosen: Reader | None,
    options: ReadOptions,
    renaming: Renaming,
    progress: Progress,
    strict: bool,
) -> ConversionReport:
    """One attempt with the files that are not known to be unusable.

    Raises:
        UnusableFile: another file is unusable.
    """
    touched, options = Touched(), replace(options, strangers=Strangers(), said={})
    with DirectoryWriter(out, adding=True, private=renaming.fingerprint is not None) as writer:
        before = existing(out)
        if before is not None:
            renaming.check(before)
        seen = _known(before)
        new: dict[Path, Tally] = {}
        groups: dict[tuple[str | None, str], tuple[Reader, list[Path]]] = {}
        for tally in tallies:
            report = tally.report
            report.skipped = not tally.unusable and report.sha256 in seen
            if report.skipped or tally.unusable:
                continue
            try:
                found = chosen or tally.reader or detect(tally.path)
            except UnusableFile as error:
                if strict:
                    raise
                tally.pass_over(error)
                continue
            report.format = found.NAME
            groups.setdefault((tally.device_id, found.NAME), (found, []))[1].append(tally.path)
            new[tally.path] = tally
            seen.add(report.sha256)
        if all(tally.unusable for tally in tallies):
            raise _none_usable(tallies)
        if not new:
            return ConversionReport(out, tuple(tally.report for tally in tallies))
        options, identities = identified(options, tallies, renaming.device)
        added = [tally.report for tally in new.values()]
        digest = hashlib.sha256("\n".join(sorted(report.sha256 for report in added)).encode())
        writer.conversion = digest.hexdigest()[:16]
        sink = _Sink(writer, new, touched, renaming, before, progress)
        in_order = sorted(groups.items(), key=lambda item: item[0][0] or "")
        for device, group in groupby(in_order, lambda item: item[0][0]):
            same = options if device is None else replace(options, device_id=device, devices=None)
            sink.write([members for _, members in group], same)
        completed = sink.settle()
        if nothing := nothing_kept(list(new.values()), options):
            raise nothing
        if not set(writer.rows) - {"rejected"}:
            # An empty table says: converted, but nothing was there.
            writer.write("flows", FLOWS.empty())
        # Before the new rows count.
        changed_days = touched.changed(before) if before else ()
        writer.sources = [
            report.as_source() | {"name": renaming.file(report.name), "key": renaming.fingerprint}
            for report in added
        ]
    checks = _checks(out, new.values(), touched.devices, options, renaming)
    return ConversionReport(
        out,
        tuple(tally.report for tally in tallies),
        dict(sorted(writer.rows.items())),
        (*identities, *notes(new.values(), completed, options), *checks),
        changed_days=changed_days,
    )


def _none_usable(tallies: Sequence[Tally]) -> TelemetryError:
    errors = [tally.unusable for tally in tallies if tally.unusable]
    arguments = {error.argument for error in errors}
    reasons = [str(error) for error in errors]
    said = f"none of the {len(errors):,} files can be used: {listed(reasons, separator='; ')}"
    return TelemetryError(
        said if len(errors) > 1 else reasons[0], *(arguments if len(arguments) == 1 else ())
    )


class _Sink:
    """Writes what the readers yield into the directory, and counts it."""

    def __init__(
        self,
        writer: DirectoryWriter,
        new: Mapping[Path, Tally],
        touched: Touched,
        renaming: Renaming,
        before: TelemetryDirectory | None,
        progress: Progress,
    ) -> None:
        self._writer, self._new, self._touched, self._renaming = writer, new, touched, renaming
        self._folding = Folding(before.names("inventory", "app_id") if before else ())
        self._overlaps = Overlaps(before)
        self._before, self._each_once = before, EachOnce()
        self._progress = progress
        self._done, self._total = 0, max(sum(path.stat().st_size for path in new), 1)

    def write(self, groups: Iterable[tuple[Reader, list[Path]]], options: ReadOptions) -> None:
        """Read the files of one device, or of the network."""
        # Logs that name the installed apps come first, because other rows are folded into these apps.
        for found, files in sorted(groups, key=lambda group: group[0].NAME not in INVENTORIES):
            for table, batch in found.read(files, options):
                marks = batch.schema.metadata
                report = self._tally(batch).report
                report.read += int(marks[b"read"])
                left_out = Counter(report.left_out) + Counter(json.loads(marks[b"left_out"]))
                report.left_out = dict(left_out)
                batch = self._folding.apply(table, self._renaming.apply(batch))
                if found.NAME not in ON_DEVICE:
                    self._take(table, batch)
                elif not self._overlaps.add(table, batch):
                    self._take(table, batch, repeats=False)
                self._done += int(marks[b"size"])
                self._progress("Converting", self._done / self._total)
        for table, batch, repeated in self._overlaps.release():
            self._tally(batch).report.repeated += repeated
            self._take(table, batch, repeats=False)

    def _tally(self, batch: pa.Table) -> Tally:
        return self._new[Path(os.fsdecode(batch.schema.metadata[b"file"]))]

    def settle(self) -> int:
        """Count each flow once; returns how many flows of the directory the new ones complete."""
        settled = self._each_once.settle(self._writer, self._before)
        reports = [tally.report for tally in self._new.values()]
        for number, lost in settled.left_out.items():
            report = reports[number]
            report.left_out = dict(Counter(report.left_out) + lost)
            report.rows -= lost.total()
        if staged := self._writer.staged("flows"):
            for _, flows in stored_rows(FLOWS, staged, TOUCHING):
                self._touched.add("flows", flows)
        return settled.completed

    def _take(self, table: str, batch: pa.Table, repeats: bool = True) -> None:
        tally = self._tally(batch)
        tally.add(table, batch)
        if table == "flows":
            owner = list(self._new).index(tally.path) if repeats else UNIQUE
            self._each_once.add(batch, owner)
        else:
            self._touched.add(table, batch)
        if len(batch):
            self._writer.write(table, batch)


def _options(
    local_nets: str | Iterable[str | Network],
    devices: Devices | str | Path | None,
    device_id: str | None,
    mapping: str | Path | None,
) -> ReadOptions:
    if devices is not None and device_id is not None:
        raise TelemetryError("give a device id or a table of devices, not both")
    if device_id is not None and not device_id.strip():
        raise TelemetryError("the device id is empty; give a name")
    nets = []
    for net in (local_nets,) if isinstance(local_nets, str) else local_nets:
        try:
            nets.append(ipaddress.ip_network(net))
        except ValueError as error:
            raise TelemetryError(f"{net} is no network ({error}); expected CIDR such as 10.0.0.0/8") from None
    if devices is not None and not isinstance(devices, Devices):
        devices = Devices.read(devices)
    return ReadOptions(tuple(nets), devices, device_id, None if mapping is None else Path(mapping))


def _known(directory: TelemetryDirectory | None) -> set[str]:
    """Hashes of the files that were converted into the directory."""
    if directory is None:
        return set()
    try:
        return {str(entry["sha256"]) for entry in directory.sources}
    except KeyError:
        path = directory.path
        raise TelemetryError(
            f"{path / SOURCES} lacks the sha256 of a file; remove {path} and convert again"
        ) from None


def _checks(
    out: Path, tallies: Collection[Tally], devices: set[str], options: ReadOptions, renaming: Renaming
) -> tuple[str, ...]:
    """Sentences about the directory as it is now, but only about devices with new rows."""
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
        # The new rows are in, even if other tables are faulty.
        return (f"Clocks and device names were not checked: {error}",)
