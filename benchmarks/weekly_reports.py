"""App Privacy Reports of simulated phones: their flows summed up by week, app and host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, HOUR_US
from appcadence.telemetry.schema import CONTACT_SUMMARIES
from appcadence.telemetry.simulate.apps import APPS, SDK_HOSTS, SITES

REPORT_US = 7 * DAY_US
CONTACT_US = 60_000_000
"""Flows of an app to a host that start sooner after the one before are the same contact. With one minute the
mean intervals between simulated contacts (of pairs with ten and more) are those of a real report: 5% 33 and
35 minutes, median 4.5 and 5.3 h, 95% 14.9 and 14.5 h."""
_OWNERS = {host: host.split(".")[1].capitalize() for host in SDK_HOSTS}
_SITES = frozenset(SITES)
_NOT_REPORTED = frozenset(app.app_id for app in APPS if app.daemon)
"""The report is about apps: the real ones hold no daemon."""
EXPORT_HOUR = 18
"""UTC: an hour at which most of the simulated people are awake, as who exports a report is."""
_PAIR = ["device_id", "app_id", "dest_host"]
_COLUMNS = ["start", *_PAIR, "dest_ip"]


def first_export(flows: pa.Table) -> int:
    """When the first week begins: 18:00 UTC on the day of the first flow, microseconds."""
    return int(pc.min(flows["start"]).cast(pa.int64()).as_py()) // DAY_US * DAY_US + EXPORT_HOUR * HOUR_US


def weekly_reports(flows: pa.Table, begin_us: int) -> pa.Table:
    """Contact summaries as reports that every phone exports each seven days from `begin_us` on would hold.

    Args:
        flows: canonical; those without an app and those before `begin_us` are left out. Visits of web sites
            are the user's contacts.
        begin_us: when the first week begins; see `first_export`.
    """
    rows = flows.select(_COLUMNS).to_pandas().astype(dict.fromkeys(_COLUMNS[1:], object))
    rows["start"] = rows["start"].dt.as_unit("us").astype("int64")
    rows["dest_host"] = rows["dest_host"].fillna(rows["dest_ip"])
    rows = rows[rows["app_id"].notna() & rows["dest_host"].notna() & ~rows["app_id"].isin(_NOT_REPORTED)]
    rows = rows[rows["start"] >= begin_us]
    rows["week"] = (rows["start"] - begin_us) // REPORT_US
    keys = [*_PAIR, "week"]
    rows = rows.sort_values([*keys, "start"])
    since = rows.groupby(keys)["start"].diff()
    rows["hits"] = (~(since < CONTACT_US)).astype(np.int64)
    sums = rows.groupby(keys, as_index=False).agg(
        first_seen=("start", "min"), last_seen=("start", "max"), hits=("hits", "sum")
    )
    host = sums["dest_host"]
    sums["initiated"] = np.where(host.isin(_SITES), "user", "app")
    sums["dest_owner"] = host.map(_OWNERS).astype(object).where(host.isin(_OWNERS), None)
    return in_reports(sums, begin_us)


def in_reports(sums: pd.DataFrame, begin_us: int) -> pa.Table:
    """Sums (times in microseconds, each within one week) as the canonical table, with the spans of the
    reports that they make together; ordered by week, device, app and host."""
    sums = sums.assign(week=(sums["first_seen"] - begin_us) // REPORT_US)
    report = sums.groupby(["week", "device_id"])
    sums["report_start"] = report["first_seen"].transform("min")
    sums["report_end"] = report["last_seen"].transform("max")
    sums = sums.sort_values(["week", *_PAIR], kind="stable")
    columns: dict[str, Any] = {column.name: sums[column.name] for column in CONTACT_SUMMARIES.columns}
    return CONTACT_SUMMARIES.of(columns)


def sums_of(summaries: pa.Table) -> pd.DataFrame:
    """The rows of canonical summaries, times in microseconds."""
    rows = summaries.to_pandas()
    times = [name for name in rows if isinstance(rows[name].dtype, pd.DatetimeTZDtype)]
    others = [name for name in rows if isinstance(rows[name].dtype, pd.CategoricalDtype)]
    for name in times:
        rows[name] = rows[name].dt.as_unit("us").astype("int64")
    return pd.DataFrame(rows.astype(dict.fromkeys(others, object)))


def report_lines(summaries: pa.Table) -> Iterator[str]:
    """The rows of one report as lines of the file that a phone exports; its clock runs on UTC."""
    for row in summaries.to_pylist():
        yield json.dumps(
            {
                "type": "networkActivity",
                "bundleID": row["app_id"],
                "domain": row["dest_host"],
                "firstTimeStamp": _iso(row["first_seen"]),
                "timeStamp": _iso(row["last_seen"]),
                "hits": row["hits"],
                "initiatedType": "AppInitiated" if row["initiated"] == "app" else "NonAppInitiated",
                "domainType": 1 if row["dest_owner"] else 2,
                "domainOwner": row["dest_owner"] or "",
                "context": "",
            }
        )


def _iso(time: datetime) -> str:
    return pd.Timestamp(time).tz_convert(UTC).isoformat(timespec="milliseconds")


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
