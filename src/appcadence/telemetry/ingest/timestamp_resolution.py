"""Sources that claim a finer resolution than all their timestamps show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from appcadence._types import Ints

_WHOLE = {60: "minutes", 1: "seconds"}
_MIN_STAMPS = 50
"""So many distinct times are not whole seconds or minutes by chance."""
_SECOND = 1_000_000


@dataclass
class _Claim:
    """The times of one source that claim to be finer than whole seconds or minutes."""

    stamps: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Distinct ones, no more than are needed."""
    rows: int = 0
    finest: float = 0.0
    refuted: bool = True
    """Whether all of them are whole."""


class TimestampResolutions:
    """Whether all times of a source are coarser than it claims."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str, int], _Claim] = {}

    def add(self, table: str, rows: npt.NDArray[Any], names: list[str]) -> None:
        """Count rows (time in microseconds, number of the source, resolution in seconds) of a table."""
        for code in np.unique(rows["source"]).tolist():
            ours = rows[rows["source"] == code]
            for seconds in _WHOLE:
                claim = self._claims.setdefault((table, names[code], seconds), _Claim())
                finer = ours[ours["resolution"] < seconds]
                claim.refuted &= not np.any(finer["time"] % (seconds * _SECOND))
                claim.rows += len(finer)
                claim.finest = max(claim.finest, float(finer["resolution"].max(initial=0.0)))
                if claim.refuted and len(claim.stamps) < _MIN_STAMPS:
                    claim.stamps = np.union1d(claim.stamps, finer["time"])[:_MIN_STAMPS]

    def notes(self) -> Iterator[str]:
        said: dict[tuple[str, str], str] = {}
        # Of a source whose times are whole minutes, not that they are whole seconds.
        for (table, name, seconds), claim in sorted(self._claims.items()):
            if claim.refuted and len(claim.stamps) >= _MIN_STAMPS:
                said[table, name] = (
                    f"Source {name} claims times to {claim.finest:g} s in {table}, yet all {claim.rows:,} "
                    f"are whole {_WHOLE[seconds]} ({seconds} s): no finer rhythm can be trusted; let the "
                    "source log finer times, or state its true resolution."
                )
        yield from said.values()
