"""Devices that are seen through their own log alone, as a sysdiagnose holds it: no gateway, no filter."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US, Mask
from appcadence.telemetry.schema import ACTIVITY, COVERAGE, NOTIFICATIONS, TIME, USAGE, conform
from appcadence.telemetry.simulate.slots import SOURCE, joined, phone_flows

_INTERVAL_US = 300_000_000
_PUSH_GRID_SECONDS = 60.0
_SILENCE_US = 2 * HOUR_US
"""Some process uses the network more often than that while the device logs."""
_EVENTS = ("push_received", "apns_keepalive", "apns_connected")


def through_own_log(tables: dict[str, pa.Table], devices: Collection[str]) -> dict[str, pa.Table]:
    """Canonical tables in which some devices, whose flows name their apps, are seen through their own log.

    Their flows lose destinations and sizes and keep 8 s; bytes are counted over five minutes; received pushes
    stand on the minute; other events of notifications are not logged.
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
    """A stamp is rounded to the minute, and an event is given the earliest moment it stands for."""
    events = events.filter(pc.is_in(events["kind"].cast(pa.string()), pa.array(_EVENTS)))
    coarse = np.asarray(pc.equal(events["kind"].cast(pa.string()), "push_received"))
    grid = int(_PUSH_GRID_SECONDS * 1e6)
    time = events["time"].cast(pa.int64()).to_numpy()
    rounded = (time + grid // 2) // grid * grid - grid // 2
    columns = {name: events[name] for name in events.column_names} | {
        "time": _times(np.where(coarse, rounded, time)),
        "content_available": pa.nulls(len(events), pa.bool_()),
        "source": pa.array([SOURCE] * len(events)),
        "time_resolution_seconds": np.where(coarse, _PUSH_GRID_SECONDS, 1e-6),
    }
    return conform(NOTIFICATIONS, pa.table(columns))


def _coverage(flows: pa.Table) -> pa.Table:
    """When each device's log shows that it was kept."""
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
        "start": _times(spans["start", "first"].to_numpy()),
        "end": _times(spans["start", "last"].to_numpy()),
        "source": pa.array([SOURCE] * len(spans)),
    }
    return conform(COVERAGE, pa.table(columns))


def _usage(flows: pa.Table) -> pa.Table:
    """Bytes of each app in the five minutes in which its flows begin."""
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
        "start": _times(begin),
        "end": _times(begin + _INTERVAL_US),
        "bytes_out": sums["bytes_out_sum"],
        "bytes_in": sums["bytes_in_sum"],
        "source": pa.array([SOURCE] * len(sums)),
    }
    return conform(USAGE, pa.table(columns))


def _times(us: np.ndarray) -> pa.Array:
    return pa.array(us.astype(np.int64)).cast(pa.timestamp("us")).cast(TIME)
