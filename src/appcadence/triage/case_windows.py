"""Which scored windows make which case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._types import Codes, Mask
from appcadence.models.calibration import KEYS, UNITS, alert_units
from appcadence.models.scores import SCORES
from appcadence.triage.case_rows import HELD, CaseRows, Names
from appcadence.triage.cases import MAX_QUIET_DAYS, numbered, subject, window_days
from appcadence.triage.window_facts import FACTS

COLUMNS = [name for name in SCORES.names if name not in ("contributions", "observed_seconds")]
"""What is read of the scores table."""
_MET = {"destination": "dest", "app": "app_id"}
"""The column that a fleet event's name stands in."""


def cases_in(scores: Path, events: pd.DataFrame, facts: pa.Table | None = None) -> pa.Table:
    """The cases (see `CASES`) of a scores table in a Parquet file, as one run alone shows them: all are new.

    A case alerts on a day when one of its scored windows does; so many days without an alert as
    `MAX_QUIET_DAYS` end none. A fleet event is as severe as its strongest window, and is no case when all its
    windows are excepted. `facts`, of the alerting windows at least, are what `window_facts` saw of them;
    without them, times are those of the windows.

    Memory: a row group of the file, and the windows of the cases.
    """
    with pq.ParquetFile(scores) as file:
        groups = range(file.num_row_groups)
        seen = (file.read_row_group(i, [*KEYS, "status", "alert"]) for i in groups)
        fired = [alert_units(scores.filter(_raises(scores))) for scores in seen]
        units = pa.concat_tables([UNITS.empty_table(), *fired]).to_pandas().drop_duplicates()
        parts = [_concerned(file.read_row_group(i, COLUMNS), units, events) for i in groups]
    none = pa.schema([SCORES.field(name) for name in COLUMNS]).empty_table()
    windows = pa.concat_tables([none, *parts])
    known = FACTS.empty_table() if facts is None else facts
    raises = _flags(_raises(windows))
    rows, owner, names = _single(windows, units)
    single = CaseRows(windows, known, rows, owner, raises[rows]).cases(names)
    rows, owner, names = _together(windows, events)
    together = CaseRows(windows, known, rows, owner, np.ones(len(rows), np.bool_)).cases(names)
    return numbered(pa.concat_tables([single, together]))


def raising(scores: pa.Table, cases: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """By id of a case, a row of the cases table, the rows of a scores table that raise it, strongest first.

    The table has `alert`, `status`, `score` and the columns of `alert_units.KEYS`.
    """
    # A run over many days may hold several cases of one subject, each with days of its own.
    ids = {(*subject(case)[1:], day): case["id"] for case in cases for day in case["alert_days"]}
    found: dict[str, list[int]] = {case["id"]: [] for case in cases}
    order = pc.sort_indices(scores, sort_keys=[("score", "descending")]).to_numpy()
    order = order[_flags(scores["alert"])[order]]
    alerting = scores.take(pa.array(order))
    rows = alerting.select(["status", "app_id", "dest"]).to_pylist()
    for at, row, unit in zip(order.tolist(), rows, alert_units(alerting).to_pylist(), strict=True):
        fleet = [("", row[column]) for column in _MET.values() if row["status"] == "fleet_event"]
        for what in [(unit["device_id"], unit["name"])] if row["status"] == "scored" else fleet:
            if case := ids.get((*what, str(unit["day"]))):
                found[case].append(at)
    return found


def _flags(values: pa.ChunkedArray) -> Mask:
    """(n,) where they are true."""
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _raises(scores: pa.Table) -> pa.ChunkedArray:
    return pc.and_(scores["alert"], pc.equal(scores["status"], "scored"))


def _concerned(scores: pa.Table, units: pd.DataFrame, events: pd.DataFrame) -> pa.Table:
    """Windows of those alert units and, perhaps with others, of the events."""
    mine = alert_units(scores).append_column("row", pa.array(np.arange(len(scores))))
    wanted = pa.Table.from_pandas(units, UNITS, preserve_index=False)
    rows = np.zeros(len(scores), np.bool_)
    rows[mine.join(wanted, UNITS.names, join_type="left semi")["row"].to_numpy()] = True
    for kind, column in _MET.items():
        names = pa.array(events.loc[events["kind"] == kind, "name"], pa.string())
        rows |= _flags(pc.is_in(scores[column], names)) & ~_flags(pc.equal(scores["status"], "scored"))
    return scores.select(COLUMNS).filter(pa.array(rows))


def _single(windows: pa.Table, units: pd.DataFrame) -> tuple[Codes, Codes, Names]:
    """Windows of the alerting units, the case of each, and what the cases are called."""
    units = units.sort_values(UNITS.names, kind="stable")
    days = pd.to_datetime(units["day"]).to_numpy("datetime64[D]").astype(np.int64)
    who = units[["device_id", "kind", "name"]]
    apart = (who != who.shift()).any(axis=1).to_numpy(np.bool_)
    apart = apart | (np.diff(days, prepend=days[:1]) > window_days(windows) + MAX_QUIET_DAYS)
    of_unit = units.assign(case=np.cumsum(apart) - 1)
    mine = alert_units(windows).to_pandas().merge(of_unit, on=UNITS.names, how="left")["case"]
    rows = np.flatnonzero(mine.notna())
    first = of_unit.groupby("case").first()
    names: Names = {name: first[name].tolist() for name in ("kind", "name", "device_id")}
    names["days"] = of_unit.groupby("case")["day"].agg(lambda days: [*map(str, days)]).tolist()
    return rows, mine.to_numpy()[rows].astype(np.int64), names


def _together(windows: pa.Table, events: pd.DataFrame) -> tuple[Codes, Codes, Names]:
    """The same of the fleet events."""
    others = pc.is_in(windows["status"], pa.array(["scored", *HELD]))
    met = _flags(pc.invert(pc.or_(others, pc.is_valid(windows["exception_id"]))))
    kept: list[Any] = []
    index, owner = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    event: Any
    for event in events.sort_values(["first_seen", "kind", "name"]).itertuples():
        by_device = pc.is_in(windows["device_id"], pa.array(event.device_ids, pa.string()))
        same = _flags(pc.and_(pc.equal(windows[_MET[event.kind]], event.name), by_device))
        hit = np.flatnonzero(met & same)
        if len(hit):
            index.append(hit)
            owner.append(np.full(len(hit), len(kept)))
            kept.append(event)
    rows, of = np.concatenate(index), np.concatenate(owner)
    days = alert_units(windows.take(pa.array(rows)))["day"].cast(pa.string()).to_pandas().groupby(of)
    names: Names = {
        "kind": [f"fleet_{event.kind}" for event in kept],
        "name": [event.name for event in kept],
        "device_id": [None] * len(kept),
        "days": days.agg(lambda seen: sorted(set(seen))).tolist(),
        "event": kept,
    }
    return rows, of, names
