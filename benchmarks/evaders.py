"""Implants that hide: what each scenario of `evasion.py` does, as flows in benign telemetry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US
from appcadence.telemetry.simulate.behaviours import Pattern, Rng, Scene, draw_period, inside, rhythm
from appcadence.telemetry.simulate.carriers import Carriers, Destination, new_destination
from appcadence.telemetry.simulate.implants import Graft, extent, placed, scene_of, table_of
from appcadence.training.injection import Tables

MIN_FRONT_SECONDS = 3600.0
"""An app that is in front for less in the week has no use to hide in."""
SESSION_SECONDS = 5 * 3600.0
_DAY = 86_400.0
Unit = tuple[str, str, pd.Timestamp]
"""Device, app (without app names: destination) and UTC day."""


@dataclass(frozen=True)
class Scenario:
    """What an implant does to stay hidden, and what share of its app-days was found before."""

    name: str
    starts: Callable[[Rng, Scene], Pattern]
    earlier: str
    known_host: bool = True
    needs_use: bool = False
    """Whether its app must be seen in front of the user."""


def per_unlock(rng: Rng, scene: Scene) -> Pattern:
    """One beat some seconds after each unlock."""
    unlocks = scene.busy[0]
    unlocks = unlocks[(unlocks >= 0) & (unlocks < scene.seconds - 60)]
    return Pattern(np.sort(unlocks + rng.uniform(1, 20, len(unlocks))))


def in_use(rng: Rng, scene: Scene) -> Pattern:
    """A beat every one to five minutes while the app is in front."""
    starts = rhythm(rng, scene.seconds, draw_period(rng, 60.0, 300.0), 0.2, 0.0)
    return Pattern(starts[inside(starts, scene.front)])


def daily_session(rng: Rng, scene: Scene) -> Pattern:
    """Five hours on end, once a day, begun at about the same time."""
    days = np.arange(np.ceil(scene.seconds / _DAY))
    hour = rng.uniform(0.5, 18.0) + rng.normal(0, 0.2, len(days))
    starts = days * _DAY - scene.clock + np.clip(hour, 0.0, 18.5) * 3600
    starts = starts[(starts >= 0) & (starts + SESSION_SECONDS < scene.seconds)]
    return Pattern(starts, np.full(len(starts), SESSION_SECONDS))


def hourly(rng: Rng, scene: Scene) -> Pattern:
    return Pattern(rhythm(rng, scene.seconds, 3600.0, 0.0, 0.0))


def rare(rng: Rng, scene: Scene) -> Pattern:
    """A period of four hours to a day, jitter up to a fifth."""
    return Pattern(rhythm(rng, scene.seconds, draw_period(rng, 4 * 3600.0, _DAY), rng.uniform(0, 0.2), 0.0))


def jittered(rng: Rng, scene: Scene) -> Pattern:
    """A period of five minutes to an hour, jitter up to all of it."""
    return Pattern(rhythm(rng, scene.seconds, draw_period(rng, 300.0, 3600.0), rng.uniform(0, 1), 0.0))


SCENARIOS = (
    Scenario("one beat per unlock, known host", per_unlock, ".03", needs_use=True),
    Scenario("only in use, known host", in_use, ".15", needs_use=True),
    Scenario("five-hour session, known host", daily_session, ".32"),
    Scenario("hourly, known host", hourly, ".36"),
    Scenario("period 4 to 24 h, new host", rare, ".64-.75", known_host=False),
    Scenario("jitter 0 to 100%, new host", jittered, "1.00", known_host=False),
)


def implants(
    before: Tables, after: Tables, scenario: Scenario, count: int, seed: int
) -> tuple[pa.Table, set[Unit]]:
    """Flows of one implant on each of `count` devices, and the units in which they start.

    The app is drawn from those of the device that can show the scenario, its host from that app's flows; no
    implant lives on a host that the app did not contact before.
    """
    rng = np.random.default_rng(seed)
    fleet, known = Carriers(after, None, None), channels(before["flows"])
    made: list[Graft] = []
    for device in rng.permutation(len(fleet.first)):
        for carrier in rng.permutation(fleet.carriers_for(int(device), pushed=False)):
            own = fleet.own(carrier)
            row = int(rng.integers(own.start, own.stop))
            host = fleet.text("dest_host", row) or fleet.text("dest_ip", row)
            if (fleet.text("device_id", row), fleet.text("app_id", row), host) not in known:
                continue
            implant = graft(rng, fleet, int(device), row, scenario)
            if implant is not None:
                made.append(implant)
                break
        if len(made) == count:
            break
    truth = {
        (g.spec["device_id"], g.spec["app_id"] or g.spec["dest"], pd.Timestamp(day * DAY_US, unit="us"))
        for g in made
        for day in np.unique(g.start // DAY_US)
    }
    return table_of(fleet, made), truth


def channels(flows: pa.Table) -> set[tuple[str | None, ...]]:
    """Device, app and destination of flows."""
    device, app, host, address = (
        flows[name].cast(pa.string()) for name in ("device_id", "app_id", "dest_host", "dest_ip")
    )
    return set(zip(*(c.to_pylist() for c in (device, app, pc.coalesce(host, address))), strict=True))


def graft(rng: Rng, fleet: Carriers, device: int, row: int, scenario: Scenario) -> Graft | None:
    """An implant in the app of a row, in exchanges of the row's host; None where the app cannot show it."""
    begin = int(fleet.first[device])
    scene = scene_of(fleet, device, row, begin, (int(fleet.last[device]) - begin) * 1e-6)
    if scenario.needs_use and _front_seconds(scene) < MIN_FRONT_SECONDS:
        return None
    pattern = scenario.starts(rng, scene)
    n = len(pattern.starts)
    if not n:
        return None
    names = ("dest_host", "dest_host_source", "dest_ip", "transport", "service")
    host, how, address, transport, service = (fleet.text(name, row) for name in names)
    target = Destination(host, how, address, fleet.number("dest_port", row), transport, service)
    if not scenario.known_host:
        target = new_destination(rng, fleet, fleet.own(fleet.of(row)[1]))
    like = rng.choice(fleet.channel(row), n)
    lasting = fleet.numbers["duration_seconds"][like] if pattern.durations is None else pattern.durations
    start, lasting = placed(fleet, device, row, begin, pattern.starts, lasting)
    which = np.zeros(n, np.int64)
    spec = extent(fleet, row, start, lasting, [target], which)
    outcome = np.array([fleet.text("outcome", int(r)) for r in like], object)
    sent, received = (fleet.numbers[name][like] for name in ("bytes_out", "bytes_in"))
    return Graft(
        spec, "", begin, scene.seconds, row, start, lasting, outcome, sent, received, [target], which
    )


def _front_seconds(scene: Scene) -> float:
    first, last = (np.clip(edge, 0.0, scene.seconds) for edge in scene.front)
    return float((last - first).sum())
