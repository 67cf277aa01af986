"""What an output keeps about the windows it shows: counts, times, where to look, sessions, the app."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask, Micros, Vector
from appcadence.features.declarations import covers
from appcadence.features.history import History
from appcadence.features.pushes import SHIFTS_SECONDS
from appcadence.features.windows import APP_LEVEL, Windows, with_app_level
from appcadence.telemetry.addresses import is_local
from appcadence.telemetry.arrays import AsOf, row_and_place
from appcadence.telemetry.schema import TIME

KEY = ["device_id", "app_id", "dest", "window_start"]
_PROFILE = ["app_name", "managed", "approved", "declared_purpose", "background_modes"]
INVENTORY_COLUMNS = ["app_id", "device_id", *_PROFILE, "expected_hosts", "snapshot_time"]
"""What is read of the inventory."""
CONTEXT = pa.schema(
    [
        *((name, pa.string()) for name in KEY[:3]),
        ("window_start", TIME),
        ("app_name", pa.string()),
        ("managed", pa.bool_()),
        ("approved", pa.bool_()),
        ("declared_purpose", pa.string()),
        ("background_modes", pa.list_(pa.string())),
        ("in_inventory", pa.bool_()),
        ("declared_by", pa.string()),
        ("push_resolution_seconds", pa.float64()),
        ("pushes", pa.list_(TIME)),
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
    index, owner = items_of(s.offsets, rows)
    base = windows.start_us[rows[owner]]

    window = np.repeat(np.arange(windows.n), np.diff(s.offsets))
    flows, of = items_of(windows.offsets, rows)
    session = AsOf(window, s.start).find(rows[of], windows.flow_start[flows])
    sums = _bytes(windows, flows, session, len(window))
    keys = pa.Table.from_pandas(wanted[KEY], preserve_index=False).take(pa.array(owner))
    columns = {name: _moments(base, getattr(s, name)[index]) for name in ("start", "end")}
    columns |= {"fresh": s.fresh[index]}
    columns |= {name: column(values[index], pa.int64()) for name, values in sums.items()}
    return pa.table({name: keys[name] for name in KEY} | columns)


def context(windows: Windows, inventory: pa.Table, wanted: pd.DataFrame) -> pa.Table:
    """`CONTEXT` of the wanted windows, in their order.

    `windows` hold the pushes; `inventory` has the `INVENTORY_COLUMNS` of at least the wanted devices and the
    fleet. As in the features, a device's newest profile of an app goes before the fleet's.
    """
    rows = rows_of(windows, wanted)
    app, start = windows.app[rows], windows.start_us[rows]
    first, last, time_us, _ = windows.context.pushes.of(windows.context.pair(windows.device[rows], app))
    times = []
    for lo, hi, begin in zip(first, last, start, strict=True):
        ends = begin, begin + int(windows.seconds * 1e6)
        times.append(time_us[slice(*(lo + np.searchsorted(time_us[lo:hi], ends)))])
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
            app >= 0, windows.context.push_grid[windows.device[rows]], np.nan
        ),
        "pushes": pa.array(times, pa.list_(pa.int64())).cast(CONTEXT.field("pushes").type),
    }
    return pa.Table.from_arrays([column(columns[f.name], f.type) for f in CONTEXT], schema=CONTEXT)


def _declared_by(inventory: pd.DataFrame, dests: set[str]) -> dict[str, str]:
    """By destination, the only app that declares it."""
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


def items_of(offsets: Codes, rows: Codes) -> tuple[Codes, Codes]:
    """Places of all items of some rows of a CSR, and for each its row, as a place in `rows`."""
    owner, place = row_and_place(np.diff(offsets)[rows])
    return offsets[rows][owner] + place, owner


def _bytes(windows: Windows, at: Codes, owner: Codes, n: int) -> dict[str, Vector]:
    """(n,) sums of the bytes of the flows `at`, by their `owner`; NaN where no flow's are known."""
    out = {}
    for name in ("bytes_out", "bytes_in"):
        values = getattr(windows, name)[at]
        seen = np.bincount(owner, ~np.isnan(values), n) > 0
        out[name] = np.where(seen, np.bincount(owner, np.nan_to_num(values), n), np.nan)
    return out


