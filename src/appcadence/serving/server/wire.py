"""Canonical tables and scores as JSON, both derived from the declarations of the tables.

Numbers have enough digits to read the same number back, times are ISO 8601 in UTC with six decimals of a
second, and unknown values are null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import GenericAlias
from typing import Annotated, Any, Literal, NotRequired

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes that of typing from Python 3.12 on

from appcadence.errors import SchemaError
from appcadence.features.extraction import INPUT_TABLES
from appcadence.models.scores import CONTRIBUTION, SCORES
from appcadence.telemetry.schema import DIRECTORY_TABLES, NAME, TIME, Column, Table

MAX_TEXT = 1024
"""Most characters of a text in a table."""
_MAX_FAULTS = 100
"""A body with more faults is not examined in detail."""
_ROWS_AT_ONCE = 1000
_INTEGERS = {pa.int8(): 8, pa.int32(): 32, pa.int64(): 64}
_PLAIN: dict[pa.DataType, Any] = {pa.string(): str, pa.int64(): int, pa.float64(): float, pa.bool_(): bool}
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_TEXT = Annotated[str, Field(max_length=MAX_TEXT)]
_DATE_TIME: dict[str, Any] = {"format": "date-time"}
_TIME = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$",
        json_schema_extra=_DATE_TIME,
    ),
]


def typed_dict(name: str, fields: Mapping[str, Any]) -> Any:
    """The type of JSON objects with exactly these fields."""
    make: Any = TypedDict  # type checkers want the fields written out
    made = make(name, dict(fields))
    made.__pydantic_config__ = _STRICT
    return made


def list_of(kind: Any, *constraints: Any) -> Any:
    """The type of JSON arrays of a type made here."""
    made: Any = GenericAlias(list, kind)
    annotate: Any = Annotated
    return annotate[made, *constraints] if constraints else made


def _asked(column: Column) -> Any:
    """The type of a column in a body."""
    kind: Any
    if column.values:
        kind = Literal[column.values]
    elif column.type in (NAME, pa.string()):
        kind = _TEXT
    elif column.type == TIME:
        kind = _TIME
    elif column.type in _INTEGERS:
        top = 1 << (_INTEGERS[column.type] - 1)
        kind = Annotated[int, Field(ge=-top, le=top - 1)]
    elif pa.types.is_list(column.type):
        kind = list[_TEXT]
    else:
        kind = _PLAIN[column.type]
    meaning = f"{column.meaning}, in {column.unit}" if column.unit else column.meaning
    kind = Annotated[kind | None if column.nullable else kind, Field(description=meaning)]
    return NotRequired[kind] if column.nullable else kind


def bodies(max_rows: int) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """The JSON bodies of `POST /score` and `POST /explain`."""
    fields: dict[str, Any] = {}
    for name in INPUT_TABLES:
        table = DIRECTORY_TABLES[name]
        row = typed_dict(f"{name.title()}Row", {c.name: _asked(c) for c in table.columns})
        rows = list_of(row, FailFast(), Field(max_length=max_rows, description=f"a row is {table.row}"))
        fields[name] = rows if name == "flows" else NotRequired[rows]
    names = {"device_id": _TEXT, "app_id": NotRequired[_TEXT | None], "dest": _TEXT, "window_start": _TIME}
    window = typed_dict("Window", names)
    return (
        TypeAdapter(typed_dict("Telemetry", fields)),
        TypeAdapter(typed_dict("TelemetryAndWindow", fields | {"window": window})),
    )


def parse(adapter: TypeAdapter[Any], body: bytes) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The tables of a body, and the window that it names, if any.

    Raises:
        SchemaError: the body does not fit the adapter's schema.
    """
    try:
        given = adapter.validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MAX_FAULTS:
            raise SchemaError(f"the body does not fit its schema in {error.error_count():,} places") from None
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in fault["loc"]) or "the body"
        raise SchemaError(f"{where}: {fault['msg']}; /openapi.json has the schema") from None
    window = given.pop("window", {})
    return {name: _table(DIRECTORY_TABLES[name], rows) for name, rows in given.items()}, window


def _table(table: Table, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    types = {c.name: pa.string() if c.type in (NAME, TIME) else c.type for c in table.columns}
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()})


def answered(name: str, kind: pa.DataType) -> Any:
    """The type of a value in an answer, or null."""
    if pa.types.is_struct(kind):
        title = name.title().replace("_", "")
        return typed_dict(title, {field.name: answered(field.name, field.type) for field in kind}) | None
    if pa.types.is_list(kind):
        return list_of(answered(name, kind.value_type)) | None
    if kind == TIME:
        return Annotated[str, Field(json_schema_extra=_DATE_TIME)] | None
    return _PLAIN[kind] | None


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of plain values, times as text."""
    for number, field in enumerate(table.schema):
        if field.type == TIME:
            texts = pc.strftime(table[field.name], "%Y-%m-%dT%H:%M:%SZ")
            table = table.set_column(number, field.name, texts)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _encoded(table: pa.Table) -> Iterator[bytes]:
    for first in range(0, len(table), _ROWS_AT_ONCE):
        yield orjson.dumps(plain_rows(table.slice(first, _ROWS_AT_ONCE)))[1:-1]


def scores_json(scores: pa.Table) -> bytes:
    """The answer of `POST /score`."""
    return b'{"scores":[' + b",".join(_encoded(scores)) + b"]}"


class Error(TypedDict):
    """Any answer other than success."""

    error: str


class Health(TypedDict):
    """`GET /healthz`"""

    status: str


class Feature(TypedDict):
    """One of the model's features."""

    name: str
    family: str
    unit: str
    meaning: str


class Baseline(TypedDict):
    """What the model was trained on: the time of the latest flow, and counts."""

    end: str
    devices: int
    groups: int
    known_channels: int


class Model(TypedDict):
    """`GET /model`"""

    id: str
    appcadence: str
    window: str
    feature_schema: str
    features: list[Feature]
    excluded_families: list[str]
    baseline: Baseline
    card: dict[str, Any]


class Finding(TypedDict):
    """A reason, or something that could not be checked."""

    code: str
    parameters: dict[str, Any]
    text: str


class Explained(TypedDict):
    """What supports a benign explanation."""

    code: str
    text: str


ROW = typed_dict("ScoresRow", {field.name: answered(field.name, field.type) for field in SCORES})
SCORED = typed_dict("Scores", {"scores": list_of(ROW)})
EXPLANATION = typed_dict(
    "Explanation",
    {
        "row": ROW,
        "findings": list[Finding],
        "explained_by": list[Explained],
        "constant": float,
        "contributions": list_of(answered("contribution", CONTRIBUTION)),
    },
)
