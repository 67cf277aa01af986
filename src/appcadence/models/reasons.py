"""Findings about windows, from contributions, expectations and missing telemetry."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from appcadence._types import Codes, Mask, Matrix, Vector
from appcadence.features.catalog import FAMILY_OF, FEATURES, NAMES
from appcadence.findings import Finding
from appcadence.models.eligibility import by_name, own_log
from appcadence.models.experts import EXPERTS
from appcadence.telemetry.system_services import is_system_app, is_system_host

MAX_EXPERTS = 3
"""The most experts that are named as reasons."""
MIN_WORTH = float(np.log(20))
"""An expert is a reason if at most one benign window in twenty shows as much."""
MAX_REASONS = 5
"""The most reasons of a window."""
_IN_RHYTHM = 1.2
"""A rhythm may be a fifth faster than the approved one."""
_PLACE = {name: i for i, name in enumerate(NAMES)}
_NEWNESS = np.array([expert.name == "newness" for expert in EXPERTS])
_NOVEL = np.array([FAMILY_OF[name] == "novelty" for name in NAMES])
_DIRECTION = np.array([f.direction for f in FEATURES])
_DIRECTED = _DIRECTION != 0
_MIN_RISE = 0.05
"""A value is unusual only if it differs from the usual one by this share of the larger of the two."""
_UNCHECKED = {
    "app_id": Finding("app_unknown"),
    "median_seconds_since_unlock": Finding("presence_unknown"),
    "pushes_per_hour": Finding("pushes_unknown"),
    "longest_session_seconds": Finding("durations_unknown"),
}
"""By column, the finding for what cannot be checked if it is unknown."""
_OWN_LOG = [Finding("destinations_unknown"), Finding("slots_of_8_seconds")]
"""What a phone's own log does not show."""
_SCHEDULED_SHARE = 0.5
"""With this share of scheduled sessions, a rhythm is that of iOS's scheduler."""


_VOLUME = {"beats_per_hour", "sessions_per_hour", "bytes_per_hour"}
_FEATURE_OF = {expert.name: expert.feature for expert in EXPERTS}
_ALL_FAILED = 0.9
"""If this share of connections failed, equal sizes mean nothing."""


def told_once(findings: Sequence[Finding]) -> list[Finding]:
    """The first finding on each topic: what follows from an earlier finding is no reason of its own.

    A topic is a family of features, or volume. If all connections failed, their sizes are no topic either.
    """
    kept: list[Finding] = []
    told: set[Hashable] = set()
    for finding in findings:
        named = finding.parameters.get("feature") or _FEATURE_OF.get(finding.parameters.get("expert", ""))
        matter = "volume" if named in _VOLUME else FAMILY_OF.get(named or "") or finding.subject
        if matter not in told:
            told.add(matter)
            kept.append(finding)
        if named == "failed_ratio" and finding.parameters["value"] >= _ALL_FAILED:
            told.add("size")
    return kept


def said_by_experts(worth: Matrix, values: Matrix, distances: Matrix) -> list[list[Finding]]:
    """For each of n windows the findings of its strongest experts, newness last: alone it explains nothing.

    Args:
        worth: (n, n_experts) what each statistic is worth.
        values, distances: (n, n_features) feature values, and their distances from the baseline.
    """
    order = np.argsort(np.where(_NEWNESS, np.inf, -worth), axis=1, kind="stable")
    return [
        [_expert(e, row[e], seen, apart) for e in places if row[e] >= MIN_WORTH][:MAX_EXPERTS]
        for places, row, seen, apart in zip(order, worth, values, distances, strict=True)
    ]


def _expert(e: int, worth: float, values: Vector, distances: Vector) -> Finding:
    feature = EXPERTS[e].shown_feature(distances)
    value = np.nan if feature is None else float(values[_PLACE[feature]])
    shown = {"feature": None, "value": None} if np.isnan(value) else {"feature": feature, "value": value}
    return Finding("expert", {"expert": EXPERTS[e].name, **shown, "one_in": round(float(np.exp(worth)))})


