"""What names may hide, and is said for want of a verdict on it.

Look-ups may carry more than names, and DNS is context that is never judged. Devices that meet more new hosts
in an hour than any use does meet made-up names, to hide in or as a burden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US
from appcadence.features.history import History
from appcadence.findings import Finding
from appcadence.telemetry.addresses import is_local

COLUMNS = ("device_id", "dest_host", "dest_ip", "service")
MIN_LOOKUPS = 1000
MIN_LOOKUPS_PER_FLOW = 3.0
"""A name takes up to three look-ups (two addresses, HTTPS) for each flow that needed it."""
MIN_NEW_NAMES = 5000
"""Within an hour. The busiest hour of a phone in use holds some hundreds."""
_MAX_SAID = 10


def lookup_findings(pieces: Iterable[Callable[[], pa.Table]]) -> list[Finding]:
    """Destinations beyond the local network that one device alone asks, a thousand times or more, and more
    often than all of its other flows can have needed names; the most asked first, ten at most. And how many
    devices have no other flows at all.

    `pieces` read the columns `COLUMNS` of a flows table, in parts.
    """
    counts = [_counts(piece()) for piece in pieces]
    if not counts:
        return []
    keys = ["device_id", "dest"]
    whole = pa.concat_tables(counts).group_by(keys, use_threads=False).aggregate([("n", "sum")]).to_pandas()
    lookups = whole["dest"].notna()
    flows = whole[~lookups].set_index("device_id")["n_sum"]
    asked = whole[lookups]
    asked = asked.assign(flows=flows.reindex(asked["device_id"]).fillna(0).to_numpy(np.int64))
    alone = ~asked["dest"].duplicated(keep=False)
    many = (asked["n_sum"] >= MIN_LOOKUPS) & (asked["n_sum"] > MIN_LOOKUPS_PER_FLOW * asked["flows"])
    remote = np.array([not is_local(dest) for dest in asked["dest"]], np.bool_)
    devices, without = whole["device_id"].nunique(), set(asked["device_id"]) - set(flows.index)
    only = [Finding("lookups_only", {"devices": len(without), "of": devices})] if without else []
    order = ["n_sum", "device_id", "dest"]
    found = asked[alone & many & remote].sort_values(order, ascending=[False, True, True])
    return only + [
        Finding(
            "dns_channel",
            {
                "device": row.device_id,
                "dest": row.dest,
                "lookups": int(row.n_sum),
                "other_flows": int(row.flows),
            },
        )
        for row in found.head(_MAX_SAID).itertuples()
    ]


def _counts(flows: pa.Table) -> pa.Table:
    """Look-ups by device and destination, and other flows by device, where the destination is null."""
    text = pa.string()
    host, address = (flows[name].cast(text) for name in ("dest_host", "dest_ip"))
    lookup = pc.fill_null(pc.equal(flows["service"].cast(text), "dns"), False)
    dest = pc.if_else(lookup, pc.coalesce(host, address, pa.scalar("unknown")), pa.scalar(None, text))
    table = pa.table({"device_id": flows["device_id"].cast(text), "dest": dest})
    counted = table.group_by(["device_id", "dest"], use_threads=False).aggregate([([], "count_all")])
    return counted.rename_columns(["device_id", "dest", "n"])


def made_up_names(after: History, since_us: int) -> list[Finding]:
    """Devices that met so many destinations for the first time within an hour of the clock, the most first.

    Args:
        after: the history with what was scored.
        since_us: microseconds since the epoch; who met what before was said by an earlier run.
    """
    rows = after.contacts.loc[after.contacts["first_seen"] >= since_us, ["device_id", "dest", "first_seen"]]
    met = rows.groupby(["device_id", "dest"], as_index=False)["first_seen"].min()
    met["hour"] = met["first_seen"].to_numpy(np.int64) // HOUR_US
    hours = met.groupby(["device_id", "hour"]).size().reset_index(name="names")
    hours = hours[hours["names"] >= MIN_NEW_NAMES]
    hours = hours.sort_values(["names", "device_id"], ascending=[False, True]).drop_duplicates("device_id")
    return [
        Finding(
            "new_names",
            {
                "device": row["device_id"],
                "names": row["names"],
                "hour": f"{pd.Timestamp(row['hour'] * HOUR_US, unit='us'):%Y-%m-%d %H:%M} UTC",
            },
        )
        for row in hours.head(_MAX_SAID).to_dict("records")
    ]
