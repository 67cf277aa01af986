"""Which device had which address when, from the logs that are converted, where no table says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain

from appcadence.telemetry.ingest.conversion_report import Tally
from appcadence.telemetry.leases import HardwareAddresses, devices_of
from appcadence.telemetry.readers import ReadOptions, leases, zeek
from appcadence.telemetry.readers._lines import head


def identified(
    options: ReadOptions, tallies: Iterable[Tally], shown: Callable[[str], str]
) -> tuple[ReadOptions, tuple[str, ...]]:
    """The options with the devices that leases and MAC addresses in the files tell of; sentences on them, in
    which a name is as `shown`.

    Devices that are named otherwise go before. Leases that were given before count again, for what is new.

    Raises:
        UnusableFile: a file cannot be read.
    """
    if options.devices is not None or options.device_id is not None:
        return options, ()
    hardware, files = HardwareAddresses(), []
    for tally in tallies:
        if tally.report.format == zeek.NAME:
            zeek.hardware_addresses(tally.path, hardware)
        known = tally.report.skipped and leases.sniff(tally.path, head(tally.path, "a log"))
        if known or tally.report.format == leases.NAME:
            files.append(tally.path)
    devices, said = devices_of(chain(hardware.sightings(), *map(leases.sightings, files)), shown)
    return replace(options, devices=devices), said
