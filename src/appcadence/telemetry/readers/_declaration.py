"""A format as data (TOML): which field of a log is which of our columns, and in what form.

Formats whose records are flows are such files in `declared`. The mapping file that a user gives with the
format `table` is one, too. docs/formats.md lists the keys.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from appcadence._inputs import read_toml
from appcadence.errors import TelemetryError
from appcadence.telemetry.schema import FLOWS
from appcadence.telemetry.times import COCOA_EPOCH

EPOCHS = {"epoch": 0, "cocoa": COCOA_EPOCH}
"""Forms of time that count seconds: from which second since 1970."""
EPOCH_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
TIMES = ("start", "end", "logged")
"""Our columns that give the time of a flow."""
BY_SIZE = "by size"
"""The unit of an epoch is deduced from the size of its numbers."""
DURATION_UNITS = EPOCH_UNITS | {"min": 60.0, "h": 3600.0}
BYTE_UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2}
SYNTAXES = ("csv", "words", "json", "kv", "pairs", "cef", "leef")
COLUMNS = (*(c.name for c in FLOWS.columns), "end", "logged", "source_port", "tcp_flags")
_REASONS = ("other_kind", "other_system", "packets")
_SECTIONS: dict[str, Sequence[str] | None] = {
    "columns": COLUMNS,
    "constants": COLUMNS,
    "values": COLUMNS,
    "extract": COLUMNS,
    "drop": COLUMNS,
    "labelled": COLUMNS,
    "time": ("format", "unit", "offset", "resolution_seconds", "zone"),
    "units": ("bytes", "duration"),
    "rules": ("addresses", "one_direction", "words", "otherwise", "answered", "nothing"),
    "file": None,
    "skip": None,
    "swap": None,
    "ended": None,
    "about": ("title", "documentation", "counts", "hint"),
}
_FILE_KEYS = ("syntax", "delimiter", "names", "within", "keys", "values", "line", "starts", "of_kind")
_SKIP_KEYS = ("column", "matches", "unless", "missing", "reason")
_CHOICE_KEYS = ("column", "matches")
LABELLED = (*(f"cn{i}" for i in (1, 2, 3)), *(f"cfp{i}" for i in (1, 2, 3, 4)), "flexNumber1", "flexNumber2")
"""Fields for numbers whose meaning a field beside them states, whose name ends in "Label" (CEF)."""


@dataclass(frozen=True)
class Layout:
    """How records are laid out in a file, and how such a file is recognised."""

    syntax: str = "csv"
    """One of SYNTAXES: a table with a delimiter, words between blanks, JSON objects, key=value between
    blanks, key=value between delimiters, CEF, LEEF."""
    delimiter: str = ","
    names: tuple[str, ...] = ()
    """Names of the columns if no header line gives them."""
    within: str = ""
    """JSON: the object that holds the fields, if there is one."""
    keys: tuple[tuple[str, ...], ...] = ()
    """The file has one name of each group, in its header or as a key."""
    values: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """JSON: patterns that the values at these paths match."""
    line: re.Pattern[str] | None = None
    """A pattern that one of the first lines of the file matches."""
    starts: re.Pattern[str] | None = None
    """The pattern after which a record begins in its line; its named groups are fields, too."""
    of_kind: re.Pattern[str] | None = None
    """A pattern that records must match to count; others are of another kind."""

    @property
    def recognised(self) -> bool:
        """Whether a file of this layout can be recognised."""
        return bool(self.keys or self.values or self.line or self.starts)


@dataclass(frozen=True)
class Skip:
    """Records that are passed over."""

    columns: tuple[str, ...]
    matches: re.Pattern[str] | None
    """Skip records of which one of the columns matches,"""
    unless: re.Pattern[str] | None
    """or has a value that does not match; without patterns, skip records that lack all of the columns."""
    reason: str


@dataclass(frozen=True)
class Declaration:
    """A checked declaration."""

    name: str
    columns: Mapping[str, tuple[str, ...]]
    """Our column = the names that it may have, of which the first with a value counts; "a+b" joins two
    columns with a blank. A flow without a start began its duration before its end, if that is known or no
    start is declared; a flow with neither began when it was `logged`."""
    constants: Mapping[str, str] = field(default_factory=dict)
    """Our column = the value for all rows without one."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Our column = {word of the file, lower case: our word}."""
    extract: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Our column = a pattern whose first group is the value."""
    drop: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Our column = a pattern of values to ignore."""
    labelled: Mapping[str, re.Pattern[str]] = field(default_factory=dict)
    """Our column = a pattern of the labels under which one of the fields in LABELLED may hold it."""
    time_forms: tuple[str, ...] = ("iso",)
    """"iso", one of EPOCHS, `strptime` patterns; numbers alone are epochs unless only patterns stand here."""
    time_unit: str = "s"
    offset_seconds: int = 0
    """For times that carry no offset."""
    offset_stated: bool = False
    """Otherwise such times are read as UTC for want of better, and the user is told so."""
    zone: str = ""
    """The field with the offset or zone for times that carry none."""
    resolution_seconds: float | None = None
    """None = what the times show."""
    byte_unit: int = 1
    duration_unit: float = 1.0
    addresses: bool = False
    """Whether `device_id` holds addresses, of which only monitored ones count."""
    one_direction: bool = False
    """Whether a record is one direction of a connection."""
    all_words: bool = True
    """Whether words that are neither ours nor translated are faults; otherwise they are ignored."""
    otherwise: str = ""
    """The outcome for words that `values` does not translate."""
    answered: bool = False
    """Whether a flow of unknown outcome is established once bytes came back."""
    nothing: frozenset[str] = frozenset()
    """Words, lower case, that mean "no value"."""
    layouts: tuple[Layout, ...] = (Layout(),)
    skips: tuple[Skip, ...] = ()
    swaps: tuple[Skip, ...] = ()
    """Records whose byte counts are swapped."""
    ended: tuple[Skip, ...] = ()
    """Records whose start, if the duration is known, is when the connection ended."""
    title: str = ""
    documentation: str = ""
    counts: str = "rows"
    hint: str = ""
    """What to do if such a file lacks what a flow needs."""

    @property
    def clock(self) -> str:
        """Our column that gives the time of a flow."""
        return "start" if "start" in self.columns else "end"

    @property
    def clocks(self) -> tuple[str, ...]:
        """The names of all columns that give a time."""
        return tuple(name for ours in TIMES for name in self.columns.get(ours, ()))

    @property
    def choices(self) -> tuple[Skip, ...]:
        """All choices of records."""
        return self.skips + self.swaps + self.ended

    @classmethod
    def read(cls, path: Path) -> Declaration:
        """Read and check a mapping file or another declaration (TOML).

        Raises:
            TelemetryError: the file cannot be read, has an unknown key or value, or lacks what a flow needs.
        """
        return _Check(path).declaration(read_toml(path, "a mapping in TOML", TelemetryError))


