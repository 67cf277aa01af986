"""Which device had which address when, for logs that know addresses only."""

from __future__ import annotations

import csv
import ipaddress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._files import open_input
from appcadence.errors import TelemetryError
from appcadence.telemetry.arrays import AsOf, Ints, one_array
from appcadence.telemetry.schema import TIME

_COLUMNS = ("address", "device_id", "from", "to")
_FIRST, _LAST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Devices:
    """Leases of addresses: each row gives an address to a device from one time to another.

    `start` is included, `end` is not; both are microseconds since the epoch.
    """

    def __init__(self, addresses: list[str], device_ids: list[str], start: Ints, end: Ints) -> None:
        self.device_ids = device_ids
        self.leases: dict[str, set[str]] = {}
        """Names that each address is given to at some time."""
        for address, device_id in zip(addresses, device_ids, strict=True):
            self.leases.setdefault(address, set()).add(device_id)
        self._code = {address: code for code, address in enumerate(dict.fromkeys(addresses))}
        keys = np.array([self._code[address] for address in addresses], np.int64)
        self._end = end
        self._leases = AsOf(keys, start)

    @classmethod
    def read(cls, path: str | Path) -> Devices:
        """Read a CSV file with the columns address, device_id, from, to.

        `from` and `to` are ISO 8601 times (UTC where they carry no offset) and may be empty: from the
        beginning, to the end. The columns `from` and `to` may be absent.

        Raises:
            TelemetryError: the file is missing or unreadable, a column is absent, a time is no time, or
                one address is given to two devices at the same time.
        """
        path = Path(path)
        try:
            with TextIOWrapper(open_input(path), encoding="utf-8-sig", newline="") as stream:
                reader = csv.DictReader(stream)
                names = [name.strip() for name in reader.fieldnames or ()]
                if not {"address", "device_id"} <= set(names):
                    found = ", ".join(names) or "nothing"
                    raise TelemetryError(
                        f"{path}, line 1: the columns must be {', '.join(_COLUMNS)}; found {found}"
                    )
                reader.fieldnames = names
                rows = [(reader.line_num, row) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise TelemetryError(
                f"{path} cannot be read ({reason}); expected CSV with the columns {', '.join(_COLUMNS)}"
            ) from None
        leases = [_lease(path, line, row) for line, row in rows]
        _no_overlap(path, leases)
        return cls(
            [lease[0] for lease in leases],
            [lease[1] for lease in leases],
            np.array([lease[2] for lease in leases], np.int64),
            np.array([lease[3] for lease in leases], np.int64),
        )

    def lookup(self, addresses: pa.Array | pa.ChunkedArray, times: pa.Array | pa.ChunkedArray) -> pa.Array:
        """Device of each (address, time); the address itself where no row gives it to a device.

        Args:
            addresses: n addresses, strings or a dictionary of strings, IPv6 in its canonical form.
            times: n UTC times, none of them null.

        Returns:
            A dictionary array of n device ids; null where the address is null.
        """
        encoded = _encoded(addresses)
        values = encoded.dictionary.to_pylist()
        codes = np.array([self._code.get(_canonical(value), -1) for value in values] + [-1], np.int64)
        index = np.asarray(encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False), np.int64)
        micros = np.asarray(one_array(times).cast(TIME).cast(pa.int64()))
        lease = self._leases.find(codes[index], micros)
        mapped = lease >= 0
        mapped[mapped] = micros[mapped] < self._end[lease[mapped]]
        index = np.where(mapped, lease + len(values), index)
        joint = pa.array(values + self.device_ids, pa.string()).dictionary_encode()
        missing = ~mapped & np.asarray(encoded.is_null())
        rows = pa.array(np.where(missing, 0, index), mask=missing)
        return pc.take(joint, rows)


def _encoded(values: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    values = one_array(values)
    return values if pa.types.is_dictionary(values.type) else values.cast(pa.string()).dictionary_encode()


def _canonical(address: str) -> str:
    address = address.strip()
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower()


def _lease(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, str, int, int, int]:
    if None in row:
        raise TelemetryError(f"{path}, line {line}: more values than columns")
    address, device_id = ((row[name] or "").strip() for name in ("address", "device_id"))
    if not address or not device_id:
        raise TelemetryError(f"{path}, line {line}: address and device_id must not be empty")
    start = _micros(path, line, "from", row.get("from"), _FIRST)
    end = _micros(path, line, "to", row.get("to"), _LAST)
    if end <= start:
        raise TelemetryError(f"{path}, line {line}: 'to' must be later than 'from'")
    return _canonical(address), device_id, start, end, line


def _micros(path: Path, line: int, column: str, text: str | None, default: int) -> int:
    text = (text or "").strip()
    if not text:
        return default
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise TelemetryError(
            f"{path}, line {line}: {column} is {text!r}; expected an ISO time such as 2026-11-24T08:00:00Z"
        ) from None
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _no_overlap(path: Path, leases: list[tuple[str, str, int, int, int]]) -> None:
    ordered = sorted(leases, key=lambda lease: (lease[0], lease[2], lease[4]))
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before[0] == after[0] and after[2] < before[3]:
            raise TelemetryError(
                f"{path}, line {max(before[4], after[4])}: address {after[0]} is given twice at one time "
                f"(see line {min(before[4], after[4])})"
            )
