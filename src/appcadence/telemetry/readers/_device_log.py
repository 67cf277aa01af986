"""Shared by the readers of logs that a device keeps itself: device id, times, app ids and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from appcadence.errors import UnusableFile
from appcadence.telemetry.app_ids import app_of
from appcadence.telemetry.readers import ReadOptions
from appcadence.telemetry.readers._flows import LAST_SECOND
from appcadence.telemetry.schema import Table
from appcadence.telemetry.times import to_micros

FINEST_SECONDS = 1e-6
_RESOLUTIONS = ((3600.0, 3), (60.0, 1), (1.0, 1))
"""Possible resolutions, each with the fewest distinct times needed to conclude it."""
_APP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_NO_APP = ("com.apple.lock-screen", "com.apple.springboard", "com.apple.SpringBoard")


def device_of(path: Path, options: ReadOptions) -> str:
    """The device that a file comes from.

    None of these formats names its device, neither in the file nor (as far as is known) in the file name.

    Raises:
        UnusableFile: the options give no device.
    """
    if options.device_id is None:
        problem = f"{path} does not say which device it comes from; give its id"
        raise UnusableFile(problem, path, argument="device_id")
    return options.device_id


def micros(seconds: object) -> int | None:
    """Microseconds since the epoch; None if the value is no number of seconds from 1970 to 2100."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not 0 <= seconds < LAST_SECOND:
        return None
    return round(seconds * 1e6)


def iso_micros(text: object) -> int | None:
    """Microseconds since the epoch; None if it is no ISO 8601 time with an offset from 1970 to 2100."""
    if not isinstance(text, str) or len(text) > 50:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = to_micros(time)
    return since if time.tzinfo and 0 <= since < LAST_SECOND * 1_000_000 else None


def app_id(value: object) -> str | None:
    """The value if it is a bundle id."""
    return value if isinstance(value, str) and _APP.fullmatch(value) else None


def is_app(bundle: str) -> bool:
    """Whether a bundle id belongs to an app rather than the home or lock screen."""
    return not bundle.startswith(_NO_APP)


def app_of_topic(topic: object) -> str | None:
    """The app of an APNs topic."""
    app = app_id(topic)
    return app and app_of(app)


def resolution_seconds(times: Iterable[float]) -> float:
    """The coarsest of 1 h, 1 min, 1 s and 1 µs of which all times are multiples.

    One hour needs three distinct times: fewer may fall on full hours by chance.
    """
    distinct = {time for time in times if math.isfinite(time)}
    for seconds, least in _RESOLUTIONS:
        if len(distinct) >= least and all(time % seconds == 0 for time in distinct):
            return seconds
    return FINEST_SECONDS


def table(
    declared: Table, fields: Sequence[str], rows: Sequence[Sequence[object]], constants: Mapping[str, object]
) -> pa.Table:
    """Rows of `fields`, times as microseconds, and columns that hold one value throughout."""
    columns = {name: [row[place] for row in rows] for place, name in enumerate(fields)}
    return declared.of(columns | {name: [value] * len(rows) for name, value in constants.items()})
