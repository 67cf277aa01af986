"""HTML from the templates beside this file, and the pictures of a page: where the marks of each lie.

Names are escaped, style and script are known by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from appcadence._files import write_text
from appcadence._quantity import quantity
from appcadence._types import Micros
from appcadence.triage.report_data import Lags, utc_text


def inert(value: Any) -> Any:
    """A text with its invisible and direction-changing characters spelled out; anything else as it is."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)


_TEMPLATES = Environment(
    loader=PackageLoader("appcadence.triage.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=inert,
)
_TEMPLATES.filters["words"] = lambda name: name.replace("_", " ")
_TEMPLATES.filters["utc"] = utc_text
_TEMPLATES.filters["iso"] = lambda micros: utc_text(micros, "%Y-%m-%dT%H:%M:%SZ")
_TEMPLATES.filters["slug"] = lambda key: key.replace(":", "-").replace("_", "-")
_TEMPLATES.filters["lines"] = lambda lines: Markup("\n").join(map(inert, lines))


def render(template: str, **values: Any) -> Markup:
    """A part of a page; every value that is no `Markup` is escaped and inert."""
    return Markup(_TEMPLATES.get_template(template).render(values))


def write_page(template: str, html: Path, **values: Any) -> None:
    """Write a page that extends base.html, whole or not at all.

    Style and script are known by their hashes; nothing else may load or run, whatever a name smuggles in.

    Raises:
        AppcadenceError: `html` is no regular file.
    """
    style, script = (Markup(_source(name)) for name in ("style.css", "script.js"))
    digests = {"style_digest": _digest(style), "script_digest": _digest(script)}
    page = render(template, style=style, script=script, **digests, **values)
    write_text(html, page + "\n")


def _source(name: str) -> str:
    loader = _TEMPLATES.loader
    return loader.get_source(_TEMPLATES, name)[0] if loader else ""


def _digest(content: str) -> Markup:
    return Markup("sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode())


Intervals = Sequence[tuple[int, int]]
"""(start, end) in microseconds since the epoch, UTC."""

_DAY = 86_400
_TICKS = (900, 1800, 3600, 7200, 14_400, 28_800, _DAY, 2 * _DAY, 7 * _DAY)
_MAX_TICKS = 7
_PLACES = 2000
"""Places in a window; bars in adjoining ones are drawn as one: it bounds the page."""
_LABEL = 15
_GAP, _CLOSE = 12, 3
_BARS = 32
_GAP_HEIGHT = 56
_GAP_TICKS = ((1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (21_600, "6 h"))
_MAX_GAP_SECONDS = 86_400.0
"""In seconds; gaps from 1 s to this have equal bars per factor, what lies outside counts at the ends."""
_LAG_HEIGHT = 84
_LAG_LEFT = 9
"""Percent of the width that the scale of shares takes."""
_MAX_LAG_SECONDS = 300.0
"""Seconds after a push that are drawn, on a scale of log(1 + seconds): it begins at zero."""
_LAG_PLACES = 250
_LAG_TICKS = ((0, "0"), (1, "1 s"), (5, "5 s"), (10, "10 s"), (30, "30 s"), (60, "1 min"))


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


def histogram(starts: Sequence[int], usual: float | None) -> Markup:
    """A figure of the gaps between `starts`, in microseconds in any order; empty without two of them.

    Args:
        starts: session starts.
        usual: the expected median gap in seconds, to be marked.
    """
    if len(starts) < 2:
        return Markup("")
    gaps = np.diff(np.sort(np.asarray(starts, np.int64))) / 1e6
    counts = np.bincount(np.minimum(_gap_share(gaps) * _BARS, _BARS - 1).astype(np.int64), minlength=_BARS)
    middle = quantity(float(np.median(gaps)), "s")
    label = f"{len(gaps)} gaps between session starts, median {middle}"
    mark = usual if usual is not None and usual > 0 else None
    if mark is not None:
        label += f"; usual here {quantity(mark, 's')}"
    # At least 2 px: a rare gap is still to be seen.
    talls = np.maximum((_GAP_HEIGHT - 4) * counts / counts.max(), 2.0)
    heights = [(k, talls[k]) for k in np.flatnonzero(counts)]
    return render(
        "histogram.html",
        label=label,
        height=_GAP_HEIGHT,
        width=f"{92 / _BARS:.3f}",
        bars=[(f"{100 * k / _BARS:.3f}", f"{_GAP_HEIGHT - tall:.1f}", f"{tall:.1f}") for k, tall in heights],
        usual=None if mark is None else f"{100 * _gap_share(mark):.3f}",
        ticks=[(f"{100 * _gap_share(seconds):.3f}", name) for seconds, name in _GAP_TICKS],
    )


def _gap_share(seconds: Any) -> Any:
    return np.clip(np.log(np.maximum(seconds, 1.0)) / math.log(_MAX_GAP_SECONDS), 0.0, 1.0)


def lag_curve(found: Lags) -> Markup:
    """A figure of the share of pushes that a session start followed within 0 s to 5 min, and of chance."""
    return render(
        "push_lags.html",
        label=found.sentence,
        height=_LAG_HEIGHT,
        left=_LAG_LEFT,
        places=_LAG_PLACES,
        reach=_lag_place(found.reach_seconds),
        chance=_steps(found.shifted),
        seen=_steps(found.seen),
        ticks=[(_lag_place(seconds), name) for seconds, name in (*_LAG_TICKS, (_MAX_LAG_SECONDS, "5 min"))],
    )


def _lag_place(seconds: float) -> str:
    share = min(math.log1p(seconds) / math.log1p(_MAX_LAG_SECONDS), 1.0)
    return f"{_LAG_LEFT + (100 - _LAG_LEFT) * share:.2f}%"


def _steps(waits: Micros) -> str:
    """The cumulative share as an SVG path from 1000 = none down to 0 = all, a step where it changes."""
    seconds = np.expm1(np.linspace(0.0, math.log1p(_MAX_LAG_SECONDS), _LAG_PLACES + 1))
    share = np.searchsorted(waits, np.rint(seconds * 1e6).astype(np.int64), "right") / len(waits)
    level = np.rint(1000 * (1.0 - share)).astype(np.int64)
    places = [*(np.flatnonzero(np.diff(level)) + 1).tolist(), _LAG_PLACES]
    path, at = f"M0 {level[0]}", 0
    for place in places:
        path += f"H{place}" + (f"V{level[place]}" if level[place] != level[at] else "")
        at = place
    return path
