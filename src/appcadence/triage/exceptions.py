"""Documented exceptions: who approved which rhythm, why, where, within which bounds and until when.

`exceptions.toml` is an array of tables `[[exception]]` and a table `[groups]` of device groups.
"""

from __future__ import annotations

import ipaddress
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
from publicsuffixlist import PSLFILE, PublicSuffixList

from appcadence._inputs import read_toml
from appcadence._types import Codes, Mask
from appcadence.errors import AppcadenceError, known_are
from appcadence.findings import Finding
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.serving.measures import hour_bits
from appcadence.telemetry.addresses import Network

_TEXTS = ("id", "owner", "reason", "business_justification")
_DATES = ("created", "expires")
_SCOPE = ("app_id", "device_id", "device_group", "destination", "behaviours")
_BOUNDS = ("min_period_seconds", "max_bytes_per_day", "hours")
_KEYS = (*_TEXTS, *_DATES, *_SCOPE, *_BOUNDS)
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_LABEL = r"(?!-)[\w-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*", re.ASCII)
_HOURS = re.compile(r"([01]\d|2[0-3]):00-([01]\d|2[0-4]):00", re.ASCII)
_MIN_PREFIX_BITS = 8
"""Bits of the shortest prefix of addresses that an exception may cover."""
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True)
class Entry:
    """One checked exception; None = any, or no bound."""

    id: str
    owner: str
    reason: str
    business_justification: str
    created: date
    """First day (UTC) on which it holds."""
    expires: date
    """Last day (UTC) on which it holds."""
    app_id: str | None
    """A bundle id, or the beginning of one and `*`."""
    devices: frozenset[str] | None
    destination: str | Network | None
    """A host, `*.` and a domain for what is under it, or addresses."""
    behaviours: frozenset[str]
    """A window is covered only if it shows none but these; empty = only if it shows none."""
    min_period_seconds: float | None
    max_bytes_per_day: float | None
    hours: tuple[int, int] | None
    """Hours of the day (UTC): from the first to before the second, over midnight if that is less."""

    def in_force(self, first: date, last: date) -> bool:
        """Whether it holds on one of the days from `first` to `last`, both included."""
        return self.created <= last and first <= self.expires


