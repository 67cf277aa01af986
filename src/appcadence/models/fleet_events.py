"""Fleet events: a destination or an app that is new to a good part of the fleet at the same time.

An update's new host or a management roll-out would otherwise raise one alert per device, and a compromise of
the whole fleet would hide behind "everybody has it". Such an event is one item, and so are all of its alerts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask
from appcadence.features.columns import codes_of
from appcadence.features.history import History
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding
from appcadence.telemetry.addresses import is_address, is_local
from appcadence.telemetry.apns import is_courier

MIN_CHANNELS = 5
"""A device needs this many channels, or destinations, to tell whether its names changed."""
MIN_LOST_SHARE = 0.5
"""Names are lost if the share of bare addresses among a device's destinations rises by this much."""
MIN_KNOWN_SHARE = 0.5
"""A new device may be a vanished one under another id if that one had this share of its channels."""
MIN_RENAMED_SHARE = 0.2
"""Ids changed if this share of the devices is renamed at once; a few are people with a new phone."""
_MAX_HOLDERS = 20
"""Channels that more vanished devices had are ignored; they do not tell devices apart."""


@dataclass(frozen=True)
class Identity:
    """Devices and hosts whose names changed since the baseline."""

    renamed: dict[str, str]
    """The old device id by new id."""
    nameless: frozenset[str]
    """Devices whose destinations lost their host names."""
    devices: int
    """Number of devices that were compared."""

    @property
    def finding(self) -> Finding | None:
        """The finding about changed names; None if nothing changed."""
        if not self.renamed and not self.nameless:
            return None
        counts = {"renamed": len(self.renamed), "nameless": len(self.nameless), "of": self.devices}
        return Finding("identity_changed", counts)

    def applied(self, contacts: pd.DataFrame, since_us: int) -> pd.DataFrame:
        """The contacts as if no name had changed: renamed devices keep their past, and hosts that lost their
        name are left out."""
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
    """Find names that changed between the baseline and the windows of a feature table.

    Args:
        contacts: those of a history that holds the windows' contacts too.
        since_us: the end of the baseline, microseconds since the epoch.
        frame: the windows, with device_id, app_id and dest.
    """
    now = frame.loc[:, ["device_id", "app_id", "dest"]].drop_duplicates().astype(object)
    now = now[now["dest"] != APP_LEVEL]
    before = contacts.loc[contacts["first_seen"] < since_us, list(now)]
    then, later = _bare_shares(before), _bare_shares(now)
    lost = later - then.reindex(later.index) >= MIN_LOST_SHARE
    return Identity(_renamed(before, now), frozenset(lost.index[lost]), now["device_id"].nunique())


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
    new = now[~now["device_id"].isin(before["device_id"].unique())]
    gone = before[~before["device_id"].isin(now["device_id"].unique())]
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


MIN_DEVICES = 4
MIN_SHARE = 0.05
"""An event affects at least four devices and this share of the fleet so far."""
NEWCOMERS_SHARE = 0.5
"""The newcomers are at least this share of all devices that ever contacted it."""
TOGETHER_SECONDS = 7 * 86_400
"""The newcomers first contacted it within this time of each other, and after the baseline."""
_SHIFT = 32


@dataclass(frozen=True)
class FleetEvents:
    """Fleet events and the windows that belong to them."""

    windows: Mask
    """(n,) whether a window of the feature table belongs to an event."""
    events: pd.DataFrame
    """One row per event: kind (destination or app), name, devices, first_seen (UTC), device_ids (list)."""
    identity: Finding | None = None
    """Which names changed, if any (see `identity`); changed names are no event."""


