"""Any table of flows, CSV or Parquet, by a mapping file: `--format table --map map.toml`.

    [columns]                      # ours = the file's; only these are read
    start = "begin_time"
    end = "end_time"               # or duration_seconds
    device_id = "client"
    dest_host = "fqdn"             # of a URL only the host is kept
    dest_port = "port"
    bytes_out = "tx"
    outcome = "action"

    [constants]                    # ours = the value of all rows
    transport = "tcp"
    source = "gateway"

    [values.outcome]               # word of the file = ours
    allow = "established"
    deny = "failed"

    [time]
    format = "iso"                 # iso, epoch (a count from 1970), cocoa (a count from 2001, as in Core
                                   # Data), or a strptime pattern such as "%d.%m.%Y %H:%M:%S"
    unit = "s"                     # of epoch and cocoa: s, ms, us, ns
    offset = "+00:00"              # of times without one of their own
    resolution_seconds = 1.0       # default: what the times show

    [units]
    bytes = "B"                    # B, kB, MB, KiB, MiB
    duration = "s"                 # s, ms, us, ns, min, h

    [file]
    delimiter = ","

CSV has one header line, and no line ends inside values; it may be gzip. `device_id` is taken as it stands
(`--devices` maps it); all rows count, unless `--local-net` is given: then it must hold addresses, and only
those inside count. Where there is no outcome it is "unknown". The format is never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence.errors import TelemetryError, UnusableFile
from appcadence.telemetry.names import constant, translate
from appcadence.telemetry.readers import Batches, ReadOptions, _csv, _flows, _lines, _text
from appcadence.telemetry.readers._columns import Columns, seconds_between
from appcadence.telemetry.readers._lines import Rows
from appcadence.telemetry.readers._table_map import EPOCH_UNITS, EPOCHS, TableMap
from appcadence.telemetry.schema import FLOWS

NAME = "table"

_EXPECTED = "a table as CSV with a header line, or as Parquet"
_BATCH_ROWS = 250_000
_COUNTS = ("bytes_out", "bytes_in")


def sniff(path: Path, start: bytes) -> bool:
    """Never: a table is only read by a mapping file."""
    return False


def read(paths: Sequence[Path], options: ReadOptions) -> Batches:
    """Yield flows, and rejected rows (of Parquet, the line is the number of the row).

    Raises:
        TelemetryError: there is no mapping or it is faulty.
        UnusableFile: a file is missing, empty, damaged, lacks a column of the mapping, or is older than any
            iPhone.
    """
    if options.mapping is None:
        raise TelemetryError("the format 'table' needs a mapping file; give one as TOML", "mapping")
    mapped = TableMap.read(options.mapping)
    if options.device_id is None and "device_id" not in {*mapped.columns, *mapped.constants}:
        raise TelemetryError(f"{options.mapping}: [columns] must say which column is device_id")
    finish = partial(_finished, mapped=mapped, options=options)
    for path in paths:
        yield from _flows.flows_of(path, _parsed(path, mapped), finish, first=_flows.FIRST_IPHONE)


def _parsed(path: Path, mapped: TableMap) -> Iterator[Rows]:
    if not _lines.head(path, _EXPECTED).startswith(b"PAR1"):
        yield from _csv.read(path, _EXPECTED, lambda names: _choose(path, names, mapped), mapped.delimiter)
        return
    try:
        with pq.ParquetFile(path) as file:
            chosen = _choose(path, file.schema_arrow.names, mapped)
            size, row = path.stat().st_size, 1
            for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(set(chosen.values()))):
                table = pa.table({ours: batch[theirs] for ours, theirs in chosen.items()})
                table.validate(full=True)  # nobody has looked yet whether its texts are texts
                yield Rows(table, np.arange(row, row + len(batch)), len(batch), size=size)
                row, size = row + len(batch), 0
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).replace("\n", " ")
        raise UnusableFile(f"{path} is not a readable Parquet file ({reason})", path) from None


def _choose(path: Path, names: Sequence[str], mapped: TableMap) -> dict[str, str]:
    missing = [theirs for theirs in mapped.columns.values() if theirs not in names]
    if missing:
        found = ", ".join(filter(str.isprintable, names[:12]))[:300] or "none"
        raise UnusableFile(
            f"{path} has no column {missing[0]!r}, which the mapping names; it has {found}", path
        )
    return dict(mapped.columns)


class _Mapped(Columns):
    """The columns of a batch under our names, by the mapping."""

    def __init__(self, rows: Rows, mapped: TableMap) -> None:
        super().__init__(rows)
        self.mapped = mapped

    def has(self, name: str) -> bool:
        return name in self.mapped.columns or name in self.mapped.constants

    def raw(self, name: str) -> pa.Array:
        if name in self.mapped.constants and name not in self.mapped.columns:
            return constant(len(self.table), self.mapped.constants[name])
        return super().raw(name)

    def text(self, *names: str) -> pa.DictionaryArray:
        (name,) = names
        words = translate(_as_text(name, self.raw(name)), lambda text: text.strip() or None)
        known = self.mapped.values.get(name, {})
        return translate(words, lambda text: known.get(text.lower(), text)) if known else words

    def mine(self, name: str) -> pa.Array:
        """As words that our column may hold."""
        return self.word(name, FLOWS.column(name).values)

    def number(self, name: str) -> pa.Array:
        column = self.raw(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return column.cast(pa.float64(), safe=False)
        numbers, bad = _text.number(_as_text(name, column))
        self.fault(bad, f"{name} is not a number")
        return numbers

    def units(self, name: str, unit: float = 1) -> pa.Array:
        """Numbers times the unit, as whole ones."""
        numbers = self.number(name)
        values = np.asarray(numbers.fill_null(0).to_numpy(zero_copy_only=False)) * unit
        fits = np.isfinite(values) & (np.abs(values) < 2**62)
        self.fault(~fits, f"{name} is out of range")
        whole = np.rint(np.where(fits, values, 0)).astype(np.int64)
        return pa.array(whole, mask=np.asarray(numbers.is_null()))

    def time(self, *names: str) -> pa.Array:
        (name,) = names
        column, mapped = self.raw(name), self.mapped
        if pa.types.is_timestamp(column.type):
            micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64())
            return _text.in_range(
                micros if column.type.tz else pc.subtract(micros, mapped.offset_seconds * 1_000_000)
            )
        if mapped.time_format in EPOCHS:
            seconds = pc.multiply(self.number(name), EPOCH_UNITS[mapped.time_unit])
            return _flows.micros(pc.add(seconds, float(EPOCHS[mapped.time_format])))
        text = _as_text(name, column)
        if mapped.time_format == "iso":
            micros, bad = _text.times(text, mapped.offset_seconds)
        else:
            micros, bad = _text.named_times(text, mapped.time_format, mapped.offset_seconds)
        self.fault(bad, f"{name} is not a time")
        return micros

    def resolution(self) -> pa.Array:
        column, mapped = self.raw("start"), self.mapped
        known = mapped.resolution_seconds
        if pa.types.is_timestamp(column.type):
            known = known or max(EPOCH_UNITS[column.type.unit], 1e-6)
        elif mapped.time_format in EPOCHS and mapped.time_unit != "s":
            known = known or max(EPOCH_UNITS[mapped.time_unit], 1e-6)
        if known is not None:
            return pa.array(np.full(len(column), known))
        return _text.resolution(_as_text("start", column), 1e-6)


def _as_text(name: str, column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise TelemetryError(
            f"the column mapped to {name} is of type {column.type}, which is no text"
        ) from None


def _finished(rows: Rows, mapped: TableMap, options: ReadOptions) -> _flows.Finished:
    get = _Mapped(rows, mapped)
    start = get.time("start")
    columns = {
        "start": start,
        "device": get.text("device_id"),
        **get.destination(get.text("dest_host"), get.text("dest_ip")),
        "transport": _flows.transports(get.text("transport"))[0],
        "service": translate(get.text("service"), str.lower),
        "outcome": pc.fill_null(get.mine("outcome"), "unknown"),
        "source_uid": get.text("source_uid").cast(pa.string()),
        "source": pc.fill_null(get.text("source").cast(pa.string()), NAME),
        "time_resolution_seconds": get.resolution(),
    }
    if get.has("app_id"):
        columns["app_id"] = get.text("app_id")
        attribution = pc.if_else(columns["app_id"].is_null(), "none", get.mine("app_attribution"))
        columns["app_attribution"] = pc.fill_null(attribution, "none")
    if get.has("dest_host_source"):
        columns["dest_host_source"] = get.mine("dest_host_source")
    for name in ("dest_port", "device_port"):
        if get.has(name):
            columns[name] = get.units(name)
    for name in filter(get.has, _COUNTS):
        columns[name] = get.units(name, mapped.byte_unit)
    if get.has("duration_seconds"):
        columns["duration_seconds"] = pc.multiply(get.number("duration_seconds"), mapped.duration_unit)
    elif get.has("end"):
        columns["duration_seconds"] = seconds_between(start, get.time("end"))
    return get.flows(columns, options, NAME, 1.0, clock="start")
