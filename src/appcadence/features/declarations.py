"""What apps declare and who approved them, by the newest snapshot of the inventory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

BACKGROUND_MODES = {
    "audio": "plays or records sound",
    "location": "follows the location",
    "voip": "takes calls",
    "fetch": "fetches new content",
    "processing": "does long work that iOS schedules",
    "remote-notification": "wakes up for silent pushes",
    "external-accessory": "talks to accessories",
    "bluetooth-central": "talks to Bluetooth devices",
    "bluetooth-peripheral": "acts as a Bluetooth device",
    "nearby-interaction": "measures distances to devices nearby",
    "push-to-talk": "is a walkie-talkie",
    "network-authentication": "signs in to networks",
}
"""Modes that let an app run in the background (UIBackgroundModes), and what one with each does there."""
CONTINUOUS_MODES = BACKGROUND_MODES.keys() - {"fetch", "processing", "remote-notification"}
"""Modes under which an app may stay connected; the others run when the system chooses."""


@dataclass(frozen=True)
class Declarations:
    """One profile for each (device, app) of the inventory; a fleet-wide row serves where no own one does.

    Numbers are 1, 0 or NaN = unknown, but for the period.
    """

    key: np.ndarray
    """Sorted keys (device + 1, app), device -1 = fleet-wide."""
    profile: np.ndarray
    """Profile of each key; profiles are rows of the arrays below."""
    n_apps: int
    background: np.ndarray
    continuous: np.ndarray
    remote_notification: np.ndarray
    approved: np.ndarray
    period_seconds: np.ndarray
    """Shortest period at which the app is approved to talk by itself."""
    hosts: tuple[tuple[str, ...] | None, ...]
    _expected: dict[tuple[int, int], float] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, inventory: pa.Table | None, devices: pd.Index[Any], apps: pd.Index[Any]
    ) -> Declarations | None:
        if inventory is None or not len(inventory):
            return None
        names = ["app_id", "device_id", "approved", "background_modes", "expected_hosts"]
        rows = inventory.select([*names, "expected_period_seconds", "snapshot_time"]).to_pandas()
        rows["app"] = apps.get_indexer(rows["app_id"].astype(object))
        rows["device"] = devices.get_indexer(rows["device_id"].astype(object))
        fleet = rows["device_id"].isna()
        rows = rows[(rows["app"] >= 0) & (fleet | (rows["device"] >= 0))]
        rows = rows.sort_values(["snapshot_time"], kind="stable")
        rows = rows.drop_duplicates(["device", "app"], keep="last").sort_values(["device", "app"])
        n_apps = max(len(apps), 1)
        modes = rows["background_modes"]

        def declares(wanted: Collection[str]) -> np.ndarray:
            found = [np.nan if m is None else float(not set(wanted).isdisjoint(m)) for m in modes]
            return np.array(found, np.float64)

        approved = rows["approved"].map({True: 1.0, False: 0.0}).to_numpy(np.float64)
        period = rows["expected_period_seconds"].to_numpy(np.float64)
        possible = (period > 0) & (period <= np.finfo(np.float32).max)  # features are float32
        return cls(
            key=(rows["device"].to_numpy(np.int64) + 1) * n_apps + rows["app"].to_numpy(np.int64),
            profile=np.arange(len(rows)),
            n_apps=n_apps,
            background=declares(BACKGROUND_MODES),
            continuous=declares(CONTINUOUS_MODES),
            remote_notification=declares(("remote-notification",)),
            approved=approved,
            period_seconds=np.where(possible, period, np.nan),
            hosts=tuple(
                None if h is None or not len(h) else tuple(str(name).lower() for name in h)
                for h in rows["expected_hosts"]
            ),
        )

    def of_windows(self, device: np.ndarray, app: np.ndarray) -> np.ndarray:
        """(n,) profile of each (device, app); -1 = the inventory does not know it."""
        found = np.full(len(app), -1, np.int64)
        if not len(self.key):
            return found
        for owner in (np.full(len(device), -1), device):
            wanted = (owner.astype(np.int64) + 1) * self.n_apps + app
            at = np.minimum(np.searchsorted(self.key, wanted), len(self.key) - 1)
            found = np.where((app >= 0) & (self.key[at] == wanted), self.profile[at], found)
        return found

    def expects(self, profile: int, dest: int, name: str) -> float:
        """1 if the profile expects the destination, 0 if not, NaN if it names no hosts.

        `example.com` stands for itself and everything under it, `*.example.com` for what is under it.
        """
        pair = (profile, dest)
        if pair not in self._expected:
            hosts = self.hosts[profile]
            self._expected[pair] = np.nan if hosts is None else float(any(covers(h, name) for h in hosts))
        return self._expected[pair]


def covers(pattern: str, name: str) -> bool:
    """Whether an expected host, as `Declarations.expects` reads it, means a destination."""
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern or name.endswith("." + pattern)


def categories_of(inventory: pa.Table | None, apps: pd.Index[Any]) -> tuple[pd.Index[Any], np.ndarray]:
    """The App Store categories and (n_apps + 1,) that of each app by the newest snapshot that names one."""
    names: dict[str, str] = {}
    if inventory is not None and len(inventory):
        rows = inventory.select(["app_id", "category", "snapshot_time"]).to_pandas().dropna()
        rows = rows.sort_values(["snapshot_time", "category"])
        names = dict(zip(rows["app_id"].astype(str), rows["category"].astype(str), strict=True))
    categories = pd.Index(sorted(set(names.values())), dtype="object")
    return categories, categories.get_indexer(
        pd.Index([*(names.get(app) for app in apps), None], dtype="object")
    )
