"""What one line of arithmetic finds: the rules of thumb that a detector has to beat, and their sum."""

from __future__ import annotations

import numpy as np
import pandas as pd

PERSISTENT_SECONDS = 4 * 3600


def one_liners(table: pd.DataFrame) -> pd.DataFrame:
    """(n, 3) scores of the windows of a feature table, higher = more suspicious.

    "first seen + count" ranks new channels by their flows, "first seen + regular or long" by the larger of
    1 - MAD / median of their gaps and their longest session in units of four hours; both put every known
    channel below every new one. "sum of both" adds -log of the share of the table's windows that are at least
    as high, which needs no labels.
    """
    new = table["channel_is_new"].fillna(1).to_numpy()
    gaps = table[["beat_interval_mad_ratio", "session_interval_mad_ratio"]].min(axis=1)
    regular = (1 - gaps).fillna(0)
    long = table["longest_session_seconds"].fillna(0) / PERSISTENT_SECONDS
    out = pd.DataFrame(
        {
            "first seen + count": new * 1e6 + table["n_flows"].to_numpy(),
            "first seen + regular or long": new * 100 + np.clip(np.fmax(regular, long), 0, 99),
        }
    )
    return out.assign(**{"sum of both": sum(tail(out[name]) for name in out)})


def tail(score: pd.Series) -> np.ndarray:
    """(n,) -log of the share of all n that are at least as high."""
    return -np.log(1 - (score.rank(method="min") - 1) / len(score)).to_numpy()
