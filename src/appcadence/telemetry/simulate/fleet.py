"""A simulated fleet of iPhones: telemetry as real sources would deliver it, and the truth about its implants.

Numbers measured on it describe this simulation and promise nothing for a real fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._cpus import usable_cpus
from appcadence._files import replacing
from appcadence._types import DAY_US, Progress, silent
from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import row_and_place
from appcadence.telemetry.directory import DirectoryWriter
from appcadence.telemetry.schema import DIRECTORY_TABLES, LABELS, conform
from appcadence.telemetry.simulate import presence
from appcadence.telemetry.simulate.apps import APPS
from appcadence.telemetry.simulate.behaviours import KINDS
from appcadence.telemetry.simulate.implants import inject
from appcadence.telemetry.simulate.phone_log import through_own_log
from appcadence.telemetry.simulate.presence import Flows, Pushes, courier_events
from appcadence.telemetry.simulate.traffic import World, app_traffic
from appcadence.telemetry.simulate.visibility import (
    PROFILE_SHARES,
    PROFILES,
    activity_table,
    flow_table,
    inventory_table,
    notification_table,
    ordered,
    task_table,
)

OWN_LOG_SHARE = 0.2
"""Share of the devices with visible apps that are seen only through their own log."""
APP_WIDE = "*"
BLOCK_DEVICES = 64
"""Devices that are made together from one child of the seed; changing it changes what a seed gives."""
_COURIER = next(i for i, a in enumerate(APPS) if a.app_id == "com.apple.apsd")


@dataclass(frozen=True)
class Simulation:
    """Telemetry and the truth about it."""

    tables: dict[str, pa.Table]
    """flows, activity, notifications and inventory, canonical."""
    labels: pa.Table
    """One row per implant, destination and day, canonical."""
    implants: pd.DataFrame
    """One row per implant, with its parameters."""


@dataclass(frozen=True)
class _Spec:
    devices: int
    days: int
    seed: int
    origin: int
    first_weekday: int
    implants_per_device_day: float
    own_log_share: float
    without_apps: tuple[int, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)

    @property
    def blocks(self) -> int:
        return -(-self.devices // BLOCK_DEVICES)


def simulate(
    devices: int,
    days: int,
    seed: int,
    *,
    start: str = "2026-03-02",
    implants_per_device_day: float = 0.15,
    own_log_share: float = OWN_LOG_SHARE,
    without_apps: Sequence[str] = (),
    kinds: Sequence[str] = tuple(KINDS),
) -> Simulation:
    """Simulate a fleet in memory; each table is sorted by time.

    The first half of the span holds no implants, the second about `implants_per_device_day` new ones per
    device-day. Each device has one visibility profile: 60 % a per-app filter with activity and pushes, 25 % a
    gateway with hosts but no apps, 15 % NetFlow with addresses only. Of the first, `own_log_share` (0 to 1)
    are seen through their own log instead, in slots of 8 s without destinations; this share changes nothing
    else. `start` is a UTC date. No device has the apps `without_apps` (bundle ids), and implants are of the
    given `kinds`, so that one fleet can hold apps and kinds that another has never seen.

    Raises:
        TelemetryError: an argument makes no sense.
    """
    spec = _spec(devices, days, seed, start, implants_per_device_day, own_log_share)
    unknown = sorted(set(without_apps) - {a.app_id for a in APPS})
    if unknown:
        raise TelemetryError(f"no simulated app {unknown[0]!r}")
    left_out = tuple(i for i, a in enumerate(APPS) if a.app_id in without_apps)
    spec = replace(spec, without_apps=left_out, kinds=tuple(kinds))
    made = [_block(spec, number) for number in range(spec.blocks)]
    tables = {
        name: pa.concat_tables([part.tables[name] for part in made]).unify_dictionaries()
        for name in made[0].tables
    }
    tables = {name: ordered(table, DIRECTORY_TABLES[name].when) for name, table in tables.items()}
    tables["inventory"] = inventory_table(spec.origin)
    labels = pa.concat_tables([part.labels for part in made]).unify_dictionaries()
    return Simulation(tables, labels, _together([part.implants for part in made]))


def write(
    out: Path,
    devices: int,
    days: int,
    seed: int,
    *,
    start: str = "2026-03-02",
    implants_per_device_day: float = 0.15,
    processes: int | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Simulate a fleet into a new telemetry directory, and the truth into `OUT.labels.parquet` beside it.

    Blocks of 64 devices are made and written one by one, so that memory does not grow with the fleet; rows
    are sorted by time within a block. The bytes depend only on the arguments, not on `processes` (default:
    one per core; more than one needs joblib, from the extra `train`, otherwise one is used). Returns what was
    written: paths, rows by table, devices, days, implants by kind.

    Raises:
        TelemetryError: an argument makes no sense, or `out` is not empty.
    """
    spec = _spec(devices, days, seed, start, implants_per_device_day)
    out = Path(out)
    truth = out.with_name(f"{out.name}.labels.parquet")
    labels: list[pa.Table] = []
    implants: list[pd.DataFrame] = []
    with DirectoryWriter(out) as writer:
        writer.write("inventory", inventory_table(spec.origin))
        for number, part in enumerate(_made(spec, processes or usable_cpus())):
            for name, table in part.tables.items():
                writer.write(name, table)
            labels.append(part.labels)
            implants.append(part.implants)
            progress("simulating", (number + 1) / spec.blocks)
        with replacing(truth) as staged:
            pq.write_table(pa.concat_tables(labels).unify_dictionaries(), staged, compression="zstd")
    every = _together(implants)
    return {
        "out": str(out),
        "labels": str(truth),
        "devices": devices,
        "days": days,
        "seed": seed,
        "rows": dict(sorted(writer.rows.items())),
        "label_rows": sum(len(table) for table in labels),
        "implants": {str(k): int(v) for k, v in every["kind"].value_counts().sort_index().items()},
    }


