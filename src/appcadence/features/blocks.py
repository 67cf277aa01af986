"""Records in blocks of whole devices, kept in memory or spilled to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

Piece = Callable[[], pa.Table]
"""One part of a table, read when called."""


@dataclass(frozen=True)
class Chunk:
    """The records of one piece in block order."""

    offsets: np.ndarray
    """(n_blocks + 1,) offsets of the blocks' records."""
    dtype: np.dtype[np.void]
    rows: np.ndarray | None
    file: Path | None = None

    @classmethod
    def of(cls, offsets: np.ndarray, rows: np.ndarray, spill: Path | None) -> Chunk:
        """In memory, or in the file `spill`."""
        if spill is None:
            return cls(offsets, rows.dtype, rows)
        # Not `tofile`, whose errors do not say what went wrong.
        spill.write_bytes(rows.view(np.uint8).data)
        return cls(offsets, rows.dtype, None, spill)

    def slice(self, block: int) -> np.ndarray:
        lo, hi = int(self.offsets[block]), int(self.offsets[block + 1])
        if self.rows is not None:
            return self.rows[lo:hi]
        return np.fromfile(str(self.file), self.dtype, hi - lo, offset=lo * self.dtype.itemsize)


def block_rows(chunks: Sequence[Chunk], block: int | None, dtype: np.dtype[np.void]) -> np.ndarray:
    """The records of one block, or of all, as a new array."""
    if block is not None:
        return np.concatenate([np.empty(0, dtype), *(chunk.slice(block) for chunk in chunks)])
    blocks = range(len(chunks[0].offsets) - 1) if chunks else range(0)
    return np.concatenate([np.empty(0, dtype), *(c.slice(b) for b in blocks for c in chunks)])
