"""Apple's push endpoints, as documented (HT203609, read 2026-11): whom a phone talks to, and whom not."""

from __future__ import annotations

from ipaddress import ip_network

from appcadence.telemetry.addresses import parsed

DEVICE_PORT = 5223
"""A device's connection to the push service; 443 is its fallback."""
PROVIDER_PORTS = (2195, 2196, 2197)
"""A server's connection to the push service: never normal on a phone."""
PROVIDER_HOSTS = frozenset(
    ("api.push.apple.com", "api.sandbox.push.apple.com", "api.development.push.apple.com")
)
_RANGES = [
    ip_network(text)
    for text in (
        "17.0.0.0/8",
        "2620:149:a44::/48",
        "2403:300:a42::/48",
        "2403:300:a51::/48",
        "2a01:b740:a42::/48",
    )
]


def is_apple(host: str | None, address: str | None) -> bool | None:
    """Does a destination belong to Apple? The address decides, else the name. None = unknown."""
    if address is not None:
        found = parsed(address)
        found = getattr(found, "ipv4_mapped", None) or found
        return None if found is None else any(found in network for network in _RANGES)
    if host is None:
        return None
    return host == "apple.com" or host.endswith((".apple.com", "push-apple.com.akadns.net"))
