"""Which device had which address, and when, for logs that only know addresses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import TelemetryError
from appcadence.telemetry.addresses import canonical
from appcadence.telemetry.arrays import AsOf, one_array
from appcadence.telemetry.names import Column, encode, value_of
from appcadence.telemetry.schema import TIME
from appcadence.telemetry.sheet import read_sheet
from appcadence.telemetry.times import stated

FIRST, LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Lease(NamedTuple):
    address: str
    device_id: str
    start: int
    end: int
    line: int


class Devices:
    """Leases of addresses: each row gives an address to a device from one time to another.

    `start` is included, `end` is not; both are microseconds since the epoch.
    """

    def __init__(self, leases: Sequence[Lease]) -> None:
        self.device_ids = [lease.device_id for lease in leases]
        self.leases: dict[str, set[str]] = {}
        """The devices that each address was given to at some time."""
        for lease in leases:
            self.leases.setdefault(lease.address, set()).add(lease.device_id)
        self._code = {address: code for code, address in enumerate(self.leases)}
        keys = np.array([self._code[lease.address] for lease in leases], np.int64)
        self._end = np.array([lease.end for lease in leases], np.int64)
        self._as_of = AsOf(keys, np.array([lease.start for lease in leases], np.int64))

    @classmethod
    def read(cls, path: str | Path) -> Devices:
        """Read a CSV file with the columns address, device_id, from, to.

        `from` and `to` are ISO 8601 times (UTC if they carry no offset). They may be empty or absent, which
        means from the beginning and to the end.

        Raises:
            TelemetryError: the file is missing or unreadable, a column is absent, a time is invalid, or one
                address is given to two devices at the same time.
        """
        path = Path(path)
        leases = [_lease(path, line, row) for line, row in read_sheet(path, ("address", "device_id"))]
        _no_overlap(path, leases)
        return cls(leases)

    def lookup(self, addresses: Column, times: Column) -> pa.Array:
        """The device of each (address, time); the address itself if no row gives it to a device.

        Args:
            addresses: n addresses, strings or a dictionary of strings, IPv6 in its canonical form.
            times: n UTC times, none of them null.

        Returns:
            A dictionary array of n device ids; null where the address is null.
        """
        names = encode(addresses)
        micros = np.asarray(one_array(times).cast(TIME).cast(pa.int64()))
        codes = value_of(names, lambda text: self._code.get(_key(text), -1), -1)
        lease = self._as_of.find(codes, micros)
        mapped = lease >= 0
        mapped[mapped] = micros[mapped] < self._end[lease[mapped]]
        joint = pa.array([*names.dictionary.to_pylist(), *self.device_ids], pa.string()).dictionary_encode()
        missing = ~mapped & np.asarray(names.is_null())
        index = np.where(mapped, lease + len(names.dictionary), np.asarray(names.indices.fill_null(0)))
        return pc.take(joint, pa.array(index, mask=missing))


def _key(address: str) -> str:
    return (canonical(address) or "").lower()


def _lease(path: Path, line: int, row: dict[str, str]) -> Lease:
    where = f"{path}, line {line}: "
    if not row["address"] or not row["device_id"]:
        raise TelemetryError(f"{where}address and device_id must not be empty")
    start, end = (stated(row[n], where + n) if row.get(n) else None for n in ("from", "to"))
    lease = Lease(
        _key(row["address"]),
        row["device_id"],
        FIRST if start is None else start,
        LAST if end is None else end,
        line,
    )
    if lease.end <= lease.start:
        raise TelemetryError(f"{where}'to' must be later than 'from'")
    return lease


def _no_overlap(path: Path, leases: Sequence[Lease]) -> None:
    ordered = sorted(leases, key=lambda lease: (lease.address, lease.start, lease.line))
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.address == after.address and after.start < before.end:
            first, second = sorted((before.line, after.line))
            raise TelemetryError(
                f"{path}, line {second}: address {after.address} is given twice at the same time "
                f"(see line {first})"
            )
