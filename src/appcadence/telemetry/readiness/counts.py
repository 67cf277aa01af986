"""Counts by device over a telemetry directory, in one pass over pieces of each table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, HOUR_US, Ints, Mask, Progress, silent
from appcadence.telemetry.device_times import DeviceTimes, by_device, filled, gaps
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.names import Codes, value_of
from appcadence.telemetry.schema import FLOWS

ATTRIBUTIONS = FLOWS.column("app_attribution").values
GAP_HOURS = 4
"""A device that is silent for longer counts as not observed, in features as well."""
LOG_GAP_HOURS = 24
"""People sleep and pushes are rare, so only a longer silence of such a log means that it was not kept."""
MIN_REPORT_US = 2 * DAY_US
"""An App Privacy Report of a shorter time, for instance just after switching it on, cannot be judged."""
_TELLING = {
    "activity": ("app_foreground", "device_unlocked", "screen_on"),
    "notifications": ("push_received",),
}
"""Kinds that show when the user was present or an app was woken; their resolution is that of the log."""
SHARES = (
    *("app_known", "dest_known", "host_known", "host_passive", "duration_known", "bytes_known", "lookups"),
)
"""Counts of flows for which something is true."""
_FLOW_FIGURES = ("flows", *SHARES)
_ROWS = ("contact_summaries", "pushes_with_app")
WHOLE = ("flows", "observed_hours", "gaps", "gap_hours", "reports", *_ROWS)
"""Figures that are reported unchanged."""
_FLOW_COLUMNS = (
    *("start", "duration_seconds", "device_id", "app_id", "app_attribution", "dest_host"),
    *("dest_host_source", "dest_ip", "service", "bytes_out", "bytes_in", "time_resolution_seconds"),
)
_SPAN = ("report_start", "report_end")
_MINUTE_US = 60_000_000
_SHIFT = 32

Figures = dict[str, npt.NDArray[Any]]
"""(n_devices,) each, by name; they grow as devices appear."""


@dataclass(frozen=True)
class Counts:
    """What a telemetry directory holds."""

    devices: list[str]
    apps: list[str]
    figures: Figures
    """Flows in all, with something known, by way of attribution; hours, gaps ..."""
    app_flows: Ints
    """(n_apps,) flows."""
    seen: list[tuple[int, int]]
    """Codes of (device, app) with flows, sorted."""
    logs: dict[str, dict[int, tuple[int, float | None, dict[str, int]]]]
    """By table and device: records, resolution (seconds) of the `_TELLING` kinds, and records by kind."""

    def present(self) -> Mask:
        """(n_devices,) which have any data; a dictionary may name more devices than that."""
        found: Mask = (self.figures["flows"] > 0) | (self.figures["contact_summaries"] > 0)
        found[[code for log in self.logs.values() for code in log]] = True
        return found

    def apps_of(self) -> dict[int, list[int]]:
        """Codes of the apps of each device with flows."""
        found: dict[int, list[int]] = {}
        for device, app in self.seen:
            found.setdefault(device, []).append(app)
        return found


def count(source: TelemetryDirectory, progress: Progress = silent) -> Counts:
    """Go through flows, activity, notifications, contact summaries and coverage once."""
    device, app = Codes(), Codes()
    figures = {name: np.zeros(0, np.int64) for name in (*_FLOW_FIGURES, *ATTRIBUTIONS, *_ROWS)}
    flow_hours, app_flows, seen = _flows(source, device, app, figures, progress)
    logs = {name: _log(source, name, device, figures) for name in _TELLING}
    reports = _reports(source, device, figures)
    logged = _coverage(source, device, flow_hours)
    n = len(device)
    touched, _ = flow_hours.touched()
    observed = filled(touched, GAP_HOURS)
    figures = {name: _wide(values, n) for name, values in figures.items()}
    figures["reports"] = np.bincount([code for code, *_ in reports], minlength=n)
    figures["observed_hours"] = by_device(observed, n)
    figures["logged_minutes"] = by_device(logged.touched()[0], n)
    figures["gaps"], figures["gap_hours"] = gaps(touched, GAP_HOURS, n)
    for name, (hours, _) in logs.items():
        log = filled(hours.touched()[0], LOG_GAP_HOURS)
        figures[f"{name}_hours"] = by_device(log, n)
        # The hours among them in which the device also has flows.
        figures[f"{name}_shared"] = by_device(np.intersect1d(observed, log, assume_unique=True), n)
    pairs = [(int(key) >> _SHIFT, int(key) & 0xFFFFFFFF) for key in seen]
    found = {name: log for name, (_, log) in logs.items()}
    return Counts(device.names, app.names, figures, app_flows, pairs, found)


def _flows(
    source: TelemetryDirectory,
    device: Codes,
    app: Codes,
    figures: Figures,
    progress: Progress,
) -> tuple[DeviceTimes, Ints, Ints]:
    """Hours with flows, flows by app, and sorted keys of (device, app); adds to the figures by device."""
    hours, app_flows, seen = DeviceTimes(HOUR_US), np.zeros(0, np.int64), np.zeros(0, np.int64)
    figures["resolution"] = np.zeros(0)
    figures["first"] = figures["last"] = np.zeros(0, np.int64)
    for piece in _pieces(source, "flows", _FLOW_COLUMNS, progress):
        owner, apps = device.of(piece["device_id"]), app.of(piece["app_id"])
        host, known = _valid(piece["dest_host"]), apps >= 0
        seconds = piece["duration_seconds"].to_numpy()
        flags = (
            np.ones(len(piece), np.bool_),
            known,
            host | _valid(piece["dest_ip"]),
            host,
            host & _equal(piece["dest_host_source"], "passive"),
            ~np.isnan(seconds),
            _valid(piece["bytes_out"]) & _valid(piece["bytes_in"]),
            _equal(piece["service"], "dns"),
        )
        for name, mask in zip(_FLOW_FIGURES, flags, strict=True):
            _add(figures, name, device, owner[mask])
        for name in ATTRIBUTIONS:
            _add(figures, name, device, owner[_equal(piece["app_attribution"], name)])
        start = piece["start"].cast(pa.int64()).to_numpy()
        length = np.clip(np.nan_to_num(seconds, nan=0.0), 0.0, 1e7)
        hours.add(owner, start, start + (length * 1e6).astype(np.int64))
        for name, how, values, fill in (
            ("resolution", np.fmax, piece["time_resolution_seconds"].to_numpy(), 0),
            ("first", np.minimum, start, np.iinfo(np.int64).max),
            ("last", np.maximum, start, np.iinfo(np.int64).min),
        ):
            figures[name] = _wide(figures[name], len(device), fill)
            how.at(figures[name], owner, values)
        app_flows = _wide(app_flows, len(app)) + np.bincount(apps[known], minlength=len(app))
        seen = np.union1d(seen, (owner[known] << _SHIFT) + apps[known])
    return hours, app_flows, seen


def _log(
    source: TelemetryDirectory, table: str, device: Codes, figures: Figures
) -> tuple[DeviceTimes, dict[int, tuple[int, float | None, dict[str, int]]]]:
    """Hours of a log and its content by device; adds pushes with a known app to the figures."""
    when = "start" if table == "activity" else "time"
    kind, hours, resolution = Codes(), DeviceTimes(HOUR_US), np.zeros(0)
    totals = np.zeros((0, 0), np.int64)
    names = ["device_id", "app_id", "kind", when, "time_resolution_seconds"]
    for piece in _pieces(source, table, [*names, "end"] if table == "activity" else names):
        owner, kinds = device.of(piece["device_id"]), kind.of(piece["kind"])
        n, k = len(device), len(kind)
        start = piece[when].cast(pa.int64()).to_numpy()
        end = start
        if table == "activity":
            end = pc.coalesce(piece["end"], piece[when]).cast(pa.int64()).to_numpy()
        telling: Mask = value_of(piece["kind"], lambda name: name in _TELLING[table], False)
        # Any event shows that pushes were logged; charging does not show that unlocks were.
        kept = telling if table == "activity" else np.ones(len(piece), np.bool_)
        hours.add(owner[kept], start[kept], np.maximum(start, end)[kept])
        resolution = _wide(resolution, n, -1)
        np.fmax.at(resolution, owner[telling], piece["time_resolution_seconds"].to_numpy()[telling])
        totals = np.pad(totals, ((0, n - totals.shape[0]), (0, k - totals.shape[1])))
        totals += np.bincount(owner * k + kinds, minlength=n * k).reshape(n, k)
        pushes = _equal(piece["kind"], "push_received") & _valid(piece["app_id"])
        _add(figures, "pushes_with_app", device, owner[pushes])
    log = {}
    for code in np.flatnonzero(totals.sum(axis=1)).tolist():
        by_kind = {name: int(totals[code, i]) for i, name in enumerate(kind.names) if totals[code, i]}
        finest = float(resolution[code]) if resolution[code] >= 0 else None
        log[code] = sum(by_kind.values()), finest, by_kind
    return hours, log


def _coverage(source: TelemetryDirectory, device: Codes, hours: DeviceTimes) -> DeviceTimes:
    """When logs without destinations were kept; these times are added to `hours`, too."""
    kept = DeviceTimes(_MINUTE_US)
    for piece in _pieces(source, "coverage", ["device_id", "start", "end"]):
        owner = device.of(piece["device_id"])
        start, end = (piece[name].cast(pa.int64()).to_numpy() for name in ("start", "end"))
        for times in (kept, hours):
            times.add(owner, start, np.maximum(start, end))
    return kept


def _reports(source: TelemetryDirectory, device: Codes, figures: Figures) -> set[tuple[int, int, int]]:
    """Device, start and end of the App Privacy Reports that can be judged; adds their rows to the figures."""
    found: set[tuple[int, int, int]] = set()
    for piece in _pieces(source, "contact_summaries", ["device_id", *_SPAN]):
        owner = device.of(piece["device_id"])
        _add(figures, "contact_summaries", device, owner)
        start, end = (pc.fill_null(piece[name].cast(pa.int64()), 0) for name in _SPAN)
        found.update(zip(owner.tolist(), start.to_pylist(), end.to_pylist(), strict=True))
    return {(code, start, end) for code, start, end in found if end - start >= MIN_REPORT_US}


def _pieces(
    source: TelemetryDirectory, table: str, names: Sequence[str], progress: Progress = silent
) -> Iterator[pa.Table]:
    reads = source.pieces(table, names)
    for done, read in enumerate(reads):
        progress("Reading flows", done / len(reads))
        piece = read()
        if len(piece):
            yield piece


def _valid(column: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.is_valid(column).to_numpy())


def _equal(column: pa.ChunkedArray, wanted: str) -> Mask:
    found: Mask = value_of(column, lambda name: name == wanted, False)
    return found


def _add(figures: Figures, name: str, device: Codes, owner: Ints) -> None:
    """Add the rows of each device to a figure."""
    figures[name] = _wide(figures[name], len(device)) + np.bincount(owner, minlength=len(device))


def _wide(values: npt.NDArray[Any], n: int, fill: int = 0) -> npt.NDArray[Any]:
    """The array with room for n devices."""
    return np.pad(values, (0, n - len(values)), constant_values=fill)
