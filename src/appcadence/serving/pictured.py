"""The sessions of a few windows, for the pictures of a report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.features.windows import APP_LEVEL, Windows

_KEY = ["device_id", "app_id", "dest", "window_start"]


def sessions(windows: Windows, wanted: pd.DataFrame) -> pa.Table:
    """Sessions of the wanted windows (device_id, app_id, dest, window_start), in their order.

    Start and end of each, and bytes summed over the session's flows; null where no flow's are known.
    """
    rows = _rows(windows, wanted)
    s = windows.sessions
    count = np.diff(s.offsets)[rows]
    index = np.concatenate(
        [np.arange(s.offsets[r], s.offsets[r + 1]) for r in rows] or [np.empty(0, np.int64)]
    )
    base = windows.start_us[np.repeat(rows, count)]

    def at(seconds: np.ndarray) -> pa.Array:
        return pa.array(base + np.rint(seconds * 1e6).astype(np.int64)).cast(pa.timestamp("us", tz="UTC"))

    sent, received = _bytes(windows, rows)
    keys = pa.Table.from_pandas(wanted[_KEY], preserve_index=False).take(
        pa.array(np.repeat(np.arange(len(rows)), count))
    )
    columns = {"start": at(s.start[index]), "end": at(s.end[index]), "bytes_out": sent, "bytes_in": received}
    return pa.table({name: keys[name] for name in _KEY} | columns)


def _rows(windows: Windows, wanted: pd.DataFrame) -> np.ndarray:
    """The place of each wanted window among the windows."""
    dests = [*windows.dests, APP_LEVEL]
    have = pd.MultiIndex.from_arrays(
        [
            np.asarray(windows.devices, object)[windows.device],
            np.array([*windows.apps, ""], object)[windows.app],
            np.array(dests, object)[np.where(windows.dest < 0, len(dests) - 1, windows.dest)],
            windows.start_us,
        ]
    )
    start = wanted["window_start"].dt.as_unit("us").astype("int64")
    names = [wanted[name].astype(object).fillna("") for name in _KEY[:3]]
    want = pd.MultiIndex.from_arrays([*names, start])
    return np.asarray(have.get_indexer(want))


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
    empty = [np.empty(0)]

    def column(parts: list[np.ndarray]) -> pa.Array:
        values = np.concatenate(parts or empty)
        return pa.array(np.nan_to_num(values).astype(np.int64), mask=np.isnan(values))

    return column(sent), column(received)
