"""Which behaviours a window has enough evidence to be judged on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from appcadence.features.rolling import STEADY_DAYS

BEHAVIOURS: dict[str, tuple[str, ...]] = {
    "structured_cadence": ("interval", "size"),
    "session_persistence": ("session",),
    "notification_burst": ("notification",),
}
"""The analytic's three behaviours and the feature families that speak for each."""

MIN_STARTS = 6
MIN_DAYS = 2
"""A channel met on so many earlier days is judged however few its flows: a beacon may be slower than that."""
PERSISTENT_SECONDS = 1800.0
CADENCE_ALONE_STARTS = 12
"""Cadence with fewer starts than this raises no alert of its own."""

Mask = npt.NDArray[np.bool_]


def judged(frame: pd.DataFrame) -> dict[str, Mask]:
    """For each behaviour, (n,) whether the window can show it.

    Cadence takes six flows; persistence one session of half an hour, or enough flows to hold a chain;
    bursts three pushes with sessions to follow them.
    """
    many = frame["n_flows"].to_numpy() >= MIN_STARTS
    long = frame["longest_session_seconds"].to_numpy() >= PERSISTENT_SECONDS
    timed = ~np.isnan(frame["longest_session_seconds"].to_numpy())
    return {
        "structured_cadence": many,
        "session_persistence": long | (many & timed),
        "notification_burst": ~np.isnan(frame["push_coupling_excess"].to_numpy()),
    }


def eligible(frame: pd.DataFrame) -> Mask:
    """(n,) whether any behaviour can be judged, or the channel was met on two of the days before, which are
    then its beats. The models learn from and score these windows alone."""
    return np.asarray(np.logical_or.reduce([*judged(frame).values(), _days_met(frame) >= MIN_DAYS]), np.bool_)


def _days_met(frame: pd.DataFrame) -> npt.NDArray[np.float64]:
    """(n,) days with contact among the fourteen before the window; 0 where the past is unknown."""
    age = np.minimum(np.ceil(frame["channel_age_days"].to_numpy()), STEADY_DAYS)
    return np.asarray(np.nan_to_num(np.rint(frame["steady_days_ratio"].to_numpy() * age)), np.float64)
