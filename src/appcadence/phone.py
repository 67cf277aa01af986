"""One person's phone: convert, score and judge its logs in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Progress, silent
from appcadence.errors import TelemetryError
from appcadence.features.weekly import short_reports
from appcadence.models.bundle import reference_model
from appcadence.models.weekly import judge_reports
from appcadence.nightly import score_directory
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import SOURCES, TelemetryDirectory, existing
from appcadence.telemetry.ingest.conversion_report import ConversionReport
from appcadence.telemetry.ingest.convert import convert
from appcadence.telemetry.listing import listed, many
from appcadence.triage.phone.assess import Phone, assess
from appcadence.triage.report_data import Output, as_rows

UNNAMED = "phone"
"""The device id of a phone without a name."""
_TABLES = (
    *("flows", "activity", "notifications", "usage", "tasks", "coverage", "inventory"),
    *("contact_summaries", "accesses"),
)


def examine(
    paths: Sequence[str | Path],
    *,
    device_id: str | None = None,
    scorer: Scorer | None = None,
    keep: str | Path | None = None,
    progress: Progress = silent,
) -> Phone:
    """Assess what stands out on one person's phone.

    Args:
        paths: sysdiagnoses (archives or folders), PowerLogs, App Privacy Reports and other logs of this one
            phone, or one telemetry directory.
        device_id: the name of the phone; with a telemetry directory, the device to look at.
        scorer: a model; None = the reference model.
        keep: a new directory for the converted telemetry; None = it is deleted afterwards.
        progress: called with each stage and the share of it that is done.

    Raises:
        TelemetryError: no input can be used, a telemetry directory has several devices and `device_id` names
            none of them, or `keep` already has telemetry.
    """
    with tempfile.TemporaryDirectory(prefix="appcadence-phone-") as scratch:
        given = _telemetry(paths)
        systems: tuple[str, ...] = ()
        unread: tuple[str, ...] = ()
        if given is None:
            device_id = device_id or UNNAMED
            where = Path(scratch, "telemetry") if keep is None else Path(keep)
            done = _converted(paths, where, device_id, progress)
            given, unread = TelemetryDirectory(where), tuple(_unread(done))
            systems = tuple(dict.fromkeys(part.system for part in done.collections if part.system))
        device = _device(given, device_id)
        tables = {name: _rows_of(given, name, device) for name in _TABLES if name in given.tables()}
        scores, days = [], 0.0
        if len(tables.get("flows", ())):
            out = Path(scratch, "scores")
            run = score_directory(tables, scorer or Scorer(*reference_model()), out, progress=progress)
            scores, days = as_rows(Output(out).scores()), run.device_days
        weeks = judge_reports(tables) if len(tables.get("contact_summaries", ())) else None
        return assess(
            device,
            tables,
            scores,
            [] if weeks is None else weeks.filter(weeks["finding"]).to_pylist(),
            device_days=days,
            reports=0 if weeks is None else len(weeks["report_end"].unique()),
            short_reports=0 if weeks is None else short_reports(tables),
            systems=systems,
            unread=unread,
            reference=scorer is None,
        )


def _telemetry(paths: Sequence[str | Path]) -> TelemetryDirectory | None:
    """The telemetry directory, if exactly one is given.

    Raises:
        TelemetryError: it is not given alone.
    """
    for path in map(Path, paths):
        try:
            found = TelemetryDirectory(path)
        except TelemetryError:
            if (path / SOURCES).is_file():
                raise
            continue
        if len(paths) > 1:
            raise TelemetryError(f"{path} is a telemetry directory; give it alone, or the logs themselves")
        return found
    return None


def _converted(
    paths: Sequence[str | Path], where: Path, device_id: str, progress: Progress
) -> ConversionReport:
    """Convert the logs of one phone into a new directory."""
    if existing(where) is not None:
        raise TelemetryError(
            f"{where} holds telemetry, maybe of another phone; choose a new directory", "keep"
        )
    try:
        return convert(paths, where, device_id=device_id, progress=progress)
    except TelemetryError as error:
        raise TelemetryError(str(error)) from None  # the argument to change is one of `convert`


def _unread(done: ConversionReport) -> Iterator[str]:
    """What of the given files says nothing, and why, in sentences."""
    for file in done.files:
        if file.unusable:
            yield f"A file that could not be used: {file.unusable}."
        elif file.rejected:
            yield f"{file.rejected:,} of {many(file.read, 'record')} of {file.name} could not be read."
    for part in done.collections:
        if not part.used:
            yield f"{part.name}, of which nothing could be used: {part.summary()}."
        elif part.lacks:
            yield f"{part.name} is incomplete: {listed(part.lacks, 5, '; ')}."
    yield from done.notes


def _device(given: TelemetryDirectory, device_id: str | None) -> str:
    found = sorted({name for table in _TABLES for name in given.names(table, "device_id")})
    if not found or device_id in found:
        return device_id or UNNAMED
    if device_id is None and len(found) == 1:
        return found[0]
    which = f"{many(len(found), 'device')} ({listed(found)})"
    raise TelemetryError(f"{given.path} holds {which}; name the one phone to look at", "device_id")


def _rows_of(given: TelemetryDirectory, name: str, device: str) -> pa.Table:
    """The rows of a phone; of an inventory, also those for all devices."""
    table = given.read(name)
    owner = table["device_id"].cast(pa.string())
    mine = pc.fill_null(pc.equal(owner, device), name == "inventory")
    return table.filter(mine)