MIN_GAPS = 4
"""With fewer gaps between beats, no usual length is given."""
NEAR = 0.2
"""A gap counts as usual within this share of the median."""
MAX_PLACES = 3
"""Addresses and ports of a window, the most used first, ..."""
MAX_RECORDS = 5
"""... and ids of its records in the source: the first ones, the longest and the last."""
FACTS = pa.schema(
    [
        *((name, pa.string()) for name in KEY[:3]),
        ("window_start", TIME),
        ("first_time", TIME),
        ("last_time", TIME),
        *((name, pa.int64()) for name in ("n_started", "n_failed", "bytes_out", "bytes_in")),
        *((name, pa.float64()) for name in ("gap_seconds", "gap_share", "longest_seconds")),
        *((name, pa.int64()) for name in ("n_unused", "n_pushes", "n_answered")),
        ("by_chance", pa.float64()),
        *((name, pa.int64()) for name in ("other_devices", "devices")),
        ("addresses", pa.list_(pa.string())),
        ("ports", pa.list_(pa.int32())),
        ("record_ids", pa.list_(pa.string())),
    ]
)
"""One row a window. first_time and last_time: of its traffic, inside the window; n_started, n_failed: records
that began in it; gap_seconds, gap_share: median gap between beats, and share of gaps near it;
longest_seconds: of its sessions; n_unused: records begun while nobody used the device; n_answered, by_chance:
pushes that a session followed, and as many as chance would have; other_devices of so many devices,
of those whose destinations are known, that contacted the destination so far. Null = not known."""
FLOW_COLUMNS = ("source_uid",)
"""Columns of flows beside those of features."""


def touched(flows: pa.Table, wanted: pd.DataFrame) -> pa.Table:
    """The flows of the channels and apps of the wanted windows, on any day; no DNS lookups."""
    app_wide = (wanted["dest"] == APP_LEVEL).to_numpy(np.bool_)
    channel, app = _names(flows["device_id"], flows["app_id"], _dest(flows))
    of = [pa.array(wanted[name].astype(object), pa.string(), from_pandas=True) for name in KEY[:3]]
    channels, apps = _names(*of)
    known = pc.is_in(app, apps.filter(pa.array(app_wide)))
    known = pc.or_(known, pc.is_in(channel, channels.filter(pa.array(~app_wide))))
    lookup = pc.fill_null(pc.equal(flows["service"].cast(pa.string()), "dns"), False)
    return flows.filter(pc.and_not(known, lookup))


def facts(windows: Windows, flows: pa.Table, wanted: pd.DataFrame, history: History) -> pa.Table:
    """`FACTS` of the wanted windows (device_id, app_id, dest, window_start), in their order.

    `windows` hold them with all of their flows, `flows` the same flows as they were recorded, and `history`
    the contacts up to now. Memory: 100 bytes a flow of those windows.
    """
    rows = rows_of(windows, wanted)
    started = _started(flows, wanted, windows.seconds)
    columns = _times(windows, rows) | _gaps(windows, rows)
    columns |= _bytes(windows, *items_of(windows.offsets, rows), len(rows))
    columns |= _counts(windows, rows, started)
    s = windows.sessions
    at, _ = items_of(s.offsets, rows)
    length = (s.end - s.start)[at]
    columns["longest_seconds"] = _reduced(np.maximum, length, np.diff(s.offsets)[rows])
    pushes = windows.push_counts[rows]
    columns |= {"n_pushes": pushes[:, 0], "n_answered": pushes[:, 1]}
    columns["by_chance"] = pushes[:, 2] / len(SHIFTS_SECONDS)
    columns |= _prevalence(history, wanted) | _places(started, len(wanted))
    arrays = {name: wanted[name] for name in KEY} | columns
    return pa.Table.from_arrays([column(arrays[f.name], f.type) for f in FACTS], schema=FACTS)


def _reduced(least: np.ufunc, values: Vector, count: Codes) -> Vector:
    """(n,) the minimum or maximum of each row's values, which lie in order; every row has some."""
    return np.asarray(least.reduceat(values, np.cumsum(count) - count) if len(count) else values)


def _times(windows: Windows, rows: Codes) -> dict[str, pa.Array]:
    at, _ = items_of(windows.offsets, rows)
    start, end = windows.flow_start[at], windows.flow_end[at]
    count, base = np.diff(windows.offsets)[rows], windows.start_us[rows]
    ends = _reduced(np.maximum, np.where(np.isnan(end), start, end), count)
    first = _moments(base, _reduced(np.minimum, start, count))
    return {"first_time": first, "last_time": _moments(base, ends)}


def _moments(base_us: Codes, seconds: Vector) -> pa.Array:
    """(n,) times `seconds` after `base_us` (microseconds since the epoch)."""
    return pa.array(base_us + np.rint(seconds * 1e6).astype(np.int64), TIME)


def _counts(windows: Windows, rows: Codes, started: pd.DataFrame) -> dict[str, Vector]:
    """Records that began in each window, those that failed, and those begun while nobody used the device."""
    owner, n = started["row"].to_numpy(np.int64), len(rows)
    used = _in_use(windows, windows.device[rows][owner], started["at"].to_numpy(np.int64))
    unused = np.bincount(owner, ~used, n)
    return {
        "n_started": np.bincount(owner, minlength=n).astype(np.float64),
        "n_failed": np.bincount(owner, started["outcome"] == "failed", n),
        "n_unused": np.where(windows.activity_logged[rows], unused, np.nan),
    }


