"""The reader of all declared formats, whose records are flows or single directions of flows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import UnusableFile
from appcadence.telemetry.names import constant, either, translate, value_of
from appcadence.telemetry.readers import (
    Batches,
    ReadOptions,
    _csv,
    _envelope,
    _flows,
    _hosts,
    _json,
    _json_layout,
    _line_records,
    _lines,
    _nfdump_records,
    nfdump,
)
from appcadence.telemetry.readers._declaration import LABELLED, Declaration, Layout, Skip
from appcadence.telemetry.readers._lines import Block, Rows
from appcadence.telemetry.readers._mapped import Mapped
from appcadence.telemetry.readers._not_read import is_framed
from appcadence.telemetry.schema import NAME as WORD

_OBJECTS = 100
_NAMES = ("device_id", "dest_host", "dest_ip", "app_id")
_COUNTS = ("bytes_out", "bytes_in", "dest_port", "source_port")
_TIMES = ("start", "end", "logged", "duration_seconds")
_SYN = 0x02
_JSON_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x1e]*(?:\{|\[\s*\{)")
"""JSON, which is no line of another log, whatever text it contains."""


class Declared:
    """The reader of one declared format."""

    def __init__(self, declared: Declaration) -> None:
        self.NAME = declared.name
        self.declared = declared

    def sniff(self, path: Path, start: bytes) -> bool:
        """Whether the file starts like one of this format; never raises."""
        return self.layout(start) is not None

    def layout(self, start: bytes) -> Layout | None:
        """The layout of a file with this start, if it is of this format."""
        held = _unwrapped_lines(start)
        for layout in self.declared.layouts:
            # Lines inside other records must be complete in themselves, without a header.
            headed = layout.syntax == "csv" and not layout.names
            begin = start if layout.syntax == "json" or headed else held
            if headed:
                layout = replace(layout, delimiter=_csv.delimiter(begin))
            if begin and not why_not(layout, begin):
                return layout
        return None

    def read(self, paths: Sequence[Path], options: ReadOptions) -> Batches:
        """Yield flows, and rejected rows.

        Raises:
            UnusableFile: a file is missing, empty, damaged, of another format, or lacks what a flow needs; or
                a log that only phones write is older than any iPhone.
        """
        declared = self.declared
        if declared.one_direction:
            clock = declared.columns[declared.clock][0]
            yield from nfdump.paired(paths, options, self._directions, self.NAME, clock, flagged=False)
            return
        for path in paths:
            found, parsed = self.records(path)
            finish = partial(finished, declared=found, options=options, name=self.NAME)
            first = 0 if declared.addresses else _flows.FIRST_IPHONE
            yield from _flows.flows_of(path, parsed, finish, options, first=first)

    def records(self, path: Path) -> tuple[Declaration, Iterator[Rows]]:
        """The records of a file, and the declaration with the names used in that file."""
        declared, expected = self.declared, f"{self.declared.title} ({self.NAME})"
        start = _lines.head(path, expected)
        layout = self.layout(start)
        if layout is None:
            raise UnusableFile(f"{path} is not {expected}: {why_not(declared.layouts[0], start)}", path)
        return parse(path, expected, declared, layout, start)

    def _directions(self, path: Path) -> Iterator[tuple[Rows, pa.Table, Mapped]]:
        declared, parsed = self.records(path)
        for rows in parsed:
            get = Mapped(rows, declared, True)
            yield rows, _direction_records(get), get


@lru_cache(2)
def _unwrapped_lines(start: bytes) -> bytes:
    """The first lines of a file, taken out of objects that wrap them; empty if it has no such lines."""
    field = _json_layout.line_field(start)
    if field:
        return _json_layout.first_lines(start, field)
    return b"" if _JSON_BEGINS.match(start) or is_framed(start) else start


def why_not(layout: Layout, start: bytes) -> str:
    """Why a file with this start is not of the layout; empty if it is."""
    if not layout.recognised:
        return "only a mapping file can describe it"
    if layout.syntax == "json":
        objects = list(islice(_json_layout.first_objects(start), _OBJECTS))
        reasons = [_lacks(layout, record) for record in objects]
        return min(reasons, key=len) if reasons else "it holds no JSON objects"
    lines = _line_records.first_lines(start)
    if layout.keys and not layout.line and not layout.starts:
        names = [name.lower() for name in _header(layout, start)]
        missing = [key for key in layout.keys if not {name.lower() for name in key} & set(names)]
        return f"its header line names no {' or '.join(missing[0])}" if missing else ""
    heads = [line[: _line_records.MAX_PREFIX] for line in lines]
    patterns = [pattern for pattern in (layout.line, layout.starts, layout.of_kind) if pattern]
    if not any(all(pattern.search(head) for pattern in patterns) for head in heads):
        return "none of its first lines looks like one"
    missing = [key for key in layout.keys if not any(f"{name}=" in line for name in key for line in lines)]
    return f"its first lines have no {' or '.join(missing[0])}" if missing else ""


def _lacks(layout: Layout, record: dict[str, Any]) -> str:
    for path, pattern in layout.values.items():
        value = _value_at(record, path)
        if not isinstance(value, str | int | float) or not pattern.search(str(value)):
            return f"its objects have no {path} that matches {pattern.pattern}"
    inside = record.get(layout.within)
    inside = inside if isinstance(inside, dict) else record
    for key in layout.keys:
        if all(_value_at(inside, path) is None for path in key):
            return f"its objects have no {' or '.join(key)}"
    return ""


def _value_at(record: Any, path: str) -> Any:
    if isinstance(record, dict) and path in record:
        return record[path]
    for name in path.split("."):
        record = record.get(name) if isinstance(record, dict) else None
    return record


def _header(layout: Layout, start: bytes) -> list[str]:
    if layout.syntax == "words":
        return (_line_records.first_lines(start, 1) or [""])[0].split()
    return _csv.header(start, layout.delimiter)


def parse(
    path: Path, expected: str, declared: Declaration, layout: Layout, start: bytes
) -> tuple[Declaration, Iterator[Rows]]:
    """The records of a file under the log's own names, and the declaration with these names."""
    if layout.syntax == "json":
        objects = list(islice(_json_layout.first_objects(start), _OBJECTS))
        prefix = f"{layout.within}." if any(isinstance(o.get(layout.within), dict) for o in objects) else ""
        declared = _inside(declared, prefix)
        if layout.recognised and all(
            _value_at(record, clock) is None for record in objects for clock in declared.clocks
        ):
            raise _lacking(path, expected, declared, declared.clocks, ())
        schema = _schema(declared, objects)
        fits = (lambda record: not _lacks(layout, record)) if layout.recognised else None
        return declared, _json.rows(path, expected, schema, fits, partial(_adapted, schema=schema))
    declared, field = _inside(declared, ""), _json_layout.line_field(start)
    start, wanted = _unwrapped_lines(start), _wanted(declared)
    named = [name.lower() for name in _header(layout, start)]
    headed = bool(layout.keys) and all({name.lower() for name in key} & set(named) for key in layout.keys)
    if layout.syntax == "csv" and not layout.names:
        chosen = partial(choose, path, expected if layout.recognised else "", declared)
        return declared, _csv.read(path, expected, chosen, layout.delimiter)
    own = {name.lower(): name for name in wanted}
    names = [own.get(name, name) for name in named] if headed else list(layout.names)
    # Values that are matched against a pattern must stay text.
    patterns = {*declared.extract, *declared.values, *declared.drop}
    numeric = [ours for ours in (*_COUNTS, *_TIMES) if ours not in patterns]
    matched = [name for skip in declared.choices for name in skip.columns]
    counts = {name for ours in numeric for name in declared.columns.get(ours, ())}.difference(matched)
    make = partial(
        _line_records.rows,
        layout=layout,
        names=names,
        wanted=wanted,
        counts=counts,
        dash="-" in declared.nothing,
    )
    return declared, _line_rows(path, expected, make, headed, field)


