"""The report's style and inline SVG drawings: strings without JavaScript or inline style."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Intervals = Sequence[tuple[int, int]]
"""(start, end) in microseconds since the epoch, UTC."""

_DAY = 86_400
_TICKS = (900, 1800, 3600, 7200, 14_400, 28_800, _DAY, 2 * _DAY, 7 * _DAY)
_MAX_TICKS = 7
_RESOLUTION = 2000
"""Places in a window; bars in adjoining ones are drawn as one: it bounds the page."""
_LABEL = 15
_GAP = 12

STYLE = """
:root{--bg:#fbfbfa;--card:#fff;--ink:#1d232b;--dim:#5c6672;--line:#d9dde2;--session:#1f5fbf;
--fore:#1a8a5a;
--unlock:#a8741a;--push:#7b42b3;--up:#b3402a;--down:#2b6f9e;--track:#eef0f3}
@media (prefers-color-scheme:dark){
:root{--bg:#14171b;--card:#1c2127;--ink:#e4e8ec;--dim:#9aa5b1;--line:#343c45;
--session:#6ea8ff;--fore:#4cc38a;--unlock:#e0ad52;--push:#c49af0;--up:#f08a70;--down:#6fb7e6;--track:#252b32}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1120px;padding:1rem;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.25rem;margin:1.6rem 0 .6rem}
h3{font-size:1.05rem;margin:0 0 .3rem}
h4{font-size:.95rem;margin:.8rem 0 .2rem}p{margin:.3rem 0}ul{margin:.2rem 0 .8rem;padding-left:1.2rem}
a{color:var(--session)}code{font:.82em ui-monospace,Menlo,Consolas,monospace;color:var(--dim)}
.dim,.meta,header p,caption{color:var(--dim)}
.facts{display:flex;flex-wrap:wrap;gap:.6rem;margin:0 0 1rem}
.facts div{flex:1 1 8.5rem;background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:.6rem .8rem}
.facts div:last-child{flex:2 1 17.6rem}
.facts dt{color:var(--dim);font-size:.85rem}.facts dd{margin:0;font-size:.85rem}
.facts strong{font-size:1.3rem;display:block}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.35rem .6rem .35rem 0;border-bottom:1px solid var(--line)}
thead th{color:var(--dim);font-weight:600;font-size:.85rem}caption{text-align:left;padding:.6rem 0 0}
.named td:first-child{min-width:8rem}
.ranked th,.ranked td:nth-child(2),.ranked td:nth-child(5){white-space:nowrap}
.ranked td:nth-child(3){min-width:8rem}.ranked td:nth-child(4){min-width:13rem}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:1rem;margin:1rem 0}
.rank{display:inline-block;min-width:1.8em;color:var(--dim)}
.alert{background:var(--up);color:var(--card);border-radius:4px;padding:0 .4em;
font-size:.8rem;font-weight:600}
path{vector-effect:non-scaling-stroke;stroke-linejoin:bevel}
figure{margin:.6rem 0}figcaption{color:var(--dim);font-size:.85rem}.gaps{max-width:640px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:0 1.5rem;
align-items:end}
.lag path{fill:none;stroke-width:2}.lag .seen{stroke:var(--session)}.reach{stroke:var(--push)}
.lag .chance{stroke:var(--ink);stroke-dasharray:4 3}
.ask{border-left:3px solid var(--session);padding-left:.6rem}
.gap{fill:var(--session)}.usual{stroke:var(--ink);stroke-width:2;stroke-dasharray:4 3}
[hidden],.ranked tr[hidden]{display:none}.tools{display:flex;flex-wrap:wrap;gap:.5rem 1rem;
align-items:end;margin:0 0 .8rem}
.tools[hidden]{display:none}.tools label{display:grid;color:var(--dim);font-size:.85rem}
.tools span{color:var(--dim)}
input,select,button{font:inherit;color:var(--ink);background:var(--card);border:1px solid var(--dim);
border-radius:4px;padding:.2rem .5rem}summary{color:var(--session);cursor:pointer;margin-top:.6rem}
:focus-visible{outline:2px solid var(--session);outline-offset:2px}
pre{background:var(--track);padding:.6rem;border-radius:4px;white-space:pre-wrap;font-size:.85rem}
svg{display:block;overflow:visible}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}.axis,.zero{stroke:var(--dim)}
.track{fill:var(--track)}
.session{fill:var(--session);stroke:var(--session)}.foreground{fill:var(--fore);stroke:var(--fore)}
.unlocked{fill:var(--unlock);stroke:var(--unlock)}.push{fill:var(--push);stroke:var(--push)}.up{fill:var(--up)}.down{fill:var(--down)}
.why th[scope=row]{font-weight:400;width:46%}.why code{display:block}.why td{white-space:nowrap}
.drawn{width:30%}.drawn div{display:flex;gap:.6rem;align-items:center}.drawn svg{flex:1;min-width:0}
.drawn span{color:var(--dim);font-size:.85rem;min-width:2.8rem;text-align:right}
@media (max-width:640px){
.rows,.rows tbody,.rows tr,.rows td{display:block}.rows thead{position:absolute;left:-9999px}
.rows tr{border:1px solid var(--line);border-radius:8px;background:var(--card);
padding:.4rem .7rem;margin:.6rem 0}
.rows td{display:flex;gap:.6rem;border:0;padding:.1rem 0}.rows td div{flex:1;min-width:0}
.ranked td:nth-child(n){white-space:normal;min-width:0}
.rows td::before{content:attr(data-label);flex:0 0 5.5rem;color:var(--dim);font-size:.85rem}
.card{padding:.8rem}.why th[scope=row]{width:38%}.why td{white-space:normal;overflow-wrap:normal;
font-size:.85rem}
.drawn{width:26%}
.why th,.why td{padding-right:.3rem}.why thead th{overflow-wrap:normal;font-size:.75rem}
.drawn div{display:block}.drawn span{display:block;text-align:left}
}
"""
"""The page's only style; no name from the telemetry enters it."""


