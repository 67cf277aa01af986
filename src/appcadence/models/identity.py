"""Names that changed under a fleet: host names that vanished, and device ids that were replaced.

Without them, all that a device does looks new at once, and what a whole fleet does, like one large event.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding
from appcadence.telemetry.addresses import is_address, is_local

MIN_CHANNELS = 5
"""So many channels, or destinations, say whether a device is what it was."""
MIN_LOST_SHARE = 0.5
"""Names are lost where bare addresses take up so much more of a device's destinations than before."""
MIN_KNOWN_SHARE = 0.5
"""A new device is a vanished one under another id when that one had so many of its channels ..."""
MIN_RENAMED_SHARE = 0.2
"""... and so many of the devices are such ones at once: a few are people who got another phone."""
_MAX_HOLDERS = 20
"""Vanished devices that a channel is looked for in; what more of them had tells none apart."""


@dataclass(frozen=True)
class Identity:
    """What changed its name since the baseline."""

    renamed: dict[str, str]
    """By new device id, the one before."""
    nameless: frozenset[str]
    """Devices whose destinations lost their host names."""
    devices: int
    """Devices that were looked at."""

    @property
    def finding(self) -> Finding | None:
        """What is to be said; None where nothing changed."""
        if not self.renamed and not self.nameless:
            return None
        counts = {"renamed": len(self.renamed), "nameless": len(self.nameless), "of": self.devices}
        return Finding("identity_changed", counts)

    def applied(self, contacts: pd.DataFrame, since_us: int) -> pd.DataFrame:
        """Contacts as they would be, had nothing changed its name: renamed devices know what they knew, and
        what lost its name is not there."""
        if self.nameless:
            late = (contacts["first_seen"] >= since_us) & contacts["device_id"].isin(self.nameless)
            contacts = contacts[~(late & contacts["dest"].map(is_address).astype(bool))]
        if self.renamed:
            ids = pd.DataFrame({"device_id": list(self.renamed.values()), "new": list(self.renamed)})
            known = contacts[contacts["first_seen"] < since_us].merge(ids, on="device_id")
            others = contacts[~contacts["device_id"].isin(ids["device_id"])]
            contacts = pd.concat([others, known.assign(device_id=known.pop("new"))], ignore_index=True)
        return contacts


def identity(contacts: pd.DataFrame, since_us: int, frame: pd.DataFrame) -> Identity:
    """What changed its name between the baseline and the windows of a feature table.

    Args:
        contacts: those of a history that holds the windows' contacts too.
        since_us: the end of the baseline, microseconds since the epoch.
        frame: the windows, with device_id, app_id and dest.
    """
    now = frame.loc[:, ["device_id", "app_id", "dest"]].drop_duplicates().astype(object)
    now = now[now["dest"] != APP_LEVEL]
    before = contacts.loc[contacts["first_seen"] < since_us, list(now)]
    renamed = _renamed(before, now)
    return Identity(renamed, _nameless(before, now), now["device_id"].nunique())


def _nameless(before: pd.DataFrame, now: pd.DataFrame) -> frozenset[str]:
    then, later = _bare_shares(before), _bare_shares(now)
    lost = later - then.reindex(later.index) >= MIN_LOST_SHARE
    return frozenset(lost.index[lost])


def _bare_shares(channels: pd.DataFrame) -> pd.Series:
    """By device, the share of its destinations beyond the local network that are bare addresses."""
    pairs = channels[["device_id", "dest"]].drop_duplicates()
    names = pd.Series(pairs["dest"].unique(), dtype=object)
    bare = dict(zip(names, names.map(is_address), strict=True))
    remote = pairs[~pairs["dest"].isin(names[names.map(is_local).astype(bool)])]
    by_device = remote["dest"].map(bare).astype(float).groupby(remote["device_id"])
    shares = by_device.mean()
    return shares[by_device.size() >= MIN_CHANNELS]


def _renamed(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, str]:
    new = now[~now["device_id"].isin(before["device_id"])]
    gone = before[~before["device_id"].isin(now["device_id"])]
    size = new.groupby("device_id").size()
    new = new[new["device_id"].isin(size.index[size >= MIN_CHANNELS])]
    if new.empty or gone.empty:
        return {}
    holders = gone[gone.groupby(["app_id", "dest"], dropna=False).cumcount() < _MAX_HOLDERS]
    both = new.merge(holders, on=["app_id", "dest"], suffixes=("", "_before"))
    shared = both.groupby(["device_id", "device_id_before"]).size().reset_index(name="n")
    best = shared.sort_values(["n", "device_id_before"], ascending=[False, True]).drop_duplicates("device_id")
    best = best[best["n"] >= MIN_KNOWN_SHARE * size.reindex(best["device_id"]).to_numpy()]
    if len(best) < max(1, MIN_RENAMED_SHARE * now["device_id"].nunique()):
        return {}
    return dict(zip(best["device_id"], best["device_id_before"], strict=True))