def _spec(
    devices: int,
    days: int,
    seed: int,
    start: str,
    implants_per_device_day: float,
    own_log_share: float = OWN_LOG_SHARE,
) -> _Spec:
    if devices < 1 or days < 1:
        raise TelemetryError(f"{devices} devices over {days} days: give at least one of each")
    if seed < 0 or not implants_per_device_day >= 0:
        raise TelemetryError("the seed and the number of implants a device-day must not be negative")
    if not 0 <= own_log_share <= 1:
        raise TelemetryError(
            f"the share of devices seen through their own log must be 0 to 1, got {own_log_share}"
        )
    try:
        first = pd.Timestamp(start)
        first = first.tz_localize("UTC") if first.tzinfo is None else first.tz_convert("UTC")
    except ValueError:
        raise TelemetryError(f"{start!r} is no date; write one like 2026-03-02") from None
    origin = first.value // 1000
    return _Spec(devices, days, seed, origin, first.weekday(), implants_per_device_day, own_log_share)


def _made(spec: _Spec, processes: int) -> Iterator[Simulation]:
    numbers = range(spec.blocks)
    if min(processes, spec.blocks) == 1 or find_spec("joblib") is None:
        yield from (_block(spec, number) for number in numbers)
        return
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=min(processes, spec.blocks), return_as="generator", pre_dispatch="n_jobs")
    yield from pool(delayed(_block)(spec, number) for number in numbers)


def _block(spec: _Spec, number: int) -> Simulation:
    """One block of devices; a pure function of the arguments."""
    seeds = np.random.SeedSequence(spec.seed, spawn_key=(number,))
    rng = np.random.Generator(np.random.SFC64(seeds))
    first = number * BLOCK_DEVICES
    count = min(BLOCK_DEVICES, spec.devices - first)
    names = [f"phone-{i:05d}" for i in range(first, first + count)]
    profile = rng.choice(len(PROFILE_SHARES), count, p=PROFILE_SHARES)
    who = presence.people(rng, count, spec.days, spec.first_weekday)
    who.installed[:, list(spec.without_apps)] = np.inf
    unlocked = presence.unlocks(rng, who)
    segments, segment_app = presence.foreground(rng, who, unlocked)
    charging, low_power = presence.charging(rng, who), presence.low_power(rng, who)
    world = World(who, segments, segment_app, low_power, *presence.wakes(rng, who, unlocked))
    made = [app_traffic(rng, world, index) for index in range(len(APPS))]
    flows = Flows.joined([flows for flows, _, _ in made])
    events = Pushes.joined([events for _, events, _ in made] + [courier_events(rng, flows, _COURIER)])
    scheduled = Flows.joined([flows for _, _, flows in made])
    blind = presence.gaps(rng, who)
    flows = flows.where(~blind.holds(flows.device, flows.time))
    events = events.where(~blind.holds(events.device, events.time) & (events.time < who.seconds))

    def seen(intervals: presence.Intervals) -> presence.Intervals:
        return intervals.where(~blind.holds(intervals.device, intervals.start))

    known = ~blind.holds(segments.device, segments.start)
    seen_work = ~blind.holds(scheduled.device, scheduled.time)
    # A separate generator, so that the other devices do not depend on the share.
    own_log = np.random.default_rng([spec.seed, number]).random(count) < spec.own_log_share
    own_log &= profile == PROFILES.index("content_filter")
    tables = {
        "flows": flow_table(rng, flows, profile, names, spec.origin),
        "activity": activity_table(
            [
                ("app_foreground", segments.where(known), segment_app[known]),
                ("device_unlocked", seen(unlocked), None),
                ("screen_on", seen(unlocked), None),
                ("charging", seen(charging), None),
                ("low_power", seen(low_power), None),
            ],
            profile,
            names,
            spec.origin,
        ),
        "tasks": task_table(scheduled.where(seen_work & own_log[scheduled.device]), names, spec.origin),
        "notifications": notification_table(rng, events, profile, names, spec.origin),
    }
    tasks = tables.pop("tasks")
    part = _with_implants(spec, tables, [int(x) for x in seeds.generate_state(len(PROFILES))])
    return _through_own_log(part, tasks, {name for name, own in zip(names, own_log, strict=True) if own})


