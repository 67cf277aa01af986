"""The behaviour of each kind of implant: starts, durations and outcomes, in seconds from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from appcadence._types import Mask, Vector

Rng = np.random.Generator

MAX_FLOWS = 4000
"""A faster implant ends after this many flows."""
_SNAP_SECONDS = 5.0


@dataclass(frozen=True)
class Scene:
    """The surroundings of an implant. Times are seconds from the implant's beginning."""

    seconds: float
    """Length of the implant's life."""
    clock: float
    """UTC second of the day at which it begins."""
    device_starts: Vector
    """Sorted starts of the device's own flows within its life."""
    pushes: Vector
    """Sorted pushes of the carrier app within its life."""
    busy: tuple[Vector, Vector]
    """Starts and ends of the user's presence; empty if it is not known."""
    front: tuple[Vector, Vector]
    """Starts and ends of the carrier app's time in front; empty if it is not known."""


@dataclass(frozen=True)
class Pattern:
    """The flows of one implant; all arrays have the same length. None = taken from the borrowed exchanges."""

    starts: Vector
    durations: Vector | None = None
    failed: Mask | None = None
    size_factor: Vector | float = 1.0
    period: float = np.nan
    jitter: float = np.nan
    missed: float = np.nan


Behaviour = Callable[[Rng, Scene], Pattern]


@dataclass(frozen=True)
class Kind:
    """A kind of implant; calling it runs its behaviour."""

    behave: Behaviour
    shows: Literal["rhythm", "persistence", "push", "absence"] = "rhythm"
    """What gives it away."""
    min_seconds: float = 300.0
    """Length of the shortest life that can show it."""
    hosts: tuple[int, int] = (1, 1)
    """Fewest and most destinations."""

    def __call__(self, rng: Rng, scene: Scene) -> Pattern:
        return self.behave(rng, scene)


def rhythm(rng: Rng, seconds: float, period: float, jitter: float, missed: float) -> Vector:
    """Starts with one-sided sleep jitter: a gap is period * (1 + jitter * U); some beats are missed."""
    count = int(min(seconds / period + 2, 2 * MAX_FLOWS))
    starts = rng.uniform(0, period) + np.cumsum(period * (1.0 + jitter * rng.random(count)))
    starts = starts[(starts < seconds) & (rng.random(count) >= missed)]
    return starts[:MAX_FLOWS]


def draw_period(rng: Rng, low: float, high: float) -> float:
    """A log-uniform period; half of the time, a round figure such as operators type."""
    period = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if rng.random() < 0.5:
        steps = np.array(
            [5, 10, 15, 20, 30, 60, 90, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 14400.0]
        )
        period = float(steps[np.argmin(np.abs(np.log(steps / period)))])
    return period


def _beacon(rng: Rng, scene: Scene, low: float, high: float, jitter_high: float = 0.8) -> Pattern:
    period = draw_period(rng, low, min(high, max(scene.seconds / 8, low * 1.01)))
    jitter = float(rng.choice([0.0, rng.uniform(0, 0.3), rng.uniform(0, jitter_high)]))
    missed = float(rng.choice([0.0, rng.uniform(0, 0.4)]))
    starts = rhythm(rng, scene.seconds, period, jitter, missed)
    return Pattern(starts, period=period, jitter=jitter, missed=missed)


def beacon(rng: Rng, scene: Scene) -> Pattern:
    """A steady beat for all of its life."""
    return _beacon(rng, scene, 20.0, 14400.0)


def steady(period: float, jitter: float, missed: float, active: float = 1.0) -> Behaviour:
    """A beat with this period (seconds), jitter and share of missed beats, for one stretch of each day.

    `active` is the length of that stretch as a share of the day.
    """

    def beat(rng: Rng, scene: Scene) -> Pattern:
        starts = rhythm(rng, scene.seconds, period, jitter, missed)
        day = ((scene.clock + starts) / 86400.0 - rng.random()) % 1.0
        return Pattern(starts[day < active], period=period, jitter=jitter, missed=missed)

    return beat


