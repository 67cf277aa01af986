"""The flows of one implant as its carrier's log would show them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from appcadence._types import Ints, Vector
from appcadence.telemetry.schema import FLOWS, TIME, conform
from appcadence.telemetry.simulate.behaviours import Scene
from appcadence.telemetry.simulate.carriers import NOWHERE, Carriers, Destination, busy_hours
from appcadence.telemetry.simulate.phone_log import SLOT_SECONDS, slots


@dataclass(frozen=True)
class Graft:
    """The flows of one implant; arrays have one length."""

    spec: dict[str, Any]
    shows: str
    """What gives its kind away, see `behaviours.Kind`."""
    begin: int
    """Microseconds since the epoch at which its life begins ..."""
    seconds: float
    """... and how long that is."""
    row: int
    """Row of its carrier whose source, app and time grid it copies."""
    start: Ints
    durations: Vector
    outcome: npt.NDArray[np.object_]
    sent: Vector
    received: Vector
    targets: list[Destination]
    which: Ints
    """Index into `targets` of each flow."""


def scene_of(fleet: Carriers, device: int, row: int, begin: int, seconds: float) -> Scene:
    """What the app of a row finds on its device for so many seconds from a moment on."""
    name, app = fleet.text("device_id", row), fleet.text("app_id", row)
    starts = fleet.device_starts[fleet.bounds[device] : fleet.bounds[device + 1]]
    never = np.empty(0, np.int64)

    def inside(times: Ints) -> Vector:
        a, b = np.searchsorted(times, [begin, begin + int(seconds * 1e6)])
        return np.asarray((times[a:b] - begin) * 1e-6, np.float64)

    def since(spans: tuple[Ints, Ints]) -> tuple[Vector, Vector]:
        return np.asarray((spans[0] - begin) * 1e-6), np.asarray((spans[1] - begin) * 1e-6)

    return Scene(
        seconds=seconds,
        clock=begin / 1e6 % 86400,
        device_starts=inside(starts),
        pushes=inside(fleet.pushes.get((name, app), never)),
        busy=since(fleet.presence[(name,)] if (name,) in fleet.presence else busy_hours(starts)),
        front=since(fleet.front.get((name, app), (never, never))),
    )


def placed(
    fleet: Carriers, device: int, row: int, begin: int, starts: Vector, durations: Vector
) -> tuple[Ints, Vector]:
    """Starts (microseconds) on the log's time grid and in the device's span, and durations that end in it."""
    grid = max(round(float(fleet.numbers["time_resolution_seconds"][row]) * 1e6), 1)
    start = (begin + np.rint(starts * 1e6).astype(np.int64)) // grid * grid
    # The grid must not move a start before the span; nothing is seen after its end.
    start = np.where(start < int(fleet.first[device]), start + grid, start)
    return start, np.clip(durations, 0.0, np.maximum(fleet.end - start, 0) * 1e-6)


def extent(
    fleet: Carriers, row: int, start: Ints, durations: Vector, targets: list[Destination], which: Ints
) -> dict[str, Any]:
    """Who, where to and when: the part of a specification that follows from the flows."""
    app = fleet.text("app_id", row)
    dests = sorted({dest_of(targets[i], app) for i in np.unique(which)})
    return {
        "device_id": fleet.text("device_id", row),
        "app_id": app,
        "dest": dests[0],
        "dests": dests,
        "start_us": int(start.min()),
        "end_us": int((start + np.nan_to_num(durations) * 1e6).max()),
        "flows": len(start),
    }


def dest_of(target: Destination, app: str | None) -> str:
    """What windows call a destination of an app's."""
    return target.host or target.ip or ("unknown" if app is None else "*")


def in_slots(fleet: Carriers, graft: Graft) -> Graft:
    """The same as a phone's own log shows it: runs of slots, without destinations, sizes and outcomes."""
    own = fleet.own(fleet.of(graft.row)[1])
    if not fleet.nowhere(own):
        return graft
    # A duration that the log lent is one of whole slots.
    seconds = np.maximum(graft.durations - (SLOT_SECONDS - 1), 0.5)
    _, start, end = slots(
        np.zeros(len(graft.start), np.int64), graft.start, seconds, graft.sent + graft.received
    )
    n, unknown = len(start), np.full(len(start), np.nan)
    where = [NOWHERE], np.zeros(n, np.int64)
    durations: Vector = np.asarray((end - start) * 1e-6, np.float64)
    spec = graft.spec | extent(fleet, graft.row, start, durations, *where)
    outcome = np.full(n, "unknown", object)
    return replace(
        graft,
        spec=spec,
        start=start,
        durations=durations,
        outcome=outcome,
        sent=unknown,
        received=unknown,
        targets=where[0],
        which=where[1],
    )


def table_of(fleet: Carriers, made: list[Graft]) -> pa.Table:
    """The flows, canonical, in the order of `made`."""
    counts = [len(graft.start) for graft in made]
    whose = np.repeat([graft.row for graft in made], counts)
    targets = [target for graft in made for target in graft.targets]
    offsets = np.cumsum([0] + [len(graft.targets) for graft in made[:-1]])
    which = pa.array(np.concatenate([g.which + o for g, o in zip(made, offsets, strict=True)]))

    def contacted(name: str) -> pa.Array:
        return pa.array([getattr(t, name) for t in targets], pa.string()).dictionary_encode().take(which)

    def joined(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array(np.concatenate([getattr(g, name) for g in made]), from_pandas=True).cast(kind)

    data = {name: fleet.column(name, whose) for name in ("device_id", "app_id", "app_attribution", "source")}
    data |= {f"dest_{name}": contacted(name) for name in ("host", "host_source", "ip")}
    data |= {name: contacted(name) for name in ("transport", "service")}
    data |= {
        "start": joined("start", pa.int64()).cast(TIME),
        "duration_seconds": joined("durations", pa.float64()),
        "dest_port": pa.array([t.port for t in targets], pa.int32()).take(which),
        "outcome": joined("outcome", pa.string()),
        "bytes_out": joined("sent", pa.int64()),
        "bytes_in": joined("received", pa.int64()),
        "time_resolution_seconds": fleet.numbers["time_resolution_seconds"][whose],
    }
    return conform(FLOWS, pa.table(data))
