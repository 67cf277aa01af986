"""Names as running numbers over many pieces of a table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from appcadence.telemetry.arrays import Ints, one_array


class Codes:
    """Numbers names in order of first sight; equal names get equal numbers in every piece."""

    def __init__(self) -> None:
        self._code: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._code)

    @property
    def names(self) -> list[str]:
        return list(self._code)

    def of(self, column: pa.ChunkedArray) -> Ints:
        """(n,) the number of each value of a dictionary column, -1 = null."""
        values = one_array(column)
        code = [self._code.setdefault(name, len(self._code)) for name in values.dictionary.to_pylist()]
        index = np.asarray(values.indices.fill_null(len(code)).to_numpy(zero_copy_only=False), np.int64)
        return np.array([*code, -1], np.int64)[index]
