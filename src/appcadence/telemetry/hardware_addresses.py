"""Devices by the MAC address that a sensor on their own network logs with each connection.

A router's MAC address is that of all who are behind it. A device has one address of IPv4 at a time, so a MAC
address from which two are in use at one time is a router's and names nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import HOUR_US
from appcadence.telemetry.leases import Sighting, mac_of


class HardwareAddresses:
    """Gathers connections; memory grows with the hours in which an address is in use."""

    def __init__(self) -> None:
        self._spans: dict[tuple[str, str, int], tuple[int, int]] = {}

    def add(self, addresses: pa.Array, macs: pa.Array, start: pa.Array) -> None:
        """n connections: the address and the MAC address (or null) that opened each, and when (in µs)."""
        table = pa.table(
            {
                "address": addresses.cast(pa.string()),
                "mac": macs.cast(pa.string()),
                "start": start,
                "hour": pc.divide(start, HOUR_US),
            }
        ).drop_null()
        spans = table.group_by(["address", "mac", "hour"]).aggregate([("start", "min"), ("start", "max")])
        for row in spans.to_pylist():
            key = row["address"], row["mac"], row["hour"]
            low, high = self._spans.get(key, (row["start_min"], row["start_max"]))
            self._spans[key] = min(low, row["start_min"]), max(high, row["start_max"])

    def sightings(self) -> Iterator[Sighting]:
        """Who had which address, without what routers have."""
        by_mac: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        for (address, text, _), (low, high) in self._spans.items():
            if mac := mac_of(text):
                by_mac[mac].append((address, low, high))
        for mac, spans in by_mac.items():
            if not _is_router([span for span in spans if ":" not in span[0]]):
                yield from (
                    Sighting(address, mac, None, low, True, high + 1) for address, low, high in sorted(spans)
                )


def _is_router(spans: list[tuple[str, int, int]]) -> bool:
    """Whether two addresses are in use at one time: one of them before and after the other."""
    names = np.array([address for address, _, _ in spans])
    low, high = (np.array([span[place] for span in spans], np.int64) for place in (1, 2))
    order = np.argsort(low, kind="stable")
    names, low, high = names[order], low[order], high[order]
    for address in np.unique(names) if len(np.unique(names)) > 1 else ():
        mine = names == address
        # The latest end of the others that began before each of mine.
        ends = np.maximum.accumulate(np.where(mine, np.iinfo(np.int64).min, high))
        if bool((mine & (ends > low)).any()):
            return True
    return False
