"""Devices that a telemetry directory knows under two names, so that their telemetry cannot be joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.listing import listed

_SUFFIXES = (".local", ".lan")
_LOGS = ("activity", "notifications")


def alias_notes(
    source: TelemetryDirectory,
    devices: Collection[str],
    leases: Mapping[str, Collection[str]] | None = None,
) -> tuple[str, ...]:
    """Plain sentences about devices under two names, one for each way to detect that.

    Args:
        source: the telemetry.
        devices: only sentences that concern one of these are given.
        leases: names of the devices that each address was given to.

    Raises:
        TelemetryError: a table cannot be read.
        SchemaError: a table does not fit its declaration.
    """
    flows = source.names("flows", "device_id")
    logs = set().union(*(source.names(table, "device_id") for table in _LOGS))
    wanted = set(devices)
    notes = [
        _by_lease(wanted, leases or {}),
        _by_spelling(flows | logs, wanted),
        _devices_that_differ(flows, logs, wanted),
    ]
    return tuple(note for note in notes if note)


def _by_lease(devices: set[str], leases: Mapping[str, Collection[str]]) -> str:
    """Devices known by their address because no lease covers the time of a row."""
    bare = [
        f"{address} ({listed(sorted(leases[address]))})"
        for address in sorted(devices & leases.keys())
        if address not in leases[address]
    ]
    if not bare:
        return ""
    return (
        f"Rows outside every lease use the bare address as the device, although other leases name it: "
        f"{listed(bare)}. If it is the same device, extend the leases and convert again."
    )


def _by_spelling(names: set[str], devices: set[str]) -> str:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        alike[_plain(name)].append(name)
    pairs = [
        " = ".join(group) for group in alike.values() if len(group) > 1 and not devices.isdisjoint(group)
    ]
    if not pairs:
        return ""
    return (
        f"Device names that differ only in case, spaces or a local suffix: {listed(pairs)}. If each is one "
        "device, convert again with one device_id for each."
    )


def _plain(name: str) -> str:
    name = "".join(name.casefold().split())
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _devices_that_differ(flows: set[str], logs: set[str], devices: set[str]) -> str:
    only_flows, only_logs = flows - logs, logs - flows
    if not only_flows or not only_logs or devices.isdisjoint(only_flows | only_logs):
        return ""

    def some(names: set[str]) -> str:
        return listed(sorted(names, key=lambda name: (name not in devices, name)))

    return (
        f"Devices with flows but no activity or pushes: {some(only_flows)}; with activity or pushes but no "
        f"flows: {some(only_logs)}. If they are the same devices, their logs cannot explain their flows: "
        "convert again with the same names."
    )
