"""What a phone's own log (in a sysdiagnose) shows: slots in which an app moved packets, and nothing else.

An open connection is invisible while it is silent: it shows where it begins and ends, and wherever it carries
data or is kept alive. Slots count from the device's start, on a clock that stands still in sleep, so their
grid is simulated as a different one every hour.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US, Ints, Mask, Vector
from appcadence.telemetry.app_ids import WORKS_FOR_OTHERS
from appcadence.telemetry.arrays import row_and_place
from appcadence.telemetry.schema import ACTIVITY, COVERAGE, FLOWS, NOTIFICATIONS, USAGE, conform

SLOT_SECONDS = 8
SOURCE = "powerlog"
_SLOT_US = SLOT_SECONDS * 1_000_000
_BURST_BYTES = 20_000.0
"""Bytes that move in one slot of an open connection."""
_SILENCE_SECONDS = 240.0
"""A connection without data is kept alive about this often."""


def slots(who: Ints, start: Ints, seconds: Vector, size: Vector) -> tuple[Ints, Ints, Ints]:
    """Runs of slots that n flows show: the owner, start and end of each (m,), times in microseconds.

    `who` (n,) is a number for each device and app, `start` (n,) is in microseconds since the epoch, `size`
    (n,) in bytes both ways, where NaN counts as none. The order of the flows has no effect.
    """
    seconds, size = np.nan_to_num(seconds), np.nan_to_num(size)
    most = (seconds // SLOT_SECONDS).astype(np.int64) + 1
    busy = np.ceil(size / _BURST_BYTES + seconds / _SILENCE_SECONDS).astype(np.int64) + 1
    count = np.where(most <= 2, most, np.clip(busy, 2, most))
    row, place = row_and_place(count)
    last = np.maximum(count - 1, 1)[row]
    inner = (place > 0) & (place < last)
    share = (place + np.where(inner, _noise(start[row] + place) - 0.5, 0.0)) / last
    at = start[row] + (share * seconds[row] * 1e6).astype(np.int64)
    shift = (_noise(at // HOUR_US) * _SLOT_US).astype(np.int64)
    begin = (at - shift) // _SLOT_US * _SLOT_US + shift
    order, heads, end = _runs(who[row], begin, begin + _SLOT_US)
    return who[row][order][heads], begin[order][heads], end


def phone_flows(flows: pa.Table) -> pa.Table:
    """Flows of known apps as their phones' own logs show them, sorted by device, app and time."""
    who, named = _numbered_apps(flows)
    size = flows["bytes_out"].cast(pa.float64()).to_numpy() + flows["bytes_in"].cast(pa.float64()).to_numpy()
    start, seconds = flows["start"].cast(pa.int64()).to_numpy(), flows["duration_seconds"].to_numpy()
    whose, begin, end = slots(who, start, seconds, size)
    begin = np.maximum(begin, start.min(initial=np.iinfo(np.int64).max))  # nothing is seen before the first
    n = len(whose)
    app_id = named["app_id"].take(pa.array(whose))
    serves = pc.is_in(app_id.cast(pa.string()), pa.array(sorted(WORKS_FOR_OTHERS)))
    columns = {
        "start": begin,
        "duration_seconds": (end - begin) * 1e-6,
        "device_id": named["device_id"].take(pa.array(whose)),
        "app_id": app_id,
        "app_attribution": pc.if_else(serves, "process", "exact"),
        "outcome": pa.array(["unknown"] * n),
        "time_resolution_seconds": np.full(n, float(SLOT_SECONDS)),
        "source": pa.array([SOURCE] * n),
    }
    return conform(FLOWS, pa.table(columns))


def nowhere(flows: pa.Table) -> Mask:
    """(n,) which flows have an app but no destination, as in a phone's own log."""
    lost = pc.and_(pc.is_null(flows["dest_host"]), pc.is_null(flows["dest_ip"]))
    return np.asarray(pc.and_(lost, pc.is_valid(flows["app_id"])))


def joined(flows: pa.Table, others: pa.Table) -> pa.Table:
    """Two flow tables in one; runs of slots of one app on one device that meet are merged."""
    both = pa.concat_tables([flows, others]).unify_dictionaries()
    mine = nowhere(both)
    if not len(others) or not mine.any():
        return both
    theirs = both.filter(pa.array(mine))
    start = theirs["start"].cast(pa.int64()).to_numpy()
    end = start + np.rint(np.nan_to_num(theirs["duration_seconds"].to_numpy()) * 1e6).astype(np.int64)
    order, heads, end = _runs(_numbered_apps(theirs)[0], start, end)
    kept = theirs.take(pa.array(order[heads]))
    place = kept.schema.get_field_index("duration_seconds")
    seconds = pa.array((end - start[order][heads]) * 1e-6)
    kept = kept.set_column(place, kept.schema.field(place), seconds)
    return pa.concat_tables([both.filter(pa.array(~mine)), kept]).unify_dictionaries()


def _runs(who: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints, Ints]:
    """The order of the intervals, the places in it where runs begin, and the end of each run."""
    order = np.lexsort((end, start, who))
    who, start = who[order], start[order]
    reach = pd.Series(end[order]).groupby(who).cummax().to_numpy(np.int64)
    begins = np.append(True, (who[1:] != who[:-1]) | (start[1:] > reach[:-1]))[: len(who)]
    heads = np.flatnonzero(begins)
    return order, heads, reach[np.append(heads[1:], len(who)) - 1] if len(heads) else reach


