"""Points in time as microseconds since 1970, UTC."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from appcadence.errors import TelemetryError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COCOA_EPOCH = 978_307_200
"""2001-01-01 UTC in seconds since 1970: the epoch of Core Data, Cocoa and "Mac absolute time"."""
_MICROSECOND = timedelta(microseconds=1)


def from_iso(text: str) -> datetime | None:
    """The ISO 8601 time, in UTC if it carries no offset; None if the text is no time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def stated(text: str, what: str) -> int:
    """The microseconds of an ISO 8601 time given by the user; `what` names it in the error.

    Raises:
        TelemetryError: it is no time since 1970.
    """
    time = from_iso(text)
    if time is None or time < EPOCH:
        raise TelemetryError(
            f"{what} is {text!r}; expected ISO 8601, such as 2026-11-24 or 2026-11-24T08:00:00Z"
        )
    return to_micros(time)


def stated_day(text: str, what: str) -> date:
    """The day of an ISO 8601 date given by the user.

    Raises:
        TelemetryError: it is no day since 1970.
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day < EPOCH.date():
        raise TelemetryError(f"{what} is {text!r}; expected an ISO 8601 day, such as 2026-11-24")
    return day


def to_micros(time: datetime) -> int:
    """Microseconds since the epoch; a time without an offset is UTC."""
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH) // _MICROSECOND


def to_iso(micros: int) -> str:
    """ISO 8601 in UTC; for times up to the year 9999."""
    return (EPOCH + timedelta(microseconds=micros)).isoformat()