@dataclass(frozen=True)
class Lane:
    """One labelled row of bars."""

    label: str
    kind: str
    """CSS class of the bars: `session`, `foreground`, `unlocked` or `push`."""
    intervals: Intervals
    height: int
    """In px."""


def text(value: object) -> str:
    """A value as inert HTML text: escaped, invisible and direction-changing characters spelled out."""
    return html.escape("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value)))


def raster(start: int, end: int, lanes: Sequence[Lane], label: str) -> str:
    """An SVG of lanes over the window [start, end) in microseconds, with a UTC axis; `label` is read aloud.

    Every bar is at least 1 px wide, whatever its length. Positions are percentages, so that the picture
    stretches with the page and its letters do not.
    """
    rows, y = [], 0
    for lane in lanes:
        top = y + _LABEL + 4
        rows.append(f'<text class="lane" x="0" y="{y + _LABEL - 3}">{text(lane.label)}</text>')
        rows.append(f'<rect class="track" x="0" y="{top}" width="100%" height="{lane.height}"/>')
        rows.append(
            f'<svg class="{lane.kind}" y="{top}" width="100%" height="{lane.height}" '
            f'viewBox="0 0 {_RESOLUTION} 1" preserveAspectRatio="none">'
            f'<path d="{_bars(lane.intervals, start, end)}"/></svg>'
        )
        y = top + lane.height + _GAP
    rows.append(_axis(start, end, y))
    return (
        f'<svg class="raster" role="img" aria-label="{text(label)}" width="100%" height="{y + 22}">'
        f"{''.join(rows)}</svg>"
    )


def bar(value: float, low: float, high: float) -> str:
    """An SVG bar from zero to `value` on the scale [min(low, 0), max(high, 0)]."""
    low, high = min(low, 0.0), max(high, 0.0)
    width = (high - low) or 1.0
    zero, at = 100 * -low / width, 100 * (value - low) / width
    left, right = min(zero, at), max(zero, at)
    return (
        '<svg class="bar" aria-hidden="true" width="100%" height="14">'
        f'<rect class="{"up" if value >= 0 else "down"}" x="{left:.2f}%" y="2" '
        f'width="{right - left:.2f}%" height="10"/>'
        f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="14"/></svg>'
    )


def moment(micros: int, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time in microseconds since the epoch as UTC text."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime(form)


def _axis(start: int, end: int, y: int) -> str:
    seconds = (end - start) / 1e6
    step = next((s for s in _TICKS if seconds / s <= _MAX_TICKS), seconds / 4)
    form = "%H:%M" if step < _DAY else "%b %d"
    out = [f'<line class="axis" x1="0" x2="100%" y1="{y}" y2="{y}"/>']
    count = int(seconds // step)
    for k in range(count + 1):
        share = 100 * k * step / seconds if seconds else 0.0
        anchor = "start" if k == 0 else "end" if share > 97 else "middle"
        label = moment(int(start + k * step * 1e6), form)
        out.append(f'<line class="axis" x1="{share:.3f}%" x2="{share:.3f}%" y1="{y}" y2="{y + 4}"/>')
        out.append(f'<text class="tick" x="{share:.3f}%" y="{y + 17}" text-anchor="{anchor}">{label}</text>')
    return "".join(out)


def _bars(intervals: Intervals, start: int, end: int) -> str:
    """Bars as an SVG path, a unit high and the window `_RESOLUTION` units wide; near ones are joined.

    The stroke, half a pixel to each side, makes a bar of no width one pixel wide.
    """
    width = max(end - start, 1)
    bars: list[list[int]] = []
    for first, last in sorted(intervals):
        if last < start or first >= end:
            continue
        left = _RESOLUTION * (max(first, start) - start) // width
        right = _RESOLUTION * (min(max(last, first), end) - start) // width
        if bars and left - bars[-1][1] < 2:
            bars[-1][1] = max(bars[-1][1], right)
        else:
            bars.append([left, right])
    moves, at = [], 0
    for left, right in bars:
        moves.append(f"m{left - at} 0h{right - left}v1h{left - right}z")
        at = left
    return "".join(moves)
