"""What a report shows of a few windows beyond their scores: sessions, pushes, what is known of the app."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Codes
from appcadence.features.declarations import covers
from appcadence.features.windows import Windows, with_app_level

KEY = ["device_id", "app_id", "dest", "window_start"]
_PROFILE = ["app_name", "managed", "approved", "declared_purpose"]
INVENTORY_COLUMNS = ["app_id", "device_id", *_PROFILE, "expected_hosts", "snapshot_time"]
"""What is read of the inventory."""
_TIME = pa.timestamp("us", tz="UTC")
CONTEXT = pa.schema(
    [
        *((name, pa.string()) for name in KEY[:3]),
        ("window_start", _TIME),
        ("app_name", pa.string()),
        ("managed", pa.bool_()),
        ("approved", pa.bool_()),
        ("declared_purpose", pa.string()),
        ("in_inventory", pa.bool_()),
        ("declared_by", pa.string()),
        ("push_resolution_seconds", pa.float64()),
        ("pushes", pa.list_(_TIME)),
    ]
)
"""One row a window. declared_by: the only app of the inventory that declares the destination, null where none
or several do; push_resolution_seconds: of the device's push log, null without one or where the app is
unknown; pushes: those to the app inside the window."""


def sessions(windows: Windows, wanted: pd.DataFrame) -> pa.Table:
    """Sessions of the wanted windows (device_id, app_id, dest, window_start), in their order.

    Start and end of each, whether it began in the window (`fresh`), and bytes summed over the session's
    flows; null where no flow's are known.
    """
    rows = rows_of(windows, wanted)
    s = windows.sessions
    index, owner = owned(s.offsets, rows)
    base = windows.start_us[rows[owner]]

    def at(seconds: np.ndarray) -> pa.Array:
        return pa.array(base + np.rint(seconds * 1e6).astype(np.int64)).cast(_TIME)

    sent, received = _bytes(windows, rows)
    keys = pa.Table.from_pandas(wanted[KEY], preserve_index=False).take(pa.array(owner))
    columns = {"start": at(s.start[index]), "end": at(s.end[index]), "fresh": s.fresh[index]}
    columns |= {"bytes_out": sent, "bytes_in": received}
    return pa.table({name: keys[name] for name in KEY} | columns)


def context(windows: Windows, inventory: pa.Table, wanted: pd.DataFrame) -> pa.Table:
    """`CONTEXT` of the wanted windows, in their order.

    `windows` hold the pushes; `inventory` has the `INVENTORY_COLUMNS` of at least the wanted devices and the
    fleet. As in the features, a device's newest profile of an app goes before the fleet's.
    """
    rows = rows_of(windows, wanted)
    app, pushes = windows.app[rows], windows.context.pushes
    start = windows.start_us[rows]
    end = start + int(windows.seconds * 1e6)
    spans = zip(*pushes.of(windows.context.pair(windows.device[rows], app)), start, end, strict=True)
    times = []
    for first, last, begin, stop in spans:
        inside = first + np.searchsorted(pushes.time_us[first:last], [begin, stop])
        times.append(pushes.time_us[slice(*inside)])
    known = inventory.to_pandas().astype({"app_id": object, "device_id": object})
    known = known.sort_values("snapshot_time", kind="stable").drop_duplicates(
        ["device_id", "app_id"], keep="last"
    )
    profile = {
        (None if pd.isna(row["device_id"]) else row["device_id"], row["app_id"]): row
        for row in known.to_dict("records")
    }
    of = [
        profile.get((device, name)) or profile.get((None, name)) or {}
        for device, name in zip(wanted["device_id"], wanted["app_id"], strict=True)
    ]
    declared = _declared_by(known, set(wanted["dest"]))
    columns: dict[str, Any] = {name: wanted[name] for name in KEY}
    columns |= {name: [row.get(name) for row in of] for name in _PROFILE}
    columns |= {
        "in_inventory": [bool(row) for row in of],
        "declared_by": [declared.get(dest) for dest in wanted["dest"]],
        "push_resolution_seconds": np.where(
            app >= 0, pushes.resolution_seconds[windows.device[rows]], np.nan
        ),
        "pushes": pa.array(times, pa.list_(pa.int64())).cast(CONTEXT.field("pushes").type),
    }
    return pa.Table.from_arrays([column(columns[f.name], f.type) for f in CONTEXT], schema=CONTEXT)


def _declared_by(inventory: pd.DataFrame, dests: set[str]) -> dict[str, str]:
    """The app that alone declares a destination, by destination."""
    hosts = inventory.explode("expected_hosts").dropna(subset="expected_hosts")
    pairs = {(app, host.lower()) for app, host in zip(hosts["app_id"], hosts["expected_hosts"], strict=True)}
    apps = {dest: {app for app, host in pairs if covers(host, dest)} for dest in dests}
    return {dest: of.pop() for dest, of in apps.items() if len(of) == 1}


def rows_of(windows: Windows, wanted: pd.DataFrame) -> np.ndarray:
    """The place of each wanted window among the windows."""
    dests, dest = with_app_level(windows.dests, windows.dest)
    have = pd.MultiIndex.from_arrays(
        [
            np.asarray(windows.devices, object)[windows.device],
            np.array([*windows.apps, ""], object)[windows.app],
            np.asarray(dests, object)[dest],
            windows.start_us,
        ]
    )
    start = wanted["window_start"].dt.as_unit("us").astype("int64")
    names = [wanted[name].astype(object).fillna("") for name in KEY[:3]]
    want = pd.MultiIndex.from_arrays([*names, start])
    return np.asarray(have.get_indexer(want))


def column(values: Any, kind: pa.DataType) -> pa.Array:
    """Values as a column of a type; of numbers NaN is not known."""
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and pa.types.is_integer(kind):
        return pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))
    return values if isinstance(values, pa.Array) else pa.array(values, kind, from_pandas=True)


def owned(offsets: Codes, rows: Codes) -> tuple[Codes, Codes]:
    """Places of all that the rows of a CSR own, and the row (a place in `rows`) of each."""
    count = np.diff(offsets)[rows]
    owner = np.repeat(np.arange(len(rows)), count)
    return np.arange(len(owner)) - np.repeat(np.cumsum(count) - count - offsets[rows], count), owner


def _bytes(windows: Windows, rows: np.ndarray) -> tuple[pa.Array, pa.Array]:
    sent: list[np.ndarray] = []
    received: list[np.ndarray] = []
    s = windows.sessions
    for r in rows:
        flows = slice(windows.offsets[r], windows.offsets[r + 1])
        starts = s.start[s.offsets[r] : s.offsets[r + 1]]
        owner = np.searchsorted(starts, windows.flow_start[flows], "right") - 1
        for values, out in ((windows.bytes_out, sent), (windows.bytes_in, received)):
            known = ~np.isnan(values[flows])
            total = np.bincount(owner, np.where(known, values[flows], 0.0), len(starts))
            seen = np.bincount(owner, known, len(starts)) > 0
            out.append(np.where(seen, total, np.nan))
    each = (np.concatenate([np.empty(0), *parts]) for parts in (sent, received))
    out, back = (column(values, pa.int64()) for values in each)
    return out, back
