"""What contributions, expectations and missing telemetry say of windows, as findings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.features.catalog import FAMILY_OF, FEATURES, NAMES
from appcadence.findings import Finding
from appcadence.models.eligibility import own_log
from appcadence.models.experts import EXPERTS

MAX_EXPERTS = 3
"""Experts that are said, ..."""
MIN_WORTH = float(np.log(20))
"""... where at most one benign window in twenty shows as much."""
MAX_REASONS = 5
"""Contributions that are said."""
_IN_RHYTHM = 1.2
"""A beat at most a fifth faster than approved is in its rhythm."""
_NEWNESS = np.array([expert.name == "newness" for expert in EXPERTS])
_NOVEL = np.array([FAMILY_OF[name] == "novelty" for name in NAMES])
_DIRECTED = np.array([f.direction != 0 for f in FEATURES])
_UNCHECKED = {
    "app_id": Finding("app_unknown"),
    "median_seconds_since_unlock": Finding("presence_unknown"),
    "pushes_per_hour": Finding("pushes_unknown"),
    "longest_session_seconds": Finding("durations_unknown"),
}
"""By column, what cannot be shown where it is unknown."""
_OWN_LOG = [Finding("destinations_unknown"), Finding("slots_of_8_seconds")]
"""What a phone's own log does not show."""
_SCHEDULED_SHARE = 0.5
"""So many of the sessions make a rhythm that of iOS's scheduler."""


_VOLUME = {"beats_per_hour", "sessions_per_hour", "bytes_per_hour"}
_FEATURE_OF = {expert.name: expert.feature for expert in EXPERTS}
_ALL_FAILED = 0.9
"""Where so many connections failed, none had other bytes than the rest."""


def told_once(findings: Sequence[Finding]) -> list[Finding]:
    """The first finding on each matter: what follows from one that is said already is no reason of its own.

    A matter is a family of features, or volume; that all connections failed settles their sizes, too.
    """
    kept: list[Finding] = []
    told: set[Hashable] = set()
    for finding in findings:
        named = finding.parameters.get("feature") or _FEATURE_OF.get(finding.parameters.get("expert", ""))
        matter = "volume" if named in _VOLUME else FAMILY_OF.get(named or "", finding.subject)
        if matter not in told:
            told.add(matter)
            kept.append(finding)
        if named == "failed_ratio" and finding.parameters["value"] >= _ALL_FAILED:
            told.add("size")
    return kept


def said_by_experts(worth: Matrix, values: Matrix) -> list[list[Finding]]:
    """For each of n windows the strongest of what its experts say, newness last: it explains nothing alone.

    Args:
        worth: (n, n_experts) what each statistic is worth.
        values: (n, n_features) feature values.
    """
    order = np.argsort(np.where(_NEWNESS, np.inf, -worth), axis=1, kind="stable")
    return [
        [_expert(e, row[e], seen) for e in places if row[e] >= MIN_WORTH][:MAX_EXPERTS]
        for places, row, seen in zip(order, worth, values, strict=True)
    ]


def _expert(e: int, worth: float, values: Vector) -> Finding:
    value = float(values[NAMES.index(EXPERTS[e].feature)])
    shown, rare = None if np.isnan(value) else value, round(float(np.exp(worth)))
    return Finding("expert", {"expert": EXPERTS[e].name, "value": shown, "one_in": rare})


def unusual(features: Codes, values: Matrix, expected: Matrix, contributions: Matrix) -> list[list[Finding]]:
    """For each of n windows up to five findings, on the features that contribute most.

    Behaviour comes before novelty: being new explains nothing by itself.

    Args:
        features: (n, k) places in the catalogue, the strongest contribution first.
        values: (n, k) likewise what is, `expected` what is usual, `contributions` what they contribute.
    """
    said = (contributions > 0) & ~np.isnan(values)
    order = np.argsort(_NOVEL[features], axis=1, kind="stable")
    table = [np.take_along_axis(a, order, 1).tolist() for a in (said, features, values, expected)]
    return [
        [_unusual(f, value, usual) for said, f, value, usual in zip(*row, strict=True) if said]
        for row in zip(*table, strict=True)
    ]


def _unusual(f: int, value: float, usual: float) -> Finding:
    expected = None if np.isnan(usual) else usual
    return Finding("unusual_feature", {"feature": NAMES[f], "value": value, "expected": expected})


def lowered(shift: Vector) -> list[list[Finding]]:
    """For each of n windows, that its whole device is unusual, where its score was lowered for that."""
    return [[Finding("device_unusual", {"lowered_by": float(-by)})] if by < 0 else [] for by in shift]


def unchecked(frame: pd.DataFrame) -> list[list[Finding]]:
    """For each window, what its telemetry could not show."""
    unknown = np.stack([frame[column].isna().to_numpy() for column in _UNCHECKED], axis=1)
    found = tuple(_UNCHECKED.values())
    logged = own_log(frame)
    return [
        [finding for finding, missing in zip(found, row, strict=True) if missing] + (_OWN_LOG if own else [])
        for row, own in zip(unknown, logged, strict=True)
    ]


def explained_by(frame: pd.DataFrame, distances: Matrix) -> pa.ListArray:
    """For each window, the codes of what speaks for the benign reading."""
    directed = distances[:, _DIRECTED]
    seen = ~np.isnan(directed)
    # A rhythm is approved for an approved app and the hosts expected of it.
    conflict = (frame[["unapproved_app", "unexpected_host_share"]].to_numpy() == 1).any(axis=1)
    return listed(
        {
            "user_present": frame["userless_share"].to_numpy() < 0.2,
            "approved_rhythm": (frame["expected_rhythm_ratio"].to_numpy() <= _IN_RHYTHM) & ~conflict,
            "scheduled_by_ios": frame["scheduled_start_share"].to_numpy() >= _SCHEDULED_SHARE,
            "usual_for_app": np.where(seen, np.abs(directed), 0.0).sum(axis=1)
            < np.maximum(seen.sum(axis=1), 1),
            "known_to_fleet": frame["destination_prevalence_ratio"].to_numpy() >= 0.2,
        }
    )


def listed(flags: Mapping[str, Mask]) -> pa.ListArray:
    """For each of n windows, the names whose flag (n,) is set."""
    table = np.stack(list(flags.values()), axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(table.sum(axis=1))]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flags).take(pa.array(np.nonzero(table)[1])))
