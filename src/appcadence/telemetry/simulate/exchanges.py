"""What an implant's flows carry: exchanges borrowed from real channels, so that sizes are no give-away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appcadence._types import Ints, Vector
from appcadence.telemetry.simulate.carriers import Carriers

MAX_SECONDS = 120.0
"""An exchange is short: what makes a session long is a behaviour's own doing."""
_MEASURED = ("bytes_out", "bytes_in", "duration_seconds")
_ONE_SHARE = 0.1
"""Implants that repeat one exchange."""
_WHOLE_SHARE = 0.5
"""Of the others, those that draw from all of a channel's."""
_EXACT_SHARE = 0.2
"""Implants whose exchanges are repeated to the byte."""
_TRIES = 8


@dataclass(frozen=True)
class Exchanges:
    """n flows' worth of bytes, seconds and outcomes; NaN = the log does not say."""

    sent: Vector
    received: Vector
    seconds: Vector
    outcome: npt.NDArray[np.object_]


def exchanges(rng: np.random.Generator, fleet: Carriers, own: slice, n: int, copied: bool) -> Exchanges:
    """Exchanges of one channel of the carrier, if `copied`, or of another app of the fleet.

    They are drawn from all of the channel's flows or from a few, or repeat a stretch of them in its order, to
    the byte or with some noise; one implant in ten repeats a single exchange. What another app's log knows
    and the carrier's does not stays unknown.
    """
    rows = fleet.channel(int(rng.integers(own.start, own.stop)) if copied else _foreign(rng, fleet, own))
    seconds = fleet.numbers["duration_seconds"]
    short = rows[~(seconds[rows] > MAX_SECONDS)]
    rows = short if len(short) else rows
    pick = rows[_turns(rng, len(rows), n)]
    spread = 0.0 if rng.random() < _EXACT_SHARE else np.exp(rng.uniform(np.log(0.02), np.log(0.4)))
    noise = np.exp(rng.normal(0, 1, (3, n)) * spread)
    scale = 1.0 if copied else np.exp(rng.normal(0, 0.3))
    sent, received, lasted = (
        _as_known(rng, fleet, own, name, fleet.numbers[name][pick] * noise[k] * (scale if k < 2 else 1.0))
        for k, name in enumerate(_MEASURED)
    )
    outcome = np.array([fleet.text("outcome", int(row)) for row in pick], object)
    return Exchanges(np.rint(sent), np.rint(received), np.minimum(lasted, MAX_SECONDS), outcome)


def _turns(rng: np.random.Generator, known: int, n: int) -> Ints:
    """Which of the known exchanges each of n flows repeats."""
    if rng.random() < _ONE_SHARE:
        return np.full(n, rng.integers(known))
    if rng.random() < _WHOLE_SHARE:
        return rng.integers(0, known, n)
    size = min(int(np.exp(rng.uniform(np.log(4), np.log(known + 5)))), known)
    if rng.random() < 0.5:
        return np.asarray((rng.integers(known) + np.arange(n) % size) % known)
    return np.asarray(rng.choice(rng.choice(known, size, replace=False), n))


def _foreign(rng: np.random.Generator, fleet: Carriers, own: slice) -> int:
    """A row of another carrier of the device or the fleet that knows whatever this carrier always knows."""
    device = fleet.of(own.start)[0]
    always = [name for name in _MEASURED if fleet.known(name, own) == 1.0]
    for _ in range(_TRIES):
        pool = slice(*fleet.bounds[device : device + 2]) if rng.random() < 0.5 else slice(0, len(fleet.start))
        row = int(rng.integers(pool.start, pool.stop))
        theirs = fleet.own(fleet.of(row)[1])
        if all(fleet.known(name, theirs) == 1.0 for name in always):
            return row
    return int(rng.integers(own.start, own.stop))


def _as_known(rng: np.random.Generator, fleet: Carriers, own: slice, name: str, values: Vector) -> Vector:
    """Values with gaps where the carrier's log has as many."""
    lacking = rng.random(len(values)) >= fleet.known(name, own)
    return np.asarray(np.where(lacking, np.nan, values))


def known_seconds(rng: np.random.Generator, fleet: Carriers, own: slice, seconds: Vector) -> Vector:
    """Durations of a behaviour's own, with gaps where the carrier's log has as many."""
    return _as_known(rng, fleet, own, "duration_seconds", seconds)
