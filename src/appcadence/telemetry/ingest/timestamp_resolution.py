"""Sources that claim a finer grid of times than all their times show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence._types import Ints

_GRIDS = {1: "seconds", 60: "minutes"}
_MIN_STAMPS = 50
"""So many distinct times are not whole seconds or minutes by chance."""
_SECOND = 1_000_000


@dataclass
class _Grid:
    """Times of one source that claim to be finer than a grid."""

    stamps: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct ones, no more than are needed."""
    rows: int = 0
    claimed: float = 0.0
    on_grid: bool = True


class Grids:
    """Whether all times of a source lie on a coarser grid than it claims."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[int, _Grid]] = {}

    def add(self, table: str, rows: npt.NDArray[Any], names: list[str]) -> None:
        """Count rows (time in microseconds, number of the source, grid in seconds) of a table."""
        for code in np.unique(rows["source"]).tolist():
            ours = rows[rows["source"] == code]
            grids = self._found.setdefault((table, names[code]), {g: _Grid() for g in _GRIDS})
            for seconds, grid in grids.items():
                if not grid.on_grid:
                    continue
                finer = ours[ours["grid"] < seconds]
                grid.on_grid = not np.any(finer["time"] % (seconds * _SECOND))
                grid.rows += len(finer)
                grid.claimed = max(grid.claimed, float(finer["grid"].max(initial=0.0)))
                if grid.on_grid and len(grid.stamps) < _MIN_STAMPS:
                    grid.stamps = np.union1d(grid.stamps, finer["time"])[:_MIN_STAMPS]

    def notes(self) -> Iterator[str]:
        for (table, name), grids in sorted(self._found.items()):
            for seconds, grid in sorted(grids.items(), reverse=True):
                if grid.on_grid and len(grid.stamps) >= _MIN_STAMPS:
                    yield (
                        f"Source {name} claims times to {grid.claimed:g} s in {table}, yet all {grid.rows:,} "
                        f"are whole {_GRIDS[seconds]} ({seconds} s): no finer rhythm can be trusted; let the "
                        "source log finer times, or state its true resolution."
                    )
                    break
