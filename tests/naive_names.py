"""Slow, obvious twin of `passive_names`: names for flows from the fleet's own records of their address."""

from __future__ import annotations

import ipaddress

DAY = 86400.0
TICK = 5e-7  # half a microsecond

LOCAL = "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 169.254.0.0/16 127.0.0.0/8 100.64.0.0/10 fc00::/7 fe80::/10"


def named(flows):
    """The flows, those without a host called what flows to their address were called in the day before."""

    def public(ip):
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return True
        return not any(address in ipaddress.ip_network(net) for net in LOCAL.split())

    known = [
        f for f in flows if f.host is not None and f.ip is not None and f.service != "dns" and public(f.ip)
    ]
    out = []
    for flow in flows:
        if flow.host is None and flow.ip is not None and flow.service != "dns":
            hosts = {f.host for f in known if f.ip == flow.ip and -TICK <= flow.start - f.start <= DAY + TICK}
            flow = flow._replace(host=hosts.pop()) if len(hosts) == 1 else flow
        out.append(flow)
    return out


def local(dest):
    """Whether a destination is on the device's own network."""
    try:
        address = ipaddress.ip_address(dest)
    except ValueError:
        return dest.endswith((".local", ".lan", ".home.arpa"))
    return address in ipaddress.ip_network("fc00::/7" if address.version == 6 else "10.0.0.0/8")


def dest_of(host, ip, app):
    """What a window calls a flow's destination; a flow without one is its app's, or nobody's."""
    return next((name for name in (host, ip) if name is not None), "unknown" if app is None else "*")
