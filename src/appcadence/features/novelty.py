"""What was known before the window began: first-seen and prevalence, always as of the window."""

from __future__ import annotations

import numpy as np
import pandas as pd

from appcadence.features.feature import Feature, Matrix
from appcadence.features.history import History, contacts_of
from appcadence.features.windows import Windows

FEATURES = (
    Feature(
        "channel_is_new",
        "ratio",
        1,
        "1 if the device's app never contacted the destination before the window",
        "new for this app on this device",
    ),
    Feature(
        "channel_age_days",
        "days",
        -1,
        "days from the channel's first contact to the window; 0 if new",
        "age of the channel",
    ),
    Feature(
        "destination_is_new_for_device",
        "ratio",
        1,
        "1 if no app of the device contacted it before the window",
        "new for this device",
    ),
    Feature(
        "destination_is_new_for_fleet",
        "ratio",
        1,
        "1 if no device contacted it before the window",
        "new for the whole fleet",
    ),
    Feature(
        "destination_prevalence_ratio",
        "ratio",
        -1,
        "share of the fleet's other devices that contacted it before the window's end",
        "share of other devices that know the destination",
    ),
    Feature(
        "destination_other_apps",
        "count",
        -1,
        "other known apps of the fleet that contacted it before the window's end",
        "other apps that know the destination",
    ),
)
"""A window's own contact never counts, so a contact is counted alike whoever made it."""

_DAY_US = 86_400_000_000


def compute(windows: Windows, history: History | None) -> Matrix:
    """(n, 6); NaN without history, for app-level windows, and for devices without a past."""
    out = np.full((windows.n, len(FEATURES)), np.nan)
    n = windows.n_channels
    if history is None or n == 0:
        return out
    now = contacts_of(windows)
    past = pd.concat([history.contacts, now], ignore_index=True) if len(history.contacts) else now
    device, devices = pd.factorize(past["device_id"])
    app, apps = pd.factorize(past["app_id"])
    dest, dests = pd.factorize(past["dest"])
    first = past["first_seen"].to_numpy(np.int64)
    own_device = pd.Index(devices).get_indexer(windows.devices)[windows.device[:n]]
    app_map = np.append(pd.Index(apps).get_indexer(windows.apps), -1)
    own_app = app_map[windows.app[:n]]
    own_dest = pd.Index(dests).get_indexer(windows.dests)[windows.dest[:n]]
    end = windows.start_us[:n] + int(windows.seconds * 1e6)
    begin = _began(windows)

    def key(d: np.ndarray, a: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.asarray((d * (len(apps) + 1) + a + 1) * len(dests) + t)

    zero = np.zeros(1, np.int64)
    channel_first = _first(key(device, app, dest), first, key(own_device, own_app, own_dest))
    pair_first = _first(key(device, zero, dest), first, key(own_device, zero, own_dest))
    dest_first = _first(dest, first, own_dest)
    device_first = _first(device, first, own_device)
    has_past = device_first < begin
    new = channel_first >= begin
    out[:n, 0] = new
    out[:n, 1] = np.where(new, 0.0, (begin - channel_first) / _DAY_US)
    out[:n, 2] = pair_first >= begin
    out[:n, 3] = dest_first >= begin
    out[:n][~has_past, :4] = np.nan
    known = _counted(dest, device, first, own_dest, end) - 1
    fleet = _counted(np.zeros_like(device), device, first, np.zeros_like(own_dest), end) - 1
    out[:n, 4] = np.where(fleet > 0, known / np.maximum(fleet, 1), np.nan)
    named = app >= 0
    other_apps = _counted(dest[named], app[named], first[named], own_dest, end)
    out[:n, 5] = np.where(own_app >= 0, other_apps - 1, np.nan)
    return out


def _began(windows: Windows) -> np.ndarray:
    """When the device was first seen in each channel window: what came before is its past.

    Telemetry that begins in the middle of a window so keeps the morning's contacts as past.
    """
    n = windows.n_channels
    group = pd.factorize(windows.device[:n] * (1 << 40) + windows.start_us[:n] // 3_600_000_000)[0]
    times = windows.start_us[:n] + np.rint(windows.flow_start[windows.offsets[:n]] * 1e6).astype(np.int64)
    earliest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(earliest, group, times)
    return np.asarray(earliest[group])


def _first(key: np.ndarray, first: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Earliest `first` of each wanted key; every wanted key occurs."""
    order = np.lexsort((first, key))
    ordered = key[order]
    return first[order][np.searchsorted(ordered, wanted)]


def _counted(
    group: np.ndarray, member: np.ndarray, first: np.ndarray, wanted: np.ndarray, before: np.ndarray
) -> np.ndarray:
    """How many members of each wanted group were first seen before a time."""
    order = np.lexsort((first, member, group))
    group, member, first = group[order], member[order], first[order]
    earliest = np.ones(len(group), np.bool_)
    earliest[1:] = (group[1:] != group[:-1]) | (member[1:] != member[:-1])
    group, first = group[earliest], first[earliest]
    # One sorted axis for (group, time): ranks of all times, packed behind the group.
    times = np.sort(np.concatenate([first, before]))
    width = len(times) + 1
    packed = np.sort(group * width + np.searchsorted(times, first))
    query = wanted * width + np.searchsorted(times, before)
    return np.asarray(np.searchsorted(packed, query) - np.searchsorted(packed, wanted * width))
