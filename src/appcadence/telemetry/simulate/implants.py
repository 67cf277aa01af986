"""Known implants, grafted as flows into simulated telemetry or into a user's own benign baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence._types import Ints, Vector
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import FLOWS, TIME, conform
from appcadence.telemetry.simulate.behaviours import KINDS, Behaviour, Kind, Pattern, Scene, coupled, inside
from appcadence.telemetry.simulate.carriers import (
    MIN_PUSHES,
    NOWHERE,
    Carriers,
    Destination,
    busy_hours,
    exchanges,
    known_seconds,
    new_destination,
    old_destination,
)
from appcadence.telemetry.simulate.phone_log import SLOT_SECONDS, slots


@dataclass(frozen=True)
class Graft:
    """The flows of one implant; arrays have one length."""

    spec: dict[str, Any]
    shows: str
    """What gives its kind away; see `behaviours.Kind`."""
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
    """The surroundings of a row's app on its device, for some seconds from a moment on."""
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
    """Starts (microseconds) on the log's time grid, and durations, both within the device's span."""
    grid = max(round(float(fleet.numbers["time_resolution_seconds"][row]) * 1e6), 1)
    start = (begin + np.rint(starts * 1e6).astype(np.int64)) // grid * grid
    # The grid must not move a start before the span, and nothing is seen after its end.
    start = np.where(start < int(fleet.first[device]), start + grid, start)
    return start, np.clip(durations, 0.0, np.maximum(fleet.end - start, 0) * 1e-6)


def extent(
    fleet: Carriers, row: int, start: Ints, durations: Vector, targets: list[Destination], which: Ints
) -> dict[str, Any]:
    """Device, app, destinations and times: the part of a specification that follows from the flows."""
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
    """The name that windows use for a destination of an app."""
    return target.host or target.ip or ("unknown" if app is None else "*")


def in_slots(fleet: Carriers, graft: Graft) -> Graft:
    """A graft as the phone's own log shows it, if the carrier has one: runs of slots, nothing else."""
    own = fleet.own(fleet.of(graft.row)[1])
    if not fleet.nowhere(own):
        return graft
    # A duration borrowed from the log is in whole slots.
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
        "device_port": _own_ports(fleet, whose),
        "outcome": joined("outcome", pa.string()),
        "bytes_out": joined("sent", pa.int64()),
        "bytes_in": joined("received", pa.int64()),
        "time_resolution_seconds": fleet.numbers["time_resolution_seconds"][whose],
    }
    return conform(FLOWS, pa.table(data))


def _own_ports(fleet: Carriers, rows: Ints) -> pa.Array:
    """The devices' own ports of flows, another for each, where the log of their carriers (rows) has them."""
    known = ~np.isnan(fleet.numbers["device_port"][rows])
    return pa.array(_FIRST_OWN_PORT + np.cumsum(known) % _OWN_PORTS, pa.int32(), mask=~known)


_FIRST_OWN_PORT, _OWN_PORTS = 49_152, 16_384
"""The dynamic ports of RFC 6335, which iOS uses."""
_COUPLED_SHARE = 0.5
_NEW_SHARE = 0.5
_CARRIER_SIZES_SHARE = 0.5
_FOREVER_SHARE = 0.2
_IN_USE_SHARE = 0.4
_MIN_IN_USE = 6
"""An implant with fewer flows during use is not confined to use."""
_DIFFICULTY = ("easy", "medium", "medium", "hard", "hard")
_COLUMNS = (
    "implant_id device_id app_id dest dests start_us end_us flows kind difficulty "
    "period_seconds jitter_ratio missed_ratio coupled in_use new_destination carrier_sizes"
)


