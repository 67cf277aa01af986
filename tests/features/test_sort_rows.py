"""The one sort of kernels over rows: total, in place, NaN last, alone in its slice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from appcadence.features._kernels import sort_rows

ROWS = arrays(
    np.float64, st.tuples(st.integers(0, 40), st.just(3)), elements=st.sampled_from([0.0, 1.0, 2.5, np.nan])
)


@given(ROWS)
def test_rows_are_sorted_by_the_columns_from_the_left(rows):
    expected = rows[np.lexsort(rows.T[::-1])]  # NumPy's sorts put NaN last, too
    sort_rows(rows)
    np.testing.assert_array_equal(rows, expected)


def test_what_lies_beside_a_slice_stays():
    rows = np.arange(20, 0, -1.0).reshape(10, 2)
    before = rows.copy()
    sort_rows(rows[3:7])
    np.testing.assert_array_equal(rows[3:7], before[3:7][::-1])
    np.testing.assert_array_equal(np.delete(rows, range(3, 7), 0), np.delete(before, range(3, 7), 0))
