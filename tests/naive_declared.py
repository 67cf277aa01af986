"""Slow, obvious twin of the declaration family, in the style of `naive_context`."""

from __future__ import annotations

import ipaddress
import statistics
from itertools import pairwise

from naive_context import TICK, share_similar, since

APPLE = [
    ipaddress.ip_network(text)
    for text in ("17.0.0.0/8", *(f"{v6}::/48" for v6 in ("2620:149:a44", "2403:300:a42", "2403:300:a51")))
] + [ipaddress.ip_network("2a01:b740:a42::/48")]
AWAKE = {"audio", "location", "voip", "external-accessory", "bluetooth-central", "bluetooth-peripheral"} | {
    "nearby-interaction",
    "network-extension",
    "file-provider",
    "push-to-talk",
    "network-authentication",
}
MODES = AWAKE | {"fetch", "processing", "remote-notification", "widget"}


def to_provider(flow):
    return flow.port in (2195, 2196, 2197) or flow.host in (
        "api.push.apple.com",
        "api.sandbox.push.apple.com",
        "api.development.push.apple.com",
    )


def to_stranger(flow):
    """To port 5223, or by a push server's name, of a destination known not to be Apple's; a public
    address decides, else the name."""
    named = f".{flow.host}".endswith((".push.apple.com", "push-apple.com.akadns.net"))
    named &= not f"{flow.host}".startswith("api.")
    if not (flow.port == 5223 or named) or (flow.ip is None and flow.host is None):
        return False
    stranger = not f".{flow.host}".endswith((".apple.com", "push-apple.com.akadns.net"))
    if flow.ip is None:
        return stranger
    try:
        address = ipaddress.ip_address(flow.ip)
    except ValueError:
        return False
    if not address.is_global:
        return flow.host is not None and stranger
    return not any(address in network for network in APPLE if network.version == address.version)


def expected(dest, patterns):
    for pattern in (p.lower() for p in patterns):
        if dest.endswith("." + pattern.removeprefix("*.")) or dest == pattern:
            return True
    return False


def profile(inventory, device, app):
    """The newest row of the device's own app, else the newest fleet-wide one, else None."""
    for owner in (device, None):
        rows = [r for r in inventory if r["app_id"] == app and r.get("device_id") == owner]
        if rows:
            return max(rows, key=lambda r: r["snapshot_time"])
    return None


def begun_with(spans, t, after):
    """Whether t is in one of the spans, up to 10 s before it or `after` seconds after it."""
    return any(start - 10 - TICK <= t <= end + after + TICK for start, end in spans)


def declared(window, row, fronts, pushes, grid, tasks):
    """`row`: the app's profile or None; `tasks`: spans of the app's scheduled work; the rest as above."""
    n = len(window.pieces)
    out = {
        "provider_endpoint_share": sum(to_provider(p.flow) for p in window.pieces) / n,
        "foreign_push_port_share": sum(to_stranger(p.flow) for p in window.pieces) / n,
    }
    if row is None or window.app is None:
        return out
    if row.get("approved") is not None:
        out["unapproved_app"] = float(not row["approved"])
    if row.get("expected_hosts"):
        strange = [not expected(p.flow.dest, row["expected_hosts"]) for p in window.pieces]
        if window.dest != "*" or not window.is_channel:
            out["unexpected_host_share"] = sum(strange) / n
    beats = window.beats()
    if row.get("expected_period_seconds") is not None and len(beats) >= 6:
        median = statistics.median(b - a for a, b in pairwise(beats))
        out["expected_rhythm_ratio"] = row["expected_period_seconds"] / median
    if row.get("background_modes") is None:
        return out
    modes = set(row["background_modes"])
    begun = [(s, e) for s, e, fresh in window.sessions() if fresh]
    if fronts is not None:
        lags = [since(fronts, window.begin + s) for s, _, _ in window.sessions()]
        alone = [part for part, lag in zip(window.sessions(), lags, strict=True) if lag is None or lag > 30]
        alone = [part for part in alone if not begun_with(tasks, window.begin + part[0], 10)]
        woken = [(t, t) for t, _ in pushes]
        behind = [
            (s, e)
            for s, e, fresh in alone
            if fresh and not begun_with(woken, window.begin + s, 30 + (grid or 0))
        ]
        gaps = [b[0] - a[0] for a, b in pairwise(behind)]
        similar, pairs = share_similar(gaps)
        awake = bool(modes & AWAKE)
        if pairs >= 4:
            out["undeclared_background_rhythm"] = 0.0 if modes & MODES else similar / (pairs + 2)
        if gaps:
            short = sum(g < 900 - TICK for g in gaps) / (len(gaps) + 2)
            out["below_scheduler_floor_share"] = 0.0 if awake else short
        if alone:
            longest = max(e - s for s, e, _ in alone)
            out["background_work_seconds"] = 0.0 if awake else max(longest - 30, 0.0)
    silent = [t - window.begin for t, s in pushes if s and 0 <= t - window.begin < window.length]
    if silent and grid is not None:
        worked = sum(any(t <= s <= t + 30 + grid + TICK for s, _ in begun) for t in silent)
        out["undeclared_push_work_share"] = 0.0 if "remote-notification" in modes else worked / len(silent)
    return out
