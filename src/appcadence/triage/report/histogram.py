"""The gaps between the starts of sessions, as an inline SVG with a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from appcadence._quantity import quantity
from appcadence.triage.report.html import render

_BARS = 32
_HEIGHT = 56
_TICKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (21_600, "6 h"))
_MAX_SECONDS = 86_400.0
"""In seconds; gaps from 1 s to this have equal bars per factor, what lies outside counts at the ends."""


def histogram(starts: Sequence[int], usual: float | None) -> Markup:
    """A figure of the gaps between `starts`, in microseconds in any order; empty without two of them.

    Args:
        starts: session starts.
        usual: the expected median gap in seconds, to be marked.
    """
    if len(starts) < 2:
        return Markup("")
    gaps = np.diff(np.sort(np.asarray(starts, np.int64))) / 1e6
    place = np.clip(np.log(np.maximum(gaps, 1.0)) / math.log(_MAX_SECONDS), 0.0, 1.0)
    counts = np.bincount(np.minimum(place * _BARS, _BARS - 1).astype(np.int64), minlength=_BARS)
    middle = quantity(float(np.median(gaps)), "s")
    label = f"{len(gaps)} gaps between session starts, median {middle}"
    mark = usual if usual is not None and usual > 0 else None
    if mark is not None:
        label += f"; usual here {quantity(mark, 's')}"
    heights = [(k, _tall(n, counts.max())) for k, n in enumerate(counts.tolist()) if n]
    return render(
        "histogram.html",
        label=label,
        height=_HEIGHT,
        width=f"{92 / _BARS:.3f}",
        bars=[(f"{100 * k / _BARS:.3f}", f"{_HEIGHT - tall:.1f}", f"{tall:.1f}") for k, tall in heights],
        usual=None if mark is None else f"{100 * _share(mark):.3f}",
        ticks=[(f"{100 * _share(seconds):.3f}", name) for seconds, name in _TICKS],
    )


def _share(seconds: float) -> float:
    return min(max(math.log(max(seconds, 1.0)) / math.log(_MAX_SECONDS), 0.0), 1.0)


def _tall(count: int, most: int) -> float:
    """At least 2 px: a rare gap is still to be seen."""
    return max(2.0, (_HEIGHT - 4) * count / most)
