"""The gaps between the starts of sessions, as an inline SVG with a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from appcadence._quantity import quantity
from appcadence.triage.report.drawing import text

_BARS = 32
_HEIGHT = 56
_TICKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (21_600, "6 h"))
_MAX_SECONDS = 86_400.0
"""In seconds; gaps from 1 s to this have equal bars per factor, what lies outside counts at the ends."""


def histogram(starts: Sequence[int], usual: float | None) -> str:
    """A figure of the gaps between `starts`, in microseconds in any order; empty without two of them.

    Args:
        starts: session starts.
        usual: the expected median gap in seconds, to be marked.
    """
    if len(starts) < 2:
        return ""
    gaps = np.diff(np.sort(np.asarray(starts, np.int64))) / 1e6
    place = np.clip(np.log(np.maximum(gaps, 1.0)) / math.log(_MAX_SECONDS), 0.0, 1.0)
    counts = np.bincount(np.minimum(place * _BARS, _BARS - 1).astype(np.int64), minlength=_BARS)
    middle = quantity(float(np.median(gaps)), "s")
    label = f"{len(gaps)} gaps between session starts, median {middle}"
    bars = "".join(
        f'<rect class="gap" x="{100 * k / _BARS:.3f}%" y="{_HEIGHT - _tall(n, counts.max()):.1f}" '
        f'width="{92 / _BARS:.3f}%" height="{_tall(n, counts.max()):.1f}"/>'
        for k, n in enumerate(counts.tolist())
        if n
    )
    mark = ""
    if usual is not None and usual > 0:
        label += f"; usual here {quantity(usual, 's')}"
        x = f"{100 * _share(usual):.3f}%"
        mark = f'<line class="usual" x1="{x}" x2="{x}" y1="0" y2="{_HEIGHT}"/>'
    ticks = "".join(
        f'<line class="axis" x1="{100 * _share(s):.3f}%" x2="{100 * _share(s):.3f}%" y1="{_HEIGHT}" '
        f'y2="{_HEIGHT + 4}"/><text class="tick" x="{100 * _share(s):.3f}%" y="{_HEIGHT + 17}" '
        f'text-anchor="{"start" if s == 1 else "middle"}">{name}</text>'
        for s, name in _TICKS
    )
    return (
        f'<figure class="gaps"><figcaption>{text(label)}{" (dashed)" if mark else ""}</figcaption>'
        f'<svg role="img" aria-label="{text(label)}" width="100%" height="{_HEIGHT + 22}">'
        f'<rect class="track" width="100%" height="{_HEIGHT}"/>{bars}{mark}'
        f'<line class="axis" x1="0" x2="100%" y1="{_HEIGHT}" y2="{_HEIGHT}"/>{ticks}</svg></figure>'
    )


def _share(seconds: float) -> float:
    return min(max(math.log(max(seconds, 1.0)) / math.log(_MAX_SECONDS), 0.0), 1.0)


def _tall(count: int, most: int) -> float:
    """At least 2 px: a rare gap is still to be seen."""
    return max(2.0, (_HEIGHT - 4) * count / most)
