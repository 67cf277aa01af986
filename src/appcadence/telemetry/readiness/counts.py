"""Counts over a telemetry directory, by device, in one pass over pieces of each table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US, Ints, Mask, Progress, Vector, silent
from appcadence.telemetry.device_times import DeviceTimes, by_device, filled, gaps
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.names import Codes
from appcadence.telemetry.schema import FLOWS

ATTRIBUTIONS = FLOWS.column("app_attribution").values
GAP_HOURS = 4
"""A device silent for longer is not observed; features judge it the same way."""
LOG_GAP_HOURS = 24
"""People sleep, and pushes are few: only a longer silence of such a log says that it was not kept."""
_TELLING = {
    "activity": ("app_foreground", "device_unlocked", "screen_on"),
    "notifications": ("push_received",),
}
"""Kinds that say when the user was present, and when an app was woken: their resolution is the log's."""
_FLAGS = (
    "flows",
    "app_known",
    "dest_known",
    "host_known",
    "host_passive",
    "duration_known",
    "bytes_known",
    "lookups",
)
_SHIFT = 32


@dataclass
class Counts:
    """(n_devices,) arrays in order of `devices`, unless said otherwise."""

    devices: list[str]
    apps: list[str]
    present: Mask
    flows: Ints
    app_known: Ints
    dest_known: Ints
    host_known: Ints
    host_passive: Ints
    duration_known: Ints
    bytes_known: Ints
    lookups: Ints
    attribution: Ints
    """(n_devices, 4) flows by way of attribution."""
    resolution: Vector
    first: Ints
    last: Ints
    hours: Ints
    gaps: Ints
    gap_hours: Ints
    activity_hours: Ints
    activity_shared: Ints
    """Hours of the activity log in which the device has flows, too; likewise `push_shared`."""
    push_hours: Ints
    push_shared: Ints
    pushes: Ints
    summaries: Ints
    app_flows: Ints
    """(n_apps,) flows."""
    seen: list[tuple[int, int]]
    """Codes of (device, app) with flows, sorted."""
    logs: dict[str, dict[int, tuple[int, float | None, dict[str, int]]]]
    _apps_of: dict[int, list[int]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for device, app in self.seen:
            self._apps_of.setdefault(device, []).append(app)

    def apps_of(self, device: int) -> list[int]:
        return self._apps_of.get(device, [])

    def log(self, table: str, device: int) -> tuple[int, float | None, dict[str, int]]:
        """Records of a device in a table, resolution (seconds) of those that tell, and records by kind."""
        return self.logs[table].get(device, (0, None, {}))


class _Totals:
    """Sums by device that grow as devices appear."""

    def __init__(self, width: int) -> None:
        self.sums = np.zeros((0, width), np.int64)

    def grow(self, n: int) -> None:
        self.sums = np.pad(self.sums, ((0, n - len(self.sums)), (0, 0)))

    def add(self, device: Ints, column: int, mask: Mask | None = None) -> None:
        who = device if mask is None else device[mask]
        self.sums[:, column] += np.bincount(who, minlength=len(self.sums))


def count(source: TelemetryDirectory, progress: Progress = silent) -> Counts:
    """Go through flows, activity, notifications and contact summaries once."""
    device, app = Codes(), Codes()
    flows = _flows(source, device, app, progress)
    activity, activity_log, _ = _log(source, "activity", "start", device)
    pushed, push_log, pushes = _log(source, "notifications", "time", device)
    summaries = np.zeros(0, np.int64)
    for piece in _pieces(source, "contact_summaries", ["device_id"]):
        codes = device.of(piece["device_id"])
        summaries = _wide(summaries, len(device)) + np.bincount(codes, minlength=len(device))
    n = len(device)
    touched, _ = flows.hours.touched()
    observed = filled(touched, GAP_HOURS)
    n_gaps, gap_hours = gaps(touched, GAP_HOURS, n)

    def covered(hours: DeviceTimes) -> tuple[Ints, Ints]:
        log = filled(hours.touched()[0], LOG_GAP_HOURS)
        return by_device(log, n), by_device(np.intersect1d(observed, log, assume_unique=True), n)

    activity_hours, activity_shared = covered(activity)
    push_hours, push_shared = covered(pushed)
    flows.totals.grow(n)
    sums = flows.totals.sums
    present = sums[:, 0] > 0
    present[[*activity_log, *push_log]] = True
    summaries = _wide(summaries, n)
    return Counts(
        device.names,
        app.names,
        present | (summaries > 0),
        **{name: sums[:, i] for i, name in enumerate(_FLAGS)},
        attribution=sums[:, len(_FLAGS) :],
        resolution=_wide(flows.resolution, n),
        first=_wide(flows.first, n),
        last=_wide(flows.last, n),
        hours=by_device(observed, n),
        gaps=n_gaps,
        gap_hours=gap_hours,
        activity_hours=activity_hours,
        activity_shared=activity_shared,
        push_hours=push_hours,
        push_shared=push_shared,
        pushes=_wide(pushes, n),
        summaries=summaries,
        app_flows=_wide(flows.app_flows, len(app)),
        seen=[(int(key) >> _SHIFT, int(key) & 0xFFFFFFFF) for key in flows.seen],
        logs={"activity": activity_log, "notifications": push_log},
    )


@dataclass
class _Flows:
    totals: _Totals
    hours: DeviceTimes
    resolution: Vector
    first: Ints
    last: Ints
    app_flows: Ints
    seen: Ints


def _flows(source: TelemetryDirectory, device: Codes, app: Codes, progress: Progress) -> _Flows:
    none = np.zeros(0, np.int64)
    totals = _Totals(len(_FLAGS) + len(ATTRIBUTIONS))
    found = _Flows(totals, DeviceTimes(HOUR_US), np.zeros(0), none, none, none, none)
    way, service, origin = Codes(), Codes(), Codes()
    names = ["start", "duration_seconds", "device_id", "app_id", "app_attribution", "dest_host"]
    names += ["dest_host_source", "dest_ip", "service", "bytes_out", "bytes_in", "time_resolution_seconds"]
    for piece in _pieces(source, "flows", names, progress):
        owner, apps = device.of(piece["device_id"]), app.of(piece["app_id"])
        n = len(device)
        found.totals.grow(n)
        host = _valid(piece["dest_host"])
        seconds = piece["duration_seconds"].to_numpy()
        ways = way.of(piece["app_attribution"])
        passive = _equal(origin, piece["dest_host_source"], "passive") & host
        flags = (
            None,
            apps >= 0,
            host | _valid(piece["dest_ip"]),
            host,
            passive,
            ~np.isnan(seconds),
            _valid(piece["bytes_out"]) & _valid(piece["bytes_in"]),
            _equal(service, piece["service"], "dns"),
        )
        for column, mask in enumerate(flags):
            found.totals.add(owner, column, mask)
        for column, name in enumerate(ATTRIBUTIONS, len(_FLAGS)):
            found.totals.add(owner, column, ways == (way.names.index(name) if name in way.names else -2))
        start = piece["start"].cast(pa.int64()).to_numpy()
        length = np.clip(np.nan_to_num(seconds, nan=0.0), 0.0, 1e7)
        found.hours.add(owner, start, start + (length * 1e6).astype(np.int64))
        found.resolution = _wide(found.resolution, n)
        np.fmax.at(found.resolution, owner, piece["time_resolution_seconds"].to_numpy())
        found.first = _wide(found.first, n, np.iinfo(np.int64).max)
        found.last = _wide(found.last, n, np.iinfo(np.int64).min)
        np.minimum.at(found.first, owner, start)
        np.maximum.at(found.last, owner, start)
        known = apps >= 0
        found.app_flows = _wide(found.app_flows, len(app)) + np.bincount(apps[known], minlength=len(app))
        pairs = np.unique((owner[known] << _SHIFT) + apps[known])
        found.seen = np.union1d(found.seen, pairs)
    return found


def _log(
    source: TelemetryDirectory, table: str, when: str, device: Codes
) -> tuple[DeviceTimes, dict[int, tuple[int, float | None, dict[str, int]]], Ints]:
    """Hours of a log, what it holds by device, and pushes whose app is known by device."""
    kind = Codes()
    hours, resolution, pushes = DeviceTimes(HOUR_US), np.zeros(0), np.zeros(0, np.int64)
    wanted = pa.array(_TELLING[table])
    totals = np.zeros((0, 0), np.int64)
    names = ["device_id", "app_id", "kind", when, "time_resolution_seconds"]
    for piece in _pieces(source, table, [*names, "end"] if table == "activity" else names):
        owner, kinds = device.of(piece["device_id"]), kind.of(piece["kind"])
        n, k = len(device), len(kind)
        start = piece[when].cast(pa.int64()).to_numpy()
        end = start
        if table == "activity":
            end = pc.coalesce(piece["end"].cast(pa.int64()), piece[when].cast(pa.int64())).to_numpy()
        telling = np.asarray(pc.is_in(piece["kind"].cast(pa.string()), value_set=wanted).to_numpy())
        # Any event shows that pushes were logged; charging does not show that unlocks were.
        kept = telling if table == "activity" else np.ones(len(piece), np.bool_)
        hours.add(owner[kept], start[kept], np.maximum(start, end)[kept])
        resolution = _wide(resolution, n, -1)
        np.fmax.at(resolution, owner[telling], piece["time_resolution_seconds"].to_numpy()[telling])
        totals = np.pad(totals, ((0, n - totals.shape[0]), (0, k - totals.shape[1])))
        totals += np.bincount(owner * k + kinds, minlength=n * k).reshape(n, k)
        received = _equal(kind, piece["kind"], "push_received") & _valid(piece["app_id"])
        pushes = _wide(pushes, n) + np.bincount(owner[received], minlength=n)
    log = {}
    for code in np.flatnonzero(totals.sum(axis=1)).tolist():
        by_kind = {name: int(totals[code, i]) for i, name in enumerate(kind.names) if totals[code, i]}
        finest = float(resolution[code]) if resolution[code] >= 0 else None
        log[code] = sum(by_kind.values()), finest, by_kind
    return hours, log, pushes


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


def _equal(codes: Codes, column: pa.ChunkedArray, name: str) -> Mask:
    found = codes.of(column)
    return np.asarray(found == (codes.names.index(name) if name in codes.names else -2))


def _wide(values: Any, n: int, fill: int = 0) -> Any:
    """The array with room for n devices."""
    return np.pad(values, (0, n - len(values)), constant_values=fill)
