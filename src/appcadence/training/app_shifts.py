"""App updates: apps whose traffic changed in the same way on most devices while other apps' did not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from appcadence._types import DAY_US, Matrix
from appcadence.features.catalog import FEATURES, RELATIVE
from appcadence.features.windows import APP_LEVEL
from appcadence.models.baseline import profile
from appcadence.models.calibration import adjusted_p_values
from appcadence.telemetry.addresses import is_address

MIN_DEVICES = 4
MIN_SPREADS = 1.5
"""A device counts as moved from this median distance from the expectation on."""
MIN_SHARE = 0.5
"""An update shows on at least half of the devices that have the app."""
MIN_FEATURES = 2
"""An update shows in more than one feature."""
MIN_DAYS = 3
"""An update lasts: a weekend, or a last day that a change of time zone cut short, is none."""
MIN_OBSERVED = 0.5
"""Windows of which a smaller share was observed, such as the last one, are ignored."""
_MAX_FALSE_DISCOVERIES = 0.01
_MIN_CHANCE = 0.15
"""Lower bound of the chance that a device counts as moved without an update: devices share weekends, so those
of one app are not independent. At 0.05, a benign weekend on six devices passed for an update."""
_COMPARED = np.flatnonzero(RELATIVE)


@dataclass(frozen=True)
class AppShift:
    """An app whose traffic changed across the fleet."""

    app: str
    """The app, or the registrable domain if apps are unknown."""
    devices: int
    """Devices on which the clearest feature moved."""
    of: int
    """Devices that have the app and for which the feature is known."""
    since: str
    """UTC date of the first day of the shift."""
    moved: list[str]
    """Features in words with the direction of the change, the clearest first."""

    def sentence(self, version: str | None = None) -> str:
        more = f" and {len(self.moved) - 4} more" if len(self.moved) > 4 else ""
        return (
            f"App update: {self.app}{f' ({version})' if version else ''} moved since {self.since} on "
            f"{self.devices} of {self.of} devices, and other apps did not: {'; '.join(self.moved[:4])}{more}."
        )


def app_shifts(frame: pd.DataFrame, distances: Matrix) -> list[AppShift]:
    """The apps that moved, the widest spread first.

    `frame` is the feature table (n) of windows after training, `distances` (n, n_features) theirs from the
    baseline. An app is followed by its app-level windows. For each app, feature and direction, the shift
    begins with the unbroken run of days, up to the latest, on which at least half of the devices (four or
    more) lie 1.5 spreads out; it holds three days at least. The number of such devices over the whole run is
    then held against the share of devices on which other apps did (binomial tail, times the days a run could
    have begun on; false discoveries controlled after Benjamini and Hochberg within each app, then over the
    apps). It shows no shift that leaves the app as a whole where it was, and in practice none of apps on
    fewer than seven devices. Where apps are unknown a registrable domain stands for one; an address does not.
    """
    from scipy.stats import binom

    length = (frame["window_end"] - frame["window_start"]).dt.total_seconds()
    app_level = frame["app_id"].isna() | (frame["dest"].astype(object) == APP_LEVEL)
    whole = (app_level & (frame["observed_seconds"] >= MIN_OBSERVED * length)).to_numpy()
    keys = pd.DataFrame(
        {
            "who": profile(frame)[whole],
            "device": frame["device_id"].astype(object).to_numpy()[whole],
            "day": frame["window_start"].dt.as_unit("us").astype("int64").to_numpy()[whole] // DAY_US,
        }
    )
    rows = pd.concat([keys, pd.DataFrame(distances[whole][:, _COMPARED])], axis=1)
    rows = rows.groupby(["who", "device", "day"], as_index=False).median()
    devices_of = rows.groupby("who")["device"].nunique()
    wide = devices_of[devices_of >= MIN_DEVICES].index
    wide = wide[[not is_address(who) for who in wide]]
    if not len(wide):
        return []
    rows = rows[rows["who"].isin(wide)]
    signs = (1.0, -1.0)
    shape = (len(signs), len(wide), len(_COMPARED))
    p, count, of = np.ones(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    since = np.zeros(shape, np.int64)
    by_device = rows.drop(columns="day").groupby(["who", "device"]).median()
    for s, sign in enumerate(signs):
        chance = _elsewhere(by_device * sign, wide)
        for w, who in enumerate(wide):
            mine = rows[rows["who"] == who]
            first, n_days = _runs(mine, sign)
            for f in np.flatnonzero(first >= 0):
                late = mine.loc[mine["day"].to_numpy() >= first[f], ["device", f]]
                z = sign * late.groupby("device")[f].median().dropna()
                k, n = int((z >= MIN_SPREADS).sum()), len(z)
                if k >= max(MIN_DEVICES, MIN_SHARE * n):
                    p[s, w, f] = min(1.0, n_days * binom.sf(k - 1, n, chance[w, f]))
                count[s, w, f], of[s, w, f], since[s, w, f] = k, n, first[f]
    within = np.stack([adjusted_p_values(p[:, w].ravel()).reshape(2, -1) for w in range(len(wide))])
    sure = adjusted_p_values(within.min(axis=(1, 2))) <= _MAX_FALSE_DISCOVERIES
    out = []
    for w in np.flatnonzero(sure).tolist():
        hits = np.argwhere(within[w] <= _MAX_FALSE_DISCOVERIES)
        if len(hits) < MIN_FEATURES:
            continue
        hits = hits[np.argsort(p[hits[:, 0], w, hits[:, 1]], kind="stable")]
        best = (hits[0][0], w, hits[0][1])
        days, times = np.unique(since[hits[:, 0], w, hits[:, 1]], return_counts=True)
        day = str(np.datetime64(int(days[times.argmax()]), "D"))
        phrases = [FEATURES[_COMPARED[f]].phrase.split(" (")[0] for _, f in hits]
        moved = [
            f"{phrase} {'lower' if s else 'higher'}" for phrase, (s, _) in zip(phrases, hits, strict=True)
        ]
        out.append(AppShift(str(wide[w]), int(count[best]), int(of[best]), day, moved))
    return sorted(out, key=lambda shift: (-shift.devices, shift.app))


def _runs(mine: pd.DataFrame, sign: float) -> tuple[np.ndarray, int]:
    """By feature, the first day (since the epoch) of the run of moved days, -1 = none; and the number of
    days."""
    values = mine.drop(columns=["who", "device", "day"])
    known = values.notna().groupby(mine["day"]).sum()
    moved = (sign * values >= MIN_SPREADS).groupby(mine["day"]).sum().to_numpy()
    many = known.to_numpy() >= MIN_DEVICES
    yes = many & (moved >= np.maximum(MIN_DEVICES, MIN_SHARE * known.to_numpy()))
    # A day with few devices neither extends a run nor breaks it.
    unbroken = np.logical_and.accumulate((yes | ~many)[::-1], axis=0)[::-1] & yes
    days = known.index.to_numpy(np.int64)
    first = np.where(unbroken.any(axis=0), days[unbroken.argmax(axis=0)], -1)
    late = days[:, None] >= first
    return np.where((many & late).sum(axis=0) >= MIN_DAYS, first, -1), len(days)


def _elsewhere(by_device: pd.DataFrame, wide: pd.Index) -> Matrix:
    """(n_apps, n_features) share of the other apps' devices that lie as far out, at least 0.15."""
    moved = (by_device >= MIN_SPREADS).groupby("who").sum().loc[wide].to_numpy(np.float64)
    known = by_device.notna().groupby("who").sum().loc[wide].to_numpy(np.float64)
    share = (moved.sum(axis=0) - moved) / np.maximum(known.sum(axis=0) - known, 1.0)
    return np.asarray(np.maximum(share, _MIN_CHANCE))