def inject(
    tables: Mapping[str, pa.Table],
    seed: int,
    *,
    per_device_day: float,
    kinds: Sequence[str] | Mapping[str, Behaviour] = tuple(KINDS),
    start: int | None = None,
    end: int | None = None,
    max_per_device: int | None = None,
    also: Callable[[Carriers, list[Graft]], list[Graft]] = lambda fleet, implants: [],
) -> tuple[pa.Table, pd.DataFrame]:
    """Flows of implants that live inside the apps (or, without app names, on the devices) of `tables`.

    Between `start` and `end` (microseconds since the epoch; default the span of the flows), about
    `per_device_day` implants begin per device-day, at most `max_per_device` on one device. Their lives last
    from five minutes (or what their kind needs) to the whole span, log-uniformly; one in five lasts for all
    of it. Each copies its carrier's source, attribution, time grid and gaps: it never has a host, an address,
    a duration or a size where its carrier has none, and in a phone's own log it shows as runs of slots.

    Half of the implants contact nothing new. Their exchanges come from real channels, half of them the
    carrier's own. Of those that show by rhythm or persistence, half start when the device does, and two in
    five run only while the app or the device is used. Push-triggered kinds need pushes of the carrier; if
    there are none, another kind replaces them. Without activity telemetry, "the user is away" means the eight
    hours of the day in which the device is quietest. `kinds` names some of `KINDS`, or maps names to the
    caller's own behaviours; these last for the whole span and are never moved to the device's starts or use,
    so that the caller gets exactly what was asked for.

    `also` is called with the carriers and the implants, and returns further grafts to append.

    Returns the flows (canonical), and a frame in the same order with one row per implant: implant_id,
    device_id, app_id (None = unknown), dest, dests, start_us, end_us, flows, kind, difficulty,
    period_seconds, jitter_ratio, missed_ratio, coupled, in_use, new_destination, carrier_sizes. Equal rows in
    any order and an equal seed give equal output.

    Raises:
        TelemetryError: a kind is not known, or a number is negative.
    """
    behaviours = kinds if isinstance(kinds, Mapping) else KINDS
    unknown = sorted(set(kinds) - set(behaviours))
    if unknown or not kinds:
        raise TelemetryError(f"kinds must be some of {', '.join(KINDS)}; got {unknown or 'none'}")
    if not per_device_day >= 0 or (max_per_device is not None and max_per_device < 0):
        raise TelemetryError(f"implants must not be negative, got {per_device_day} and {max_per_device}")
    rng = np.random.default_rng(seed)
    fleet = Carriers(tables, start, end)
    days = (fleet.last - fleet.first) / 86_400e6
    expected = per_device_day * float(days.sum())
    count = int(expected) + int(rng.random() < expected % 1)
    drawn = rng.choice(len(days), count, p=days / days.sum()) if expected > 0 else np.empty(0, np.int64)
    made: list[Graft] = []
    carried = np.zeros(len(days), np.int64)
    others = [kind for kind in kinds if _kind(behaviours[kind]).shows != "push"]
    for device in drawn:
        if max_per_device is not None and carried[device] >= max_per_device:
            continue
        implant = _one(rng, fleet, int(device), str(rng.choice(list(kinds))), others, behaviours)
        if implant is not None:
            carried[device] += 1
            made.append(implant)
    if not made:
        return FLOWS.empty(), pd.DataFrame(columns=_COLUMNS.split())
    made = [in_slots(fleet, graft) for graft in made + also(fleet, made)]
    specs = pd.DataFrame([{"implant_id": i} | graft.spec for i, graft in enumerate(made)])
    return table_of(fleet, made), specs


