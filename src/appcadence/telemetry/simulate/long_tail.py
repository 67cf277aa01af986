"""Apps that few others have: simulated phones carry some twenty, real ones three times as many.

Without them every host that nobody else contacts would be an implant's, and every new one nearly so.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.telemetry.simulate.apps import SDK_HOSTS, SITES
from appcadence.telemetry.simulate.weekly_reports import in_reports, sums_of

COPIES = 2
"""Other phones whose apps each phone carries, too, under other names."""
_VARIANTS = 40
_LATE_SHARE, _REMOVED_SHARE, _MOVED_SHARE, _GROWN_SHARE = 0.2, 0.1, 0.05, 0.05
"""Of the copied apps: installed, removed, moved to other hosts, and grown by other hosts within the span, at
any time. They are guesses, and what is falsely found depends on the last one most."""
_SHARED = frozenset((*SDK_HOSTS, *SITES))


def with_long_tail(summaries: pa.Table, begin_us: int, seed: int) -> pa.Table:
    """The reports of `weekly_reports`, each with apps of other phones added under names of their own.

    A copied app and its hosts are one of 40 variants, the first ones the most common; content networks, sites
    and SDK hosts stay those that all share.
    """
    rng = np.random.default_rng(seed)
    rows = sums_of(summaries)
    devices = np.sort(rows["device_id"].unique())
    parts = [rows]
    for copy in range(1, COPIES + 1):
        owner = dict(zip(devices, np.roll(devices, copy * max(len(devices) // 3, 1)), strict=True))
        parts.append(_copied(rng, rows.assign(device_id=rows["device_id"].map(owner))))
    return in_reports(pd.concat(parts, ignore_index=True), begin_us)


def _copied(rng: np.random.Generator, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows under other names, from when each app is installed until it is removed."""
    first, last = rows["first_seen"].min(), rows["last_seen"].max()
    apps = rows[["device_id", "app_id"]].drop_duplicates(ignore_index=True)
    n = len(apps)

    def moment(share: float, never: int) -> np.ndarray:
        return np.where(rng.random(n) < share, rng.uniform(first, last, n).astype(np.int64), never)

    apps["variant"] = (_VARIANTS * rng.random(n) ** 2).astype(np.int64).astype(str)
    apps["begin"], apps["end"] = moment(_LATE_SHARE, first), moment(_REMOVED_SHARE, last)
    apps["moved"], apps["grown"] = moment(_MOVED_SHARE, last), moment(_GROWN_SHARE, last)
    apps["growth"] = rng.random(n)
    rows = _cut(rows.merge(apps, on=["device_id", "app_id"]))
    shared = rows["dest_host"].isin(_SHARED) | rows["dest_host"].str.endswith("cdn-wide.example")
    own = rows["dest_host"].str.removesuffix(".example") + "-" + rows["variant"]
    rows["app_id"] += "." + rows["variant"]
    grown = rows[~shared & (rows["first_seen"] > rows["grown"])]
    grown = grown.assign(
        dest_host=own[grown.index] + "-more.example",
        hits=np.ceil(grown["hits"] * grown["growth"]).astype(np.int64),
    )
    moved = np.where(rows["first_seen"] > rows["moved"], "-next.example", ".example")
    rows["dest_host"] = rows["dest_host"].where(shared, own + moved)
    return pd.concat([rows, grown], ignore_index=True).drop(columns=apps.columns[2:])


def _cut(rows: pd.DataFrame) -> pd.DataFrame:
    """What lies between `begin` and `end`, with its share of the hits."""
    begin = np.maximum(rows["first_seen"], rows["begin"])
    end = np.minimum(rows["last_seen"], rows["end"])
    length = np.maximum(rows["last_seen"] - rows["first_seen"], 1)
    hits = np.ceil(rows["hits"] * np.maximum(end - begin, 1) / length).astype(np.int64)
    cut = rows.assign(first_seen=begin, last_seen=end, hits=np.minimum(hits, rows["hits"]))
    return cut[begin <= end].reset_index(drop=True)
