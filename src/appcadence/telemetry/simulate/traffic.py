"""Turns presence and an app's recipe into flows and pushes, for all devices of a block at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from appcadence._types import Ints, Vector
from appcadence.telemetry.arrays import row_and_place
from appcadence.telemetry.simulate.apps import (
    APPS,
    MIN_REFRESH_SECONDS,
    SDK_HOSTS,
    SITES,
    Push,
    Rhythm,
    Sizes,
    Stream,
    Use,
)
from appcadence.telemetry.simulate.presence import (
    DAY,
    NO_PUSHES,
    Flows,
    Intervals,
    People,
    Pushes,
    Rng,
    apart,
    app_pushes,
)

HOSTS: tuple[str, ...] = tuple(
    dict.fromkeys(
        [h for a in APPS for h in (*a.hosts, *((a.moved_to,) if a.moved_to else ()))]
        + list(SDK_HOSTS)
        + list(SITES)
    )
)
"""All hosts; a flow's host is an index into this."""
_CODE = {host: code for code, host in enumerate(HOSTS)}
_SDKS = np.array([_CODE[h] for h in SDK_HOSTS])
_SITES = np.array([_CODE[h] for h in SITES])
_SDK_SIZES = Sizes(1_900.0, 650.0, 0.7, 0.6)
_SITE_SHARE = 0.75
_FAILED_SHARE = 0.015
_NIGHT_REFRESH_SHARE = 0.45
_DAY_REFRESH_SHARE = 0.9
_AT_WAKE_SHARE = 0.7
MOVE_SHARE = 0.7
"""Share of the span after which a service with `moved_to` has moved."""


@dataclass(frozen=True)
class World:
    """The surroundings of the apps of a block."""

    who: People
    segments: Intervals
    """Foreground stretches."""
    segment_app: Ints
    low_power: Intervals
    wake_device: Ints
    wake_time: Vector


def app_traffic(rng: Rng, world: World, index: int) -> tuple[Flows, Pushes, Flows]:
    """Flows and pushes of the app `APPS[index]`, in no particular order, and the flows that iOS scheduled."""
    app = APPS[index]
    mine = world.segments.where(world.segment_app == index)
    pushes = app_pushes(rng, world.who, index, app.push, mine) if app.push else None
    none = _flows(rng, world.who, index, np.empty(0, np.int64), np.empty(0))
    parts = [_foreground(rng, world, index, app.use, mine) if app.use else none]
    scheduled = _refresh(rng, world, index, app.refresh_seconds) if app.refresh_seconds else none
    parts += [scheduled, *(_rhythm(rng, world.who, index, rhythm) for rhythm in app.rhythms)]
    if app.stream:
        parts.append(_stream(rng, world.who, index, app.stream, mine))
    if app.push and pushes is not None:
        parts.append(_fetch(rng, world.who, index, app.push, pushes))
    flows = Flows.joined(parts)
    flows = flows.where(world.who.has(flows.device, index, flows.time))
    events = pushes.where(world.who.has(pushes.device, index, pushes.time)) if pushes else NO_PUSHES
    return flows, events, scheduled.where(world.who.has(scheduled.device, index, scheduled.time))


def _foreground(rng: Rng, world: World, index: int, use: Use, mine: Intervals) -> Flows:
    length = mine.end - mine.start
    opening, _ = row_and_place(1 + rng.poisson(max(use.open_flows - 1, 0), len(length)))
    later, _ = row_and_place(rng.poisson(use.flows_per_minute * length / 60.0))
    start = np.concatenate(
        [
            mine.start[opening] + rng.exponential(0.9, len(opening)),
            mine.start[later] + rng.random(len(later)) * length[later],
        ]
    )
    device = mine.device[np.concatenate([opening, later])]
    return _flows(rng, world.who, index, device, start, foreground=True)


def _stream(rng: Rng, who: People, index: int, stream: Stream, mine: Intervals) -> Flows:
    begun = mine.where(rng.random(len(mine.start)) < stream.share)
    length = stream.seconds * np.exp(rng.normal(0, 0.6, len(begun.start)))
    # A stream ends where the next one of the same device begins.
    runs = Intervals(begun.device, begun.start, begun.start + length)
    same = np.append(runs.device[1:] == runs.device[:-1], False)
    end = np.where(same, np.minimum(runs.end, np.append(runs.start[1:], 0.0)), runs.end)
    row, beat = row_and_place(np.maximum((end - runs.start) / stream.every_seconds, 0).astype(np.int64))
    # The spread is around each beat, because players fetch when the buffer runs low.
    noise = rng.normal(0, stream.spread / 2, len(row)) * stream.every_seconds
    start = runs.start[row] + np.maximum((beat + 0.5) * stream.every_seconds + noise, 0.0)
    return _flows(rng, who, index, runs.device[row], start, first_host_only=True)


def _refresh(rng: Rng, world: World, index: int, every: float) -> Flows:
    """Background refresh as iOS schedules it: irregular, seldom at night, mostly when the device is awake."""
    device, time = refresh_times(rng, world, every)
    flows, _ = row_and_place(1 + rng.poisson(0.35, len(time)))
    start = time[flows] + rng.exponential(1.0, len(flows))
    return _flows(rng, world.who, index, device[flows], start)


