"""The rows of the cases table from the windows of each case, each with what happened in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import Codes, Mask
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import UNCHECKED, Finding, arrow
from appcadence.models.calibration import KEYS
from appcadence.models.reasons import told_once
from appcadence.triage.cases import CASES, DESTINATION, STRONGEST, TEXTS, case_id, severity

MAX_REASONS = 10
"""Reasons of a case: those of its strongest window, then what others add on other matters."""
MAX_DESTINATIONS = 50
MAX_PLACES = 5
"""Addresses, ports and ids of records of a case."""
HELD = ("excepted", "local_destination", "shared_process")
"""What becomes of windows that have no place in the ranking of their own, fleet events aside."""
_TIME = CASES.field("first_time").type

Names = dict[str, list[Any]]
"""Of each case: kind, name (of app or destination), device_id (None = several), days (ISO, those with alerts)
and, of fleet events, the event."""


class CaseRows:
    """Windows by case: those that raise it first, the strongest first."""

    def __init__(self, scores: pa.Table, facts: pa.Table, index: Codes, owner: Codes, fires: Mask) -> None:
        """The windows `index` of the scores table, the case of each, and whether it raises that case."""
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
        self.app_wide = (windows["dest"] == APP_LEVEL).to_numpy(np.bool_)
        moment = self.frame.groupby(["owner", "device_id", "window_start"]).ngroup()
        heard = np.bincount(moment, self.fires & self.app_wide) > 0
        self.heard = heard[moment] if len(windows) else self.fires
        """(n,) an app-wide window of the same app and time raises the case."""

    def cases(self, names: Names) -> pa.Table:
        """One row a case, in the order of `owner`; all of them new."""
        frame, fires = self.frame, self.fires
        head = self.table.take(pa.array(self.head))
        # An app-wide window holds the flows of its channels already.
        counted = fires & (self.app_wide | ~self.heard)
        events = names.get("event")
        device, days = names["device_id"], names["days"]
        begun = days if events is None else [[f"{event.first_seen:%Y-%m-%d}"] for event in events]
        subjects = self._subjects()
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
            "first_time": pa.array([one["first"].min() for one in subjects], _TIME),
            "last_time": pa.array([one["last"].max() for one in subjects], _TIME),
            "device_ids": pa.array([[name] for name in device], TEXTS),
            "alerting_devices": pa.array(np.ones(self.n, np.int64)),
            "n_windows": self._sum(fires),
            "n_flows": self._sum(np.where(counted, frame["n_flows"], 0)),
            "n_sessions": self._sum(np.where(counted, frame["n_sessions"], 0)),
            "exception_ids": self._exceptions(),
        }
        if events is not None:
            columns |= {
                "first_time": pa.array([event.first_seen for event in events], _TIME),
                "device_ids": pa.array([list(event.device_ids) for event in events], TEXTS),
                "alerting_devices": pa.array([event.alerting_devices for event in events], pa.int64()),
                "app_id": pa.array([e.name if e.kind == "app" else None for e in events], pa.string()),
            }
        columns |= self._destinations(~self.app_wide & (fires | self.heard))
        columns |= {name: _united(subjects, name) for name in ("addresses", "ports", "record_ids")}
        findings = self.table["findings"].take(pa.array(self.head)).to_pylist()
        count = columns["n_destinations"].to_pylist()
        said = map(summary, subjects, findings, count) if events is None else map(fleet_summary, events)
        columns |= self._findings([*said])
        return pa.table({name: columns[name] for name in CASES.names}).cast(CASES)

    def _subjects(self) -> list[pd.DataFrame]:
        """The raising windows that each case is told by, strongest first: those of its strongest channel, or
        those over all destinations where only they raise it."""
        subjects = []
        for _, mine in self.frame[self.fires].groupby("owner"):
            channels = mine.loc[mine["dest"] != APP_LEVEL, "dest"]
            dest = APP_LEVEL if channels.empty else channels.iloc[0]
            subjects.append(mine[mine["dest"] == dest])
        return subjects

    def _sum(self, values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(np.bincount(self.owner, values, self.n).astype(np.int64))

    def _exceptions(self) -> pa.Array:
        """Ids of the exceptions that hold back windows of each case, the strongest window's first."""
        ids = pd.DataFrame({"owner": self.owner, "id": self.table["exception_id"].to_pylist()})
        few = self.table["status"].to_pandas() == "insufficient_evidence"
        ids = ids[ids["id"].notna() & ~few].drop_duplicates()
        return self._lists(ids["owner"].to_numpy(), pa.array(ids["id"].tolist(), pa.string()))

    def _findings(self, told: Sequence[Finding]) -> dict[str, pa.Array]:
        """Summaries, and what is said of the windows that raise a case, once a subject, strongest first."""
        said: list[dict[tuple[str, ...], Finding]] = [{} for _ in range(self.n)]
        rows = pa.array(np.flatnonzero(self.fires))
        lists = self.table["findings"].take(rows).to_pylist()
        for owner, findings in zip(self.owner[self.fires].tolist(), lists, strict=True):
            for finding in map(Finding.from_dict, findings):
                said[owner].setdefault(finding.subject, finding)
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
            ],
            fields=list(DESTINATION),
        )
        lists = self._lists(known["owner"].to_numpy()[most], values)
        return {"destinations": lists, "n_destinations": pa.array(count, pa.int64())}

    def _lists(self, owner: Codes, values: pa.Array) -> pa.Array:
        offsets = np.searchsorted(owner, np.arange(self.n + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


def _united(subjects: Sequence[pd.DataFrame], name: str) -> pa.Array:
    """What the windows of each case hold, once, the strongest window's first."""
    lists = [
        [*dict.fromkeys(one for of in mine[name] if isinstance(of, np.ndarray) for one in of)][:MAX_PLACES]
        for mine in subjects
    ]
    return pa.array(lists, CASES.field(name).type)


def summary(windows: pd.DataFrame, findings: Sequence[Mapping[str, Any]], count: int) -> Finding:
    """The finding `case` of windows of one destination (or `*`) with their `window_facts`, strongest first.

    Args:
        windows: one row a window; facts that are not known are null.
        findings: what is said of the strongest window.
        count: the destinations of the case.
    """
    known = windows["first_time"].notna().all()
    first, last = windows["first_time"].min(), windows["last_time"].max()
    dest = windows["dest"].iloc[0]
    beats = windows.loc[windows["gap_seconds"].notna(), ["gap_seconds", "gap_share"]]
    pushes = _total(windows, "n_pushes")
    connections = _total(windows, "n_started") if known else int(windows["n_flows"].sum())
    width = (windows["window_end"] - windows["window_start"]).dt.total_seconds()
    whole = (windows["longest_seconds"] > width - 1.0).any()
    border = first == windows["window_start"].min() or last == windows["window_end"].max()
    return Finding(
        "case",
        {
            "dest": None if dest == APP_LEVEL else dest,
            "own_log": any(finding["code"] == "destinations_unknown" for finding in findings),
            "connections": connections,
            "failed": _total(windows, "n_failed"),
            "seconds": (last - first).total_seconds() if known else None,
            "destinations": count,
            "gap_seconds": float(beats["gap_seconds"].iloc[0]) if len(beats) else None,
            "gap_share": float(beats["gap_share"].iloc[0]) if len(beats) else None,
            "longest_seconds": _most(windows, "longest_seconds"),
            "cut": bool(whole or ((connections or 0) <= 1 and border)),
            "bytes_out": _total(windows, "bytes_out"),
            "bytes_in": _total(windows, "bytes_in"),
            "unused": _total(windows, "n_unused"),
            "pushes": pushes,
            "answered": _total(windows, "n_answered"),
            "by_chance": float(windows["by_chance"].sum()) if pushes is not None else None,
            "other_devices": _most(windows, "other_devices"),
            "devices": _most(windows, "devices"),
        },
    )


def fleet_summary(event: Any) -> Finding:
    """The finding of a fleet event, a row of the events."""
    names = ("kind", "name", "devices", "alerting_devices")
    facts = {name: getattr(event, name) for name in names}
    return Finding("fleet_event", facts | {"first_seen": event.first_seen.isoformat()})


def _total(windows: pd.DataFrame, name: str) -> int | None:
    """The sum over the windows; None where one of them is not known."""
    return None if windows[name].isna().any() else int(windows[name].sum())


def _most(windows: pd.DataFrame, name: str) -> float | None:
    most = windows[name].max()
    return None if pd.isna(most) else float(most)
