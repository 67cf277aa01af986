"""Devices that meet more new hosts in an hour than any use does: made-up names, to hide in or as a burden."""

from __future__ import annotations

import numpy as np
import pandas as pd

from appcadence._types import HOUR_US
from appcadence.features.history import History
from appcadence.findings import Finding

MIN_NEW_NAMES = 5000
"""Within an hour. The busiest hour of a phone in use holds some hundreds."""
_MAX_SAID = 10


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
