"""Logs of which device had which address: Zeek's dhcp.log, ISC's dhcpd.leases, dnsmasq's leases, Kea's files.

They hold no flows; `convert` uses them to find the devices behind the addresses in other logs. dnsmasq says
when a lease ends but not when it began, so it is taken to hold from the end of the previous lease. A renewal
in Zeek's log means that the device had the address before.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appcadence.errors import UnusableFile
from appcadence.telemetry.addresses import canonical, is_address
from appcadence.telemetry.leases import Sighting, mac_of
from appcadence.telemetry.readers import Batches, ReadOptions, _flows, _lines, rejected, tagged
from appcadence.telemetry.readers._flows import LAST_SECOND
from appcadence.telemetry.readers._hosts import MAX_HOST
from appcadence.telemetry.readers._json import NO_OBJECT
from appcadence.telemetry.times import from_iso, to_micros

NAME = "leases"

_EXPECTED = "leases (Zeek dhcp.log, dhcpd.leases, dnsmasq.leases, Kea)"
_DAY = 86_400.0
_ZEEK_TSV = re.compile(rb"(?:\xef\xbb\xbf)?#separator[^\n]*\n(?:#[^\n]*\n){0,8}?#path[ \t|,]dhcp\r?\n")
_ZEEK_JSON = re.compile(rb'\s*\{(?=[^\n]*"mac"\s*:)(?=[^\n]*"(?:assigned_addr|lease_time|msg_types)"\s*:)')
_PATH = re.compile(rb'"_path"\s*:\s*"([^"\n]*)"')
# Each blank belongs to one repetition alone: a hostile head would be tried in all ways to divide them.
_ISC = re.compile(rb"(?:\s*(?:#[^\n]*|[a-z-]+ [^\n{}]*;[ \t\r]*)\n)*+\s*lease [0-9a-f.:]+ \{", re.IGNORECASE)
_DNSMASQ = re.compile(
    rb"(?:duid [^\n]*\n)?\d{1,10} (?:\d{1,3}-)?[0-9a-f]{2}(?::[0-9a-f]{2}){5} [0-9a-f.:]+ \S+ \S+\r?\n",
    re.IGNORECASE,
)
_KEA = re.compile(rb"address,(?:hwaddr|duid),[^\n]*valid_lifetime,expire,")
_RENEWAL = {"REQUEST", "ACK"}


@dataclass
class _Found:
    """The content of a file."""

    sightings: list[Sighting] = field(default_factory=list)
    read: int = 0
    given: int = 0
    """Records that say which device had an address."""
    bad: list[tuple[int, str]] = field(default_factory=list)

    def add(
        self, line: int, address: Any, mac: Any, host: Any, time: float | None, fresh: bool, end: float | None
    ) -> None:
        """Add a record, with times in seconds; a fault if it lacks the device, the address or a time."""
        text, name = str(address or ""), str(host or "").strip().rstrip(".").lower()
        hardware = mac_of(str(mac or ""))
        times = [at for at in (time, end) if at is not None and 0 <= at < LAST_SECOND]
        fault = (
            "an address is missing"
            if not is_address(text)
            else "the MAC address is missing"
            if hardware is None
            else "a time is missing or outside 1970 to 2100"
            if len(times) < 2
            else None
        )
        if fault or hardware is None:
            self.fault(line, str(fault))
            return
        self.read += 1
        self.given += 1
        known = name.partition(".")[0] if name and name != "*" and len(name) <= MAX_HOST else None
        at, until = (round(seconds * 1e6) for seconds in times)
        seen = Sighting(canonical(text) or text, hardware, known, at, fresh, until)
        before = self.sightings[-1] if self.sightings else None
        if seen != before:
            self.sightings.append(seen)

    def fault(self, line: int, reason: str) -> None:
        self.read += 1
        self.bad.append((line, reason))


def sniff(path: Path, start: bytes) -> bool:
    """Whether the file starts like one of these logs; never raises."""
    return _parser(start) is not None


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield no flows: rows are counted as left out, and rejected ones are listed.

    Raises:
        UnusableFile: a file is missing, empty, damaged or none of these.
    """
    for path in paths:
        found = _parsed(path)
        yield from rejected(path, found.bad)
        left_out = {"leases": found.given, "other_kind": found.read - found.given - len(found.bad)}
        yield "flows", tagged(_flows.NONE, path, found.read, path.stat().st_size, left_out)


def sightings(path: Path) -> list[Sighting]:
    """Which device holds which address, according to a file.

    Raises:
        UnusableFile: as `read`.
    """
    return _parsed(path).sightings


def _parsed(path: Path) -> _Found:
    start = _lines.head(path, _EXPECTED)
    parse = _parser(start)
    if parse is None:
        raise UnusableFile(f"{path} is none of {_EXPECTED}", path)
    found = _Found()
    parse(_numbered(path), found)
    return found


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    for block in _lines.blocks(path, _EXPECTED):
        lines = block.data.decode("utf-8-sig", "replace").splitlines()
        yield from zip(block.lines.tolist(), lines, strict=False)


