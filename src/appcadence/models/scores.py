"""The scores table: its columns, and the ranks and reasons that need all rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask, Vector
from appcadence.findings import ARROW
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.telemetry.schema import TIME

EXPLAINED_ROWS = 1000
"""This many windows have reasons, besides the alerts."""

BEHAVIOUR = pa.struct([("score", pa.float64()), ("p_value", pa.float64())])
CONTRIBUTION = pa.struct(
    [
        ("feature", pa.string()),
        ("value", pa.float64()),
        ("expected", pa.float64()),
        ("contribution", pa.float64()),
    ]
)
SCORES = pa.schema(
    [
        ("device_id", pa.string()),
        ("app_id", pa.string()),
        ("dest", pa.string()),
        ("window_start", TIME),
        ("window_end", TIME),
        ("observed_seconds", pa.float64()),
        ("n_flows", pa.int64()),
        ("n_sessions", pa.int64()),
        ("n_beats", pa.int64()),
        ("app_attribution", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("device_shift", pa.float64()),
        ("p_value", pa.float64()),
        ("rank", pa.int64()),
        ("alert", pa.bool_()),
        *((name, BEHAVIOUR) for name in BEHAVIOURS),
        ("behaviours", pa.list_(pa.string())),
        ("explained_by", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),
        ("findings", pa.list_(ARROW)),
        ("contributions", pa.list_(CONTRIBUTION)),
        ("exception_id", pa.string()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
    ]
)
"""The scores table. `reasons` are `findings` in words; `behaviours` and `explained_by` hold codes."""


def ranks(table: pa.Table) -> Codes:
    """(n,) places 1, 2, ... of the scored rows by falling score, in row order where equal; 0 = not ranked."""
    return places_of(table["score"].to_numpy(), np.asarray(scored(table).to_numpy(), np.bool_))


def places_of(score: Vector, ranked: Mask) -> Codes:
    """(n,) places by falling score among the ranked; 0 = not ranked."""
    order = np.argsort(np.where(ranked, -score, np.inf), kind="stable")
    out = np.zeros(len(order), np.int64)
    out[order] = np.arange(1, len(order) + 1)
    return np.where(ranked, out, 0)


def scored(table: pa.Table) -> pa.ChunkedArray:
    """(n,) which rows of a scores table are ranked."""
    return pc.equal(table["status"], "scored")


def finalized(table: pa.Table, rank: Codes, alert: Mask) -> pa.Table:
    """Measured rows with ranks (0 = none) and alerts, and with reasons for alerts and the first ranks."""
    explained = alert | ((rank > 0) & (rank <= EXPLAINED_ROWS))
    columns = {"rank": pa.array(rank, mask=rank == 0), "alert": pa.array(alert)}
    for name in ("reasons", "findings"):
        columns[name] = pc.if_else(pa.array(explained), table[name], pa.scalar([], SCORES.field(name).type))
    for name, column in columns.items():
        table = table.set_column(SCORES.get_field_index(name), SCORES.field(name), column)
    return table
