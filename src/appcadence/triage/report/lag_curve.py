"""How soon sessions follow an app's pushes beside chance, as an inline SVG."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from appcadence._types import Micros
from appcadence.triage.push_lags import Lags
from appcadence.triage.report.html import render

_HEIGHT = 84
_LEFT = 9
"""Percent of the width that the scale of shares takes."""
_MAX_SECONDS = 300.0
"""Seconds after a push that are drawn, on a scale of log(1 + seconds): it begins at zero."""
_PLACES = 250
_TICKS = ((0, "0"), (1, "1 s"), (5, "5 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"))


def lag_curve(found: Lags) -> Markup:
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