def _line_rows(
    path: Path, expected: str, make: Callable[[Block], Rows], headed: bool, field: str
) -> Iterator[Rows]:
    _lines.head(path, expected, 1)
    objects = _json_layout.blocks(path, expected) if field else ()
    held = (_envelope.lines_in(block, field) for block in objects)
    for block in held if field else _lines.blocks(path, expected):
        if headed and block.first:
            body = block.data.partition(b"\n")[2]
            block = replace(block, data=body, line=block.line + 1, ends=max(block.ends - 1, 0))
        yield make(block)


def _wanted(declared: Declaration) -> list[str]:
    names = [part for found in declared.columns.values() for name in found for part in name.split("+")]
    names += [name for skip in declared.choices for name in skip.columns]
    if declared.labelled:
        names += [part for name in LABELLED for part in (name, f"{name}Label")]
    return list(dict.fromkeys([*names, *filter(None, [declared.zone])]))


def _inside(declared: Declaration, prefix: str) -> Declaration:
    """The declaration with full paths as names; those that begin with "." lie outside the inner object."""

    def named(name: str) -> str:
        parts = (part[1:] if part.startswith(".") else prefix + part for part in name.split("+"))
        return "+".join(parts)

    def skips(found: tuple[Skip, ...]) -> tuple[Skip, ...]:
        return tuple(replace(skip, columns=tuple(map(named, skip.columns))) for skip in found)

    return replace(
        declared,
        columns={ours: tuple(map(named, names)) for ours, names in declared.columns.items()},
        skips=skips(declared.skips),
        swaps=skips(declared.swaps),
        ended=skips(declared.ended),
        zone=named(declared.zone) if declared.zone else "",
    )


