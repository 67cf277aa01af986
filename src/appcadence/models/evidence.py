"""Which behaviours a window has enough evidence to be judged on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

BEHAVIOURS: dict[str, tuple[str, ...]] = {
    "structured_cadence": ("interval", "size"),
    "session_persistence": ("session",),
    "notification_burst": ("notification",),
}
"""The analytic's three behaviours and the feature families that speak for each."""

MIN_STARTS = 6
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
    """(n,) whether any behaviour can be judged; the models learn from and score these windows alone."""
    return np.asarray(np.logical_or.reduce(list(judged(frame).values())), np.bool_)
