"""Numbers with their units, as a person would say them."""

from __future__ import annotations

import math


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
    return f"{value:,.0f} {named}".strip() if abs(value) >= 1000 else f"{value:.3g} {named}".strip()
