"""Analysts' decisions about channels: which rows of a history are vetted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence.features.history import History
from appcadence.features.windows import APP_LEVEL
from appcadence.telemetry.verdicts import latest_decisions

_CHANNEL = ["device_id", "app_id", "dest"]


def decided(history: History, verdicts: pa.Table) -> History:
    """The history in which channels that analysts call benign are vetted, and those they decided otherwise
    are not.

    A verdict applies to its channel, and a verdict on an app's `*` window to all channels of the app on the
    device, if the window begins no later than the channel's last contact. An analyst's last verdict on a
    channel counts. If analysts disagree, the channel is not vetted.

    Raises:
        SchemaError: `verdicts` does not fit its declaration.
    """
    said = latest_decisions(verdicts).fillna({"app_id": ""}).sort_values("decided_at", kind="stable")
    said["since"] = said.pop("window_start").dt.as_unit("us").astype("int64")
    rows = history.contacts[[*_CHANNEL, "last_seen"]].fillna({"app_id": ""})
    rows = rows.assign(row=np.arange(len(rows)))
    whole_app = rows[rows["app_id"] != ""].assign(dest=APP_LEVEL)
    words = pd.concat([rows, whole_app]).merge(said, on=_CHANNEL)
    words = words[words["since"] <= words["last_seen"]].drop_duplicates(["row", "analyst"], keep="last")
    benign = (words["verdict"] == "benign").groupby(words["row"]).all()
    vetted = history.contacts["vetted"].to_numpy(np.bool_, copy=True)
    vetted[benign.index.to_numpy(np.int64)] = benign.to_numpy(np.bool_)
    return replace(history, contacts=history.contacts.assign(vetted=vetted))