Lines = Iterator[tuple[int, str]]


def _parser(start: bytes) -> Callable[[Lines, _Found], None] | None:
    known = (
        (_ZEEK_TSV, _zeek_tsv),
        (_ZEEK_JSON, _zeek_json),
        (_KEA, _kea),
        (_DNSMASQ, _dnsmasq),
        (_ISC, _isc),
    )
    found = next((parse for pattern, parse in known if pattern.match(start)), None)
    if found is _zeek_json and (b'"conn_state"' in start or {*_PATH.findall(start)} - {b"dhcp"}):
        return None  # a stream of several logs whose first record happens to be a lease
    return found


def _zeek_tsv(lines: Lines, found: _Found) -> None:
    names: list[str] = []
    for number, line in lines:
        if line.startswith("#fields"):
            names = line.split("\t")[1:]
        elif line and not line.startswith("#"):
            values = (None if value in ("-", "(empty)") else value for value in line.split("\t"))
            _zeek(number, dict(zip(names, values, strict=False)), found)


def _zeek_json(lines: Lines, found: _Found) -> None:
    for number, line in lines:
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                _zeek(number, row, found)
            else:
                found.fault(number, NO_OBJECT)


def _zeek(number: int, row: dict[str, Any], found: _Found) -> None:
    kinds = row.get("msg_types") or ()
    kinds = set(kinds.split(",") if isinstance(kinds, str) else map(str, kinds))
    address = row.get("assigned_addr") or (row.get("client_addr") if "ACK" in kinds else None)
    if address is None:
        found.read += 1  # a request without an answer, or a release
        return
    at, lasts = _seconds(row.get("ts")), _number(row.get("lease_time")) or _DAY
    end = None if at is None else at + min(lasts, _flows.MAX_DAYS * _DAY)
    name, fresh = row.get("host_name") or row.get("client_fqdn"), not kinds or not kinds <= _RENEWAL
    found.add(number, address, row.get("mac"), name, at, fresh, end)


def _kea(lines: Lines, found: _Found) -> None:
    _, header = next(lines)
    names = header.split(",")
    for number, line in lines:
        try:
            values = next(csv.reader(io.StringIO(line)), [])
        except csv.Error as error:
            found.fault(number, f"not readable CSV ({error})")
            continue
        row = dict(zip(names, values, strict=False))
        if not values or row.get("address") == "address":
            continue
        if row.get("state", "0") != "0":
            found.read += 1  # declined or released
            continue
        end, lasts = _number(row.get("expire")), _number(row.get("valid_lifetime"))
        start = None if end is None or lasts is None else max(end - lasts, 0.0)
        found.add(number, row.get("address"), row.get("hwaddr"), row.get("hostname"), start, True, end)


def _dnsmasq(lines: Lines, found: _Found) -> None:
    for number, line in lines:
        words = line.split()
        if len(words) < 4 or words[0] == "duid":
            continue
        end = _number(words[0])
        end = LAST_SECOND - 1.0 if end == 0 else end
        found.add(number, words[2], words[1].partition("-")[2] or words[1], words[3], end, False, end)


_BLOCK = re.compile(r"\s*lease (\S+) \{")
_SETS = re.compile(r'\s*(starts|ends|hardware ethernet|client-hostname|binding state) "?(.*?)"?;')
_GIVEN = ("active", "free", "expired")
_TIME = re.compile(r"\d (\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)|epoch (\d+)")


def _isc(lines: Lines, found: _Found) -> None:
    address, first = None, 0
    row: dict[str, str] = {}
    for number, line in lines:
        if opened := _BLOCK.match(line):
            address, first, row = opened[1], number, {}
        elif address and (found_value := _SETS.match(line)):
            row[found_value[1]] = found_value[2]
        elif address and line.strip() == "}":
            if "hardware ethernet" in row and row.get("binding state", "active") in _GIVEN:
                start, end = (_isc_time(row.get(name)) for name in ("starts", "ends"))
                name = row.get("client-hostname")
                found.add(first, address, row["hardware ethernet"], name, start, True, end)
            else:
                found.read += 1  # never given out
            address = None


def _isc_time(text: str | None) -> float | None:
    if text == "never":
        return LAST_SECOND - 1.0
    match = _TIME.match(text or "")
    if match is None:
        return None
    if match[2]:
        return float(match[2])
    try:
        return datetime.strptime(match[1], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):  # JSON's whole numbers have no bound
        return None


def _seconds(value: Any) -> float | None:
    number = _number(value)
    if number is not None:
        return number / (1e6 if number > 1e14 else 1e3 if number > 1e11 else 1)
    time = from_iso(value) if isinstance(value, str) else None
    return None if time is None else to_micros(time) / 1e6
