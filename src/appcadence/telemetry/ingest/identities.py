"""Which device had which address, and when, from the converted logs themselves if no table says so."""

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
    """The options with the devices found in leases and MAC addresses of files, and sentences on them.

    `shown` gives the form of a name in a sentence. Devices named by an option take precedence. Leases in
    files that were converted before are used again for the new rows.

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
