"""Tables that a program passes in memory, checked and converted to their declared form."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence.errors import AppcadenceError, SchemaError, known_are
from appcadence.telemetry.names import translate
from appcadence.telemetry.schema import DIRECTORY_TABLES, NAME, TIME, Table, conform

_BROKEN = (pa.ArrowException, TypeError, ValueError, OverflowError)
_HOSTS = ("dest_host", "dest_ip")


def check_tables(names: Iterable[str], known: Collection[str] = tuple(DIRECTORY_TABLES)) -> None:
    """Raises SchemaError for an unknown table name, which would otherwise be ignored silently."""
    for name in names:
        if name not in known:
            raise SchemaError(f"there is no table {name!r}; {known_are(str(name), known)}")


def moment_us(moment: datetime | str, name: str) -> int:
    """A moment, as microseconds since the epoch; errors call it `name`.

    Raises:
        AppcadenceError: it is not a moment, or names no time zone.
    """
    try:
        at: pd.Timestamp | None = pd.Timestamp(moment)
    except (TypeError, ValueError, OverflowError):
        at = None
    if at is None or pd.isna(at):
        raise AppcadenceError(f"{name} is {moment!r}; expected a moment such as 2026-03-02T06:00Z", name)
    if at.tzinfo is None:
        raise AppcadenceError(f"{name} is {moment}, which names no time zone; write {at.isoformat()}Z", name)
    return int(at.as_unit("us").asm8.view("i8"))


def conformed(name: str, data: Any) -> pa.Table:
    """A pandas DataFrame, Arrow table or record batch as the declared table of that name.

    Undeclared columns are ignored. Host names become lower case, and empty names become null.

    Raises:
        SchemaError: `data` is something else, or does not fit the declaration of the table.
    """
    declared = DIRECTORY_TABLES[name]
    if not isinstance(data, pd.DataFrame | pa.Table | pa.RecordBatch):
        kind = type(data).__name__
        raise SchemaError(f"table {name} is of type {kind}; give a pandas DataFrame or an Arrow table")
    found = list(data.columns if isinstance(data, pd.DataFrame) else data.column_names)
    wanted = [column.name for column in declared.columns if column.name in found]
    for column in wanted:
        if found.count(column) > 1:
            raise SchemaError(f"table {name} has {found.count(column)} columns {column!r}; keep one")
    try:
        if isinstance(data, pd.DataFrame):
            data = _table(data[wanted])
        _check_times(declared, data)
        return _named(declared, conform(declared, data))
    except SchemaError:
        raise
    except _BROKEN as error:
        raise SchemaError(f"table {name}: {'; '.join(map(str, error.args))}") from None


def _table(frame: pd.DataFrame) -> pa.Table:
    """The frame in Arrow, times in UTC (see `columns.arrow`)."""
    zoned = [name for name in frame.columns if isinstance(frame[name].dtype, pd.DatetimeTZDtype)]
    plain = frame.assign(**{name: frame[name].dt.tz_convert(None) for name in zoned})
    return pa.Table.from_pandas(plain, preserve_index=False)


def _check_times(declared: Table, data: pa.Table | pa.RecordBatch) -> None:
    """Refuse numbers as times: Arrow would take seconds since 1970 for microseconds."""
    for column in declared.columns:
        if column.type == TIME and column.name in data.schema.names:
            kind = data.schema.field(column.name).type
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                raise SchemaError(
                    f"table {declared.name}, column {column.name!r} holds numbers ({kind}), whose unit is "
                    "unknown; give timestamps, as pandas.to_datetime(values, unit='s', utc=True) makes them"
                )


def _named(declared: Table, table: pa.Table) -> pa.Table:
    """The table with its names in the form that readers of logs use."""
    for place, column in enumerate(declared.columns):
        host = column.name in _HOSTS
        if column.type != NAME or not any(
            _odd(chunk.dictionary, host) for chunk in table[column.name].chunks
        ):
            continue
        names = translate(table[column.name], _plain_host if host else _plain)
        if not column.nullable and names.null_count:
            raise SchemaError(
                f"table {declared.name}, column {column.name!r}: {names.null_count} of {len(names)} values "
                "are empty, none may be"
            )
        table = table.set_column(place, table.schema.field(place), names)
    return table


def _plain(name: str) -> str | None:
    return name or None


def _plain_host(name: str) -> str | None:
    return name.lower().rstrip(".") or None


def _odd(names: pa.Array, host: bool) -> bool:
    """Whether any of these names has another form."""
    if names.null_count:  # a dictionary may contain null
        return True
    odd = pc.equal(names, "")
    if host:
        odd = pc.or_(odd, pc.or_(pc.ends_with(names, "."), pc.not_equal(pc.utf8_lower(names), names)))
    return bool(pc.any(odd, min_count=0).as_py())
