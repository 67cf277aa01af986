"""How soon sessions follow an app's pushes, and what chance would have: numbers and a sentence.

Both are what `features.families.notification` computes `push_coupling_excess` from: the first session start
of the window after each push, and the same after the pushes shifted by its `SHIFTS_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from appcadence._types import Micros
from appcadence.features.families.notification import MAX_CHANCE, MIN_PUSHES
from appcadence.features.pushes import SHIFTS_SECONDS, WAKE_SECONDS


@dataclass(frozen=True)
class Lags:
    """The waits of one window."""

    seen: Micros
    """(n,) sorted microseconds from each push to the next session start; the largest integer = none came."""
    shifted: Micros
    """(n * shifts,) the same for the shifted pushes."""
    reach_seconds: float
    """A push counts as answered within this: the wake time and the push log's grid."""

    @property
    def answered(self) -> int:
        return _within(self.seen, self.reach_seconds)

    @property
    def by_chance(self) -> float:
        """Answered pushes to be expected of sessions that know nothing of them."""
        return len(self.seen) * _within(self.shifted, self.reach_seconds) / len(self.shifted)

    def facts(self) -> dict[str, float]:
        """The numbers of the sentence."""
        return {
            "pushes": len(self.seen),
            "answered": self.answered,
            "by_chance": self.by_chance,
            "reach_seconds": self.reach_seconds,
        }

    @property
    def sentence(self) -> str:
        """Both numbers; that they cannot tell, where chance alone would answer half of the pushes."""
        chance = f"{self.by_chance:.0f}" if self.by_chance >= 10 else f"{self.by_chance:.2g}"
        blunt = "" if self.by_chance <= MAX_CHANCE * len(self.seen) else ", too many to tell the two apart"
        return (
            f"{self.answered} of {len(self.seen)} pushes were followed by a session start within "
            f"{self.reach_seconds:.0f} s; by chance {chance}{blunt}"
        )


def lags(
    pushes: Sequence[int], starts: Sequence[int], start: int, end: int, resolution_seconds: float
) -> Lags | None:
    """The waits from pushes to session starts inside the window [start, end); times in microseconds.

    `resolution_seconds` is that of the push log. None with fewer than three pushes.
    """
    if len(pushes) < MIN_PUSHES:
        return None
    at, begun = np.asarray(pushes, np.int64) - start, np.sort(np.asarray(starts, np.int64)) - start
    turned = (at + (SHIFTS_SECONDS[:, None] * 1e6).astype(np.int64)) % (end - start)
    return Lags(_waits(at, begun), _waits(turned.ravel(), begun), WAKE_SECONDS + resolution_seconds)


def _waits(pushes: Micros, starts: Micros) -> Micros:
    after = np.append(starts, np.iinfo(np.int64).max)[np.searchsorted(starts, pushes, "left")]
    return np.sort(np.where(after < np.iinfo(np.int64).max, after - pushes, after))


def _within(waits: Micros, seconds: float) -> int:
    return int(np.searchsorted(waits, round(seconds * 1e6), "right"))
