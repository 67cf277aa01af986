"""Names and counts as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """The first names, and how many more there are.

    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def many(n: int, what: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