def _numbered_apps(flows: pa.Table) -> tuple[Ints, pa.Table]:
    """(n,) a number for each device and app, and a table of these by number."""
    names = flows.select(["device_id", "app_id"]).to_pandas().astype(object)
    frame = names.drop_duplicates().sort_values(["device_id", "app_id"], ignore_index=True)
    number = pd.MultiIndex.from_frame(frame).get_indexer(pd.MultiIndex.from_frame(names))
    return np.asarray(number, np.int64), pa.Table.from_pandas(frame, preserve_index=False)


def _noise(numbers: Ints) -> Vector:
    """(n,) noise in [0, 1), a pure function of whole numbers (the finisher of SplitMix64)."""
    x = numbers.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((x ^ (x >> np.uint64(31))) / 2.0**64)


_INTERVAL_US = 300_000_000
_PUSH_GRID_SECONDS = 60.0
_SILENCE_US = 2 * HOUR_US
"""While the device logs, some process uses the network more often than this."""
_EVENTS = ("push_received", "apns_keepalive", "apns_connected")


def through_own_log(tables: dict[str, pa.Table], devices: Collection[str]) -> dict[str, pa.Table]:
    """Canonical tables in which some devices, whose flows name their apps, are seen through their own log.

    Their flows lose destinations and sizes and have a resolution of 8 s, bytes are counted over five minutes,
    received pushes are rounded to the minute, and other events of notifications are not logged.
    """
    names = pa.array(sorted(devices), pa.string())

    def split(table: pa.Table) -> tuple[pa.Table, pa.Table]:
        mine = pc.is_in(table["device_id"].cast(pa.string()), names)
        return table.filter(mine), table.filter(pc.invert(mine))

    flows, other_flows = split(tables["flows"])
    activity, other_activity = split(tables["activity"])
    events, other_events = split(tables["notifications"])
    return tables | {
        "flows": joined(other_flows, phone_flows(flows)),
        "activity": _together(other_activity, _logged(activity)),
        "notifications": _together(other_events, _on_the_minute(events)),
        "usage": _usage(flows),
        "coverage": _coverage(flows),
    }


def _together(*parts: pa.Table) -> pa.Table:
    return pa.concat_tables(parts).unify_dictionaries()


def _logged(table: pa.Table) -> pa.Table:
    columns = {name: table[name] for name in table.column_names} | {"source": pa.array([SOURCE] * len(table))}
    return conform(ACTIVITY, pa.table(columns))


def _on_the_minute(events: pa.Table) -> pa.Table:
    """Timestamps rounded to the minute, each set to the earliest moment that it can mean."""
    events = events.filter(pc.is_in(events["kind"].cast(pa.string()), pa.array(_EVENTS)))
    coarse = np.asarray(pc.equal(events["kind"].cast(pa.string()), "push_received"))
    grid = int(_PUSH_GRID_SECONDS * 1e6)
    time = events["time"].cast(pa.int64()).to_numpy()
    rounded = (time + grid // 2) // grid * grid - grid // 2
    columns = {name: events[name] for name in events.column_names} | {
        "time": np.where(coarse, rounded, time),
        "content_available": pa.nulls(len(events), pa.bool_()),
        "source": pa.array([SOURCE] * len(events)),
        "time_resolution_seconds": np.where(coarse, _PUSH_GRID_SECONDS, 1e-6),
    }
    return conform(NOTIFICATIONS, pa.table(columns))


def _coverage(flows: pa.Table) -> pa.Table:
    """Spans in which each device's log was kept."""
    rows = pd.DataFrame(
        {
            "device_id": flows["device_id"].cast(pa.string()).to_pandas(),
            "start": flows["start"].cast(pa.int64()).to_numpy(),
        }
    ).sort_values(["device_id", "start"], ignore_index=True)
    new: Mask = (rows.groupby("device_id")["start"].diff().fillna(np.inf) > _SILENCE_US).to_numpy()
    spans = rows.groupby(np.cumsum(new)).agg({"device_id": "first", "start": ["first", "last"]})
    columns = {
        "device_id": pa.array(spans["device_id", "first"], pa.string()),
        "start": spans["start", "first"].to_numpy(),
        "end": spans["start", "last"].to_numpy(),
        "source": pa.array([SOURCE] * len(spans)),
    }
    return conform(COVERAGE, pa.table(columns))


def _usage(flows: pa.Table) -> pa.Table:
    """Bytes of each app per interval of five minutes in which its flows begin."""
    start = flows["start"].cast(pa.int64()).to_numpy() // _INTERVAL_US * _INTERVAL_US
    key = {name: flows[name].cast(pa.string()) for name in ("device_id", "app_id")}
    bytes_ = {name: pc.fill_null(flows[name], 0) for name in ("bytes_out", "bytes_in")}
    sums = (
        pa.table(key | {"start": pa.array(start)} | bytes_)
        .group_by([*key, "start"])
        .aggregate([(name, "sum") for name in bytes_])
        .sort_by([(name, "ascending") for name in ("start", *key)])
    )
    begin = sums["start"].to_numpy()
    columns = {
        "device_id": sums["device_id"],
        "app_id": sums["app_id"],
        "start": begin,
        "end": begin + _INTERVAL_US,
        "bytes_out": sums["bytes_out_sum"],
        "bytes_in": sums["bytes_in_sum"],
        "source": pa.array([SOURCE] * len(sums)),
    }
    return conform(USAGE, pa.table(columns))
