"""The feature table as a program or a file gives it, checked and in the form that `extract` makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from appcadence._types import Mask
from appcadence.errors import SchemaError
from appcadence.features.catalog import NAMES, SCHEMA_ID
from appcadence.features.extraction import KEYS

_NAMES = {"device_id": False, "app_id": True, "dest": False, "app_attribution": True, "category": True}
"""The columns of names, and whether a name may be unknown."""
_TIMES = ("window_start", "window_end")
_COUNTS = ("n_flows", "n_sessions", "n_beats")
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"}
"""What a column of numbers may hold, as pandas calls it; empty = every value is unknown."""
_MOMENTS = {"datetime", "datetime64", "date", "string", "empty"}


def checked(table: Any) -> pd.DataFrame:
    """The feature table with the types of `extract`, whatever the columns were kept in: as text (times), with
    more digits than features have, or in one of pandas' nullable types. Without `category`, none is known.

    Raises:
        SchemaError: it is no DataFrame or of another feature schema; a column is missing, twice there or of a
            wrong type; or a value is unknown that must not be.
    """
    if not isinstance(table, pd.DataFrame):
        raise SchemaError(f"a feature table is a DataFrame, not of type {type(table).__name__}")
    names = list(table.columns)
    if missing := [name for name in KEYS if name not in names and name != "category"]:
        raise SchemaError(f"the feature table lacks {missing[0]!r}; give it as extract returns it")
    require_features(table)
    if twice := [name for name in (*KEYS, *NAMES) if names.count(name) > 1]:
        raise SchemaError(f"the feature table has {names.count(twice[0])} columns {twice[0]!r}; keep one")
    columns: dict[str, Any] = {} if "category" in names else {"category": None}
    for name, nullable in _NAMES.items():
        if name in names:
            columns[name] = _names(table[name], nullable)
    columns |= {name: _times(table[name]) for name in _TIMES}
    columns |= {name: _counts(table[name]) for name in _COUNTS}
    columns["observed_seconds"] = _known_numbers(table["observed_seconds"])
    columns["destination_known"] = _flags(table["destination_known"])
    columns |= {n: _numbers(table[n], np.float32) for n in NAMES if table[n].dtype != np.float32}
    return table.assign(**columns)


def require_features(table: pd.DataFrame) -> None:
    """Raises SchemaError if features are missing, or the table has another feature schema."""
    made = table.attrs.get("feature_schema", SCHEMA_ID)
    if made != SCHEMA_ID:
        raise SchemaError(
            f"the feature table is of feature schema {made}, the model of {SCHEMA_ID}; extract it again"
        )
    if missing := [name for name in NAMES if name not in table.columns]:
        raise SchemaError(
            f"the feature table lacks {len(missing)} column(s) of feature schema {SCHEMA_ID}, first "
            f"{missing[0]!r}; extract it again"
        )


def _names(column: pd.Series, nullable: bool) -> pd.Series:
    """Names as text or categories of text."""
    coded = isinstance(column.dtype, pd.CategoricalDtype)
    values = pd.Series(column.cat.categories, dtype=object) if coded else column.astype(object)
    known = values.notna()
    _require(column, values[known], {"string", "empty"}, "text")
    if not nullable:
        _require_known(column, column.notna().to_numpy())
    return column if coded else values.where(known, None)


def _times(column: pd.Series) -> pd.Series:
    if not pd.api.types.is_datetime64_any_dtype(column.dtype):
        column = column.astype(object)
        _require(column, column.dropna(), _MOMENTS, "times")
    try:
        times = pd.to_datetime(column, utc=True).dt.as_unit("us")
    except (ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"the feature table, column {column.name!r} holds no times ({error})") from None
    _require_known(column, times.notna().to_numpy())
    return times


def _numbers(column: pd.Series, kind: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """(n,) of that kind, NaN = unknown."""
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_complex_dtype(column.dtype):
        _require(column, column.astype(object).dropna(), _NUMBERS, "numbers")
    with np.errstate(over="ignore"):
        return column.to_numpy(kind, na_value=np.nan)


def _known_numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    values = _numbers(column, np.float64)
    _require_known(column, np.isfinite(values))
    return values


def _counts(column: pd.Series) -> npt.NDArray[np.int64]:
    if column.dtype == np.int64:
        return column.to_numpy()
    values = _known_numbers(column)
    if (values % 1 != 0).any():
        raise SchemaError(f"the feature table, column {column.name!r} holds fractions; expected counts")
    return values.astype(np.int64)


def _flags(column: pd.Series) -> npt.NDArray[np.bool_]:
    if column.dtype == np.bool_:
        return column.to_numpy()
    values = _known_numbers(column)
    if not np.isin(values, (0.0, 1.0)).all():
        raise SchemaError(f"the feature table, column {column.name!r} holds numbers; expected true or false")
    return values.astype(np.bool_)


def _require(column: pd.Series, known: pd.Series, kinds: set[str], expected: str) -> None:
    """Refuse a column whose known values, as objects, are of another kind."""
    if (found := pd.api.types.infer_dtype(known)) not in kinds:
        shown = "text" if found == "string" else found
        raise SchemaError(f"the feature table, column {column.name!r} holds {shown}; expected {expected}")


def _require_known(column: pd.Series, known: Mask) -> None:
    if not known.all():
        raise SchemaError(
            f"the feature table, column {column.name!r}: {np.count_nonzero(~known)} of {len(known)} values "
            "are unknown, but none may be"
        )
