"""Settings of scoring, one frozen dataclass per concern, read from TOML (see `docs/config.md`)."""

from __future__ import annotations

import math
import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from appcadence._inputs import read_toml
from appcadence.errors import AppcadenceError, known_are
from appcadence.telemetry.readiness.capability import BEHAVIOURS

KEY_PREFIX = "ed25519:"
"""Of a public key as text; its 32 bytes follow in base64."""
ATTACK_NAMES = BEHAVIOURS
"""By behaviour, the threshold that ATT&CK names."""
SHOWN_P = 0.05
"""A window shows a behaviour up to this p-value where no threshold is set."""
_RANGES = {
    "alerts_per_device_day": (1e6, "above 0 and at most 1,000,000"),
    "false_discovery_rate": (math.nextafter(1.0, 0.0), "between 0 and 1"),
    **dict.fromkeys(ATTACK_NAMES, (1.0, "above 0 and at most 1")),
}
"""By field, the largest value, and the range in words."""


def checked(field: str, value: Any, name: str, argument: str | None = None) -> Any:
    """The value of a field, if valid; errors call it `name`.

    Raises:
        AppcadenceError: the value has another type, or is out of range.
    """
    if field == "trusted_keys":
        if isinstance(value, list | tuple) and value and all(map(_is_key, value)):
            return tuple(value)
        raise AppcadenceError(
            f"{name} is {_shown(value)}; expected a list of public keys, each {KEY_PREFIX} and 44 letters of "
            "base64, as 'appcadence models keygen' prints them"
        )
    if field not in _RANGES:
        if isinstance(value, bool):
            return value
        raise AppcadenceError(f"{name} is {_shown(value)}; expected true or false", argument)
    most, span = _RANGES[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise AppcadenceError(f"{name} is {_shown(value)}; expected a number {span}", argument)
    return float(value)


def _check(settings: Alerts | Ranking | Tunables) -> None:
    for name, value in asdict(settings).items():
        if value is not None:
            checked(name, value, name, name if isinstance(settings, Alerts) else None)


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(f"{KEY_PREFIX}[A-Za-z0-9+/]{{43}}=", value) is not None


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # integers of over 4,300 digits, tables thousands deep
        return "too large to print"


@dataclass(frozen=True)
class Alerts:
    """The limit of alerts.

    Raises:
        AppcadenceError: a value is no number, or out of its range.
    """

    alerts_per_device_day: float = 1.0
    """Benign alert units per device-day, above 0."""
    false_discovery_rate: float | None = None
    """Instead of the budget: the share of alerting units that may be benign, between 0 and 1."""

    def __post_init__(self) -> None:
        _check(self)

    def over(self, alerts_per_device_day: float | None, false_discovery_rate: float | None) -> Alerts:
        """These settings, overridden by the command line (None = not given); a budget there also overrides a
        rate here."""
        if false_discovery_rate is None and alerts_per_device_day is None:
            return self
        budget = self.alerts_per_device_day if alerts_per_device_day is None else alerts_per_device_day
        return Alerts(budget, false_discovery_rate)


@dataclass(frozen=True)
class Tunables:
    """ATT&CK's three thresholds of AN1682: the largest conformal p-value, in (0, 1], at which a window shows
    the behaviour. None = not set: `SHOWN_P`, and no alert depends on it (see `models.eligibility.barred`).

    Raises:
        AppcadenceError: a value is no number, or out of its range.
    """

    structured_cadence: float | None = None
    """HTTPSCadenceAnomalyThreshold"""
    session_persistence: float | None = None
    """SessionPersistenceThreshold"""
    notification_burst: float | None = None
    """NotificationWakeFrequencyThreshold"""

    def __post_init__(self) -> None:
        _check(self)

    @property
    def bounds(self) -> dict[str, float]:
        """By behaviour, the largest p-value that shows it."""
        return {name: SHOWN_P if value is None else value for name, value in asdict(self).items()}

    @property
    def chosen(self) -> dict[str, float]:
        """By ATT&CK's name, the thresholds that are set."""
        return {ATTACK_NAMES[name]: float(v) for name, v in asdict(self).items() if v is not None}


@dataclass(frozen=True)
class Ranking:
    """Which windows are ranked and may alert.

    Raises:
        AppcadenceError: a value is neither true nor false.
    """

    local_destinations: bool = False
    """Also rank destinations (addresses; `.local`, `.lan`, `.home.arpa`) on the device's own network."""

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Model:
    """Which models may be used."""

    trusted_keys: tuple[str, ...] = ()
    """Public keys, one of which must have signed a named model; empty = no signature needed."""


UNSET = Tunables()
"""No threshold is set."""


@dataclass(frozen=True)
class Config:
    """Everything a file may set."""

    alerts: Alerts = Alerts()
    tunables: Tunables = UNSET
    ranking: Ranking = Ranking()
    model: Model = Model()


DEFAULTS = Config()
"""One benign alert unit per device-day, no thresholds, no local destinations, and any model."""


FILE = "appcadence.toml"
"""The name of the settings file in or beside a telemetry directory."""


def locate(telemetry: str | Path) -> Path | None:
    """The settings file of a telemetry directory: the one in it, otherwise the one beside it."""
    directory = Path(os.path.realpath(telemetry))
    places = (directory / FILE, directory.parent / FILE)
    return next((place for place in places if place.is_file()), None)


def read(path: str | Path) -> Config:
    """The settings of a TOML file; missing keys have their defaults.

    Raises:
        AppcadenceError: the file is unreadable, or a section, key or value is unknown or invalid; the
            sentence names the file and the key.
    """
    content = read_toml(path, "settings", AppcadenceError)
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Config)}
    _known(f"{path}: section", content, kinds)
    found = {}
    for section, kind in kinds.items():
        values = content.get(section, {})
        if not isinstance(values, dict):
            raise AppcadenceError(f"{path}: {section} is not a table; write [{section}]")
        # By key in the file, the field that it sets.
        of = {ATTACK_NAMES.get(field.name, field.name): field.name for field in fields(kind)}
        _known(f"{path}, [{section}]: key", values, of)
        found[section] = kind(
            **{of[k]: checked(of[k], value, f"{path}, [{section}]: {k}") for k, value in values.items()}
        )
    return Config(**found)


def _known(what: str, names: dict[str, Any], known: dict[str, Any]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise AppcadenceError(f"{what} {unknown[0]!r} is unknown; {known_are(unknown[0], known)}")
