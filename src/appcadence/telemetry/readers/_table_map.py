"""The mapping file of the table reader: which column of a file is which of ours, and in what units."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appcadence._files import read_bytes
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import FLOWS
from appcadence.telemetry.times import COCOA_EPOCH

EPOCHS = {"epoch": 0, "cocoa": COCOA_EPOCH}
"""Formats that count: from which second since 1970."""
EPOCH_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
DURATION_UNITS = EPOCH_UNITS | {"min": 60.0, "h": 3600.0}
BYTE_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
COLUMNS = (*(c.name for c in FLOWS.columns), "end")
_SECTIONS = {
    "columns": None,
    "constants": None,
    "values": None,
    "time": ("format", "unit", "offset", "resolution_seconds"),
    "units": ("bytes", "duration"),
    "file": ("delimiter",),
}


@dataclass(frozen=True)
class TableMap:
    """A checked mapping."""

    columns: Mapping[str, str]
    """Our column = column of the file; `end` may stand for `duration_seconds`."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Our column = the value of all rows."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Our column = {word of the file, lower case: our word}."""
    time_format: str = "iso"
    """"iso", one of EPOCHS, or a `strptime` pattern."""
    time_unit: str = "s"
    offset_seconds: int = 0
    """Of times that carry no offset."""
    resolution_seconds: float | None = None
    """None = what the times show."""
    byte_unit: int = 1
    duration_unit: float = 1.0
    delimiter: str = ","

    @classmethod
    def read(cls, path: Path) -> TableMap:
        """Read and check a mapping file (TOML).

        Raises:
            TelemetryError: it cannot be read, holds something unknown, or lacks what a flow needs.
        """
        try:
            content = tomllib.loads(read_bytes(path).decode())
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or str(error).replace("\n", " ")
            raise TelemetryError(f"{path} cannot be read ({reason}); expected a mapping in TOML") from None
        return _checked(path, content)


def _checked(path: Path, content: dict[str, Any]) -> TableMap:
    for section, keys in content.items():
        if section not in _SECTIONS or not isinstance(keys, dict):
            raise TelemetryError(f"{path}: {section} is no section; known are {', '.join(_SECTIONS)}")
        allowed = _SECTIONS[section] or COLUMNS
        for key in keys:
            if key not in allowed:
                raise TelemetryError(f"{path}: [{section}] has no {key}; known are {', '.join(allowed)}")
    columns = _texts(path, content, "columns")
    constants = _texts(path, content, "constants")
    values = {
        name: {word.lower(): ours for word, ours in _texts(path, content["values"], name).items()}
        for name in content.get("values", {})
    }
    time, units = content.get("time", {}), content.get("units", {})
    mapped = TableMap(
        columns,
        constants,
        values,
        time_format=_text(path, "time.format", time.get("format", "iso")),
        time_unit=_one_of(path, "time.unit", time.get("unit", "s"), EPOCH_UNITS),
        offset_seconds=_offset(path, time.get("offset", "+00:00")),
        resolution_seconds=_resolution(path, time.get("resolution_seconds")),
        byte_unit=BYTE_UNITS[_one_of(path, "units.bytes", units.get("bytes", "B"), BYTE_UNITS)],
        duration_unit=DURATION_UNITS[
            _one_of(path, "units.duration", units.get("duration", "s"), DURATION_UNITS)
        ],
        delimiter=_text(path, "file.delimiter", content.get("file", {}).get("delimiter", ",")),
    )
    _complete(path, mapped)
    return mapped


def _complete(path: Path, mapped: TableMap) -> None:
    if "start" not in mapped.columns:
        raise TelemetryError(f"{path}: [columns] must say which column is start")
    given = {*mapped.columns, *mapped.constants}
    if not given & {"dest_host", "dest_ip"}:
        raise TelemetryError(f"{path}: [columns] must say which column is dest_host or dest_ip")
    if "app_id" in given and "app_attribution" not in given:
        raise TelemetryError(
            f"{path}: app_id needs app_attribution in [constants]: exact for bundle ids of the system, "
            "process or display_name for names"
        )
    if {"end", "duration_seconds"} <= given:
        raise TelemetryError(f"{path}: give end or duration_seconds, not both")
    if "start" in mapped.constants or "end" in mapped.constants:
        raise TelemetryError(f"{path}: start and end cannot be constants")
    if len(mapped.delimiter) != 1 or not mapped.delimiter.isascii() or mapped.delimiter in '"\r\n':
        raise TelemetryError(f"{path}: file.delimiter must be a single character")
    for column in FLOWS.columns:
        words = [*mapped.values.get(column.name, {}).values()]
        words += [mapped.constants[column.name]] if column.name in mapped.constants else []
        wrong = [word for word in words if column.values and word not in column.values]
        if wrong:
            raise TelemetryError(
                f"{path}: {column.name} is {wrong[0]!r}; must be one of {', '.join(column.values)}"
            )


def _texts(path: Path, content: Mapping[str, Any], section: str) -> dict[str, str]:
    keys = content.get(section, {})
    if not isinstance(keys, dict):
        raise TelemetryError(f"{path}: [values.{section}] must be a table of words")
    return {key: _text(path, f"{section}.{key}", value) for key, value in keys.items()}


def _text(path: Path, key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and key.startswith("constants."):
        return str(value)
    if not isinstance(value, str) or not value:
        raise TelemetryError(f"{path}: {key} must be a text, got {value!r}")
    return value


def _one_of(path: Path, key: str, value: Any, allowed: Mapping[str, float]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise TelemetryError(f"{path}: {key} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def _offset(path: Path, value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[-+]\d\d:\d\d|Z", value):
        raise TelemetryError(f"{path}: time.offset must be an offset such as +02:00; got {value!r}")
    try:
        shift = datetime.fromisoformat(f"2000-01-01T00:00:00{value}").utcoffset() or timedelta()
    except ValueError:
        raise TelemetryError(f"{path}: time.offset must be below 24 hours; got {value!r}") from None
    return int(shift.total_seconds())


def _resolution(path: Path, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86_400:
        raise TelemetryError(f"{path}: time.resolution_seconds must be between 0 and 86400; got {value!r}")
    return float(value)