def burst_beacon(rng: Rng, scene: Scene) -> Pattern:
    """A dense beat for minutes up to hours, sometimes in several bursts."""
    bursts = int(rng.integers(1, 4))
    length = float(np.exp(rng.uniform(np.log(180), np.log(max(scene.seconds / bursts, 240)))))
    parts, last = [], _beacon(rng, replace(scene, seconds=length), 4.0, 90.0)
    for begin in np.sort(rng.uniform(0, max(scene.seconds - length, 1), bursts)):
        parts.append(begin + rhythm(rng, length, last.period, last.jitter, last.missed))
    starts = np.unique(np.concatenate(parts))[:MAX_FLOWS]
    return replace(last, starts=starts)


def few_beats(rng: Rng, scene: Scene) -> Pattern:
    """Six to fourteen beats in all."""
    period = scene.seconds / rng.uniform(7, 15)
    jitter = rng.uniform(0, 0.4)
    starts = rhythm(rng, scene.seconds, period, jitter, 0.0)
    return Pattern(starts, period=period, jitter=jitter, missed=0.0)


def hours_beacon(rng: Rng, scene: Scene) -> Pattern:
    """A beat during certain hours of the day only, such as the night or working hours."""
    pattern = _beacon(rng, scene, 30.0, 3600.0)
    begin, length = rng.uniform(0, 24), rng.uniform(4, 10)
    hour = ((scene.clock + pattern.starts) / 3600.0 - begin) % 24
    kept = pattern.starts[hour < length]
    return replace(pattern, starts=kept if len(kept) >= 6 else pattern.starts)


def failing_retries(rng: Rng, scene: Scene) -> Pattern:
    """Rhythmic attempts that fail, without a break or in trains with pauses. Some get through, and a third of
    the implants end in one long session."""
    pattern = _beacon(rng, scene, 4.0, 600.0, 0.4)
    starts = pattern.starts
    if rng.random() < 0.5:
        cycle = min(pattern.period * np.exp(rng.uniform(np.log(8), np.log(300))), scene.seconds)
        starts = starts[(starts / cycle) % 1.0 < rng.uniform(0.2, 0.8)]
    n = len(starts)
    durations = np.where(rng.random(n) < 0.5, 0.0, rng.uniform(0.5, 4.0, n))
    failed = rng.random(n) >= rng.choice([0.0, rng.uniform(0, 0.3)])
    factor = np.where(failed, 0.0, 1.0)
    if n and rng.random() < 1 / 3:
        failed[-1], factor[-1] = False, 5.0
        durations[-1] = max(scene.seconds - starts[-1], 1800.0)
    return Pattern(starts, durations, failed, factor, pattern.period, pattern.jitter)


def long_session(rng: Rng, scene: Scene) -> Pattern:
    """One to three sessions, from half an hour to the whole life, with few bytes."""
    n = int(rng.integers(1, 4))
    edges = np.sort(rng.uniform(0, scene.seconds, 2 * n))
    starts, durations = edges[::2], np.maximum(edges[1::2] - edges[::2], 1800.0)
    return Pattern(starts, durations, np.zeros(n, np.bool_), np.exp(rng.normal(1.0, 1.0, n)))


def session_chain(rng: Rng, scene: Scene) -> Pattern:
    """Sessions that reconnect after a short pause, for the whole life."""
    piece = float(np.exp(rng.uniform(np.log(120), np.log(max(scene.seconds / 4, 240)))))
    count = int(min(scene.seconds / piece + 2, MAX_FLOWS))
    lengths = piece * np.exp(rng.normal(0, rng.uniform(0.02, 0.5), count))
    gaps = rng.exponential(rng.uniform(1, 90), count)
    starts = np.cumsum(lengths + gaps) - lengths
    keep = starts < scene.seconds
    n = int(keep.sum())
    return Pattern(
        starts[keep], lengths[keep], np.zeros(n, np.bool_), np.exp(rng.normal(0.5, 0.5, n)), period=piece
    )


