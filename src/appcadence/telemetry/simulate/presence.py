"""When people use their phones, and the flows and push events that follow, as columns.

Days, nights, weekends, unlocks, foreground apps, and gaps in the telemetry. All times are seconds (float)
since the beginning of the simulated span, in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from appcadence._types import Ints, Mask, Vector
from appcadence.telemetry.arrays import AsOf, row_and_place
from appcadence.telemetry.schema import NOTIFICATIONS
from appcadence.telemetry.simulate.apps import APPS, MAX_SILENT_PUSHES_PER_HOUR, Push

Rng = np.random.Generator

DAY = 86_400.0
_OFFSETS = np.array([-8, -5, 0, 1, 1, 1, 2, 8])
_PICKUPS_PER_DAY = 42.0
_GAPS_PER_DAY = 0.12
_LATE_INSTALL_SHARE = 0.08


@dataclass(frozen=True)
class Rows:
    """Columns of equal length."""

    def where(self, mask: Mask) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@dataclass(frozen=True)
class Intervals(Rows):
    """Intervals of devices, sorted by device and start, without overlaps on a device."""

    device: Ints
    start: Vector
    end: Vector

    def holds(self, device: Ints, time: Vector) -> Mask:
        """(n,) which (device, time) pairs lie inside an interval."""
        last = AsOf(self.device, self.start).find(device, time)
        return np.asarray((last >= 0) & (time < np.append(self.end, 0.0)[last]))


@dataclass(frozen=True)
class People:
    """The devices of one block and their owners' habits."""

    devices: int
    days: int
    first_weekday: int
    offset: Vector
    """Local time minus UTC, seconds."""
    wake: Vector
    """Local hour."""
    bed: Vector
    """Local hour; above 24 = after midnight."""
    busy: Vector
    """Pick-ups a day."""
    installed: Vector
    """Second from which (device, app) is installed; inf = never."""
    affinity: Vector
    """How much more than others the owner of a (device) uses an (app)."""

    @property
    def seconds(self) -> float:
        return self.days * DAY

    def has(self, device: Ints, app: Ints | int, time: Vector) -> Mask:
        """Whether the app is installed on the device at that time, and the time lies inside the span."""
        return np.asarray((self.installed[device, app] <= time) & (time >= 0) & (time < self.seconds))

    def awake(self, device: Ints, time: Vector) -> Mask:
        """Whether the owner is awake."""
        hour = self.hour(device, time)
        late = hour + 24 < self.bed[device]
        return np.asarray(((hour >= self.wake[device]) & (hour < self.bed[device])) | late)

    def hour(self, device: Ints, time: Vector) -> Vector:
        """Local hour of the day."""
        return np.asarray((time + self.offset[device]) % DAY / 3600.0)

    def weekend(self, device: Ints, time: Vector) -> Mask:
        """Whether it is Saturday or Sunday for the owner."""
        day = np.floor((time + self.offset[device]) / DAY)
        return np.asarray((day + self.first_weekday) % 7 >= 5)


def people(rng: Rng, devices: int, days: int, first_weekday: int) -> People:
    """Draw the owners of `devices` devices; `first_weekday` is 0 for a Monday."""
    shape = (devices, len(APPS))
    share = np.array([a.installed_share for a in APPS])
    late = rng.random(shape) < _LATE_INSTALL_SHARE * (share < 1)
    installed = np.where(late, rng.uniform(0, days * DAY, shape), -np.inf)
    installed[rng.random(shape) >= share] = np.inf
    return People(
        devices=devices,
        days=days,
        first_weekday=first_weekday,
        offset=rng.choice(_OFFSETS, devices) * 3600.0,
        wake=rng.normal(6.8, 0.8, devices),
        bed=rng.normal(23.1, 0.9, devices),
        busy=_PICKUPS_PER_DAY * np.exp(rng.normal(0, 0.35, devices)),
        installed=installed,
        affinity=np.exp(rng.normal(-0.25, 0.7, shape)),
    )


