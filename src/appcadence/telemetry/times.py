"""Points in time as microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000
ISO_EXAMPLE = "an ISO time such as 2026-11-24T08:00:00Z"
_MICROSECOND = timedelta(microseconds=1)


def from_iso(text: str) -> datetime | None:
    """The ISO 8601 time, in UTC where it carries no offset; None for what is no time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def to_micros(time: datetime) -> int:
    """Microseconds since the epoch; a time without an offset is UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND


def to_iso(micros: int) -> str:
    """ISO 8601 in UTC, of a time up to the year 9999."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat()
