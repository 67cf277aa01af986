"""Flows and push events as columns; pushes of apps and of the push courier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from appcadence._types import Ints, Mask, Vector
from appcadence.telemetry.simulate.apps import MAX_SILENT_PUSHES_PER_HOUR, Push
from appcadence.telemetry.simulate.presence import DAY, Intervals, People, Rng


@dataclass(frozen=True)
class Rows:
    """Columns of equal length."""

    def where(self, mask: Mask) -> Self:
        return type(self)(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


@dataclass(frozen=True)
class Flows(Rows):
    """True flows, before anybody observes them."""

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


PUSH_KINDS = (
    "push_received",
    "notification_shown",
    "notification_opened",
    "apns_keepalive",
    "apns_connected",
)


def no_pushes() -> Pushes:
    """No events at all."""
    none = np.empty(0, np.int64)
    return Pushes(none, np.empty(0), none, none, np.empty(0, np.bool_))


def courier_events(rng: Rng, flows: Flows, index: int) -> Pushes:
    """Connections of the push courier, and its keep-alives every ten to thirty minutes, adaptively."""
    mine = flows.where(flows.app == index)
    every = rng.uniform(600.0, 1750.0, len(mine.time))
    count = (mine.seconds / every).astype(np.int64)
    row, beat = fan(count)
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
    """Alerts by day, silent pushes at any hour and never too many an hour, taps that opened the app."""
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
    """Those that come at least `least` seconds after the one before on the same device."""
    order = np.lexsort((time, device))
    device, time = device[order], time[order]
    keep = np.ones(len(time), np.bool_)
    keep[1:] = (device[1:] != device[:-1]) | (time[1:] - time[:-1] >= least)
    return device[keep], time[keep]


def fan(count: Ints) -> tuple[Ints, Ints]:
    """Row and position within the row, for `count[i]` items of each row i."""
    row = np.repeat(np.arange(len(count)), count)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
