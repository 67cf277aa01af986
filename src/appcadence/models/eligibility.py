"""Which behaviours a window has enough evidence for, which windows never alert, and strata.

Windows with an app, without one, and from phones' own logs have weights and calibrations of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from appcadence._types import Codes, Mask, Matrix
from appcadence.config import Tunables
from appcadence.features._kernels import MIN_STARTS
from appcadence.telemetry import apns
from appcadence.telemetry.addresses import is_local

BEHAVIOURS: dict[str, tuple[str, ...]] = {
    "structured_cadence": ("interval", "size"),
    "session_persistence": ("session",),
    "notification_burst": ("notification",),
}
"""The analytic's three behaviours and the feature families that show each."""

PERSISTENT_SECONDS = 1800.0
CADENCE_ALONE_BEATS = 12
"""With fewer beats, cadence alone raises no alert."""
STATUSES = (
    "scored",
    "fleet_event",
    "local_destination",
    "shared_process",
    "push_connection",
    "insufficient_evidence",
)
"""The possible statuses of a window; only `scored` windows are ranked."""
SCORED, FLEET_EVENT, LOCAL_DESTINATION, SHARED_PROCESS, PUSH_CONNECTION, INSUFFICIENT_EVIDENCE = range(
    len(STATUSES)
)
READS = (
    "longest_session_seconds",
    "push_coupling_excess",
    "push_coupling_days_excess",
    "steady_days_ratio",
)
"""The features that `eligible` reads, besides the key `n_beats`."""

Columns = pd.DataFrame | Mapping[str, Any]
"""A feature table, or its columns (n,) by name, or the numbers of one window."""


def judged(frame: Columns) -> dict[str, Mask]:
    """For each behaviour, (n,) whether the window can show it; of one window's numbers, whether it can.

    Cadence needs six beats, of any number of flows each. Persistence needs a session of half an hour, or
    beats enough for a chain. Bursts need three pushes followed by sessions, in the window or over the days.
    """
    n_beats, longest, excess, days_excess, _ = _read(frame)
    many = n_beats >= MIN_STARTS
    return {
        "structured_cadence": many,
        "session_persistence": (longest >= PERSISTENT_SECONDS) | (many & _is_known(longest)),
        "notification_burst": _is_known(excess) | _is_known(days_excess),
    }


def eligible(frame: Columns) -> Mask:
    """(n,) whether any behaviour can be judged, or the channel was seen on two of the days before and has a
    beat in the window; then the days are its beats. The models learn from and score only these windows."""
    n_beats, *_, steady = _read(frame)
    out: Mask = (steady > 0) & (n_beats > 0)
    for able in judged(frame).values():
        out = out | able
    return out


def _read(frame: Columns) -> list[Any]:
    names = ("n_beats", *READS)
    if isinstance(frame, pd.DataFrame):
        return [frame[name].to_numpy() for name in names]
    return [frame[name] for name in names]


def _is_known(value: Any) -> Any:
    """Whether a number, or each of an array, is not NaN."""
    return value == value


def own_log(frame: pd.DataFrame) -> Mask:
    """(n,) whether the window comes from a phone's own log, which has no destinations. Its slots of eight
    seconds give other beats and sessions than flows do."""
    if "destination_known" not in frame:
        return np.zeros(len(frame), np.bool_)
    return ~frame["destination_known"].to_numpy(np.bool_)


def by_name(frame: pd.DataFrame, column: str, holds: Callable[[str], bool]) -> Mask:
    """(n,) whether `holds` is true for the name in a column, computed once per name; false for null."""
    names = frame[column].astype("category").cat
    codes, inverse = np.unique(names.codes.to_numpy(), return_inverse=True)
    found = [code >= 0 and holds(str(names.categories[code])) for code in codes]
    return np.array(found, np.bool_)[inverse]


def local_destination(frame: pd.DataFrame) -> Mask:
    """(n,) whether the window is one to a destination on the device's own network."""
    return by_name(frame, "dest", is_local)


def shared_process(frame: pd.DataFrame) -> Mask:
    """(n,) whether the window comes from a phone's own log and is of a system process that works for many
    apps. Its rhythm cannot be attributed to one of them."""
    return own_log(frame) & (frame["app_attribution"].astype(object) == "process").to_numpy()


def push_connection(frame: pd.DataFrame) -> Mask:
    """(n,) whether the window is of the phone's one connection to Apple's push service for all of its apps.

    It is always open, changes its server, and has the device's rhythm, not an app's.

    Other apps that contact those servers, and hosts that use their names elsewhere, do not count.
    """
    app = frame["app_id"].astype(object)
    daemon = (app == apns.DAEMON).to_numpy()
    courier = by_name(frame, "dest", apns.is_courier) | (
        daemon & (frame["dest"].astype(object) == "*").to_numpy()
    )
    return courier & (daemon | app.isna().to_numpy()) & ~(frame["foreign_push_port_share"].to_numpy() > 0)


def unattributable(frame: pd.DataFrame) -> Mask:
    """(n,) whether the window is of traffic that many apps share by design; it is never ranked."""
    return shared_process(frame) | push_connection(frame)


def statuses(frame: pd.DataFrame, evidence: Mask, fleet_event: Mask | None, rank_local: bool) -> Codes:
    """(n,) places in `STATUSES`.

    Args:
        frame: the feature table, n rows.
        evidence: (n,) `eligible`.
        fleet_event: (n,) whether the window belongs to a fleet event; None = none does.
        rank_local: whether windows to destinations on the local network are ranked.
    """
    out = np.where(evidence, SCORED, INSUFFICIENT_EVIDENCE)
    if fleet_event is not None:
        out[evidence & fleet_event] = FLEET_EVENT
    out[evidence & shared_process(frame)] = SHARED_PROCESS
    out[evidence & push_connection(frame)] = PUSH_CONNECTION
    if not rank_local:
        out[evidence & local_destination(frame)] = LOCAL_DESTINATION
    return out


def barred(
    frame: pd.DataFrame, able: Mapping[str, Mask], shown: Mapping[str, Mask], tunables: Tunables
) -> Mask:
    """(n,) windows that raise no alert, whatever their score.

    These are windows that show only cadence with fewer than twelve beats, and windows that can be judged on a
    behaviour whose threshold is set but show none of the three.

    Args:
        frame: the feature table, n rows.
        able: (n,) by behaviour, whether it can be judged.
        shown: (n,) by behaviour, whether it shows within the bounds of `tunables`.
        tunables: the thresholds.
    """
    few = frame["n_beats"].to_numpy() < CADENCE_ALONE_BEATS
    bound = [able[name] for name in BEHAVIOURS if getattr(tunables, name) is not None]
    nothing = np.logical_or.reduce([np.zeros(len(frame), np.bool_), *bound])
    cadence = shown["structured_cadence"]
    others = shown["session_persistence"] | shown["notification_burst"]
    return np.asarray(~others & np.where(cadence, few, nothing), np.bool_)


STRATA = ("attributed", "unattributed", "own_log")


def strata(frame: pd.DataFrame) -> dict[str, Mask]:
    """Rows of each stratum."""
    unknown = frame["app_id"].isna().to_numpy()
    logged = own_log(frame)
    return {"attributed": ~unknown & ~logged, "unattributed": unknown & ~logged, "own_log": logged}


def by_stratum(frame: pd.DataFrame, values: Matrix) -> Matrix:
    """(n, k) for each of n rows the values of its stratum; `values` is (n_strata, k)."""
    out = np.empty((len(frame), values.shape[1]))
    for stratum, rows in strata(frame).items():
        out[rows] = values[STRATA.index(stratum)]
    return out
