"""Contributions and expectations put into plain sentences."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from appcadence.features.catalog import FAMILY_OF, FEATURES, NAMES, RELATIVE

Matrix = npt.NDArray[np.float64]

_MOST = 5
_IN_RHYTHM = 1.2
"""A beat at most a fifth faster than approved is in its rhythm."""
_AGE = {"channel_is_new", "destination_is_new_for_device", "destination_is_new_for_fleet"}


def sentences(values: Matrix, expected: Matrix, contributions: Matrix) -> list[str]:
    """Up to five sentences for one window; arrays are (n_features,).

    The strongest contributions are worded, behaviour before novelty: being new explains nothing by itself.
    """
    out = []
    strongest = np.argsort(-contributions, kind="stable")[:_MOST]
    for f in sorted(strongest, key=lambda f: FAMILY_OF[NAMES[f]] == "novelty"):
        if contributions[f] <= 0 or math.isnan(values[f]):
            continue
        feature = FEATURES[f]
        phrase = feature.phrase[0].upper() + feature.phrase[1:]
        if feature.name in _AGE:
            out.append(f"The destination is {feature.phrase}." if values[f] else f"Not {feature.phrase}.")
        elif not RELATIVE[f]:
            out.append(f"{phrase}: {quantity(values[f], feature.unit)}.")
        else:
            usual = quantity(expected[f], feature.unit)
            out.append(f"{phrase}: {quantity(values[f], feature.unit)}; usual here {usual}.")
    return out


def unchecked(row: pd.Series) -> list[str]:
    """What the telemetry of this window could not show, as sentences."""
    out = []
    if pd.isna(row["app_id"]):
        out.append("Blind spot: the telemetry does not say which app this is.")
    if math.isnan(row["median_seconds_since_unlock"]):
        out.append("Not checked: whether the user was present (no activity telemetry).")
    if math.isnan(row["pushes_per_hour"]):
        out.append("Not checked: whether pushes started it (no push telemetry for this app).")
    if math.isnan(row["longest_session_seconds"]):
        out.append("Not checked: how long it stayed connected (no durations).")
    return out


def explained_by(frame: pd.DataFrame, distances: Matrix) -> list[list[str]]:
    """For each window, what speaks for the benign reading."""
    present = (frame["userless_share"].to_numpy() < 0.2).tolist()
    known = (frame["destination_prevalence_ratio"].to_numpy() >= 0.2).tolist()
    directed = distances[:, [f.direction != 0 for f in FEATURES]]
    seen = ~np.isnan(directed)
    # A rhythm is approved for an approved app and the hosts it declares.
    conflict = (frame[["unapproved_app", "unexpected_host_share"]].to_numpy() == 1).any(axis=1)
    rhythm = ((frame["expected_rhythm_ratio"].to_numpy() <= _IN_RHYTHM) & ~conflict).tolist()
    usual = (np.where(seen, np.abs(directed), 0.0).sum(axis=1) < np.maximum(seen.sum(axis=1), 1)).tolist()
    texts = ("user present", "approved rhythm", "as usual for this app", "known to the fleet")
    return [
        [text for flag, text in zip(flags, texts, strict=True) if flag]
        for flags in zip(present, rhythm, usual, known, strict=True)
    ]


def quantity(value: float, unit: str) -> str:
    """A number with its unit, as a person would say it."""
    if math.isnan(value):
        return "unknown"
    if unit == "s":
        for size, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
            if value >= 2 * size:
                return f"{value / size:.1f} {name}"
        return f"{value:.1f} s" if value >= 0.1 or value == 0 else "under 0.1 s"
    if unit == "ratio":
        return f"{100 * value:.0f}%"
    if unit == "bytes":
        for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.0f} bytes"
    if unit == "times":
        return f"{value:,.0f} times as often" if value >= 10 else f"{value:.2g} times as often"
    named = {"1/h": "an hour", "count": ""}.get(unit, unit)
    return f"{value:,.0f} {named}".strip() if abs(value) >= 1000 else f"{value:.3g} {named}".strip()
