"""Apple's push endpoints, as documented (HT203609, read 2026-11): which ones phones use, and which not."""

from __future__ import annotations

from ipaddress import ip_network

from appcadence.telemetry.addresses import parsed, unwrapped

DEVICE_PORT = 5223
"""A device's connection to the push service; 443 is its fallback."""
PROVIDER_PORTS = (2195, 2196, 2197)
"""A server's connection to the push service, never normal on a phone."""
PROVIDER_HOSTS = frozenset(
    ("api.push.apple.com", "api.sandbox.push.apple.com", "api.development.push.apple.com")
)
DAEMON = "com.apple.apsd"
"""The process that keeps a phone's single connection to the push service."""
_COURIERS = [
    ip_network(text)
    for text in (
        "17.249.0.0/16",
        "17.252.0.0/16",
        "17.57.144.0/22",
        "17.188.128.0/18",
        "17.188.20.0/23",
        "2620:149:a44::/48",
        "2403:300:a42::/48",
        "2403:300:a51::/48",
        "2a01:b740:a42::/48",
    )
]
"""Where the push service answers phones."""
_APPLE = (ip_network("17.0.0.0/8"), *_COURIERS)


def is_apple(host: str | None, address: str | None) -> bool | None:
    """Whether a destination belongs to Apple; None = unknown.

    A public address decides, otherwise the name, because addresses of proxies, tunnels and translators say
    nothing.
    """
    if address is not None:
        found = parsed(address)
        if found is None:
            return None
        if (found := unwrapped(found)).is_global:
            return any(found in network for network in _APPLE)
    if host is None:
        return None
    return host == "apple.com" or host.endswith((".apple.com", "push-apple.com.akadns.net"))


def is_courier(dest: str) -> bool:
    """Whether a destination (host name or address) is a server to which phones stay connected for pushes.

    The name alone decides for a host name, although only its address could prove it.

    >>> is_courier("31-courier.push.apple.com"), is_courier("17.57.144.20"), is_courier("17.253.1.1")
    (True, True, False)
    >>> is_courier("api.push.apple.com"), is_courier("push.apple.com.example")
    (False, False)
    """
    address = parsed(dest)
    if address is None:
        return dest.endswith((".push.apple.com", "push-apple.com.akadns.net")) and dest not in PROVIDER_HOSTS
    return any(unwrapped(address) in network for network in _COURIERS)