def unlocks(rng: Rng, who: People) -> Intervals:
    """When devices are unlocked: mostly briefly and by day, later at weekends, sometimes at night."""
    device = np.repeat(np.arange(who.devices), who.days + 2)
    day = np.tile(np.arange(-1, who.days + 1), who.devices)
    weekend = (day + who.first_weekday) % 7 >= 5
    rows = np.repeat(np.arange(len(device)), rng.poisson(who.busy[device] * np.where(weekend, 0.85, 1.0)))
    device, day, weekend = device[rows], day[rows], weekend[rows]
    wake = who.wake[device] + 1.3 * weekend
    hour = wake + (who.bed[device] + 0.5 * weekend - wake) * rng.beta(1.15, 1.05, len(rows))
    hour = np.where(rng.random(len(rows)) < 0.025, rng.uniform(0, 24, len(rows)), hour)
    start = day * DAY + hour * 3600.0 - who.offset[device]
    length = np.clip(np.exp(rng.normal(np.log(80.0), 1.15, len(rows))), 4.0, 5400.0)
    return tidy(device, start, start + length, who.seconds)


def tidy(device: Ints, start: Vector, end: Vector, seconds: float) -> Intervals:
    """Sort intervals, cut each where the next begins, and drop those shorter than three seconds."""
    order = np.lexsort((start, device))
    device, start, end = device[order], start[order], np.minimum(end[order], seconds)
    following = np.append(np.where(device[1:] == device[:-1], start[1:], np.inf), np.inf)
    end = np.minimum(end, following - 2.0)
    made = Intervals(device, start, end)
    return made.where((start >= 0) & (end - start >= 3.0))


def foreground(rng: Rng, who: People, unlocked: Intervals) -> tuple[Intervals, Ints]:
    """Foreground apps: each unlock is cut into stretches, each of which goes to one of the owner's apps."""
    length = unlocked.end - unlocked.start
    pieces = 1 + rng.poisson(np.minimum(length / 150.0, 6.0))
    row, index = row_and_place(pieces)
    share = np.where(index == 0, 0.0, (index + rng.uniform(0, 0.7, len(row))) / pieces[row])
    start = unlocked.start[row] + share * length[row]
    end = np.append(start[1:], 0.0)
    last = index == pieces[row] - 1
    end[last] = unlocked.end[row[last]]
    device = unlocked.device[row]
    weight = np.array([a.use.per_day if a.use else 0.0 for a in APPS]) * who.affinity
    weight = np.where(np.isinf(who.installed) & (who.installed > 0), 0.0, weight)
    steps = np.cumsum(weight, axis=1)
    steps /= steps[:, -1:]
    flat = (steps + np.arange(who.devices)[:, None]).ravel()
    app = np.searchsorted(flat, device + rng.random(len(row)) * (1 - 1e-9), "right") - device * len(APPS)
    app = np.minimum(app, len(APPS) - 1)
    keep = (end - start >= 2.0) & who.has(device, app, start)
    return Intervals(device, start, end).where(keep), app[keep]


def charging(rng: Rng, who: People) -> Intervals:
    """Most nights, the device is on the charger."""
    device, day = _device_days(who)
    start = day * DAY + (who.bed[device] - 24 + rng.normal(0.2, 0.3, len(day))) * 3600 - who.offset[device]
    end = day * DAY + (who.wake[device] + rng.normal(0, 0.3, len(day))) * 3600 - who.offset[device]
    keep = rng.random(len(day)) < 0.85
    return tidy(device[keep], start[keep], end[keep], who.seconds)


def low_power(rng: Rng, who: People) -> Intervals:
    """Low Power Mode on some evenings, during which nothing is refreshed in the background."""
    device, day = _device_days(who)
    start = day * DAY + rng.uniform(16, 21, len(day)) * 3600 - who.offset[device]
    keep = rng.random(len(day)) < 0.07
    length = rng.uniform(0.5, 3.5, len(day)) * 3600
    return tidy(device[keep], start[keep], (start + length)[keep], who.seconds)


def gaps(rng: Rng, who: People) -> Intervals:
    """Stretches without telemetry: device switched off, no network, agent killed."""
    count = rng.poisson(_GAPS_PER_DAY * who.days, who.devices)
    device = np.repeat(np.arange(who.devices), count)
    start = rng.uniform(0, who.seconds, len(device))
    length = np.clip(np.exp(rng.normal(np.log(5400.0), 1.0, len(device))), 300.0, 2 * DAY)
    return tidy(device, start, start + length, who.seconds)


