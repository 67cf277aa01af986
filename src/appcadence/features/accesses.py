"""How often an app used location, microphone, camera and the like within a report: context, never judged."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Mask
from appcadence.features.weekly import REPORT, present
from appcadence.telemetry.arrays import AsOf
from appcadence.telemetry.schema import ACCESSES, ACTIVITY, conform

_APP = [*REPORT, "app_id"]


def uses(tables: Mapping[str, pa.Table], weeks: pd.DataFrame) -> pd.DataFrame:
    """The accesses of apps within reports.

    Args:
        tables: `accesses` and `activity`, if there are any. The same access in two reports counts once.
        weeks: rows of `features.weekly.contact_weeks`.

    Returns:
        A row for each app and report of `weeks` and category: `times` it was used, and `unattended`, how many
        of these began while the device was locked, NaN where that is not known.

    Raises:
        SchemaError: a table does not fit its declaration.
    """
    found = conform(ACCESSES, tables.get("accesses", ACCESSES.empty()))
    names = ("device_id", "app_id", "category")
    rows = pd.DataFrame({name: found[name].cast(pa.string()).to_pylist() for name in names}, dtype=object)
    rows["start"] = found["start"].cast(pa.int64()).to_numpy()
    rows = rows.drop_duplicates(ignore_index=True)
    rows["unattended"] = ~_in_use(conform(ACTIVITY, tables.get("activity", ACTIVITY.empty())), rows)
    asked = weeks[[*_APP, "presence_known"]].drop_duplicates()
    rows = rows.merge(asked, on=["device_id", "app_id"])
    rows = rows[(rows["start"] >= rows["report_start"]) & (rows["start"] <= rows["report_end"])]
    rows["unattended"] = rows["unattended"].astype(float).where(rows["presence_known"])
    grouped = rows.groupby([*_APP, "category"], as_index=False)
    return grouped.agg(times=("start", "size"), unattended=("unattended", lambda part: part.sum(min_count=1)))


def _in_use(activity: pa.Table, rows: pd.DataFrame) -> Mask:
    """(n,) whether the device was in use when the access began."""
    used = present(activity).sort_values(["device_id", "start"], ignore_index=True)
    device = pd.Index(used["device_id"].unique())
    records = AsOf(device.get_indexer(used["device_id"]), used["start"].to_numpy(np.int64))
    last = records.find(device.get_indexer(rows["device_id"]), rows["start"].to_numpy(np.int64))
    until = np.append(used.groupby("device_id")["end"].cummax().to_numpy(), -1)[last]
    return np.asarray((last >= 0) & (until >= rows["start"].to_numpy()))
