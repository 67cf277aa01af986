"""Which device had which address, and when, as DHCP servers and sensors log it; see `readers.leases`.

A device is named by its host name if no other device has it, else by its MAC address. An address that two
devices hold at the same time stays an address.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, HOUR_US
from appcadence.telemetry.identity import FIRST, Devices, Lease
from appcadence.telemetry.listing import listed, many

MAX_GAP_US = 7 * DAY_US
"""A device that gets its address again within this time had it all along, if nobody else did."""
COMMON_NAMES = frozenset(
    ("iphone", "ipad", "ipod", "watch", "apple-watch", "mac", "macbook", "android", "localhost", "unknown")
)
"""Host names that phones have until someone renames them."""


_MAC = re.compile(r"(?:[0-9a-f]{2}[:-]?){5}[0-9a-f]{2}|(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}", re.IGNORECASE)


def mac_of(text: str) -> str | None:
    """A MAC address in the form 00:17:f2:00:00:0a; None for anything else."""
    pairs = re.sub(r"[^0-9a-f]", "", text.lower())
    return ":".join(pairs[at : at + 2] for at in range(0, 12, 2)) if _MAC.fullmatch(text) else None


@dataclass(frozen=True)
class Sighting:
    """A device that holds an address."""

    address: str
    """In canonical form."""
    mac: str
    """Six pairs of hexadecimal digits, lower case, with colons."""
    host: str | None
    time: int
    """When it is known to hold the address, in microseconds; the end if only that is known."""
    fresh: bool
    """Whether it got the address at that time; otherwise it had it before."""
    end: int
    """When it no longer holds the address, unless it is seen again."""


def devices_of(
    sightings: Iterable[Sighting], shown: Callable[[str], str] = str
) -> tuple[Devices | None, tuple[str, ...]]:
    """Devices by address and time (None without sightings), and notes about them, with names as `shown`."""
    found = list(dict.fromkeys(sightings))
    if not found:
        return None, ()
    hosts: dict[str, set[str]] = defaultdict(set)
    macs: dict[str, set[str]] = defaultdict(set)
    for seen in found:
        if seen.host:
            hosts[seen.mac].add(seen.host)
            macs[seen.host].add(seen.mac)
    name = {mac: _own_name(hosts[mac], macs) or mac for mac in dict.fromkeys(seen.mac for seen in found)}
    by_address: dict[str, list[Sighting]] = defaultdict(list)
    for seen in found:
        by_address[seen.address].append(seen)
    leases, shared = [], []
    for address, held in by_address.items():
        spans = _spans(held)
        if spans is None:
            shared.append(address)
            continue
        leases += [Lease(address, name[mac], start, end, 0) for mac, start, end in spans]
    return Devices(leases) if leases else None, tuple(_notes(name, macs, shared, shown))


def _own_name(hosts: set[str], macs: dict[str, set[str]]) -> str | None:
    """The host name of a device, if it has exactly one and no other device has it."""
    (host, *others) = hosts or {""}
    own = host and not others and len(macs[host]) == 1 and host not in COMMON_NAMES
    return host if own else None


def _spans(held: Sequence[Sighting]) -> list[tuple[str, int, int]] | None:
    """Successive (MAC, from, to) of one address; None if two devices hold it at the same time."""
    spans: list[tuple[str, int, int]] = []
    claimed: dict[str, int] = {}
    for seen in sorted(held, key=lambda seen: (seen.time, seen.end, seen.mac)):
        mac, first, last = spans[-1] if spans else ("", FIRST, FIRST)
        start = seen.time if seen.fresh else min(last, seen.time)
        if mac == seen.mac and start - last <= MAX_GAP_US:
            spans[-1] = (mac, first, max(last, seen.end))
        elif claimed.get(seen.mac, FIRST) > seen.time:
            return None  # another device got it while this one held it, and now this one has it again
        else:
            if spans:
                # The address may have been given away before the lease ended.
                spans[-1] = (mac, first, min(last, start))
            spans.append((seen.mac, start, seen.end))
        claimed[seen.mac] = max(claimed.get(seen.mac, FIRST), seen.end)
    return [span for span in spans if span[1] < span[2]]


def _notes(
    names: dict[str, str], macs: dict[str, set[str]], shared: Sequence[str], shown: Callable[[str], str]
) -> Iterator[str]:
    devices = sorted(set(map(shown, names.values())))
    yield f"DHCP and MAC addresses identify {many(len(names), 'device')}: {listed(devices)}."
    random = sorted(mac for mac in names if int(mac[1], 16) & 2)
    if random:
        yield (
            f"{len(random):,} of these devices use a randomised MAC address, which a phone may change: it "
            "then counts as another device, unless its host name is unique."
        )
    several = sorted(
        shown(host) for host, found in macs.items() if len(found) > 1 and host not in COMMON_NAMES
    )
    if several:
        yield (
            f"The host name {listed(several)} belongs to several MAC addresses, of one phone that changed "
            "its address or of several phones; each counts as a device. A table of devices can join them."
        )
    if shared:
        yield (
            f"Two devices hold one address at the same time ({listed(sorted(map(shown, shared)))}): their "
            "rows use the address as the device."
        )


class HardwareAddresses:
    """Devices by the MAC address that a sensor on their own network logs with each connection.

    A router's MAC address stands for all devices behind it. A device has one IPv4 address at a time, so a MAC
    address with two in use at the same time belongs to a router and names no device. Memory grows with the
    hours in which an address is in use.
    """

    def __init__(self) -> None:
        self._spans: dict[tuple[str, str, int], tuple[int, int]] = {}

    def add(self, addresses: pa.Array, macs: pa.Array, start: pa.Array) -> None:
        """Add n connections: the address and the MAC address (or null) that opened each, and when (in µs)."""
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
        """Which device had which address, without routers."""
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
    """Whether two addresses are in use at the same time: one both before and after the other."""
    names = np.array([address for address, _, _ in spans])
    low, high = (np.array([span[place] for span in spans], np.int64) for place in (1, 2))
    order = np.argsort(low, kind="stable")
    names, low, high = names[order], low[order], high[order]
    for address in np.unique(names) if len(np.unique(names)) > 1 else ():
        mine = names == address
        # For each span of this address, the latest end of other spans that began before it.
        ends = np.maximum.accumulate(np.where(mine, np.iinfo(np.int64).min, high))
        if bool((mine & (ends > low)).any()):
            return True
    return False