def wakes(rng: Rng, who: People, unlocked: Intervals) -> tuple[Ints, Vector]:
    """Moments at which a device is awake anyway (unlocks, system work), sorted by device and time."""
    count = int(who.seconds / 1500.0) + 1
    own = np.repeat(np.arange(who.devices), count)
    device = np.concatenate([unlocked.device, own])
    time = np.concatenate([unlocked.start, rng.uniform(0, who.seconds, len(own))])
    order = np.lexsort((time, device))
    return device[order], time[order]


def _device_days(who: People) -> tuple[Ints, Vector]:
    device = np.repeat(np.arange(who.devices), who.days + 2)
    return device, np.tile(np.arange(-1.0, who.days + 1), who.devices)


@dataclass(frozen=True)
class Flows(Rows):
    """True flows, before any source observes them."""

    device: Ints
    time: Vector
    app: Ints
    host: Ints
    seconds: Vector
    out: Vector
    into: Vector
    failed: Mask
    quic: Mask


@dataclass(frozen=True)
class Pushes(Rows):
    """Events of notifications."""

    device: Ints
    time: Vector
    app: Ints
    kind: Ints
    """Index into `PUSH_KINDS`."""
    silent: Mask


PUSH_KINDS = NOTIFICATIONS.column("kind").values[:5]


_NONE = np.empty(0, np.int64)
NO_PUSHES = Pushes(_NONE, np.empty(0), _NONE, _NONE, np.empty(0, np.bool_))


def courier_events(rng: Rng, flows: Flows, index: int) -> Pushes:
    """Connections of the push courier, with adaptive keep-alives every ten to thirty minutes."""
    mine = flows.where(flows.app == index)
    every = rng.uniform(600.0, 1750.0, len(mine.time))
    count = (mine.seconds / every).astype(np.int64)
    row, beat = row_and_place(count)
    time = mine.time[row] + (beat + 1) * every[row] + rng.uniform(-20, 20, len(row))
    device = np.concatenate([mine.device, mine.device[row]])
    kind = np.repeat(
        [PUSH_KINDS.index("apns_connected"), PUSH_KINDS.index("apns_keepalive")], [len(mine.time), len(row)]
    )
    return Pushes(
        device,
        np.concatenate([mine.time, time]),
        np.full(len(device), index),
        kind,
        np.zeros(len(device), np.bool_),
    )


def app_pushes(rng: Rng, who: People, index: int, push: Push, mine: Intervals) -> Pushes:
    """Alerts by day, silent pushes at any hour up to Apple's limit, and taps that open the app."""
    liking = who.affinity[:, index]
    alerts = np.repeat(np.arange(who.devices), rng.poisson(push.alerts_per_day * who.days * liking))
    hour = np.where(
        rng.random(len(alerts)) < 0.85,
        6.5 + 16.5 * rng.beta(1.6, 1.5, len(alerts)),
        24 * rng.random(len(alerts)),
    )
    day = rng.integers(-1, who.days + 1, len(alerts))
    time = day * DAY + hour * 3600.0 - who.offset[alerts]
    silent = np.repeat(np.arange(who.devices), rng.poisson(push.silent_per_day * who.days, who.devices))
    silent, silent_time = apart(
        silent, rng.uniform(0, who.seconds, len(silent)), 3600.0 / MAX_SILENT_PUSHES_PER_HOUR
    )
    tapped = mine.where(rng.random(len(mine.start)) < push.opened_share)
    before = tapped.start - rng.uniform(3.0, 120.0, len(tapped.start))
    alert_device = np.concatenate([alerts, tapped.device])
    alert_time = np.concatenate([time, before])
    device = np.concatenate([alert_device, silent, alert_device, tapped.device])
    kind = np.repeat([0, 0, 1, 2], [len(alert_time), len(silent), len(alert_time), len(tapped.start)])
    quiet = np.zeros(len(device), np.bool_)
    quiet[len(alert_time) : len(alert_time) + len(silent)] = True
    shown = alert_time + rng.uniform(0.05, 0.6, len(alert_time))
    times = np.concatenate([alert_time, silent_time, shown, tapped.start])
    return Pushes(device, times, np.full(len(device), index), kind, quiet)


def apart(device: Ints, time: Vector, least: float) -> tuple[Ints, Vector]:
    """The times that follow the one before on the same device by at least `least` seconds."""
    order = np.lexsort((time, device))
    device, time = device[order], time[order]
    keep = np.ones(len(time), np.bool_)
    keep[1:] = (device[1:] != device[:-1]) | (time[1:] - time[:-1] >= least)
    return device[keep], time[keep]