def unusual(features: Codes, values: Matrix, expected: Matrix, contributions: Matrix) -> list[list[Finding]]:
    """For each of n windows up to five findings, on the features that contribute most.

    Behaviour comes before novelty: being new explains nothing by itself.

    Args:
        features: (n, k) places in the catalogue, the strongest contribution first.
        values, expected, contributions: (n, k) of these features, the values, the usual ones, and what they
            contribute to the score.
    """
    said = (contributions > 0) & ~np.isnan(values) & _suspiciously_unusual(features, values, expected)
    order = np.argsort(_NOVEL[features], axis=1, kind="stable")
    table = [np.take_along_axis(a, order, 1).tolist() for a in (said, features, values, expected)]
    return [
        [_unusual(f, value, usual) for said, f, value, usual in zip(*row, strict=True) if said]
        for row in zip(*table, strict=True)
    ]


def _suspiciously_unusual(features: Codes, values: Matrix, expected: Matrix) -> Mask:
    """Whether each value lies on the suspicious side of the usual one, and by more than rounding. A feature
    can contribute without that."""
    with np.errstate(invalid="ignore"):
        rise = (values - expected) / np.maximum(np.abs(values), np.abs(expected))
        towards = np.where(_DIRECTION[features] == 0, np.abs(rise), rise * _DIRECTION[features])
    return np.asarray(np.isnan(expected) | (towards > _MIN_RISE))


def _unusual(f: int, value: float, usual: float) -> Finding:
    expected = None if math.isnan(usual) else usual
    return Finding("unusual_feature", {"feature": NAMES[f], "value": value, "expected": expected})


def lowered(shift: Vector) -> list[list[Finding]]:
    """For each of n windows, a finding that its whole device is unusual if its score was lowered for that."""
    return [[Finding("device_unusual", {"lowered_by": float(-by)})] if by < 0 else [] for by in shift]


def unchecked(frame: pd.DataFrame) -> list[list[Finding]]:
    """For each window, findings for what its telemetry could not show."""
    unknown = np.stack([frame[column].isna().to_numpy() for column in _UNCHECKED], axis=1)
    found = tuple(_UNCHECKED.values())
    logged = own_log(frame)
    return [
        [finding for finding, missing in zip(found, row, strict=True) if missing] + (_OWN_LOG if own else [])
        for row, own in zip(unknown, logged, strict=True)
    ]


def explained_by(frame: pd.DataFrame, distances: Matrix) -> pa.ListArray:
    """For each window, the codes of what suggests a benign explanation."""
    directed = distances[:, _DIRECTED]
    seen, unknown = ~np.isnan(directed), frame["app_id"].isna().to_numpy()
    # A rhythm is approved only for an approved app and its expected hosts.
    conflict = (frame[["unapproved_app", "unexpected_host_share"]].to_numpy() == 1).any(axis=1)
    return listed(
        {
            "user_present": frame["userless_share"].to_numpy() < 0.2,
            "approved_rhythm": (frame["expected_rhythm_ratio"].to_numpy() <= _IN_RHYTHM) & ~conflict,
            "scheduled_by_ios": frame["scheduled_start_share"].to_numpy() >= _SCHEDULED_SHARE,
            "usual_for_app": np.where(seen, np.abs(directed), 0.0).sum(axis=1)
            < np.where(unknown, 0, np.maximum(seen.sum(axis=1), 1)),
            "known_to_fleet": frame["destination_prevalence_ratio"].to_numpy() >= 0.2,
            "system_service": by_name(frame, "dest", is_system_host)
            & (by_name(frame, "app_id", is_system_app) | unknown),
        }
    )


def listed(flags: Mapping[str, Mask]) -> pa.ListArray:
    """For each of n windows, the names whose flag (n,) is set."""
    table = np.stack(list(flags.values()), axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(table.sum(axis=1))]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(flags).take(pa.array(np.nonzero(table)[1])))