def _through_own_log(part: Simulation, tasks: pa.Table, devices: set[str]) -> Simulation:
    """Replace some devices by what their own log shows, and label their apps instead of hosts."""
    tables = through_own_log(part.tables, devices)
    tables |= {name: ordered(tables[name], "start") for name in ("flows", "activity")} | {"tasks": tasks}
    mine = part.labels["device_id"].cast(pa.string()).to_pandas().isin(devices).to_numpy()
    labels = part.labels.filter(pa.array(mine)).to_pandas().assign(dest=APP_WIDE)
    key = [name for name in labels.columns if name not in ("start", "end")]
    days = labels.astype(dict.fromkeys(key, object)).assign(day=labels["start"].dt.floor("D"))
    days = days.groupby([*key, "day"], as_index=False, dropna=False).agg({"start": "min", "end": "max"})
    rows = pa.Table.from_pandas(days[labels.columns], preserve_index=False)
    kept = part.labels.filter(pa.array(~mine))
    together = pa.concat_tables([kept, conform(LABELS, rows)]).unify_dictionaries() if len(rows) else kept
    implants = part.implants.assign(
        dest=part.implants["dest"].where(~part.implants["device_id"].isin(devices), APP_WIDE)
    )
    return Simulation(tables, together, implants)


def _with_implants(spec: _Spec, tables: dict[str, pa.Table], seeds: list[int]) -> Simulation:
    """Implants in the second half of the visible flows, so that the truth names what a detector can see.

    Each source is handled separately: an implant borrows destinations of other devices, and must not show a
    host in a source that only sees addresses.
    """
    middle = spec.origin + spec.days * DAY_US // 2
    end = spec.origin + spec.days * DAY_US
    late = tables["flows"].filter(pa.array(tables["flows"]["start"].cast(pa.int64()).to_numpy() >= middle))
    source = late["source"].cast(pa.string())
    flows, implants = [], []
    for profile, seed in zip(PROFILES, seeds, strict=True):
        view = late.filter(pc.equal(source, profile))
        grafted, found = inject(
            tables | {"flows": view},
            seed,
            per_device_day=spec.implants_per_device_day if len(view) else 0.0,
            kinds=spec.kinds,
            start=middle,
            end=end,
        )
        flows.append(grafted)
        implants.append(found)
    grafted = pa.concat_tables(flows).unify_dictionaries()
    every = _together(implants)
    every["case_id"] = every["device_id"].astype(str) + "/" + every["implant_id"].astype(str)
    together = pa.concat_tables([tables["flows"], grafted]).unify_dictionaries()
    return Simulation(tables | {"flows": ordered(together, "start")}, _labels(grafted, every), every)


def _labels(grafted: pa.Table, implants: pd.DataFrame) -> pa.Table:
    """One row per implant, destination and UTC day in which one of its flows begins or continues."""
    if not len(implants):
        return LABELS.empty()
    host, address = (grafted[name].cast(pa.string()) for name in ("dest_host", "dest_ip"))
    start = grafted["start"].cast(pa.int64()).to_numpy()
    # A flow without a duration still needs an interval.
    end = start + np.maximum(np.nan_to_num(grafted["duration_seconds"].to_numpy()) * 1e6, 1).astype(np.int64)
    flow, later = row_and_place((end - 1) // DAY_US - start // DAY_US + 1)
    day = (start[flow] // DAY_US + later) * DAY_US
    rows = pd.DataFrame(
        {
            "implant": np.repeat(np.arange(len(implants)), implants["flows"])[flow],
            "dest": pc.coalesce(host, address).to_pandas().to_numpy(dtype=object)[flow],
            "day": day,
            "start": np.maximum(start[flow], day),
            "end": np.minimum(end[flow], day + DAY_US),
        }
    )
    rows = rows.groupby(["implant", "dest", "day"], as_index=False).agg({"start": "min", "end": "max"})
    whose = implants.iloc[rows["implant"].to_numpy()]
    columns: dict[str, Any] = {n: whose[n] for n in ("device_id", "app_id", "kind", "case_id")}
    columns |= {name: rows[name] for name in ("dest", "start", "end")}
    return LABELS.of(columns | {"label": ["malicious"] * len(rows)})


def _together(implants: list[pd.DataFrame]) -> pd.DataFrame:
    found = [part for part in implants if len(part)]
    if not found:
        return implants[0]
    every = pd.concat(found, ignore_index=True)
    every["implant_id"] = np.arange(len(every))
    return every
