"""The networks whose flows are left out as those of other devices: some may hold phones after all."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network

import numpy as np

from appcadence._types import Mask
from appcadence.telemetry.addresses import LOCAL_NETWORKS, Network, parsed
from appcadence.telemetry.names import Column, encode

MAX_NETWORKS = 4_096
"""Networks to remember; a user does not own more than this, so later ones are dropped."""
_SHARED = ip_network("100.64.0.0/10")
_GLOBAL = ip_network("2000::/3")


class Strangers:
    """Rows by the network that the client is in: private and shared IPv4 (/24), and IPv6 (/64)."""

    def __init__(self) -> None:
        self.rows: Counter[Network] = Counter()
        self.other_ipv6 = 0
        """Rows of IPv6 networks beyond those that are remembered."""

    def add(self, devices: Column, which: Mask) -> None:
        """Count those of n addresses that opened flows which are left out (n, `which`)."""
        names = encode(devices)
        codes = np.asarray(names.indices.fill_null(-1))[which]
        values = names.dictionary.to_pylist()
        counts = np.bincount(codes[codes >= 0], minlength=len(values))
        for code in np.flatnonzero(counts).tolist():
            network = _network(values[code])
            if network is None:
                continue
            if network in self.rows or len(self.rows) < MAX_NETWORKS:
                self.rows[network] += int(counts[code])
            elif network.version == 6:
                self.other_ipv6 += int(counts[code])


def _network(text: str) -> Network | None:
    address = parsed(text)
    if isinstance(address, IPv4Address):
        private = address in _SHARED or any(address in network for network in LOCAL_NETWORKS[:3])
        return ip_network(f"{address}/24", strict=False) if private else None
    if isinstance(address, IPv6Address) and (address in _GLOBAL or address in LOCAL_NETWORKS[3]):
        return ip_network((int(address) >> 64 << 64, 64))
    return None
