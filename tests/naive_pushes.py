"""Slow, obvious twin of the evidence that pushes and bursts add up over days."""

from __future__ import annotations

import math

from naive_context import DAY, SHIFTS, TICK


def push_counts(window, pushes, grid):
    """Pushes, answered ones, answered shifted ones, session starts, starts after a push; None = no log."""
    if grid is None or window.app is None:
        return None
    times = [t - window.begin for t, _ in pushes if 0 <= t - window.begin < window.length]
    starts, reach = window.session_starts(), 30 + grid + TICK

    def answered(t):
        return any(t <= s <= t + reach for s in starts)

    return (
        len(times),
        sum(map(answered, times)),
        sum(answered((t + shift) % window.length) for shift in SHIFTS for t in times),
        len(starts),
        sum(any(p <= s <= p + reach for p in times) for s in starts),
    )


def pushes_over_days(earlier, window, pushes, grid):
    """The last two features, from the channel's windows so far, this one the last; 14 days halve a count."""
    found = [(w, push_counts(w, pushes, grid)) for w in [*earlier, window]]
    if found[-1][1] is None or not found[-1][1][0]:
        return {}
    today = window.begin // DAY
    weighed = [[0.5 ** ((today - w.begin // DAY) / 14) * c for c in counts] for w, counts in found]
    n, answered, shifted, starts, woken = (math.fsum(column) for column in zip(*weighed, strict=True))
    if n < 2.5 or shifted / len(SHIFTS) > 0.5 * n:
        return {}
    return {
        "push_coupling_days_excess": (answered - shifted / len(SHIFTS)) / (n + 3),
        "push_session_days_share": woken / (starts + 3),
    }
