"""Bytes of each process per interval, from a PowerLog's UsageDiff: five minutes awake, up to 42 asleep."""

from __future__ import annotations

from appcadence._types import DAY_US
from appcadence.telemetry.readers import _sqlite
from appcadence.telemetry.readers._powerlog_tables import PowerLog, process_name

USAGE_DIFF = "PLProcessNetworkAgent_EventInterval_UsageDiff"
_COLUMNS = ("BundleName", "ProcessName", "timestampEnd", "WifiOut", "CellOut", "WifiIn", "CellIn")
_MAX_BYTES = 1 << 50

Interval = tuple[str, int, int, int, int]


def usage_of(log: PowerLog) -> list[Interval]:
    """Intervals in which a process sent or received anything, all interfaces together."""
    intervals = []
    for line, _, start, (bundle, process, until, *counts) in log.rows(USAGE_DIFF, _COLUMNS):
        name = process_name(bundle) or process_name(process)
        end = log.time(until)
        if name is None:
            log.reject(USAGE_DIFF, line, "neither BundleName nor ProcessName is a name")
        elif end is None or not start <= end <= start + DAY_US:
            log.reject(USAGE_DIFF, line, "timestampEnd is no time within a day after timestamp")
        elif not all(map(_is_count, counts)):
            log.reject(USAGE_DIFF, line, "a number of bytes is none")
        else:
            wifi_out, cell_out, wifi_in, cell_in = (int(count or 0) for count in counts)
            sent, received = wifi_out + cell_out, wifi_in + cell_in
            if sent or received:
                intervals.append((name, start, end, sent, received))
    return intervals


def _is_count(value: _sqlite.Value) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value <= _MAX_BYTES)
