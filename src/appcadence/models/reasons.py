"""Contributions and expectations put into plain sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from appcadence.features.catalog import FAMILY_OF, FEATURES, NAMES, RELATIVE

Matrix = npt.NDArray[np.float64]

MAX_SENTENCES = 5
"""Contributions that are worded."""
_IN_RHYTHM = 1.2
"""A beat at most a fifth faster than approved is in its rhythm."""
_AGE = {"channel_is_new", "destination_is_new_for_device", "destination_is_new_for_fleet"}
_PHRASES = tuple(f.phrase[0].upper() + f.phrase[1:] for f in FEATURES)
_NOVEL = np.array([FAMILY_OF[name] == "novelty" for name in NAMES])
_DIRECTED = np.array([f.direction != 0 for f in FEATURES])
_UNCHECKED = {
    "app_id": "Blind spot: the telemetry does not say which app this is.",
    "median_seconds_since_unlock": "Not checked: whether the user was present (no activity telemetry).",
    "pushes_per_hour": "Not checked: whether pushes started it (no push telemetry for this app).",
    "longest_session_seconds": "Not checked: how long it stayed connected (no durations).",
}
"""By column, what cannot be shown where it is unknown."""


def sentences(
    features: npt.NDArray[np.int64], values: Matrix, expected: Matrix, contributions: Matrix
) -> list[list[str]]:
    """For each window up to five sentences on the features that contribute most.

    Behaviour comes before novelty: being new explains nothing by itself.

    Args:
        features: (n, k) places in the catalogue, the strongest contribution first.
        values: (n, k) likewise what is, `expected` what is usual, `contributions` what they contribute.
    """
    worded = (contributions > 0) & ~np.isnan(values)
    order = np.argsort(_NOVEL[features], axis=1, kind="stable")
    table = [np.take_along_axis(a, order, 1).tolist() for a in (worded, features, values, expected)]
    return [
        [_sentence(f, value, usual) for said, f, value, usual in zip(*row, strict=True) if said]
        for row in zip(*table, strict=True)
    ]


def _sentence(f: int, value: float, usual: float) -> str:
    feature, phrase = FEATURES[f], _PHRASES[f]
    if feature.name in _AGE:
        return f"The destination is {feature.phrase}." if value else f"Not {feature.phrase}."
    if not RELATIVE[f]:
        return f"{phrase}: {quantity(value, feature.unit)}."
    return f"{phrase}: {quantity(value, feature.unit)}; usual here {quantity(usual, feature.unit)}."


def unchecked(frame: pd.DataFrame) -> pa.ListArray:
    """For each window, what its telemetry could not show, as sentences."""
    return listed({text: frame[column].isna().to_numpy() for column, text in _UNCHECKED.items()})


def explained_by(frame: pd.DataFrame, distances: Matrix) -> pa.ListArray:
    """For each window, what speaks for the benign reading."""
    directed = distances[:, _DIRECTED]
    seen = ~np.isnan(directed)
    # A rhythm is approved for an approved app and the hosts it declares.
    conflict = (frame[["unapproved_app", "unexpected_host_share"]].to_numpy() == 1).any(axis=1)
    return listed(
        {
            "user present": frame["userless_share"].to_numpy() < 0.2,
            "approved rhythm": (frame["expected_rhythm_ratio"].to_numpy() <= _IN_RHYTHM) & ~conflict,
            "as usual for this app": np.where(seen, np.abs(directed), 0.0).sum(axis=1)
            < np.maximum(seen.sum(axis=1), 1),
            "known to the fleet": frame["destination_prevalence_ratio"].to_numpy() >= 0.2,
        }
    )


def listed(flags: Mapping[str, npt.NDArray[np.bool_]]) -> pa.ListArray:
    """For each of n windows, the texts whose flag (n,) is set."""
    table = np.stack(list(flags.values()), axis=1)
    return _lists(table.sum(axis=1), pa.array(flags).take(pa.array(np.nonzero(table)[1])))


def placed(rows: npt.NDArray[np.bool_], texts: Sequence[Sequence[str]]) -> pa.ListArray:
    """For each of n windows, its texts if it is one of the `rows` (n,), which have theirs in order."""
    count = np.zeros(len(rows), np.int64)
    count[rows] = [len(some) for some in texts]
    return _lists(count, pa.array([text for some in texts for text in some], pa.string()))


def _lists(count: npt.NDArray[np.int64], texts: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(count)]), pa.int32()), texts)


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
