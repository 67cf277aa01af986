"""Known implants, grafted as flows into telemetry: simulated, or a user's own benign baseline."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence._types import Ints, Vector
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import FLOWS, TIME, conform
from appcadence.telemetry.simulate.behaviours import KINDS, Behaviour, Pattern, Scene, coupled
from appcadence.telemetry.simulate.carriers import (
    MIN_PUSHES,
    Carriers,
    Destination,
    busy_hours,
    new_destination,
    old_destination,
)

_COUPLED_SHARE = 0.4
_NEW_SHARE = 0.5
_CARRIER_SIZES_SHARE = 0.5
_COLUMNS = (
    "implant_id device_id app_id dest dests kind start_us end_us difficulty period_seconds jitter_ratio "
    "missed_ratio coupled new_destination carrier_sizes flows"
)

Moment = int | datetime.datetime | np.datetime64


@dataclass(frozen=True)
class _Implant:
    """The flows of one implant; arrays have one length."""

    spec: dict[str, Any]
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


def inject(
    tables: Mapping[str, pa.Table],
    seed: int,
    *,
    per_device_day: float,
    kinds: Sequence[str] | Mapping[str, Behaviour] = tuple(KINDS),
    start: Moment | None = None,
    end: Moment | None = None,
    max_per_device: int | None = None,
) -> tuple[pa.Table, pd.DataFrame]:
    """Flows of implants that live inside the apps (or, without app names, on the devices) of `tables`.

    Between `start` and `end` (times, UTC where they name no zone, or microseconds since the epoch; default
    the span of the flows) about `per_device_day` implants a device-day begin, at most `max_per_device` on one
    device. Each copies its carrier's source, attribution, time grid and gaps in knowledge: it never has a
    host, an address, a duration or a size where its carrier has none. Half of them contact nothing that was
    not contacted before, half use the carrier's own sizes, two in five start when the device does.
    Push-triggered kinds need pushes of the carrier, and are replaced by another kind where there are none.
    Without activity telemetry, "the user is away" means the eight hours of the day in which the device is
    quietest. `kinds` names some of `KINDS`, or maps names to behaviours of the caller's own; those last for
    the whole span and are never moved to the device's starts, so that what is asked for is what is there.

    Returns the implants' flows (canonical) and one row an implant: implant_id, device_id, app_id (None =
    unknown), dest, dests, kind, start_us, end_us, difficulty, period_seconds, jitter_ratio, missed_ratio,
    coupled, new_destination, carrier_sizes, flows. Equal rows in any order and an equal seed give equal
    output.

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
    fleet = Carriers(tables, _micros(start), _micros(end))
    days = (fleet.last - fleet.first) / 86_400e6
    expected = per_device_day * float(days.sum())
    count = int(expected) + int(rng.random() < expected % 1)
    drawn = rng.choice(len(days), count, p=days / days.sum()) if expected > 0 else np.empty(0, np.int64)
    made: list[_Implant] = []
    carried = np.zeros(len(days), np.int64)
    others = [kind for kind in kinds if kind != "push_burst"]
    for device in drawn:
        if max_per_device is not None and carried[device] >= max_per_device:
            continue
        implant = _one(rng, fleet, int(device), str(rng.choice(list(kinds))), others, behaviours)
        if implant is not None:
            carried[device] += 1
            made.append(implant)
    if not made:
        return FLOWS.empty(), pd.DataFrame(columns=_COLUMNS.split())
    specs = pd.DataFrame([{"implant_id": i} | implant.spec for i, implant in enumerate(made)])
    return _table(fleet, made), specs


