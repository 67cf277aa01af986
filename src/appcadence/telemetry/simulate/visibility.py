"""What sources see of the true flows and events: visibility profiles and the canonical tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from appcadence._types import Ints, Mask, Vector
from appcadence.telemetry.apns import is_courier
from appcadence.telemetry.schema import ACTIVITY, FLOWS, INVENTORY, NOTIFICATIONS, TASKS, TIME, conform
from appcadence.telemetry.simulate.apps import APPS, SDK_HOSTS
from appcadence.telemetry.simulate.presence import PUSH_KINDS, Flows, Intervals, Pushes, Rng
from appcadence.telemetry.simulate.traffic import HOSTS

PROFILES = ("content_filter", "gateway", "netflow")
"""Sources: per-app filter with activity and pushes; hosts without apps; addresses only."""
PROFILE_SHARES = (0.60, 0.25, 0.15)
_FILTER, _GATEWAY, _NETFLOW = range(3)
_RESOLUTION = np.array([0.001, 1.0, 0.001])
_HOSTLESS_SHARE = 0.04
_APP_IDS = [a.app_id for a in APPS]
_WEB_PORT = 443


def _addresses() -> tuple[list[str], Ints, Ints]:
    """All addresses, and for each host the place of its first address and how many it has.

    Hosts of one content network share addresses, as in reality. Invented hosts are in 198.18.0.0/15 (reserved
    for tests), push couriers in Apple's 17.57.144.0/22, other hosts of Apple in 17.253.0.0/16.
    """
    names: list[str] = []
    first, count = np.zeros(len(HOSTS), np.int64), np.zeros(len(HOSTS), np.int64)
    shared: dict[str, int] = {}
    for code, host in enumerate(HOSTS):
        network = host.split(".", 1)[1] if ".cdn-wide." in f".{host}" else host
        many = 12 if network != host else 1 + code % 4
        if network not in shared:
            shared[network] = len(names)
            prefix, third = ("17.253", 0) if host.endswith(".com") else ("198.18", 0)
            if is_courier(host):
                prefix, third = "17.57", 144
            numbers = range(len(names), len(names) + many)
            names += [f"{prefix}.{third + i // 250}.{1 + i % 250}" for i in numbers]
        first[code], count[code] = shared[network], many
    return names, first, count


_IPS, _IP_FIRST, _IP_COUNT = _addresses()


def flow_table(rng: Rng, flows: Flows, profile: Ints, names: Sequence[str], origin: int) -> pa.Table:
    """The flows as each device's source reports them; `origin` is the start of the span (microseconds)."""
    port = np.array([a.port for a in APPS])
    service = np.array([a.service for a in APPS])
    # A web gateway never sees the push courier, the clock or telephony.
    flows = flows.where((profile[flows.device] != _GATEWAY) | (port[flows.app] == _WEB_PORT))
    view, n = profile[flows.device], len(flows.time)
    hostless = (view == _NETFLOW) | ((view == _FILTER) & (rng.random(n) < _HOSTLESS_SHARE))
    spread = flows.device * 7919 + (flows.time // 21_600).astype(np.int64) * 104_729 + flows.host * 31
    address = _IP_FIRST[flows.host] + spread % _IP_COUNT[flows.host]
    services = ["tls", "quic", "apns", "ntp"]
    service_code = np.where(flows.quic, 1, np.array([services.index(s) for s in service])[flows.app])
    udp = flows.quic | np.array([a.transport == "udp" for a in APPS])[flows.app]
    outcome = np.where(flows.failed, np.where(view == _NETFLOW, 2, 1), 0)
    return conform(
        FLOWS,
        pa.table(
            {
                "start": _times(flows.time, origin, _RESOLUTION[view]),
                "duration_seconds": np.round(flows.seconds, 3),
                "device_id": _coded(flows.device, names),
                "app_id": _coded(flows.app, _APP_IDS, view != _FILTER),
                "app_attribution": _coded(np.where(view == _FILTER, 0, 1), ["exact", "none"]),
                "dest_host": _coded(flows.host, HOSTS, hostless),
                "dest_host_source": _coded(np.zeros(n, np.int64), ["observed"], hostless),
                "dest_ip": _coded(address, _IPS, view == _GATEWAY),
                "dest_port": port[flows.app].astype(np.int32),
                "transport": _coded(udp.astype(np.int64), ["tcp", "udp"]),
                "service": _coded(service_code, services, view == _NETFLOW),
                "outcome": _coded(outcome, ["established", "failed", "unknown"]),
                "bytes_out": np.rint(flows.out).astype(np.int64),
                "bytes_in": np.rint(flows.into).astype(np.int64),
                "time_resolution_seconds": _RESOLUTION[view],
                "source": _coded(view, PROFILES),
            }
        ),
    )


def activity_table(
    kinds: Sequence[tuple[str, Intervals, Ints | None]], profile: Ints, names: Sequence[str], origin: int
) -> pa.Table:
    """Intervals of devices whose source reports them, sorted by start: (kind, intervals, apps or None)."""
    parts = []
    for kind, intervals, app in kinds:
        keep = profile[intervals.device] == _FILTER
        seen, n = intervals.where(keep), int(keep.sum())
        codes = app[keep] if app is not None else np.zeros(n, np.int64)
        fine = np.full(n, 0.001)
        columns = {
            "device_id": _coded(seen.device, names),
            "app_id": _coded(codes, _APP_IDS, np.full(n, app is None)),
            "kind": _coded(np.zeros(n, np.int64), [kind]),
            "start": _times(seen.start, origin, fine),
            "end": _times(seen.end, origin, fine),
            "source": _coded(np.zeros(n, np.int64), ["agent"]),
            "time_resolution_seconds": fine,
        }
        parts.append(conform(ACTIVITY, pa.table(columns)))
    return ordered(pa.concat_tables(parts).unify_dictionaries(), "start")


def task_table(scheduled: Flows, names: Sequence[str], origin: int) -> pa.Table:
    """Work that iOS had scheduled, in whole seconds as in a device's own log."""
    n = len(scheduled.time)
    fine = np.full(n, 1.0)
    columns = {
        "device_id": _coded(scheduled.device, names),
        "app_id": _coded(scheduled.app, _APP_IDS),
        "start": _times(scheduled.time, origin, fine),
        "end": _times(scheduled.time + scheduled.seconds + 5.0, origin, fine),
        "source": _coded(np.zeros(n, np.int64), ["powerlog"]),
    }
    return conform(TASKS, pa.table(columns))


def notification_table(
    rng: Rng, events: Pushes, profile: Ints, names: Sequence[str], origin: int
) -> pa.Table:
    """Push events of devices whose source reports them, sorted by time."""
    events = events.where(profile[events.device] == _FILTER)
    n = len(events.time)
    fine, received = np.full(n, 0.001), events.kind == 0
    priority = np.where(events.silent, 5, 10).astype(np.int8)
    size = np.rint(np.exp(rng.normal(6.6, 0.5, n))).clip(60, 4096).astype(np.int64)
    columns = {
        "device_id": _coded(events.device, names),
        "app_id": _coded(events.app, _APP_IDS),
        "time": _times(events.time, origin, fine),
        "kind": _coded(events.kind, PUSH_KINDS),
        "priority": pa.array(priority, mask=~received),
        "content_available": pa.array(events.silent, mask=~received),
        "size_bytes": pa.array(size, mask=~received),
        "source": _coded(np.zeros(n, np.int64), ["agent"]),
        "time_resolution_seconds": fine,
    }
    return ordered(conform(NOTIFICATIONS, pa.table(columns)), "time")


def inventory_table(origin: int) -> pa.Table:
    """The declarations of the apps, for the whole fleet."""
    rows: dict[str, Any] = {
        "app_id": _APP_IDS,
        "app_name": [a.name for a in APPS],
        "version": [f"{3 + i % 5}.{i % 7}" for i in range(len(APPS))],
        "managed": [a.managed for a in APPS],
        "approved": [a.approved for a in APPS],
        "category": [a.category for a in APPS],
        "declared_purpose": [a.purpose for a in APPS],
        "background_modes": [None if a.modes is None else list(a.modes) for a in APPS],
        "push_entitled": [a.push is not None for a in APPS],
        "expected_hosts": [
            None if a.sites else [*a.hosts, *(SDK_HOSTS[:2] if a.use and a.use.sdk_share else ())]
            for a in APPS
        ],
        "expected_period_seconds": [a.approved_period_seconds for a in APPS],
        "snapshot_time": pa.array([origin] * len(APPS), TIME),
    }
    return conform(INVENTORY, pa.table(rows))


def ordered(table: pa.Table, column: str) -> pa.Table:
    """Rows sorted by a time column; ties keep their order."""
    order = np.argsort(table[column].cast(pa.int64()).to_numpy(), kind="stable")
    return table.combine_chunks().take(pa.array(order))


def _times(seconds: Vector, origin: int, grid: Vector) -> pa.Array:
    step = np.rint(grid * 1e6).astype(np.int64)
    return pa.array(origin + (seconds * 1e6).astype(np.int64) // step * step, TIME)


def _coded(codes: Ints, names: Sequence[str], hidden: Mask | None = None) -> pa.DictionaryArray:
    indices = pa.array(np.asarray(codes, np.int32), mask=hidden)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))
