"""Intervals from records of state changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[int, int]


def silences(times: Iterable[int], longest: int) -> list[Span]:
    """The gaps between consecutive times that are wider than `longest`, in order."""
    ordered = sorted(set(times))
    return [(a, b) for a, b in zip(ordered, ordered[1:], strict=False) if b - a > longest]


def spans(changes: Iterable[tuple[int, bool]], gaps: Sequence[Span], end: int) -> list[Span]:
    """When a state was on.

    Args:
        changes: (time, on or off), ordered by time. A repeated "on" is no change.
        gaps: stretches without any record. What was on before one is on until it begins; what holds
            after one is known only from the next change.
        end: the last record of all; what is on then ends there.

    Returns:
        (start, end) in order, none of them empty.
    """
    result: list[Span] = []
    start: int | None = None
    at = 0

    def close(time: int) -> None:
        nonlocal start
        if start is not None and start < time:
            result.append((start, time))
        start = None

    def advance(time: int) -> None:
        nonlocal at
        while at < len(gaps) and gaps[at][1] <= time:
            if start is not None and start <= gaps[at][0]:
                close(gaps[at][0])
            at += 1

    for time, on in changes:
        advance(time)
        if on and start is None:
            start = time
        elif not on:
            close(time)
    advance(end)
    close(end)
    return result