class _Check:
    """Turns the content of a file into a declaration, or says what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def declaration(self, content: dict[str, Any]) -> Declaration:
        for section, keys in content.items():
            allowed = _SECTIONS.get(section)
            if section not in _SECTIONS or not isinstance(keys, dict if allowed else dict | list):
                raise self._error(f"{section} is no section; expected one of {', '.join(_SECTIONS)}")
            if allowed and isinstance(keys, dict):
                self._known(section, keys, allowed)
        time, units, rules, about = (content.get(name, {}) for name in ("time", "units", "rules", "about"))
        values = content.get("values", {})
        found = Declaration(
            name=self._path.stem,
            columns={
                name: self._names(f"columns.{name}", value)
                for name, value in content.get("columns", {}).items()
            },
            constants=self._texts(content, "constants"),
            values={
                name: {word.lower(): ours for word, ours in self._texts(values, name).items()}
                for name in values
            },
            extract=self._patterns(content, "extract"),
            drop=self._patterns(content, "drop"),
            labelled=self._patterns(content, "labelled"),
            time_forms=self._names("time.format", time.get("format", "iso")),
            time_unit=self._one_of("time.unit", time.get("unit", "s"), (*EPOCH_UNITS, BY_SIZE)),
            offset_seconds=self._offset(time.get("offset", "+00:00")),
            offset_stated="offset" in time,
            zone=self._text("time.zone", time["zone"]) if "zone" in time else "",
            resolution_seconds=self._resolution(time.get("resolution_seconds")),
            byte_unit=BYTE_UNITS[self._one_of("units.bytes", units.get("bytes", "B"), BYTE_UNITS)],
            duration_unit=DURATION_UNITS[
                self._one_of("units.duration", units.get("duration", "s"), DURATION_UNITS)
            ],
            addresses=self._truth("rules.addresses", rules.get("addresses", False)),
            one_direction=self._truth("rules.one_direction", rules.get("one_direction", False)),
            all_words=self._one_of("rules.words", rules.get("words", "all"), ("all", "known")) == "all",
            otherwise=self._text("rules.otherwise", rules["otherwise"]) if "otherwise" in rules else "",
            answered=self._truth("rules.answered", rules.get("answered", False)),
            nothing=frozenset(map(str.lower, self._names("rules.nothing", rules.get("nothing", [])))),
            layouts=tuple(map(self._layout, self._tables(content, "file", _FILE_KEYS))) or (Layout(),),
            skips=tuple(map(self._skip, self._tables(content, "skip", _SKIP_KEYS))),
            swaps=tuple(map(self._skip, self._tables(content, "swap", _CHOICE_KEYS))),
            ended=tuple(map(self._skip, self._tables(content, "ended", _CHOICE_KEYS))),
            **{name: self._text(f"about.{name}", text) for name, text in about.items()},
        )
        self._complete(found)
        return found

    def _complete(self, found: Declaration) -> None:
        if not {"start", "end"} & found.columns.keys():
            raise self._error("[columns] must say which column is start, or end")
        given = {*found.columns, *found.constants}
        if not given & {"dest_host", "dest_ip"}:
            raise self._error("[columns] must say which column is dest_host or dest_ip")
        if "app_id" in given and "app_attribution" not in given:
            raise self._error(
                "app_id needs app_attribution in [constants]: exact for bundle ids of the system, "
                "process or display_name for names"
            )
        if {"end", "duration_seconds"} <= given and found.layouts == (Layout(),):
            raise self._error("give end or duration_seconds, not both")
        if "start" in found.constants or "end" in found.constants:
            raise self._error("start and end cannot be constants")
        for column in FLOWS.columns:
            words = [*found.values.get(column.name, {}).values()]
            words += [found.constants[column.name]] if column.name in found.constants else []
            words += [found.otherwise] if column.name == "outcome" and found.otherwise else []
            wrong = [word for word in words if column.values and word not in column.values]
            if wrong:
                raise self._error(f"{column.name} is {wrong[0]!r}; must be one of {', '.join(column.values)}")

    def _layout(self, table: dict[str, Any]) -> Layout:
        syntax = self._one_of("file.syntax", table.get("syntax", "csv"), SYNTAXES)
        delimiter = self._text("file.delimiter", table.get("delimiter", ","))
        if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
            raise self._error("file.delimiter must be a single character")
        keys = table.get("keys", [])
        if not isinstance(keys, list):
            raise self._error(f"file.keys must be a list of names, got {keys!r}")
        values = table.get("values", {})
        if not isinstance(values, dict):
            raise self._error(f"file.values must be a table of patterns, got {values!r}")
        return Layout(
            syntax,
            delimiter,
            self._names("file.names", table.get("names", [])),
            self._text("file.within", table["within"]) if "within" in table else "",
            tuple(self._names("file.keys", key) for key in keys),
            {path: self._pattern(f"file.values.{path}", text) for path, text in values.items()},
            self._pattern("file.line", table["line"]) if "line" in table else None,
            self._pattern("file.starts", table["starts"]) if "starts" in table else None,
            self._pattern("file.of_kind", table["of_kind"]) if "of_kind" in table else None,
        )

    def _skip(self, table: dict[str, Any]) -> Skip:
        return Skip(
            self._names("skip", table.get("missing", table.get("column", []))),
            self._pattern("skip.matches", table["matches"]) if "matches" in table else None,
            self._pattern("skip.unless", table["unless"]) if "unless" in table else None,
            self._one_of("skip.reason", table.get("reason", "other_kind"), _REASONS),
        )

    def _tables(self, content: dict[str, Any], section: str, allowed: Sequence[str]) -> list[dict[str, Any]]:
        found = content.get(section, [])
        tables = [found] if isinstance(found, dict) else found
        for table in tables:
            if not isinstance(table, dict):
                raise self._error(f"{section} must be a table, got {table!r}")
            self._known(section, table, allowed)
        return tables

    def _known(self, section: str, keys: Mapping[str, Any], allowed: Sequence[str]) -> None:
        for key in keys:
            if key not in allowed:
                raise self._error(f"[{section}] has no key {key}; expected one of {', '.join(allowed)}")

    def _patterns(self, content: Mapping[str, Any], section: str) -> dict[str, re.Pattern[str]]:
        texts = self._texts(content, section)
        found = {name: self._pattern(f"{section}.{name}", text) for name, text in texts.items()}
        for name, pattern in found.items():
            if section == "extract" and pattern.groups < 1:
                raise self._error(f"extract.{name} must have a group that captures the value")
        return found

    def _pattern(self, key: str, value: Any) -> re.Pattern[str]:
        text = self._text(key, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                return re.compile(text)
        except (re.error, RecursionError, OverflowError, FutureWarning) as error:
            raise self._error(f"{key} must be a regular expression ({error})") from None

    def _texts(self, content: Mapping[str, Any], section: str) -> dict[str, str]:
        keys = content.get(section, {})
        if not isinstance(keys, dict):
            raise self._error(f"[values.{section}] must be a table of words")
        return {key: self._text(f"{section}.{key}", value) for key, value in keys.items()}

    def _names(self, key: str, value: Any) -> tuple[str, ...]:
        values = value if isinstance(value, list) else [value]
        return tuple(self._text(key, text) for text in values)

    def _text(self, key: str, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and key.startswith("constants."):
            return str(value)
        if not isinstance(value, str) or not value:
            raise self._error(f"{key} must be text, got {value!r}")
        return value

    def _truth(self, key: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self._error(f"{key} must be true or false, got {value!r}")
        return value

    def _one_of(self, key: str, value: Any, allowed: Sequence[str] | Mapping[str, float]) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise self._error(f"{key} must be one of {', '.join(allowed)}; got {value!r}")
        return value

    def _offset(self, value: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch(r"[-+]\d\d:\d\d|Z", value):
            raise self._error(f"time.offset must be an offset such as +02:00; got {value!r}")
        try:
            shift = datetime.fromisoformat(f"2000-01-01T00:00:00{value}").utcoffset() or timedelta()
        except ValueError:
            raise self._error(f"time.offset must be below 24 hours; got {value!r}") from None
        return int(shift.total_seconds())

    def _resolution(self, value: Any) -> float | None:
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 86_400:
            raise self._error(f"time.resolution_seconds must be between 0 and 86400; got {value!r}")
        return float(value)

    def _error(self, said: str) -> TelemetryError:
        return TelemetryError(f"{self._path}: {said}")
