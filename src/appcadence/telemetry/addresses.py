"""IP addresses as logs write them: one test of what is an address, and one canonical form."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),  # private
        *("169.254.0.0/16", "fe80::/10"),  # link-local
        *("127.0.0.0/8", "::1/128"),  # loopback
        *("224.0.0.0/4", "ff00::/8", "255.255.255.255/32", "0.0.0.0/8", "::/128"),  # multicast, broadcast
    )
)
"""Addresses that never lie beyond the device's own network."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 addresses as phones see them on networks without IPv4 (RFC 6052)."""
LOCAL_DOMAINS = (".local", ".lan", ".home", ".internal", ".localdomain", ".home.arpa", ".localhost")
"""Domains that no public name server knows; home routers and mDNS use them for machines."""
_HEADS = frozenset("0123456789abcdefABCDEF:")
_KEPT, _MAX_KEPT = 1 << 14, 64
"""Number of addresses to cache, and the length that a cached address stays below."""


def parsed(text: str | None) -> Address | None:
    """The address in a text, ignoring blanks around it; None for anything else."""
    text = (text or "").strip()
    if text[:1] not in _HEADS:  # most often a host name: this check is faster than an exception
        return None
    return _parsed(text) if len(text) < _MAX_KEPT else _parsed.__wrapped__(text)


@lru_cache(_KEPT)
def _parsed(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def unwrapped(address: Address) -> Address:
    """The IPv4 address embedded in an IPv6 address, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address


def is_address(text: str) -> bool:
    return parsed(text) is not None


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine, decided without a name server."""
    address = parsed(host)
    return host == "localhost" if address is None else address.is_loopback


def canonical(text: str) -> str | None:
    """An address in canonical form, any other text without the blanks around it; None for blank text.

    An IPv4 address written as IPv6, as on networks without IPv4 (NAT64), becomes the IPv4 address.

    >>> canonical("2001:0DB8:0000::0001"), canonical("192.0.2.1 "), canonical(" ")
    ('2001:db8::1', '192.0.2.1', None)
    >>> canonical("::ffff:192.0.2.1")
    '192.0.2.1'
    >>> canonical("64:ff9b::c000:201")
    '192.0.2.1'
    """
    return _canonical(text) if len(text) < _MAX_KEPT else _canonical.__wrapped__(text)


@lru_cache(_KEPT)
def _canonical(text: str) -> str | None:
    address = parsed(text)
    if address is None:
        return text.strip() or None
    return str(unwrapped(address))


def is_local(dest: str) -> bool:
    """Whether a destination, address or host name, is on the device's own network.

    Names under `LOCAL_DOMAINS` are local; for any other name, only its address could tell.

    >>> is_local("192.168.1.7"), is_local("printer.lan"), is_local("fe80::1%en0"), is_local("17.57.144.1")
    (True, True, True, False)
    """
    return _is_local(dest) if len(dest) < _MAX_KEPT else _is_local.__wrapped__(dest)


@lru_cache(_KEPT)
def _is_local(dest: str) -> bool:
    address = parsed(dest.partition("%")[0])
    if address is None:
        return f".{dest.rstrip('.').lower()}".endswith(LOCAL_DOMAINS)
    address = unwrapped(address)
    return any(address in network for network in LOCAL_NETWORKS)


def is_within(text: str | None, networks: Collection[Network]) -> bool:
    """Whether a text is an address in one of the networks."""
    address = parsed(text)
    return address is not None and any(address in network for network in networks)


@lru_cache(8)
def within(networks: tuple[Network, ...]) -> Callable[[str], bool]:
    """`is_within` for these networks, with a cache."""
    found = lru_cache(_KEPT)(lambda text: is_within(text, networks))
    return lambda text: found(text) if len(text) < _MAX_KEPT else is_within(text, networks)
