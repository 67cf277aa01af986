"""Fleet events: a destination or an app that a good part of the fleet meets for the first time together.

An update's new host or a management roll-out would otherwise raise one alert a device, and a compromise of
the whole fleet would hide behind "everybody has it". Such an event is one item of its own, and so is what of
it alerts for its rhythm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask
from appcadence.features.history import History
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import Finding
from appcadence.models.identity import identity
from appcadence.telemetry.addresses import is_local

MIN_DEVICES = 4
MIN_SHARE = 0.05
"""An event is met by at least four devices and by a twentieth of the fleet so far ..."""
NEWCOMERS_SHARE = 0.5
"""... who are at least half of all that ever met it ..."""
TOGETHER_SECONDS = 7 * 86_400
"""... and who met it within a week of each other, and after the baseline."""
_SHIFT = 32


@dataclass(frozen=True)
class FleetEvents:
    """What the fleet met for the first time together, and the windows in which it did."""

    windows: Mask
    """(n,) whether a window of the feature table belongs to an event."""
    events: pd.DataFrame
    """One row an event: kind (destination or app), name, devices, first_seen (UTC), device_ids (list)."""
    identity: Finding | None = None
    """Which names changed under the fleet, if any did (see `models.identity`); none of it is an event."""


def fleet_events(history: History, since_us: int, frame: pd.DataFrame) -> FleetEvents:
    """Events among the windows of a feature table.

    `history` holds the contacts of these windows too; `since_us` (microseconds since the epoch) is the end of
    the baseline, before which nothing is an event. A window is judged by what was met before its own end.
    """
    changed = identity(history.contacts, since_us, frame)
    contacts = changed.applied(history.contacts, since_us)
    devices = pd.Index(contacts["device_id"].unique())
    end = (frame["window_end"].dt.as_unit("us").astype("int64").to_numpy() - since_us) // 1_000_000
    owner = _codes(devices, frame["device_id"])
    met = np.sort(
        (contacts.groupby("device_id")["first_seen"].min().to_numpy(np.int64) - since_us) // 1_000_000
    )
    known = np.searchsorted(met, end, "right")
    least = np.maximum(MIN_DEVICES, np.ceil(MIN_SHARE * known)).astype(np.int64)
    marked, events = np.zeros(len(frame), np.bool_), []
    for kind, column in (("destination", "dest"), ("app", "app_id")):
        named = contacts[contacts[column].notna()]
        names = pd.Index(named[column].unique())
        names = names[[not is_local(name) for name in names]] if kind == "destination" else names
        first = _first_contacts(named[named[column].isin(names)], names, column, devices, since_us)
        rows = _codes(names, frame[column])
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
    """How many devices of each event alert in a scores table, of which it takes device, app, destination,
    status and alert."""
    rows = scores.filter(pc.and_(scores["alert"], pc.equal(scores["status"], "fleet_event"))).to_pandas()
    counts = []
    for event in events.itertuples():
        met = rows[rows["dest" if event.kind == "destination" else "app_id"] == event.name]
        counts.append(met.loc[met["device_id"].isin(event.device_ids), "device_id"].nunique())
    return counts


@dataclass(frozen=True)
class _FirstContacts:
    """When each device first met each name: seconds since the baseline plus one, 0 = before its end."""

    pair: Codes
    """(p,) sorted name * n_devices + device, and `second_of` each."""
    second_of: Codes
    ordered: Codes
    """(p,) sorted name << 32 | second."""
    n_devices: int

    def joined_in(self, name: Codes, device: Codes, end: Codes, least: Codes) -> Mask:
        """Whether each row's device met the name in an event that is one by the row's end (seconds)."""
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
        """Devices that met a name in the week before `end`, and the second of it."""
        lo, hi = np.searchsorted(self.pair, [name * self.n_devices, (name + 1) * self.n_devices])
        second = self.second_of[lo:hi]
        keep = (second > max(end - TOGETHER_SECONDS, 0)) & (second <= max(end, 0))
        device = self.pair[lo:hi][keep] - name * self.n_devices
        return pd.DataFrame({"device": device, "second": second[keep] - 1})


def _first_contacts(
    contacts: pd.DataFrame, names: pd.Index, column: str, devices: pd.Index, since_us: int
) -> _FirstContacts:
    name, device = (
        names.get_indexer(pd.Index(contacts[column])),
        devices.get_indexer(pd.Index(contacts["device_id"])),
    )
    second = (contacts["first_seen"].to_numpy(np.int64) - since_us) // 1_000_000 + 1
    second = np.maximum(second, 0)
    pair = name.astype(np.int64) * len(devices) + device
    order = np.lexsort((second, pair))
    head = np.append(True, np.diff(pair[order]) > 0)[: len(order)]
    pair, second = pair[order][head], second[order][head]
    return _FirstContacts(
        pair, second, np.sort((pair // max(len(devices), 1) << _SHIFT) + second), len(devices)
    )


def _codes(names: pd.Index, column: pd.Series) -> Codes:
    """(n,) place of each value among `names`, -1 where it is null or unknown."""
    values = column.astype("category")
    of_category = np.append(names.get_indexer(pd.Index(values.cat.categories, dtype=object)), -1)
    return np.asarray(of_category[values.cat.codes.to_numpy()], np.int64)