def slow_drip(rng: Rng, scene: Scene) -> Pattern:
    """Long thin sessions that upload a little at a time."""
    period = draw_period(rng, 600.0, max(scene.seconds / 4, 700.0))
    starts = rhythm(rng, scene.seconds, period, rng.uniform(0, 0.5), 0.0)
    n = len(starts)
    return Pattern(
        starts, period * rng.uniform(0.4, 0.95, n), np.zeros(n, np.bool_), rng.uniform(1, 4, n), period=period
    )


def push_burst(rng: Rng, scene: Scene) -> Pattern:
    """A burst of small uploads some seconds after most of the carrier's pushes."""
    return _answers(rng, scene.pushes[rng.random(len(scene.pushes)) < rng.uniform(0.5, 1.0)], 1, 4)


def rare_push_burst(rng: Rng, scene: Scene) -> Pattern:
    """A burst of uploads some seconds after one to three of the carrier's pushes a day."""
    day = (scene.clock + scene.pushes) // 86400.0
    turn = rng.permutation(len(day))
    place = np.empty(len(day), np.int64)
    for one in np.unique(day):
        mine = np.flatnonzero(day == one)
        place[mine] = np.argsort(turn[mine])
    return _answers(rng, scene.pushes[place < rng.integers(1, 4)], 3, 9)


def _answers(rng: Rng, pushes: Vector, fewest: int, most: int) -> Pattern:
    per = int(rng.integers(fewest, most + 1))
    lag = rng.uniform(0.5, 12.0) + np.cumsum(rng.exponential(1.5, (len(pushes), per)), axis=1)
    return Pattern(np.sort((pushes[:, None] + lag).ravel())[:MAX_FLOWS])


def userless(rng: Rng, scene: Scene) -> Pattern:
    """Irregular bursts while the user is away."""
    starts = np.sort(rng.uniform(0, scene.seconds, int(rng.integers(12, 90))))
    return Pattern(starts[~inside(starts, scene.busy, 60.0)])


KINDS: dict[str, Kind] = {
    "beacon": Kind(beacon),
    "burst_beacon": Kind(burst_beacon),
    "few_beats": Kind(few_beats),
    "hours_beacon": Kind(hours_beacon, min_seconds=14_400.0),
    "rotating_hosts": Kind(beacon, min_seconds=1200.0, hosts=(3, 8)),
    "failing_retries": Kind(failing_retries),
    "long_session": Kind(long_session, "persistence", 1800.0),
    "session_chain": Kind(session_chain, "persistence", 1200.0),
    "slow_drip": Kind(slow_drip, "persistence", 7200.0),
    "push_burst": Kind(push_burst, "push", 3600.0),
    "rare_push_burst": Kind(rare_push_burst, "push", 86_400.0),
    "userless": Kind(userless, "absence", 3600.0),
}
"""The kinds by name; `rotating_hosts` is a beacon over several destinations."""


def inside(times: Vector, spans: tuple[Vector, Vector], after: float = 0.0) -> Mask:
    """(n,) which times lie in one of the spans (starts, ends), or at most `after` seconds behind it."""
    first, last = spans
    if not len(first):
        return np.zeros(len(times), np.bool_)
    before = np.searchsorted(first, times, "right") - 1
    return np.asarray((before >= 0) & (times <= last[np.maximum(before, 0)] + after))


def coupled(rng: Rng, starts: Vector, scene: Scene) -> Vector:
    """Starts moved to just after the device's next own start, so that being independent is no give-away."""
    if not len(scene.device_starts):
        return starts
    after = np.searchsorted(scene.device_starts, starts)
    wake = scene.device_starts[np.minimum(after, len(scene.device_starts) - 1)]
    moved = np.where(after < len(scene.device_starts), wake, starts) + rng.uniform(
        0.05, _SNAP_SECONDS, len(starts)
    )
    return np.asarray(np.minimum(moved, scene.seconds))