def read(path: str | Path) -> tuple[Entry, ...]:
    """The exceptions of a file, in its order.

    Raises:
        AppcadenceError: the file is unreadable, or an exception is incomplete, wrong or too wide; one
            sentence with its id.
    """
    path = Path(path)
    content = read_toml(path, "exceptions", AppcadenceError)
    if unknown := sorted(set(content) - {"exception", "groups"}):
        raise AppcadenceError(f"{path}: unknown {unknown[0]!r}; a file holds [[exception]] and [groups]")
    rows = content.get("exception", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AppcadenceError(f"{path}: exception is not an array of tables; begin each with [[exception]]")
    groups = _groups(path, content.get("groups", {}))
    entries: dict[str, Entry] = {}
    for number, row in enumerate(rows, 1):
        name = row.get("id")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise AppcadenceError(
                f"{path}, exception number {number}: id is {name!r}; expected up to 64 letters, digits, "
                "'-', '_' or '.'"
            )
        if name in entries:
            raise AppcadenceError(f"{path}: two exceptions have the id {name}; give each its own")
        try:
            entries[name] = _entry(row, groups)
        except _Wrong as wrong:
            raise AppcadenceError(f"{path}, exception {name}: {wrong}") from None
    return tuple(entries.values())


class _Wrong(Exception):
    """One exception is wrong; its text says how."""


def _groups(path: Path, groups: Any) -> dict[str, frozenset[str]]:
    if not isinstance(groups, dict):
        raise AppcadenceError(f"{path}: groups is not a table; write [groups]")
    for name, devices in groups.items():
        named = isinstance(devices, list) and all(isinstance(d, str) and d for d in devices)
        if not named or not devices:
            raise AppcadenceError(f"{path}, group {name!r}: is {devices!r}; expected a list of device ids")
    return {name: frozenset(devices) for name, devices in groups.items()}


def _entry(row: Mapping[str, Any], groups: Mapping[str, frozenset[str]]) -> Entry:
    if unknown := [key for key in row if key not in _KEYS]:
        raise _Wrong(f"unknown key {unknown[0]!r}; {known_are(unknown[0], _KEYS)}")
    texts = {key: _text(row, key) for key in (*_TEXTS, "app_id", "device_id", "device_group", "destination")}
    for key in (*_TEXTS, *_DATES):
        if row.get(key) is None:
            raise _Wrong(f"{key} is missing")
    for key in _DATES:
        if type(row[key]) is not date:  # a datetime is a date, too
            raise _Wrong(f"{key} is {str(row[key])!r}; expected a date without quotes, such as 2026-12-31")
    if row["expires"] < row["created"]:
        raise _Wrong(f"expires {row['expires']} lies before created {row['created']}")
    if texts["app_id"] is None and texts["destination"] is None:
        raise _Wrong("names neither app_id nor destination; give at least one")
    return Entry(
        **{key: row[key] for key in (*_TEXTS, *_DATES)},
        app_id=_app(texts["app_id"]),
        devices=_devices(texts["device_id"], texts["device_group"], groups),
        destination=_destination(texts["destination"]),
        behaviours=_behaviours(row.get("behaviours", list(BEHAVIOURS))),
        min_period_seconds=_number(row, "min_period_seconds"),
        max_bytes_per_day=_number(row, "max_bytes_per_day"),
        hours=_hours(row.get("hours")),
    )


def _text(row: Mapping[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise _Wrong(f"{key} is {value!r}; expected a text")
    return value


def _number(row: Mapping[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    # The upper bound also refuses infinity, and whole numbers that no float holds; bool is an int.
    if type(value) not in (int, float) or not 0 < value <= sys.float_info.max:
        raise _Wrong(f"{key} is {value!r}; expected a number above 0")
    return float(value)


def _app(app: str | None) -> str | None:
    if app is None or "*" not in app:
        return app
    vendor = app.removesuffix(".*")
    if "*" in vendor or not _HOST.fullmatch(vendor):
        raise _Wrong(f"app_id is {app!r}; '*' may only stand at the end, as in com.example.*")
    # A bundle id is a domain written backwards.
    if _is_shared(".".join(reversed(vendor.lower().split(".")))):
        raise _Wrong(f"app_id {app!r} covers the apps of many vendors; name one, as in com.example.*")
    return app


def _devices(
    device: str | None, group: str | None, groups: Mapping[str, frozenset[str]]
) -> frozenset[str] | None:
    if group is None:
        return None if device is None else frozenset([device])
    if device is not None:
        raise _Wrong("names device_id and device_group; give one of them")
    if group not in groups:
        raise _Wrong(f"device_group {group!r} is not in [groups]")
    return groups[group]


def _destination(text: str | None) -> str | Network | None:
    if text is None:
        return None
    try:
        return _not_too_wide(ipaddress.ip_network(text.strip()))
    except ValueError as error:
        if "/" in text:
            raise _Wrong(f"destination {text!r} is not a range of addresses ({error})") from None
    host = text.strip().rstrip(".").lower()
    domain = host.removeprefix("*.")
    if len(host) > 253 or not _HOST.fullmatch(domain) or domain.rpartition(".")[2].isdecimal():
        raise _Wrong(
            f"destination {text!r} is not a host; expected api.example.com, *.example.com or 203.0.113.0/24"
        )
    if domain != host and _is_shared(domain):
        raise _Wrong(
            f"destination {text!r} covers a public suffix, and so the hosts of strangers; name a domain"
        )
    return host


def _not_too_wide(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.overlaps(_MAPPED):
        least = _MAPPED.prefixlen + _MIN_PREFIX_BITS
    else:
        least = _MIN_PREFIX_BITS
    if network.prefixlen < least:
        raise _Wrong(f"destination {str(network)!r} is too wide; the prefix must be /{least} or longer")
    return network


def _behaviours(names: Any) -> frozenset[str]:
    known = isinstance(names, list) and all(isinstance(n, str) and n in BEHAVIOURS for n in names)
    if not known:
        raise _Wrong(f"behaviours is {names!r}; expected a list of {', '.join(BEHAVIOURS)}")
    return frozenset(names)


def _hours(text: Any) -> tuple[int, int] | None:
    if text is None:
        return None
    found = _HOURS.fullmatch(text) if isinstance(text, str) else None
    first, end = (int(found[1]), int(found[2]) % 24) if found else (0, 0)
    if first == end:
        raise _Wrong(f"hours is {text!r}; expected whole hours in UTC, such as 22:00-06:00")
    return first, end


@cache
def _suffixes() -> tuple[PublicSuffixList, tuple[str, ...]]:
    """The Public Suffix List, and its rules as ASCII."""
    lines = (line.strip() for line in Path(PSLFILE).read_text(encoding="utf-8").splitlines())
    rules = (line.split()[0].lower() for line in lines if line and not line.startswith("//"))
    return PublicSuffixList(), tuple(
        rule if rule.isascii() else rule.encode("idna").decode() for rule in rules
    )


def _is_shared(domain: str) -> bool:
    """Whether a domain is a public suffix or has one under it, so that strangers have names there."""
    suffixes, rules = _suffixes()
    return suffixes.is_public(domain) or any(rule.endswith("." + domain) for rule in rules)


_IN_RHYTHM = 1.2
"""A period at most a fifth shorter than approved is within it, as for the inventory's approved rhythm."""


def broken(
    entry: Entry,
    rows: Codes,
    period: npt.NDArray[Any],
    volume: npt.NDArray[Any],
    hours: npt.NDArray[Any],
) -> Iterator[tuple[Mask, list[Finding]]]:
    """For each bound of the exception, (m,) which rows break it, and a finding for each that does.

    Args:
        entry: the exception.
        rows: (m,) windows that it would cover.
        period: (n,) seconds between beats of all windows, NaN = unknown.
        volume: (n,) bytes a day, NaN = unknown.
        hours: (n,) bit h = connected in hour h of a day (UTC).
    """
    named: dict[str, Any] = {"exception": entry.id}
    if (shortest := entry.min_period_seconds) is not None:
        outside = period[rows] * _IN_RHYTHM < shortest
        bound, seen = named | {"min_period_seconds": shortest}, period[rows[outside]].tolist()
        yield outside, [Finding("exception_period", bound | {"period_seconds": s}) for s in seen]
    if (most := entry.max_bytes_per_day) is not None:
        outside = ~(volume[rows] <= most)
        bound, seen = named | {"max_bytes_per_day": most}, volume[rows[outside]].tolist()
        known = [None if math.isnan(n) else n for n in seen]
        yield outside, [Finding("exception_volume", bound | {"bytes_per_day": n}) for n in known]
    if entry.hours is not None:
        first, end = entry.hours
        stray = hours[rows] & ~hour_bits(first, (end - first) % 24 - 1)
        outside = stray != 0
        bound = named | {"from_hour": first, "to_hour": end}
        # The first hour of the day that is outside.
        out = [(bits & -bits).bit_length() - 1 for bits in stray[outside].tolist()]
        yield outside, [Finding("exception_hours", bound | {"hour": hour}) for hour in out]


def expired(entry: Entry) -> Finding:
    """The finding for a window that lies after the exception's end."""
    return Finding("exception_expired", {"exception": entry.id, "expires": entry.expires.isoformat()})
