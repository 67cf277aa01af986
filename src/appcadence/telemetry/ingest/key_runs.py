"""Sorted keys of hundreds of millions of flows, kept on disk except for a small part."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

import numpy as np

from appcadence._types import Ints
from appcadence.telemetry.ingest.flow_keys import Keys
from appcadence.telemetry.readers._spill import room

RUN_KEYS = 1 << 22
"""This many keys (32 MB) are sorted, written and returned at a time."""
_PARTS = 256
_EDGES = np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(56)
"""Between the parts, which are equally large because the keys are well mixed."""


class KeyRuns:
    """Add keys, then take all of them in sorted order; fewer than RUN_KEYS stay in memory.

    The others go to a temporary file without a name, 8 bytes each, in sorted runs.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._runs: list[Ints] = []
        """For each run, where its parts begin in the file and where the last one ends, in keys."""
        self._new: list[Keys] = []
        self._new_count = self.count = 0

    def add(self, keys: Keys) -> None:
        """Add keys in any order.

        Raises:
            TelemetryError: there is no room for them.
        """
        self._new.append(keys)
        self._new_count += len(keys)
        self.count += len(keys)
        if self._new_count >= RUN_KEYS:
            self._write()

    def parts(self) -> Iterator[Keys]:
        """All keys in sorted parts, each greater than those before it."""
        rest = self._sorted_keys()
        if self._file is None:
            yield rest
            return
        edges = np.array([0, *np.searchsorted(rest, _EDGES), len(rest)])
        step = max(_PARTS * RUN_KEYS // max(self.count, 1), 1)
        for first in range(0, _PARTS, step):
            last = min(first + step, _PARTS)
            found = [rest[edges[first] : edges[last]]]
            for run in self._runs:
                self._file.seek(8 * int(run[first]))
                found.append(np.frombuffer(self._file.read(8 * int(run[last] - run[first])), np.uint64))
            yield np.sort(np.concatenate(found))

    def _sorted_keys(self) -> Keys:
        """The keys in memory, sorted; they stay."""
        keys = np.concatenate([np.empty(0, np.uint64), *self._new])
        keys.sort()
        self._new = [keys]
        return keys

    def _write(self) -> None:
        keys = self._sorted_keys()
        with room():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            begin = self._file.seek(0, 2) // 8
            self._file.write(keys.data)
        self._runs.append(begin + np.array([0, *np.searchsorted(keys, _EDGES), len(keys)]))
        self._new, self._new_count = [], 0
