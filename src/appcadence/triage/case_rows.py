"""Which scored windows make which case, and the rows of the cases table, each with its sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from appcadence._types import Codes, Mask
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import REASON, UNCHECKED, Finding, arrow
from appcadence.models.calibration import KEYS, UNITS, alert_units
from appcadence.models.reasons import told_once
from appcadence.models.scores import SCORES
from appcadence.triage.case_summary import fleet_summary, summaries
from appcadence.triage.cases import (
    CASES,
    DESTINATION,
    MAX_QUIET_DAYS,
    STRONGEST,
    TEXTS,
    case_id,
    numbered,
    severity,
    subject,
    window_days,
)
from appcadence.triage.window_facts import FACTS

MAX_REASONS = 10
"""Reasons of a case: those of its strongest window, then what others add on other matters."""
MAX_DESTINATIONS = 50
MAX_PLACES = 5
"""Addresses, ports and ids of records of a case."""
HELD = ("excepted", "local_destination", "shared_process", "push_connection")
"""Statuses of windows that are not ranked, apart from fleet events."""
_TIME = CASES.field("first_time").type
Names = dict[str, list[Any]]
"""Of each case: kind, name (of app or destination), device_id (None = several), days (ISO, those with alerts)
and, of fleet events, the event."""


class CaseRows:
    """Windows by case: those that raise it first, the strongest first."""

    def __init__(self, scores: pa.Table, facts: pa.Table, index: Codes, owner: Codes, fires: Mask) -> None:
        """Takes the rows `index` of the scores table, the case of each, and whether it raises that case."""
        order = (
            scores.select(["score", "n_flows", "dest", "device_id", "window_start"])
            .take(pa.array(index))
            .append_column("owner", pa.array(owner, pa.int64()))
            .append_column("rests", pa.array(~fires))
        )
        down = {"score", "n_flows"}
        by = ["owner", "rests", "score", "n_flows", "dest", "device_id", "window_start"]
        keys = [(name, "descending" if name in down else "ascending") for name in by]
        place = pc.sort_indices(order, sort_keys=keys).to_numpy()
        self.table = scores.take(pa.array(index[place]))
        self.owner, self.fires = owner[place], fires[place]
        self.n = int(self.owner[-1]) + 1 if len(place) else 0
        self.head = np.searchsorted(self.owner, np.arange(self.n))
        windows = self.table.select([*KEYS, "window_end", "n_flows", "n_sessions"]).to_pandas()
        seen = windows.merge(facts.to_pandas(), on=list(KEYS), how="left")
        first = seen["first_time"].fillna(seen["window_start"])
        last = seen["last_time"].fillna(seen["window_end"])
        self.frame = seen.assign(owner=self.owner, first=first, last=last)
        status = self.table["status"].to_pandas()
        self.excepted, self.local = (
            (status == name).to_numpy(np.bool_) for name in ("excepted", "local_destination")
        )
        self.app_wide = (windows["dest"] == APP_LEVEL).to_numpy(np.bool_)
        moment = self.frame.groupby(["owner", "device_id", "window_start"]).ngroup()
        heard = np.bincount(moment, self.fires & self.app_wide) > 0
        self.heard = heard[moment] if len(windows) else self.fires
        """(n,) whether an app-wide window of that app and time raises the case."""

    def cases(self, names: Names) -> pa.Table:
        """One row a case, in the order of `owner`; all of them new."""
        frame, fires = self.frame, self.fires
        head = self.table.take(pa.array(self.head))
        # An app-wide window holds the flows of its channels already.
        counted = fires & (self.app_wide | ~self.heard)
        events = names.get("event")
        device, days = names["device_id"], names["days"]
        begun = days if events is None else [[f"{event.first_seen:%Y-%m-%d}"] for event in events]
        told = self._described()
        by_case = frame[fires].groupby("owner")
        times = by_case.agg({"first": "min", "last": "max"})
        columns = {name: head[name] for name in STRONGEST}
        columns |= {
            "case": pa.array(np.arange(self.n)),
            "id": pa.array(
                map(case_id, names["kind"], device, names["name"], (b[0] for b in begun)), pa.string()
            ),
            "status": pa.array(["new"] * self.n, pa.string()),
            "kind": pa.array(names["kind"], pa.string()),
            "severity": severity(head["score"]),
            "alert_days": pa.array(days, TEXTS),
            "first_time": pa.array(times["first"], _TIME),
            "last_time": pa.array(times["last"], _TIME),
            "device_ids": pa.array([[name] for name in device], TEXTS),
            "alerting_devices": pa.array(np.ones(self.n, np.int64)),
            "n_windows": self._sum(fires),
            "n_flows": self._sum(np.where(counted, frame["n_flows"], 0)),
            "n_sessions": self._sum(np.where(counted, frame["n_sessions"], 0)),
            "exception_ids": self._exceptions(),
        }
        if events is not None:
            # The event knows its first contact to the second, the facts of its windows to the microsecond.
            seen = by_case.agg({"first_time": ["min", "count"], "last_time": "max", "dest": "size"})
            known = seen["first_time"]["count"] == seen["dest"]["size"]
            first = pd.Series([event.first_seen for event in events], seen.index)
            columns |= {
                "first_time": pa.array(seen["first_time"]["min"].where(known, first), _TIME),
                "last_time": pa.array(seen["last_time"]["max"].fillna(times["last"]), _TIME),
                "device_ids": pa.array([list(event.device_ids) for event in events], TEXTS),
                "alerting_devices": pa.array([event.alerting_devices for event in events], pa.int64()),
                "app_id": pa.array([e.name if e.kind == "app" else None for e in events], pa.string()),
            }
        columns |= {name: self._united(told, name) for name in ("addresses", "ports", "record_ids")}
        columns |= self._destinations(~self.app_wide & (fires | self.heard))
        findings = self.table["findings"].take(pa.array(self.head)).to_pylist()
        ports = columns["ports"].to_pylist()
        said = (
            summaries(
                told, frame[counted], findings, ports, self._sum(fires).to_pylist(), **self._contacted(told)
            )
            if events is None
            else [*map(fleet_summary, events)]
        )
        columns |= self._findings(said)
        return pa.table({name: columns[name] for name in CASES.names}).cast(CASES)

    def _described(self) -> pd.DataFrame:
        """The raising windows that the sentence of each case describes, strongest first: of its strongest
        channel, or the app-wide ones where only they raise it."""
        fired = self.frame[self.fires]
        channel = fired[fired["dest"] != APP_LEVEL].drop_duplicates("owner").set_index("owner")["dest"]
        wanted = channel.reindex(fired["owner"], fill_value=APP_LEVEL).to_numpy()
        told: pd.DataFrame = fired[fired["dest"].to_numpy() == wanted]
        return told

    def _sum(self, values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(np.bincount(self.owner, values, self.n).astype(np.int64))

    def _exceptions(self) -> pa.Array:
        """Ids of the exceptions that hold back windows of each case, the strongest window's first."""
        ids = pd.DataFrame({"owner": self.owner, "id": self.table["exception_id"].to_pylist()})
        few = self.table["status"].to_pandas() == "insufficient_evidence"
        ids = ids[ids["id"].notna() & ~few].drop_duplicates()
        return self._lists(ids["owner"].to_numpy(), pa.array(ids["id"].tolist(), pa.string()))

    def _united(self, told: pd.DataFrame, name: str) -> pa.Array:
        """Distinct values in the windows of each case, the strongest window's first, without those of
        channels under exceptions alone."""
        found, free, held = (self._values(rows, name) for rows in (told, *self._channels()))
        alone = [{*a} - {*b} for a, b in zip(held, free, strict=True)]
        lists = [[v for v in one if v not in of][:MAX_PLACES] for one, of in zip(found, alone, strict=True)]
        return pa.array(lists, CASES.field(name).type)

    def _channels(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The windows of channels that no exception holds back, and the others."""
        return self.frame[~self.app_wide & ~self.excepted], self.frame[~self.app_wide & self.excepted]

    def _values(self, rows: pd.DataFrame, name: str) -> list[dict[Any, None]]:
        """By case, the distinct values of a list in some rows, in their order."""
        found: list[dict[Any, None]] = [{} for _ in range(self.n)]
        for owner, values in zip(rows["owner"].tolist(), rows[name].tolist(), strict=True):
            found[owner] |= dict.fromkeys(values) if isinstance(values, np.ndarray) else {}
        return found

    def _findings(self, told: Sequence[Finding]) -> dict[str, pa.Array]:
        """Summaries, and the findings of the windows that raise a case: one a subject, strongest first."""
        said: list[dict[tuple[str, ...], Finding]] = [{} for _ in range(self.n)]
        rows = pa.array(np.flatnonzero(self.fires))
        lists, dests = (self.table[name].take(rows).to_pylist() for name in ("findings", "dest"))
        first = self.table["dest"].take(pa.array(self.head)).to_pylist()
        for owner, findings, dest in zip(self.owner[self.fires].tolist(), lists, dests, strict=True):
            for finding in map(Finding.from_dict, findings):
                elsewhere = finding.kind == REASON and dest != first[owner]
                said[owner].setdefault(finding.subject, finding.seen_at(dest) if elsewhere else finding)
        reasons = [
            told_once([f for f in some.values() if f.kind != UNCHECKED])[:MAX_REASONS] for some in said
        ]
        unchecked = [[f for f in some.values() if f.kind == UNCHECKED] for some in said]
        every = [[one, *a, *b] for one, a, b in zip(told, reasons, unchecked, strict=True)]
        offsets = pa.array(np.cumsum([0, *map(len, every)]), pa.int32())
        flat = arrow([finding for some in every for finding in some])
        return {
            "summary": pa.array([finding.sentence for finding in told], pa.string()),
            "reasons": pa.array([[f.text for f in some] for some in reasons], TEXTS),
            "unchecked": pa.array([[f.text for f in some] for some in unchecked], TEXTS),
            "findings": pa.ListArray.from_arrays(offsets, flat),
        }

    def _contacted(self, told: pd.DataFrame) -> dict[str, list[Any]]:
        """What `summaries` takes of each case: the `destinations` in its raising windows, ranked by
        themselves or not; how many more are under exceptions (`held`); and whether app-wide windows count
        connections to the one that it is told by in which that one does not alert (`more`)."""
        rows = ~self.app_wide & (self.fires | (self.heard & ~self.local))
        seen = self.frame.loc[rows, ["owner", "dest"]].assign(
            held=self.excepted[rows], rests=~self.fires[rows]
        )
        under = seen.groupby(["owner", "dest"])["held"].transform("all")
        free, held = (seen[some].drop_duplicates(["owner", "dest"]) for some in (~under, under))
        by_case = {name: t.groupby("owner")["dest"].agg(list) for name, t in (("free", free), ("held", held))}
        first = told.drop_duplicates("owner").set_index("owner")["dest"]
        more = {*seen.loc[seen["rests"] & (seen["dest"] == seen["owner"].map(first)), "owner"]}
        lists = [[by_case[name].get(owner, []) for owner in range(self.n)] for name in ("free", "held")]
        return {
            "destinations": [free or held for free, held in zip(*lists, strict=True)],
            "held": [len(held) if free else 0 for free, held in zip(*lists, strict=True)],
            "more": [owner in more for owner in range(self.n)],
        }

    def _destinations(self, rows: Mask) -> dict[str, pa.Array]:
        held = {*HELD, "fleet_event"}
        status = self.table["status"].to_pandas()
        rows = rows & (self.fires | ~status.isin(held).to_numpy())
        known = self.frame.loc[rows, ["owner", "dest", "n_flows"]]
        total = known.groupby(["owner", "dest"])["n_flows"].transform("sum")
        first = ~known.duplicated(["owner", "dest"])
        known, total = known[first], total[first]
        count = np.bincount(known["owner"], minlength=self.n)
        most = (known.groupby("owner").cumcount() < MAX_DESTINATIONS).to_numpy(np.bool_)
        at = known.index.to_numpy()[most]
        values = pa.StructArray.from_arrays(
            [
                self.table["dest"].take(pa.array(at)).combine_chunks(),
                self.table["score"].take(pa.array(at)).combine_chunks(),
                pa.array(total[most], pa.int64()),
                pa.array(self.fires[at]),
                pa.array(self.frame["other_devices"].to_numpy(np.float64)[at], pa.int64(), from_pandas=True),
            ],
            fields=list(DESTINATION),
        )
        lists = self._lists(known["owner"].to_numpy()[most], values)
        return {"destinations": lists, "n_destinations": pa.array(count, pa.int64())}

    def _lists(self, owner: Codes, values: pa.Array) -> pa.Array:
        offsets = np.searchsorted(owner, np.arange(self.n + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


COLUMNS = [name for name in SCORES.names if name not in ("contributions", "observed_seconds")]
"""What is read of the scores table."""
MET = {"destination": "dest", "app": "app_id"}
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
        fired = [alert_units(scores.filter(_is_raising(scores))) for scores in seen]
        units = pa.concat_tables([UNITS.empty_table(), *fired]).to_pandas().drop_duplicates()
        parts = [_concerned(file.read_row_group(i, COLUMNS), units, events) for i in groups]
    none = pa.schema([SCORES.field(name) for name in COLUMNS]).empty_table()
    windows = pa.concat_tables([none, *parts])
    known = FACTS.empty_table() if facts is None else facts
    raises = _flags(_is_raising(windows))
    rows, owner, names = _unit_rows(windows, units)
    single = CaseRows(windows, known, rows, owner, raises[rows]).cases(names)
    rows, owner, names = _event_rows(windows, events)
    together = CaseRows(windows, known, rows, owner, np.ones(len(rows), np.bool_)).cases(names)
    return numbered(pa.concat_tables([single, together]))


def raising(scores: pa.Table, cases: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """By id of a case, a row of the cases table, the rows of a scores table that raise it, strongest first.

    All windows raise a fleet event, whether they alert or not. The table has `alert`, `status`, `score`,
    `exception_id` and the columns of `calibration.KEYS`.
    """
    # A run over many days may hold several cases of one subject, each with days of its own.
    ids: dict[tuple[str, ...], str] = {}
    for case in cases:
        kind, device, name = subject(case)
        whose = [(kind, d) for d in case["device_ids"]] if kind.startswith("fleet") else [("", device)]
        ids |= {(*who, name, day): case["id"] for who in whose for day in case["alert_days"]}
    met = event_windows(scores, events_of(cases)) & ~_flags(pc.is_valid(scores["exception_id"]))
    found: dict[str, list[int]] = {case["id"]: [] for case in cases}
    order = pc.sort_indices(scores, sort_keys=[("score", "descending")]).to_numpy()
    order = order[(met | _flags(_is_raising(scores)))[order]]
    rows = scores.select(["status", "app_id", "dest"]).take(pa.array(order)).to_pylist()
    units = alert_units(scores.select(KEYS).take(pa.array(order))).to_pylist()
    for at, row, unit in zip(order.tolist(), rows, units, strict=True):
        events = [(f"fleet_{kind}", row[column]) for kind, column in MET.items()]
        for kind, name in [("", unit["name"])] if row["status"] == "scored" else events:
            if mine := ids.get((kind, unit["device_id"], name, str(unit["day"]))):
                found[mine].append(at)
    return found


def events_of(cases: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Kind and name of the fleet events among some cases, rows of the cases table."""
    named = [subject(case) for case in cases if case["kind"].startswith("fleet")]
    return pd.DataFrame(
        {"kind": [k.removeprefix("fleet_") for k, *_ in named], "name": [n for *_, n in named]}
    )


def event_windows(windows: pa.Table, events: pd.DataFrame) -> Mask:
    """(n,) which windows are those of fleet events, by name: some may be of devices that knew it before."""
    rows = np.zeros(len(windows), np.bool_)
    for kind, column in MET.items():
        names = pa.array(events.loc[events["kind"] == kind, "name"], pa.string())
        rows |= _flags(pc.is_in(windows[column], names))
    return rows & ~_flags(pc.is_in(windows["status"], pa.array(["scored", *HELD])))


def _flags(values: pa.ChunkedArray) -> Mask:
    """(n,) whether they are true; null is false."""
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _is_raising(scores: pa.Table) -> pa.ChunkedArray:
    return pc.and_(scores["alert"], pc.equal(scores["status"], "scored"))


def _concerned(scores: pa.Table, units: pd.DataFrame, events: pd.DataFrame) -> pa.Table:
    """Windows of those alert units, and at least those of the events."""
    mine = alert_units(scores).append_column("row", pa.array(np.arange(len(scores))))
    wanted = pa.Table.from_pandas(units, UNITS, preserve_index=False)
    rows = np.zeros(len(scores), np.bool_)
    rows[mine.join(wanted, UNITS.names, join_type="left semi")["row"].to_numpy()] = True
    return scores.select(COLUMNS).filter(pa.array(rows | event_windows(scores, events)))


def _unit_rows(windows: pa.Table, units: pd.DataFrame) -> tuple[Codes, Codes, Names]:
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


def _event_rows(windows: pa.Table, events: pd.DataFrame) -> tuple[Codes, Codes, Names]:
    """The same for the fleet events."""
    met = event_windows(windows, events) & ~_flags(pc.is_valid(windows["exception_id"]))
    kept: list[Any] = []
    index, owner = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    event: Any
    for event in events.sort_values(["first_seen", "kind", "name"]).itertuples():
        by_device = pc.is_in(windows["device_id"], pa.array(event.device_ids, pa.string()))
        same = _flags(pc.and_(pc.equal(windows[MET[event.kind]], event.name), by_device))
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
