"""Windows are weighed by their stratum."""

import numpy as np
import pandas as pd

from appcadence.models.eligibility import STRATA, by_stratum, strata
from appcadence.models.fusion import combine


def frame():
    # A phone's own log names no destination; where it names no app either, it is still the log's.
    rows = [("app", True), (None, True), ("app", False), (None, False)]
    return pd.DataFrame(rows, columns=["app_id", "destination_known"])


def test_each_window_takes_the_values_of_its_stratum():
    values = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    assert by_stratum(frame(), values).tolist() == [[1, 10], [2, 20], [3, 30], [3, 30]]
    rows = {name: np.flatnonzero(mask).tolist() for name, mask in strata(frame()).items()}
    assert list(rows.items()) == list(zip(STRATA, ([0], [1], [2, 3]), strict=True))


def test_weights_may_differ_from_row_to_row():
    rng = np.random.default_rng(0)
    parts = tuple((rng.normal(size=4), rng.normal(size=(4, 3))) for _ in range(2))
    weights = rng.random((4, 2))
    contributions, raw = combine(parts, weights)
    for i, pair in enumerate(weights):
        alone = tuple((value[i : i + 1], by_feature[i : i + 1]) for value, by_feature in parts)
        one = combine(alone, pair)
        np.testing.assert_allclose(contributions[i], one[0][0])
        np.testing.assert_allclose(raw[i], one[1][0])
