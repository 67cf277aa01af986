"""Hosts that iOS itself contacts, whatever apps a phone has, by name.

Apple, "Use Apple products on enterprise networks" (HT210060, read 2026-11); 3GPP TS 23.003, 19.4.2.9 (the
carrier's gateway for calls over Wi-Fi). A name proves nothing; it is only what a log says.
"""

from __future__ import annotations

from appcadence.telemetry.app_ids import WORKS_FOR_OTHERS

_DOMAINS = (
    *("apple.com", "icloud.com", "icloud-content.com", "apple-cloudkit.com", "apple-dns.net", "aaplimg.com"),
    *("cdn-apple.com", "mzstatic.com", "apple-livephotoskit.com", "apzones.com", "pub.3gppnetwork.org"),
    *("apple-mapkit.com", "itunes.com", "me.com"),
)
_UNDER = tuple("." + domain for domain in _DOMAINS)


def is_system_host(dest: str) -> bool:
    """Whether a host name is one of these hosts.

    >>> is_system_host("mask.icloud.com"), is_system_host("epdg.epc.mnc001.mcc262.pub.3gppnetwork.org")
    (True, True)
    >>> is_system_host("icloud.com.example"), is_system_host("notapple.com"), is_system_host("17.57.144.20")
    (False, False, False)
    """
    return dest.endswith(_UNDER) or dest in _DOMAINS


def is_system_app(app: str) -> bool:
    """Whether an app is part of iOS: its id is Apple's, or it is a process that serves others."""
    return app.startswith("com.apple.") or app in WORKS_FOR_OTHERS