def _in_use(windows: Windows, device: Codes, time_us: Micros) -> Mask:
    """(n,) whether a device was in use then."""
    use = windows.context.use
    last = AsOf(use.key, use.first).find(device, time_us)
    return np.asarray((last >= 0) & (time_us < np.append(use.last, 0)[last]))


def _gaps(windows: Windows, rows: Codes) -> dict[str, Vector]:
    offsets, times = windows.beats
    at, owner = items_of(offsets, rows)
    same = owner[1:] == owner[:-1]
    gap, owner = pd.Series(np.diff(times[at])[same]), owner[1:][same]
    usual = gap.groupby(owner).median().reindex(range(len(rows))).to_numpy()
    near = (np.abs(gap.to_numpy() - usual[owner]) <= NEAR * usual[owner]).astype(np.float64)
    count = np.bincount(owner, minlength=len(rows))
    enough = count >= MIN_GAPS
    share = np.bincount(owner, near, len(rows)) / np.maximum(count, 1)
    return {
        "gap_seconds": np.where(enough, usual, np.nan),
        "gap_share": np.where(enough, share, np.nan),
    }


def _prevalence(history: History, wanted: pd.DataFrame) -> dict[str, Vector]:
    contacts = history.contacts[["device_id", "dest"]]
    known = contacts[contacts["dest"] != APP_LEVEL]  # a phone's own log names no destinations
    met = known[known["dest"].isin(set(wanted["dest"]))].groupby("dest")["device_id"].nunique()
    others = wanted["dest"].map(met).to_numpy(np.float64) - 1
    return {
        "other_devices": others,
        "devices": np.full(len(wanted), float(known["device_id"].nunique())),
    }


def _started(flows: pa.Table, wanted: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """The records that began in each wanted window (`row` = its place in `wanted`), by time."""
    start = flows["start"].cast(pa.int64()).to_numpy()
    width = round(seconds * 1e6)
    names = ["device_id", "app_id", "dest_ip", "dest_port", "outcome", "source_uid", "duration_seconds"]
    seen = flows.select(names).to_pandas()
    seen = seen.assign(dest=_dest(flows).to_pandas(), at=start, begin=start // width * width)
    keys = wanted[list(KEY)].assign(row=np.arange(len(wanted)))
    keys["begin"] = keys.pop("window_start").dt.as_unit("us").astype(np.int64)
    app_wide = keys["dest"] == APP_LEVEL
    local = {name: is_local(name) for name in seen["dest"].unique()}
    beyond = seen[~seen["dest"].map(local).astype(bool)]
    mine = [
        seen.merge(keys[~app_wide], on=["device_id", "app_id", "dest", "begin"]),
        beyond.merge(keys[app_wide].drop(columns="dest"), on=["device_id", "app_id", "begin"]),
    ]
    return pd.DataFrame(pd.concat(mine).sort_values(["row", "at"], kind="stable", ignore_index=True))


def _places(started: pd.DataFrame, n: int) -> dict[str, list[list[object]]]:
    """Addresses, ports and ids of the records of n windows."""
    row, named = started["row"], started.dropna(subset="source_uid")
    length = named["duration_seconds"].fillna(0.0).groupby(named["row"])
    kept = named.index.isin(length.idxmax()) | ~named.duplicated("row", keep="last")
    spare = MAX_RECORDS - pd.Series(kept, named.index).groupby(row).transform("sum")
    first = (~pd.Series(kept, named.index)).groupby(row).cumsum()
    return {
        "addresses": _most(started, "dest_ip", n),
        "ports": _most(started, "dest_port", n),
        "record_ids": _lists(named[kept | (first <= spare)], "source_uid", n),
    }


def _most(mine: pd.DataFrame, name: str, n: int) -> list[list[object]]:
    counted = mine.groupby(["row", name]).size().reset_index(name="n")
    counted = counted.sort_values(["row", "n", name], ascending=[True, False, True])
    return _lists(counted[counted.groupby("row").cumcount() < MAX_PLACES], name, n)


def _lists(rows: pd.DataFrame, name: str, n: int) -> list[list[object]]:
    of = rows.groupby("row")[name].agg(list)
    return [of.get(row, []) for row in range(n)]


def _dest(flows: pa.Table) -> pa.ChunkedArray:
    """The destinations of flows, named as those of windows are."""
    neither = pc.if_else(pc.is_valid(flows["app_id"]), APP_LEVEL, "unknown")
    return pc.coalesce(*(flows[name].cast(pa.string()) for name in ("dest_host", "dest_ip")), neither)


def _names(device: pa.Array, app: pa.Array, dest: pa.Array) -> Sequence[pa.Array]:
    """A key for each flow's channel, and one for its app on the device."""
    app = pc.coalesce(app.cast(pa.string()), "")
    texts = [pc.binary_join_element_wise(device.cast(pa.string()), app, "\x1f")]
    return [pc.binary_join_element_wise(texts[0], dest, "\x1f"), texts[0]]
