"""Strata: windows with and without an app, and those of phones' own logs, show different things, and are
weighed and calibrated apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from appcadence._types import Mask, Matrix
from appcadence.models.eligibility import own_log

STRATA = ("attributed", "unattributed", "own_log")


def strata(frame: pd.DataFrame) -> dict[str, Mask]:
    """Rows of each stratum."""
    unknown = frame["app_id"].isna().to_numpy()
    logged = own_log(frame)
    return {"attributed": ~unknown & ~logged, "unattributed": unknown & ~logged, "own_log": logged}


def by_stratum(frame: pd.DataFrame, values: Matrix) -> Matrix:
    """(n, k) of each of n rows the values of its stratum, given as (n_strata, k)."""
    out = np.empty((len(frame), values.shape[1]))
    for stratum, rows in strata(frame).items():
        out[rows] = values[STRATA.index(stratum)]
    return out
