"""Numbers with their units, and what happened in a case, as a person would say them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def quantity(value: float, unit: str) -> str:
    """A number with its unit, as a person would say it."""
    if math.isnan(value):
        return "unknown"
    if unit == "s":
        for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
            if value >= 2 * size:
                return f"{value / size:.1f} {name}"
        return f"{value:.1f} s" if value >= 0.1 or value == 0 else "under 0.1 s"
    if unit == "ratio":
        return f"{100 * value:.0f}%"
    if unit == "bytes":
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} bytes"
    if unit == "times":
        return f"{value:,.0f} times as often" if value >= 10 else f"{value:.2g} times as often"
    named = {"1/h": "an hour", "count": ""}.get(unit, unit)
    if 0 < value < 0.001:
        return f"under 0.001 {named}".strip()
    return f"{value:,.0f} {named}".strip() if abs(value) >= 1000 else f"{value:.3g} {named}".strip()


def together(names: Sequence[str]) -> str:
    """Names as a person lists them: `a, b and c`."""
    *others, last = names or [""]
    return f"{', '.join(others)} and {last}" if others else last


def by_chance(n: float) -> str:
    """As many as chance alone would have."""
    return f"{n:.0f} by chance" if n >= 10 else f"{n:.2g} by chance"


_MIN_SHARE, _MIN_COVER, _LONG_SECONDS, _MIN_PUSHES = 0.5, 0.1, 1800.0, 3
"""Gaps have a usual length where so many are near it, and they fill so much of the time; a session is long;
so many pushes tell chance apart."""


def told_behaviours(p: Mapping[str, Any]) -> list[str]:
    """The behaviours that the sentence of a case tells of: pushes first, which say the most."""
    n, seconds = _of_destination(p)
    filled = n * (p["gap_seconds"] or 0.0) >= _MIN_COVER * (seconds or 0.0)
    told = {
        "notification_burst": (p["answered"] or 0) >= _MIN_PUSHES and p["answered"] > 2 * p["by_chance"],
        "structured_cadence": filled and (p["gap_share"] or 0.0) >= _MIN_SHARE,
        "session_persistence": _longest_seconds(p) >= _LONG_SECONDS,
    }
    return [name for name, is_told in told.items() if is_told]


def _of_destination(p: Mapping[str, Any]) -> tuple[int, float | None]:
    """Connections to the destination that a case is told by, and the seconds that they span."""
    if p.get("dest_connections") is None:  # no other destination alerts
        return p["connections"], p["seconds"]
    return p["dest_connections"], p["dest_seconds"]


def _longest_seconds(p: Mapping[str, Any]) -> float:
    n, seconds = _of_destination(p)
    return float(seconds if n == 0 and seconds is not None else p["longest_seconds"] or 0.0)


def _unnamed(n: int, held: int | None) -> str:
    """Destinations that a case names none of, and how many exceptions hold back."""
    said = "1 destination" if n == 1 else f"{n:,} destinations" if held else f"{n:,} destinations together"
    return f"{said} and {held:,} under exceptions" if held else said


def case_sentence(p: Mapping[str, Any]) -> str:
    n, failed, seconds = p["connections"], p["failed"] or 0, p["seconds"]
    part, part_seconds = _of_destination(p)
    several, told, longest = part != n, told_behaviours(p), _longest_seconds(p)
    what = "use of the network" if p["own_log"] else "attempt" if failed == n else "connection"
    many = what.replace("use ", "uses ") if p["own_log"] else f"{what}s"
    said = f"{n:,} {what if n == 1 else many}" if n else "a connection that had begun before"
    more_to_dest = several and bool(part) and bool(p.get("more_to_dest"))
    alone = part <= 1 and not more_to_dest and (part_seconds is None or part_seconds < longest + 1.0)
    if (windows := p.get("windows")) is not None:
        said += f" in {windows:,} alerting windows"
    if seconds is not None and (several or not alone):
        said += f" {'in' if windows is None else 'over'} {quantity(seconds, 's')}"
    if failed and 10 * failed >= n:
        said += (", all failed" if n > 1 else ", which failed") if failed == n else f", {failed:,} failed"
    rhythm = ""
    if "structured_cadence" in told:
        rhythm += f", mostly every {quantity(p['gap_seconds'], 's')}"
    if "session_persistence" in told:
        longer = p.get("cut") or more_to_dest
        more, least = (" or longer", "") if longer else ("", "" if alone else "up to ")
        # A session may be one long connection or many short ones, each soon after the last.
        length = f"{least}{quantity(longest, 's')}{more}"
        rhythm += f", for {length}" if alone else f", in contact for {length} at a time"
    where = p["dest"] or ("" if p["own_log"] else _unnamed(p["destinations"], p.get("held_destinations")))
    if several:
        those = {0: "one that had begun before", 1: "one of them"}.get(part, f"{part:,} of them")
        those = "some of them" if more_to_dest else those
        said += f"; {those}{rhythm}" + (f"{',' if rhythm else ''} went to {where}" if where else "")
    else:
        said += rhythm + (f", to {where}" if where else "")
    if p["dest"] is not None:
        if p.get("port") is not None:
            said += f" (port {p['port']}{' and others' if p.get('more_ports') else ''})"
        others = (p["devices"] or 1) - 1
        if others >= 1 and p["other_devices"] is not None:
            met = f"{p['other_devices']:.0f} of {others:.0f} other devices" if p["other_devices"] else ""
            met = "the only other device" if met and others == 1 else met
            said += f", which {met or 'no other device'} contacted"
        if p["destinations"] > 1:
            said += f" (one of {p['destinations']:,} destinations)"
    if "notification_burst" in told:
        answered = f"{p['answered']} of {p['pushes']} pushes ({by_chance(p['by_chance'])})"
        said += f"; a session promptly followed {answered}"
    if p["unused"] is not None and n >= _MIN_PUSHES:
        share = "all" if p["unused"] == n else f"{min(100 * p['unused'] / n, 99):.0f}%"
        said += f"; the phone was locked when {share} of {f'the {many}' if several else 'them'} began"
    return f"{said}."