def choose(path: Path, expected: str, declared: Declaration, names: Sequence[str]) -> dict[str, str]:
    """The wanted columns of a header, in any case of letters.

    Raises:
        UnusableFile: a column that a flow needs is absent; for a mapping (`expected` is empty), any column.
    """
    lower = {name.lower(): name for name in reversed(names)}
    found = {name: name if name in names else lower.get(name.lower()) for name in _wanted(declared)}
    present = {name: theirs for name, theirs in found.items() if theirs is not None}
    needed = {"start": declared.columns[declared.clock]} if expected else declared.columns
    for columns in needed.values():
        if not any(all(part in present for part in name.split("+")) for name in columns):
            raise _lacking(path, expected, declared, columns, names)
    return present


def _lacking(
    path: Path, expected: str, declared: Declaration, columns: Sequence[str], names: Sequence[str]
) -> UnusableFile:
    lacks = " or ".join(map(repr, columns[:4]))
    if not expected:
        found = ", ".join(filter(str.isprintable, names[:12]))[:300] or "none"
        return UnusableFile(f"{path} has no column {lacks}, which the mapping names; it has {found}", path)
    hint = f"; {declared.hint}" if declared.hint else ""
    return UnusableFile(f"{path} is {expected}, but has no {lacks}{hint}", path)


def _schema(declared: Declaration, objects: Sequence[dict[str, Any]]) -> dict[str, pa.DataType]:
    """The wanted fields of JSON objects, with the types seen in the first objects."""
    tree: dict[str, Any] = {}
    roles = {
        part: ours for ours, names in declared.columns.items() for name in names for part in name.split("+")
    }
    for path in sorted(_wanted(declared), key=lambda path: -path.count(".")):
        kind = _kind([_value_at(record, path) for record in objects], roles.get(path, ""))
        parts = [path] if any(path in record for record in objects) else path.split(".")
        node = tree
        for part in parts[:-1]:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                break
        else:
            node.setdefault(parts[-1], kind)

    def typed(node: Any, inner: bool = True) -> pa.DataType:
        if not isinstance(node, dict):
            # A number is no name; fields inside objects cannot have the type of names.
            return pa.string() if inner and node == WORD else node
        return pa.struct([(name, typed(child)) for name, child in node.items()])

    return {name: typed(node, False) for name, node in tree.items()}


def _kind(values: Sequence[Any], ours: str) -> pa.DataType:
    found = {type(value) for value in values if value is not None and not isinstance(value, dict | list)}
    if ours in _NAMES:
        return WORD
    if found == {bool}:
        return pa.bool_()
    if found and found <= {int, float}:
        return pa.float64() if ours in _TIMES or float in found else pa.int64()
    return pa.int64() if not found and ours in _COUNTS else pa.string()


def _adapted(row: dict[str, Any], schema: dict[str, pa.DataType]) -> dict[str, Any]:
    """A row whose numbers and booleans are text where other rows have text."""
    changed: dict[str, Any] = {}
    for name, kind in schema.items():
        value = row.get(name)
        if pa.types.is_struct(kind) and isinstance(value, dict):
            changed[name] = _adapted(value, {field.name: field.type for field in kind})
        elif kind == pa.string() and isinstance(value, bool):
            changed[name] = str(value).lower()
        elif kind == pa.string() and isinstance(value, int | float):
            changed[name] = str(value)
        elif kind == pa.int64() and isinstance(value, float) and value.is_integer():
            changed[name] = int(value)
    return row | changed