def _one(
    rng: np.random.Generator,
    fleet: Carriers,
    device: int,
    kind: str,
    others: list[str],
    behaviours: Mapping[str, Behaviour],
) -> _Implant | None:
    asked = behaviours is not KINDS
    carrier = int(rng.choice(fleet.carriers_for(device, pushed=kind == "push_burst")))
    own = slice(int(fleet.carrier_start[carrier]), int(fleet.carrier_stop[carrier]))
    row = int(rng.integers(own.start, own.stop))
    first, last = int(fleet.first[device]), int(fleet.last[device])
    span = (last - first) * 1e-6
    seconds = (
        span if rng.random() < 0.4 else float(np.exp(rng.uniform(np.log(min(1200, span)), np.log(span + 1))))
    )
    seconds = span if asked else min(seconds, span)
    begin = first + int(rng.uniform(0, span - seconds) * 1e6)
    scene = _scene(fleet, device, row, begin, seconds)
    if kind == "push_burst" and len(scene.pushes) < MIN_PUSHES:
        if not others:
            return None
        kind = str(rng.choice(others))
    pattern = behaviours[kind](rng, scene)
    if not len(pattern.starts):
        return None
    follows = bool(rng.random() < _COUPLED_SHARE) and not asked and kind not in ("push_burst", "userless")
    if follows:
        pattern = replace(pattern, starts=coupled(rng, pattern.starts, scene))
    new = bool(rng.random() < _NEW_SHARE)
    count = int(rng.integers(3, 9)) if kind == "rotating_hosts" else 1
    targets = [
        new_destination(rng, fleet, own) if new else old_destination(rng, fleet, device, own)
        for _ in range(count)
    ]
    copied = bool(rng.random() < _CARRIER_SIZES_SHARE)
    n = len(pattern.starts)
    grid = max(round(float(fleet.numbers["time_resolution_seconds"][row]) * 1e6), 1)
    start = (begin + np.rint(pattern.starts * 1e6).astype(np.int64)) // grid * grid
    # The grid must not move a start before the span; nothing is seen after its end.
    start = np.where(start < first, start + grid, start)
    durations = np.clip(pattern.durations, 0.0, np.maximum(fleet.end - start, 0) * 1e-6)
    durations[rng.random(n) >= fleet.known("duration_seconds", own)] = np.nan
    sent, received = _sizes(rng, fleet, own, n, copied)
    factor = np.where(pattern.failed, 0.0, pattern.size_factor)
    which = rng.integers(0, count, n)
    contacted = [targets[i] for i in np.unique(which)]
    dests = sorted({t.host or t.ip or "unknown" for t in contacted})
    spec = {
        "device_id": fleet.text("device_id", row),
        "app_id": fleet.text("app_id", row),
        "dest": dests[0],
        "dests": dests,
        "kind": kind,
        "start_us": int(start.min()),
        "end_us": int((start + np.nan_to_num(durations) * 1e6).max()),
        "difficulty": _difficulty(pattern, follows, new),
        "period_seconds": pattern.period,
        "jitter_ratio": pattern.jitter,
        "missed_ratio": pattern.missed,
        "coupled": follows,
        "new_destination": new,
        "carrier_sizes": copied,
        "flows": n,
    }
    failed = "failed" if rng.random() < 0.9 else "unknown"
    outcome = np.where(pattern.failed, failed, "established").astype(object)
    return _Implant(
        spec,
        row,
        start,
        durations,
        outcome,
        np.rint(sent * factor),
        np.rint(received * factor),
        targets,
        which,
    )


def _scene(fleet: Carriers, device: int, row: int, begin: int, seconds: float) -> Scene:
    name, app = fleet.text("device_id", row), fleet.text("app_id", row)
    starts = fleet.device_starts[fleet.bounds[device] : fleet.bounds[device + 1]]

    def inside(times: Ints) -> Vector:
        a, b = np.searchsorted(times, [begin, begin + int(seconds * 1e6)])
        return np.asarray((times[a:b] - begin) * 1e-6, np.float64)

    first, last = fleet.presence[name] if name in fleet.presence else busy_hours(starts)
    return Scene(
        seconds=seconds,
        clock=begin / 1e6 % 86400,
        device_starts=inside(starts),
        pushes=inside(fleet.pushes.get((name, app), np.empty(0, np.int64))),
        busy=(np.asarray((first - begin) * 1e-6), np.asarray((last - begin) * 1e-6)),
    )


def _sizes(
    rng: np.random.Generator, fleet: Carriers, own: slice, n: int, copied: bool
) -> tuple[Vector, Vector]:
    sent, received = fleet.numbers["bytes_out"][own], fleet.numbers["bytes_in"][own]
    # One of the carrier's exchanges again and again, or a mixture of them.
    same = rng.random() < 0.5
    pick = np.full(n, rng.integers(len(sent))) if same else rng.integers(0, len(sent), n)
    spread = rng.choice([0.0, 0.02, 0.3])
    noise = np.exp(rng.normal(0, 1, (2, n)) * spread)
    if copied:
        return sent[pick] * noise[0], received[pick] * noise[1]
    typical = np.exp(rng.normal(np.log([900.0, 700.0]), [1.2, 1.4]))
    unknown = np.isnan(sent[pick]), np.isnan(received[pick])
    return (
        np.where(unknown[0], np.nan, typical[0] * noise[0]),
        np.where(unknown[1], np.nan, typical[1] * noise[1]),
    )


def _table(fleet: Carriers, made: list[_Implant]) -> pa.Table:
    counts = [len(implant.start) for implant in made]
    whose = np.repeat([implant.row for implant in made], counts)
    targets = [target for implant in made for target in implant.targets]
    offsets = np.cumsum([0] + [len(implant.targets) for implant in made[:-1]])
    which = pa.array(np.concatenate([i.which + o for i, o in zip(made, offsets, strict=True)]))

    def contacted(name: str) -> pa.Array:
        return pa.array([getattr(t, name) for t in targets], pa.string()).dictionary_encode().take(which)

    def joined(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array(np.concatenate([getattr(i, name) for i in made]), from_pandas=True).cast(kind)

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


def _micros(moment: Moment | None) -> int | None:
    if moment is None or isinstance(moment, int):
        return moment
    if isinstance(moment, np.integer):
        return int(moment)
    time = pd.Timestamp(moment)
    time = time.tz_localize("UTC") if time.tzinfo is None else time
    return int(time.value // 1000)


def _difficulty(pattern: Pattern, follows: bool, new: bool) -> str:
    points = int(follows) + int(not new) + int(not pattern.jitter <= 0.3) + int(len(pattern.starts) < 20)
    return ("easy", "medium", "medium", "hard", "hard")[points]
