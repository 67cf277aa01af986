"""When people use their phones: days, nights, weekends, unlocks, foreground apps, gaps in the telemetry.

All times are seconds (float) since the beginning of the simulated span, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from appcadence._types import Ints, Mask, Vector
from appcadence.telemetry.simulate.apps import APPS

Rng = np.random.Generator

DAY = 86_400.0
_OFFSETS = np.array([-8, -5, 0, 1, 1, 1, 2, 8])
_PICKUPS_PER_DAY = 42.0
_GAPS_PER_DAY = 0.12
_LATE_INSTALL_SHARE = 0.08


@dataclass(frozen=True)
class Intervals:
    """Intervals of devices, ordered by device and start, not overlapping inside a device."""

    device: Ints
    start: Vector
    end: Vector

    def holds(self, device: Ints, time: Vector) -> Mask:
        """Which of the (device, time) pairs lie inside one of the intervals."""
        if not len(self.start):
            return np.zeros(len(time), np.bool_)
        base = _base(self.start, time)
        at = np.searchsorted(self.device * base + self.start, device * base + time, "right") - 1
        safe = np.maximum(at, 0)
        return np.asarray((at >= 0) & (self.device[safe] == device) & (time < self.end[safe]))

    def where(self, mask: Mask) -> Intervals:
        return Intervals(self.device[mask], self.start[mask], self.end[mask])


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
    """How much more than others the owner of (device) uses (app)."""

    @property
    def seconds(self) -> float:
        return self.days * DAY

    def has(self, device: Ints, app: Ints | int, time: Vector) -> Mask:
        """Is the app installed on the device at that time, and the time inside the span?"""
        return np.asarray((self.installed[device, app] <= time) & (time >= 0) & (time < self.seconds))

    def awake(self, device: Ints, time: Vector) -> Mask:
        """Is it daytime for the owner?"""
        hour = self.hour(device, time)
        late = hour + 24 < self.bed[device]
        return np.asarray(((hour >= self.wake[device]) & (hour < self.bed[device])) | late)

    def hour(self, device: Ints, time: Vector) -> Vector:
        """Local hour of the day."""
        return np.asarray((time + self.offset[device]) % DAY / 3600.0)

    def weekend(self, device: Ints, time: Vector) -> Mask:
        """Is it Saturday or Sunday for the owner?"""
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
    """When the devices are unlocked: mostly short, by day, later at weekends, now and then at night."""
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
    """Order intervals, cut each where the next begins, and drop what is left with under three seconds."""
    order = np.lexsort((start, device))
    device, start, end = device[order], start[order], np.minimum(end[order], seconds)
    following = np.append(np.where(device[1:] == device[:-1], start[1:], np.inf), np.inf)
    end = np.minimum(end, following - 2.0)
    made = Intervals(device, start, end)
    return made.where((start >= 0) & (end - start >= 3.0))


def foreground(rng: Rng, who: People, unlocked: Intervals) -> tuple[Intervals, Ints]:
    """Apps in the foreground: each unlock is cut into stretches, each given to one of the owner's apps."""
    length = unlocked.end - unlocked.start
    pieces = 1 + rng.poisson(np.minimum(length / 150.0, 6.0))
    row = np.repeat(np.arange(len(length)), pieces)
    index = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
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
    """Nights on the charger, most of them."""
    device, day = _device_days(who)
    start = day * DAY + (who.bed[device] - 24 + rng.normal(0.2, 0.3, len(day))) * 3600 - who.offset[device]
    end = day * DAY + (who.wake[device] + rng.normal(0, 0.3, len(day))) * 3600 - who.offset[device]
    keep = rng.random(len(day)) < 0.85
    return tidy(device[keep], start[keep], end[keep], who.seconds)


def low_power(rng: Rng, who: People) -> Intervals:
    """Low Power Mode on some evenings; nothing is refreshed in the background meanwhile."""
    device, day = _device_days(who)
    start = day * DAY + rng.uniform(16, 21, len(day)) * 3600 - who.offset[device]
    keep = rng.random(len(day)) < 0.07
    length = rng.uniform(0.5, 3.5, len(day)) * 3600
    return tidy(device[keep], start[keep], (start + length)[keep], who.seconds)


def gaps(rng: Rng, who: People) -> Intervals:
    """Stretches of which the telemetry knows nothing: switched off, no network, agent killed."""
    count = rng.poisson(_GAPS_PER_DAY * who.days, who.devices)
    device = np.repeat(np.arange(who.devices), count)
    start = rng.uniform(0, who.seconds, len(device))
    length = np.clip(np.exp(rng.normal(np.log(5400.0), 1.0, len(device))), 300.0, 2 * DAY)
    return tidy(device, start, start + length, who.seconds)


def wakes(rng: Rng, who: People, unlocked: Intervals) -> tuple[Ints, Vector]:
    """Moments at which a device is awake anyway (unlocks, system work), ordered by device and time."""
    count = int(who.seconds / 1500.0) + 1
    own = np.repeat(np.arange(who.devices), count)
    device = np.concatenate([unlocked.device, own])
    time = np.concatenate([unlocked.start, rng.uniform(0, who.seconds, len(own))])
    order = np.lexsort((time, device))
    return device[order], time[order]


def _device_days(who: People) -> tuple[Ints, Vector]:
    device = np.repeat(np.arange(who.devices), who.days + 2)
    return device, np.tile(np.arange(-1.0, who.days + 1), who.devices)


def _base(*times: Vector) -> float:
    """A stride above any time, so that device * stride + time orders by device, then time."""
    return max((float(np.max(t)) for t in times if len(t)), default=0.0) + 2 * DAY