def refresh_times(rng: Rng, world: World, every: float) -> tuple[Ints, Vector]:
    """Devices and times at which one app's refresh is granted, at least 900 s apart on a device."""
    who = world.who
    count = int(who.seconds / every * 1.4) + 20
    slack = max(every - MIN_REFRESH_SECONDS, 120.0)
    pause = MIN_REFRESH_SECONDS + slack * np.exp(rng.normal(-0.2, 0.8, (who.devices, count)))
    pause[:, 0] *= rng.random(who.devices)
    time = np.cumsum(pause, axis=1).ravel()
    device = np.repeat(np.arange(who.devices), count)
    time = _at_wakes(rng, world, device, time)
    share = np.where(who.awake(device, time), _DAY_REFRESH_SHARE, _NIGHT_REFRESH_SHARE)
    keep = (rng.random(len(time)) < share) & (time < who.seconds) & ~world.low_power.holds(device, time)
    return apart(device[keep], time[keep], MIN_REFRESH_SECONDS)


def _at_wakes(rng: Rng, world: World, device: Ints, time: Vector) -> Vector:
    """The times, most of them moved to just after the device's next wake-up if that is within the hour."""
    base = world.who.seconds * 2 + DAY
    wakes = world.wake_device * base + world.wake_time
    at = np.minimum(np.searchsorted(wakes, device * base + time), len(wakes) - 1)
    wait = wakes[at] - (device * base + time)
    move = (rng.random(len(time)) < _AT_WAKE_SHARE) & (wait > 0) & (wait < 3600.0)
    return np.where(move, time + wait + rng.exponential(3.0, len(time)), time)


def _rhythm(rng: Rng, who: People, index: int, rhythm: Rhythm) -> Flows:
    count = int(who.seconds / rhythm.every_seconds * 1.15) + 12
    pause = rhythm.every_seconds * np.exp(rng.normal(0, rhythm.spread, (who.devices, count)))
    end = np.cumsum(pause, axis=1) - rng.random((who.devices, 1)) * rhythm.every_seconds
    start = (end - pause).ravel()
    device = np.repeat(np.arange(who.devices), count)
    held = rhythm.filled * pause.ravel() if rhythm.filled else None
    if held is not None:
        # A flow that was already open when the span began is seen from then on.
        held = held + np.minimum(start, 0.0)
        start = np.maximum(start, 0.0)
    keep = (start >= 0) & (start < who.seconds)
    if held is not None:
        keep &= held > 1.0
    if rhythm.hours:
        hour = who.hour(device, start)
        keep &= (hour >= rhythm.hours[0]) & (hour < rhythm.hours[1]) & ~who.weekend(device, start)
    start, device = start[keep], device[keep]
    if held is None:
        return _flows(rng, who, index, device, start, first_host_only=True)
    made = _flows(rng, who, index, device, start, held=held[keep])
    extra = rhythm.keepalive_bytes_per_hour * made.seconds / 3600.0
    never = np.zeros(len(start), np.bool_)
    return replace(made, out=made.out + extra, into=made.into + extra, failed=never)


def _fetch(rng: Rng, who: People, index: int, push: Push, pushes: Pushes) -> Flows:
    heard = pushes.where((pushes.kind == 0) & (rng.random(len(pushes.kind)) < push.fetch_share))
    row, _ = row_and_place(1 + rng.poisson(0.4, len(heard.time)))
    start = heard.time[row] + 0.2 + rng.exponential(2.0, len(row))
    return _flows(rng, who, index, heard.device[row], start)


def _flows(
    rng: Rng,
    who: People,
    index: int,
    device: Ints,
    start: Vector,
    *,
    foreground: bool = False,
    first_host_only: bool = False,
    held: Vector | None = None,
) -> Flows:
    """Flows of one app at given times, with hosts, sizes and durations drawn from its recipe."""
    app, n = APPS[index], len(start)
    own = np.array([_CODE[h] for h in app.hosts])
    if held is not None:
        host = own[(device + (start // (2 * DAY)).astype(np.int64)) % len(own)]
    elif first_host_only:
        host = np.full(n, own[0])
    else:
        host = own[np.minimum(rng.geometric(0.55 if foreground else 0.8, n) - 1, len(own) - 1)]
    if app.moved_to:
        host = np.where((host == own[0]) & (start > who.seconds * MOVE_SHARE), _CODE[app.moved_to], host)
    if app.sites and foreground:
        host = np.where(rng.random(n) < _SITE_SHARE, _visited(rng, device), host)
    sdk = np.zeros(n, np.bool_)
    if app.use and app.use.sdk_share and not first_host_only:
        sdk = rng.random(n) < app.use.sdk_share * (1.0 if foreground else 0.2)
        host = np.where(sdk, _SDKS[np.minimum(rng.geometric(0.4, n) - 1, len(_SDKS) - 1)], host)
    size = app.sizes
    seconds = np.where(sdk, _SDK_SIZES.seconds, size.seconds) * np.exp(rng.normal(0, 0.9, n))
    out = np.where(sdk, _SDK_SIZES.out, size.out) * np.exp(rng.normal(0, size.spread, n))
    into = np.where(sdk, _SDK_SIZES.into, size.into) * np.exp(rng.normal(0, size.spread, n))
    failed = rng.random(n) < _FAILED_SHARE
    seconds, out, into = (np.where(failed, 0.0, values) for values in (seconds, out, into))
    return Flows(
        device=device,
        time=start,
        app=np.full(n, index),
        host=host,
        seconds=seconds if held is None else held,
        out=out,
        into=into,
        failed=failed,
        quic=rng.random(n) < app.quic_share,
    )


def _visited(rng: Rng, device: Ints) -> Ints:
    """Web sites: half by what everybody visits, half by the owner's own taste."""
    n = len(device)
    rank = (len(_SITES) * rng.random(n) ** 3).astype(np.int64)
    taste = np.where(rng.random(n) < 0.5, 0, device * 37)
    return np.asarray(_SITES[(rank + taste) % len(_SITES)])
