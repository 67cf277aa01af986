"""IP addresses as logs write them: one test of what is an address, and one canonical form."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HEADS = frozenset("0123456789abcdefABCDEF:")


def parsed(text: str | None) -> Address | None:
    """The address that a text is, blanks around it aside; None for anything else."""
    text = (text or "").strip()
    if text[:1] not in _HEADS:  # a host name, most often: an exception takes longer than a look
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_address(text: str) -> bool:
    return parsed(text) is not None


def canonical(text: str) -> str | None:
    """An address in canonical form, any other text without the blanks around it; None for no text.

    >>> canonical("2001:0DB8:0000::0001"), canonical("192.0.2.1 "), canonical(" ")
    ('2001:db8::1', '192.0.2.1', None)
    """
    address = parsed(text)
    return text.strip() or None if address is None else str(address)


def is_within(text: str | None, networks: Collection[Network]) -> bool:
    """Whether a text is an address in one of the networks."""
    address = parsed(text)
    return address is not None and any(address in network for network in networks)