def fleet_events(history: History, since_us: int, frame: pd.DataFrame) -> FleetEvents:
    """Events among the windows of a feature table.

    `history` holds the contacts of these windows too; `since_us` (microseconds since the epoch) is the end of
    the baseline, before which nothing is an event. A window is judged by the contacts before its own end.
    """
    changed = identity(history.contacts, since_us, frame)
    contacts = changed.applied(history.contacts, since_us)
    devices = pd.Index(contacts["device_id"].unique())
    end = (frame["window_end"].dt.as_unit("us").astype("int64").to_numpy() - since_us) // 1_000_000
    owner = codes_of(frame["device_id"], devices)
    met = np.sort(
        (contacts.groupby("device_id")["first_seen"].min().to_numpy(np.int64) - since_us) // 1_000_000
    )
    known = np.searchsorted(met, end, "right")
    least = np.maximum(MIN_DEVICES, np.ceil(MIN_SHARE * known)).astype(np.int64)
    marked, events = np.zeros(len(frame), np.bool_), []
    for kind, column in (("destination", "dest"), ("app", "app_id")):
        names = pd.Index(contacts[column].dropna().unique())
        if kind == "destination":
            names = names[[not (is_local(name) or is_courier(name)) for name in names]]
        first = _first_contacts(contacts, names, column, devices, since_us)
        rows = codes_of(frame[column], names)
        if kind == "destination":
            rows = np.where(frame["dest"].astype(object).to_numpy() == APP_LEVEL, -1, rows)
        hit = (rows >= 0) & (owner >= 0)
        hit[hit] = first.joined_in(rows[hit], owner[hit], end[hit], least[hit])
        marked |= hit
        for code in np.unique(rows[hit]):
            mine = first.newcomers(int(code), int(end[hit & (rows == code)].max()))
            events.append(
                {
                    "kind": kind,
                    "name": names[code],
                    "devices": len(mine),
                    "first_seen": pd.Timestamp(since_us + 1_000_000 * int(mine["second"].min()), unit="us"),
                    "device_ids": sorted(devices[mine["device"]]),
                }
            )
    columns = ["kind", "name", "devices", "first_seen", "device_ids"]
    table = pd.DataFrame(events, columns=columns)
    table["first_seen"] = pd.to_datetime(table["first_seen"], utc=True).dt.as_unit("us")
    return FleetEvents(marked, table, changed.finding)


def alerting_devices(events: pd.DataFrame, scores: pa.Table) -> list[int]:
    """Number of devices of each event that alert in a scores table, from its columns device, app,
    destination, status and alert."""
    rows = scores.filter(pc.and_(scores["alert"], pc.equal(scores["status"], "fleet_event"))).to_pandas()
    counts = []
    for event in events.itertuples():
        met = rows[rows["dest" if event.kind == "destination" else "app_id"] == event.name]
        counts.append(met.loc[met["device_id"].isin(event.device_ids), "device_id"].nunique())
    return counts


@dataclass(frozen=True)
class _FirstContacts:
    """When each device first contacted each name: seconds since the baseline plus one, 0 = before its end."""

    pair: Codes
    """(p,) sorted name * n_devices + device, and `second_of` each."""
    second_of: Codes
    ordered: Codes
    """(p,) sorted name << 32 | second."""
    n_devices: int

    def joined_in(self, name: Codes, device: Codes, end: Codes, least: Codes) -> Mask:
        """Whether each row's device is a newcomer in an event that exists at the row's end (seconds)."""
        base, last = name << _SHIFT, np.maximum(end, 0)
        week = np.maximum(last - TOGETHER_SECONDS, 0)
        all_before = np.searchsorted(self.ordered, base + last + 1) - np.searchsorted(self.ordered, base)
        new = np.searchsorted(self.ordered, base + last + 1) - np.searchsorted(self.ordered, base + week + 1)
        key = name * self.n_devices + device
        at = np.minimum(np.searchsorted(self.pair, key), len(self.pair) - 1)
        own = np.where(self.pair[at] == key, self.second_of[at], 0)
        mine = (own > week) & (own <= last)
        return np.asarray(mine & (new >= least) & (new >= NEWCOMERS_SHARE * all_before))

    def newcomers(self, name: int, end: int) -> pd.DataFrame:
        """Devices that first contacted a name in the week before `end`, and the second they did."""
        lo, hi = np.searchsorted(self.pair, [name * self.n_devices, (name + 1) * self.n_devices])
        second = self.second_of[lo:hi]
        keep = (second > max(end - TOGETHER_SECONDS, 0)) & (second <= max(end, 0))
        device = self.pair[lo:hi][keep] - name * self.n_devices
        return pd.DataFrame({"device": device, "second": second[keep] - 1})


def _first_contacts(
    contacts: pd.DataFrame, names: pd.Index, column: str, devices: pd.Index, since_us: int
) -> _FirstContacts:
    name, device = codes_of(contacts[column], names), codes_of(contacts["device_id"], devices)
    second = np.maximum((contacts["first_seen"].to_numpy(np.int64) - since_us) // 1_000_000 + 1, 0)
    known = name >= 0
    pair, second = (name * len(devices) + device)[known], second[known]
    order = np.lexsort((second, pair))
    head = np.append(True, np.diff(pair[order]) > 0)[: len(order)]
    pair, second = pair[order][head], second[order][head]
    return _FirstContacts(
        pair, second, np.sort((pair // max(len(devices), 1) << _SHIFT) + second), len(devices)
    )