def finished(rows: Rows, declared: Declaration, options: ReadOptions, name: str) -> _flows.Finished:
    """The flows of some records."""
    get = Mapped(rows, declared, name != "table")
    get.left_out["other_kind"] += rows.read - len(rows.bad) - len(rows.table)
    devices = get.words("device_id")
    addresses = get.words("dest_ip")
    transport, tcp, udp = get.protocol()
    start, lasted = get.start(), get.duration()
    columns: dict[str, Any] = {
        "start": start,
        "device": translate(devices, _hosts.address) if declared.addresses else devices,
        **get.destination(get.words("dest_host"), addresses),
        "transport": transport,
        "service": translate(get.words("service"), str.lower),
        "outcome": get.outcome(),
        "source_uid": get.plain("source_uid"),
        "source": either(get.words("source"), constant(len(start), name)),
        "time_resolution_seconds": get.resolution(),
    }
    if lasted is not None:
        columns["duration_seconds"] = lasted
    if get.has("app_id"):
        columns["app_id"] = get.words("app_id")
        attribution, none = get.mine("app_attribution"), constant(len(start), "none")
        if columns["app_id"].null_count:
            attribution = pc.if_else(columns["app_id"].is_null(), None, attribution.cast(pa.string()))
        columns["app_attribution"] = either(attribution, none)
    if get.has("dest_host_source"):
        columns["dest_host_source"] = get.mine("dest_host_source")
    # ICMP has a type in place of a port.
    ported = tcp | udp | np.asarray(get.words("transport").is_null()) if declared.addresses else None
    for ours in ("device_port", "source_port"):
        if get.has(ours):
            columns["device_port"] = get.port(ours, ported)
    if get.has("dest_port"):
        columns["dest_port"] = get.port("dest_port", ported)
        if declared.addresses:
            guessed = _flows.dns_by_port(columns["dest_port"], udp)
            columns["service"] = either(columns["service"], guessed)
    columns |= {
        ours: get.count(ours, declared.byte_unit) for ours in ("bytes_out", "bytes_in") if get.has(ours)
    }
    if declared.swaps and {"bytes_out", "bytes_in"} <= columns.keys():
        turned = pa.array(get.swapped())
        sent, received = columns["bytes_out"], columns["bytes_in"]
        columns["bytes_out"] = pc.if_else(turned, received, sent)
        columns["bytes_in"] = pc.if_else(turned, sent, received)
    return get.flows(
        columns, options, name, 1.0, clock=get.label(declared.clock, "logged"), addresses=declared.addresses
    )


def _direction_records(get: Mapped) -> pa.Table:
    """The part of some records that pairing directions needs."""
    ends = [translate(get.words(ours), _hosts.address) for ours in ("device_id", "dest_ip")]
    _, tcp, udp = get.protocol()
    ports = []
    for ours in ("source_port", "dest_port"):
        port = _nfdump_records.numbers(get.port(ours, tcp | udp))
        fits = (port >= 0) & (port <= 65535)
        get.fault(~fits, f"{get.label(ours)} is out of range")
        ports.append(np.where(fits, port, 0))
    sizes = []
    for ours in ("bytes_out", "bytes_in"):
        sizes.append(get.count(ours, get.declared.byte_unit))
        get.fault(pc.fill_null(pc.less(sizes[-1], 0), False), f"{get.label(ours)} is out of range")
    refused = np.asarray(pc.equal(get.outcome(), "failed"))
    flags = value_of(get.words("tcp_flags"), _nfdump_records.tcp_flags, 0) if get.has("tcp_flags") else 0
    start, lasted = get.start(), get.duration()
    lasted = pa.nulls(len(start), pa.float64()) if lasted is None else lasted
    finer = pa.array(np.asarray(get.resolution()) < 1)
    flags = np.where(tcp, np.where(refused, _SYN, flags), 0)
    return _nfdump_records.record_table(get, ends, ports, (tcp, udp), start, lasted, finer, sizes, flags)
