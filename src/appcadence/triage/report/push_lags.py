"""How soon sessions follow an app's pushes, and what chance would have: numbers, a sentence, an inline SVG.

Both are what `features.families.notification` computes `push_coupling_excess` from: the first session start
of the window after each push, and the same after the pushes shifted by its `SHIFTS_SECONDS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from appcadence.features.families.notification import MAX_CHANCE, MIN_PUSHES, SHIFTS_SECONDS, WAKE_SECONDS
from appcadence.triage.report.html import render

_HEIGHT = 84
_LEFT = 9
"""Percent of the width that the scale of shares takes."""
_MAX_SECONDS = 300.0
"""Seconds after a push that are drawn, on a scale of log(1 + seconds): it begins at zero."""
_PLACES = 250
_TICKS = ((0, "0"), (1, "1 s"), (5, "5 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"))

Micros = npt.NDArray[np.int64]


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


def figure(found: Lags) -> Markup:
    """A figure of the share of pushes that a session start followed within 0 s to 5 min, and of chance."""
    return render(
        "push_lags.html",
        label=found.sentence,
        height=_HEIGHT,
        left=_LEFT,
        places=_PLACES,
        reach=_x(found.reach_seconds),
        chance=_steps(found.shifted),
        seen=_steps(found.seen),
        ticks=[(_x(seconds), name) for seconds, name in (*_TICKS, (_MAX_SECONDS, "5 min"))],
    )


def _waits(pushes: Micros, starts: Micros) -> Micros:
    after = np.append(starts, np.iinfo(np.int64).max)[np.searchsorted(starts, pushes, "left")]
    return np.sort(np.where(after < np.iinfo(np.int64).max, after - pushes, after))


def _within(waits: Micros, seconds: float) -> int:
    return int(np.searchsorted(waits, round(seconds * 1e6), "right"))


def _x(seconds: float) -> str:
    share = min(math.log1p(seconds) / math.log1p(_MAX_SECONDS), 1.0)
    return f"{_LEFT + (100 - _LEFT) * share:.2f}%"


def _steps(waits: Micros) -> str:
    """The cumulative share as an SVG path from 1000 = none down to 0 = all, a step where it changes."""
    seconds = np.expm1(np.linspace(0.0, math.log1p(_MAX_SECONDS), _PLACES + 1))
    share = np.searchsorted(waits, np.rint(seconds * 1e6).astype(np.int64), "right") / len(waits)
    level = np.rint(1000 * (1.0 - share)).astype(np.int64)
    places = [*(np.flatnonzero(np.diff(level)) + 1).tolist(), _PLACES]
    path, at = f"M0 {level[0]}", 0
    for place in places:
        path += f"H{place}" + (f"V{level[place]}" if level[place] != level[at] else "")
        at = place
    return path
