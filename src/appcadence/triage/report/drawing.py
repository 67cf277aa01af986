"""Where the marks of a page's pictures lie; templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from appcadence.triage.report.html import render
from appcadence.triage.report_data import utc_text

Intervals = Sequence[tuple[int, int]]
"""(start, end) in microseconds since the epoch, UTC."""

_DAY = 86_400
_TICKS = (900, 1800, 3600, 7200, 14_400, 28_800, _DAY, 2 * _DAY, 7 * _DAY)
_MAX_TICKS = 7
_PLACES = 2000
"""Places in a window; bars in adjoining ones are drawn as one: it bounds the page."""
_LABEL = 15
_GAP, _CLOSE = 12, 3


@dataclass(frozen=True)
class Lane:
    """One labelled row of bars."""

    label: str
    """Empty where a legend names the lanes; they then lie closer together."""
    kind: str
    """CSS class of the bars: `session`, `foreground`, `unlocked`, `push` and others of style.css."""
    intervals: Intervals
    height: int
    """In px."""


def raster(start: int, end: int, lanes: Sequence[Lane], label: str) -> Markup:
    """An SVG of lanes over the window [start, end) in microseconds, with a UTC axis; `label` is read aloud.

    Every bar is at least 1 px wide, whatever its length. Positions are percentages, so that the picture
    stretches with the page and its letters do not.
    """
    rows, y = [], 0
    for lane in lanes:
        top = y + _LABEL + 4 if lane.label else y
        path = _bars(lane.intervals, start, end)
        at = {"text_y": y + _LABEL - 3, "y": top, "height": lane.height, "path": path}
        rows.append(at | {"label": lane.label, "kind": lane.kind})
        y = top + lane.height + (_GAP if lane.label else _CLOSE)
    return render("raster.html", lanes=rows, ticks=_ticks(start, end), label=label, height=y, places=_PLACES)


def bar(value: float, low: float, high: float) -> Markup:
    """An SVG bar from zero to `value` on the scale [min(low, 0), max(high, 0)]."""
    low, high = min(low, 0.0), max(high, 0.0)
    width = (high - low) or 1.0
    zero, at = 100 * -low / width, 100 * (value - low) / width
    left, right = min(zero, at), max(zero, at)
    figures = {"left": left, "width": right - left, "zero": zero}
    side = "up" if value >= 0 else "down"
    return render("bar.html", side=side, **{name: f"{n:.2f}" for name, n in figures.items()})


def _ticks(start: int, end: int) -> list[tuple[str, str, str]]:
    """Place in per cent, name and anchor of each mark of the axis."""
    seconds = (end - start) / 1e6
    step = next((s for s in _TICKS if seconds / s <= _MAX_TICKS), seconds / 4)
    form = "%H:%M" if step < _DAY else "%b %d"
    shares = [100 * k * step / seconds if seconds else 0.0 for k in range(int(seconds // step) + 1)]
    anchors = ["start", *("end" if share > 97 else "middle" for share in shares[1:])]
    return [
        (f"{share:.3f}", utc_text(int(start + k * step * 1e6), form), anchor)
        for k, (share, anchor) in enumerate(zip(shares, anchors, strict=True))
    ]


def _bars(intervals: Intervals, start: int, end: int) -> str:
    """Bars as an SVG path, a unit high and the window `_PLACES` units wide; near ones are joined.

    The stroke, half a pixel to each side, makes a bar of no width one pixel wide.
    """
    width = max(end - start, 1)
    bars: list[list[int]] = []
    for first, last in sorted(intervals):
        if last < start or first >= end:
            continue
        left = _PLACES * (max(first, start) - start) // width
        right = _PLACES * (min(max(last, first), end) - start) // width
        if bars and left - bars[-1][1] < 2:
            bars[-1][1] = max(bars[-1][1], right)
        else:
            bars.append([left, right])
    moves, at = [], 0
    for left, right in bars:
        moves.append(f"m{left - at} 0h{right - left}v1h{left - right}z")
        at = left
    return "".join(moves)