def _one(
    rng: np.random.Generator,
    fleet: Carriers,
    device: int,
    kind: str,
    others: list[str],
    behaviours: Mapping[str, Behaviour],
) -> Graft | None:
    asked = behaviours is not KINDS
    wanted = _kind(behaviours[kind])
    carrier = int(rng.choice(fleet.carriers_for(device, pushed=wanted.shows == "push")))
    own = fleet.own(carrier)
    row = int(rng.integers(own.start, own.stop))
    first, last = int(fleet.first[device]), int(fleet.last[device])
    span = (last - first) * 1e-6
    shortest = min(wanted.min_seconds, span)
    forever = asked or rng.random() < _FOREVER_SHARE
    drawn = np.exp(rng.uniform(np.log(shortest + 1), np.log(span + 1))) - 1.0
    seconds = span if forever else float(np.clip(drawn, shortest, span))
    begin = first + int(rng.uniform(0, span - seconds) * 1e6)
    scene = scene_of(fleet, device, row, begin, seconds)
    if wanted.shows == "push" and len(scene.pushes) < MIN_PUSHES:
        if not others:
            return None
        kind = str(rng.choice(others))
        wanted = _kind(behaviours[kind])
    pattern = wanted(rng, scene)
    follows = in_use = False
    if not asked and wanted.shows in ("rhythm", "persistence"):
        follows, in_use = rng.random() < _COUPLED_SHARE, rng.random() < _IN_USE_SHARE
    follows &= len(scene.device_starts) > 0
    if in_use:
        pattern, in_use = _in_use(rng, pattern, scene)
    if not len(pattern.starts):
        return None
    if follows:
        pattern = replace(pattern, starts=coupled(rng, pattern.starts, scene))
    new = bool(rng.random() < _NEW_SHARE)
    targets = [
        new_destination(rng, fleet, own) if new else old_destination(rng, fleet, device, own)
        for _ in range(int(rng.integers(wanted.hosts[0], wanted.hosts[1] + 1)))
    ]
    copied = bool(rng.random() < _CARRIER_SIZES_SHARE)
    n = len(pattern.starts)
    borrowed = exchanges(rng, fleet, own, n, copied)
    durations, outcome, factor = borrowed.seconds, borrowed.outcome, pattern.size_factor
    if pattern.durations is not None:
        durations = known_seconds(rng, fleet, own, pattern.durations)
        outcome = np.full(n, "established", object)
    if pattern.failed is not None:
        failed = "failed" if rng.random() < 0.9 else "unknown"
        outcome = np.where(pattern.failed, failed, "established").astype(object)
    start, durations = placed(fleet, device, row, begin, pattern.starts, durations)
    which = rng.integers(0, len(targets), n)
    spec = {
        **extent(fleet, row, start, durations, targets, which),
        "kind": kind,
        "difficulty": _DIFFICULTY[follows + (not new) + (not pattern.jitter <= 0.3) + (n < 20)],
        "period_seconds": pattern.period,
        "jitter_ratio": pattern.jitter,
        "missed_ratio": pattern.missed,
        "coupled": bool(follows),
        "in_use": bool(in_use),
        "new_destination": new,
        "carrier_sizes": copied,
    }
    sent, received = np.rint(borrowed.sent * factor), np.rint(borrowed.received * factor)
    return Graft(
        spec, wanted.shows, begin, seconds, row, start, durations, outcome, sent, received, targets, which
    )


def _kind(behaviour: Behaviour) -> Kind:
    return behaviour if isinstance(behaviour, Kind) else Kind(behaviour)


def _in_use(rng: np.random.Generator, pattern: Pattern, scene: Scene) -> tuple[Pattern, bool]:
    """The flows that start while the carrier app is in front or, if too few do, while the user is present;
    all flows if those are too few as well. Also whether they were confined to use."""
    kept = inside(pattern.starts, scene.front)
    if kept.sum() < _MIN_IN_USE or rng.random() < 0.3:
        kept = inside(pattern.starts, scene.busy)
    if kept.sum() < min(_MIN_IN_USE, len(kept)):
        return pattern, False

    def only_kept(values: Any) -> Any:
        return values[kept] if isinstance(values, np.ndarray) else values

    columns = ("starts", "durations", "failed", "size_factor")
    return replace(pattern, **{name: only_kept(getattr(pattern, name)) for name in columns}), True
