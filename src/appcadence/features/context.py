"""What surrounds the flows: use of device and app, pushes, what apps declare, and the past."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.features.columns import codes, micros
from appcadence.features.declarations import Declarations, categories_of
from appcadence.features.flows import Flows
from appcadence.features.grouping import group
from appcadence.features.history import History, Past

_OPEN = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Runs:
    """Rows sorted by a key: those of one key lie together."""

    key: np.ndarray

    def of(self, key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First row of each key, and the one after its last."""
        return np.searchsorted(self.key, key), np.searchsorted(self.key, key, side="right")


@dataclass(frozen=True)
class Spans(Runs):
    """Disjoint intervals by key, microseconds since the epoch."""

    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Pushes(Runs):
    """Pushes received, by (device, app) and time."""

    time_us: np.ndarray
    silent: np.ndarray
    grid_seconds: np.ndarray
    """(n_devices,) the grid of the device's push log; NaN = the device has none."""


@dataclass(frozen=True)
class Context:
    """Everything but flows, coded like them. None = no such telemetry at all."""

    n_apps: int
    use: Spans | None
    """By device: unlocked, or screen on."""
    front: Spans | None
    """By (device, app): the app in front."""
    fronted: np.ndarray
    """(n_devices,) the device reports apps in front."""
    pushes: Pushes | None
    declarations: Declarations | None
    categories: pd.Index[Any]
    category: np.ndarray
    """(n_apps + 1,) App Store category of each app, codes into `categories`; -1 = unknown."""
    first_us: int
    """When the first of all flows started."""
    past: Past | None
    """None = novelty is not asked for."""

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table], flows: Flows, history: History | None = None) -> Context:
        """The context tables of a telemetry, `flows` giving the codes."""
        n_apps = max(len(flows.apps), 1)
        use = front = None
        fronted = np.zeros(len(flows.devices), np.bool_)
        activity = tables.get("activity")
        if activity is not None and len(activity):
            device, app = codes(activity["device_id"], flows.devices), codes(activity["app_id"], flows.apps)
            kind = codes(activity["kind"], pd.Index(["device_unlocked", "screen_on", "app_foreground"]))
            start = micros(activity["start"])
            end = micros(pc.fill_null(activity["end"].cast(pa.int64()), _OPEN))
            used = (kind >= 0) & (kind < 2) & (device >= 0)
            use = _merged(device[used], start[used], end[used])
            in_front = (kind == 2) & (device >= 0)
            fronted[device[in_front]] = True
            in_front &= app >= 0
            front = _merged(device[in_front] * n_apps + app[in_front], start[in_front], end[in_front])
        return cls(
            n_apps,
            use,
            front,
            fronted,
            _pushes(tables.get("notifications"), flows, n_apps),
            Declarations.of(tables.get("inventory"), flows.devices, flows.apps),
            *categories_of(tables.get("inventory"), flows.apps),
            flows.first_us,
            None if history is None else Past.of(history, flows.devices, flows.apps, flows.dests),
        )

    def pair(self, device: np.ndarray, app: np.ndarray) -> np.ndarray:
        """Key of a known (device, app); -1 where the app is unknown."""
        return np.where(app >= 0, device.astype(np.int64) * self.n_apps + app, -1)


def _pushes(table: pa.Table | None, flows: Flows, n_apps: int) -> Pushes | None:
    if table is None or not len(table):
        return None
    device, app = codes(table["device_id"], flows.devices), codes(table["app_id"], flows.apps)
    received = (codes(table["kind"], pd.Index(["push_received"])) == 0) & (device >= 0)
    grid = np.full(len(flows.devices), -1.0)
    np.maximum.at(grid, device[received], table["time_resolution_seconds"].to_numpy()[received])
    silent = pc.fill_null(table["content_available"], False).to_numpy() | (
        pc.fill_null(table["priority"], 0).to_numpy() == 5
    )
    keep = received & (app >= 0)
    key, when, silent = device[keep] * n_apps + app[keep], micros(table["time"])[keep], silent[keep]
    by_time = np.argsort(when, kind="stable")
    order = by_time[group(key[by_time], max(len(flows.devices), 1) * n_apps)[0]]
    return Pushes(key[order], when[order], silent[order], np.where(grid < 0, np.nan, grid))


def _merged(key: np.ndarray, start: np.ndarray, end: np.ndarray) -> Spans:
    order = np.lexsort((end, start, key))
    return Spans(*_merge(key[order], start[order], np.maximum(end, start)[order]))


@numba.njit(cache=True, nogil=True)
def _merge(key, start, end):  # type: ignore[no-untyped-def]
    """Overlapping intervals of a key made one."""
    keys, first, last = key.copy(), start.copy(), end.copy()
    k = 0
    for i in range(len(key)):
        if i and key[i] == key[i - 1] and start[i] <= last[k - 1]:
            last[k - 1] = max(last[k - 1], end[i])
        else:
            keys[k], first[k], last[k] = key[i], start[i], end[i]
            k += 1
    return keys[:k].copy(), first[:k].copy(), last[:k].copy()
