"""Alerts from scored windows: one a device-app-day, one a fleet event, whatever model scored them.

A beacon that rotates hosts alerts in many windows and is still one alert, which lists its destinations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from appcadence._types import Codes, Mask
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import ARROW, UNCHECKED, Finding, arrow, of_row
from appcadence.models.alert_units import alert_unit
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.models.scores import SCORES
from appcadence.triage import ecs, ocsf, siem

MAX_REASONS = 10
"""All reasons of the strongest window and, up to this many in all, what others add on other subjects."""
MAX_DESTINATIONS = 50
MEDIUM_RATE, HIGH_RATE = 1 / 10, 1 / 100
"""Severity is low while one benign alert in ten device-days or more scores so high, medium while one in a
hundred does, else high: exp(-s) alerts a device-day reach score s. A fleet event without a score is low."""
_FORMULA = "^([=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
"""What a spreadsheet takes for a formula, full-width forms included."""

_DESTINATION = pa.struct(
    [("dest", pa.string()), ("score", pa.float64()), ("n_flows", pa.int64()), ("alert", pa.bool_())]
)
_TEXTS = pa.list_(pa.string())
_KEYS = ["device_id", "app_id", "dest", "window_start"]
_COLUMNS = [name for name in SCORES.names if name not in ("contributions", "observed_seconds")]
_NO_WINDOWS = pa.schema([SCORES.field(name) for name in _COLUMNS]).empty_table()
_NO_UNITS = pa.schema(
    [("device_id", pa.string()), ("what", pa.string()), ("app_is_known", pa.bool_()), ("day", pa.date32())]
).empty_table()
_HELD = ("excepted", "local_destination", "shared_process")
"""What becomes of windows that have no place in the ranking of their own, fleet events aside."""
_MET = {"destination": "dest", "app": "app_id"}
"""The column that a fleet event's name stands in."""
_STRONGEST = (
    *("app_id", "app_attribution", "score", "p_value", "rank", *BEHAVIOURS, "behaviours", "explained_by"),
    *("model_name", "model_version"),
)
"""Copied from the strongest window; the rest of an alert comes from all of its windows."""
ALERTS = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("severity", pa.string()),
        ("day", pa.string()),
        ("first_time", SCORES.field("window_start").type),
        ("last_time", SCORES.field("window_end").type),
        ("device_ids", _TEXTS),
        ("alerting_devices", pa.int64()),
        ("destinations", pa.list_(_DESTINATION)),
        ("n_destinations", pa.int64()),
        ("n_windows", pa.int64()),
        ("n_flows", pa.int64()),
        ("n_sessions", pa.int64()),
        *(SCORES.field(name) for name in _STRONGEST),
        ("reasons", _TEXTS),
        ("unchecked", _TEXTS),
        ("findings", pa.list_(ARROW)),
        ("exception_ids", _TEXTS),
    ]
)
"""The alerts table. `kind` is app, destination (of an unknown app), fleet_app or fleet_destination; `day` is
an ISO date; `alerting_devices` counts those of `device_ids` that alert, of a fleet event for their rhythm
alone; `destinations` holds those that alert by themselves, strongest first, then the others that an
alerting app-wide rhythm may be made of; `findings` are `reasons`, then `unchecked`, with their codes;
`exception_ids` are those that hold back more windows of the unit."""


def alerts_in(scores: Path, events: pd.DataFrame) -> pa.Table:
    """Alerts (see `ALERTS`) of a scores table in a Parquet file by rank, then of fleet events by time.

    An alert unit (see `alert_unit`) alerts when one of its scored windows does. `id` hashes kind, device, app
    or destination, and day, so that another run, or another model, updates an alert rather than repeats it. A
    fleet event is as severe as its strongest window, and raises nothing when all its windows are excepted.

    Memory: a row group of the file, and the windows of the alerts.
    """
    with pq.ParquetFile(scores) as file:
        groups = range(file.num_row_groups)
        units = pa.concat_tables(
            [_NO_UNITS, *(_units(file.read_row_group(i, [*_KEYS, "status", "alert"])) for i in groups)]
        )
        parts = [_concerned(file.read_row_group(i, _COLUMNS), units, events) for i in groups]
    return _alerts(pa.concat_tables([_NO_WINDOWS, *parts]), events)


def write(alerts: pa.Table, directory: Path) -> None:
    """Write alerts.csv, alerts.ecs.jsonl and alerts.ocsf.jsonl; equal alerts give equal bytes.

    In the CSV a text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    alerts = alerts.combine_chunks()
    pacsv.write_csv(_spreadsheet(alerts), directory / "alerts.csv")
    for name, document in (("ecs", ecs.document), ("ocsf", ocsf.document)):
        # ASCII alone: a hostile name can neither end the line nor turn the direction of the text.
        with (directory / f"alerts.{name}.jsonl").open("w", encoding="ascii", newline="\n") as file:
            for alert in _dicts(alerts):
                file.write(json.dumps(document(alert), separators=(",", ":"), allow_nan=False) + "\n")


def _dicts(alerts: pa.Table) -> Iterator[siem.Alert]:
    for batch in alerts.to_batches(max_chunksize=1000):
        for row in batch.to_pylist():
            yield row | {"findings": of_row(row)}


def _raises(scores: pa.Table) -> pa.ChunkedArray:
    return pc.and_(scores["alert"], pc.equal(scores["status"], "scored"))


def _unit_of(scores: pa.Table) -> pa.Table:
    """What tells the alert units of windows apart."""
    app = scores["app_id"]
    day = scores["window_start"].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    columns = [scores["device_id"], pc.coalesce(app, scores["dest"]), pc.is_valid(app), day]
    return pa.table(columns, _NO_UNITS.schema)


def _units(scores: pa.Table) -> pa.Table:
    """The alert units that raise an alert."""
    return _unit_of(scores.filter(_raises(scores)))


def _concerned(scores: pa.Table, units: pa.Table, events: pd.DataFrame) -> pa.Table:
    """Windows of those alert units and, perhaps with others, of the events."""
    mine = _unit_of(scores).append_column("row", pa.array(np.arange(len(scores))))
    rows = np.zeros(len(scores), np.bool_)
    rows[mine.join(units, _NO_UNITS.column_names, join_type="left semi")["row"].to_numpy()] = True
    for kind, column in _MET.items():
        names = pa.array(events.loc[events["kind"] == kind, "name"], pa.string())
        rows |= _flags(pc.is_in(scores[column], names)) & ~_flags(pc.equal(scores["status"], "scored"))
    return scores.select(_COLUMNS).filter(pa.array(rows))


def _alerts(scores: pa.Table, events: pd.DataFrame) -> pa.Table:
    single = _single(scores).sort_by("rank")
    return pa.concat_tables([single, _together(scores, events)]).cast(ALERTS)


def _single(scores: pa.Table) -> pa.Table:
    owner = alert_unit(scores.select(_KEYS).to_pandas())
    raises = _flags(_raises(scores))
    mine = np.isin(owner, owner[raises])
    owner = np.unique(owner[mine], return_inverse=True)[1]
    rows = _Rows(scores, np.flatnonzero(mine), owner, raises[mine])
    unit = _unit_of(rows.table.take(pa.array(rows.head))).to_pydict()
    kind = ["app" if known else "destination" for known in unit["app_is_known"]]
    return rows.alerts(kind, unit["device_id"], unit["what"], [str(day) for day in unit["day"]])


def _together(scores: pa.Table, events: pd.DataFrame) -> pa.Table:
    others = pc.is_in(scores["status"], pa.array(["scored", *_HELD]))
    met = scores.filter(pc.invert(pc.or_(others, pc.is_valid(scores["exception_id"]))))
    kept: list[Any] = []
    index, owner = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    event: Any
    for event in events.sort_values(["first_seen", "kind", "name"]).itertuples():
        by_device = pc.is_in(met["device_id"], pa.array(event.device_ids, pa.string()))
        hit = np.flatnonzero(_flags(pc.and_(pc.equal(met[_MET[event.kind]], event.name), by_device)))
        if len(hit):
            index.append(hit)
            owner.append(np.full(len(hit), len(kept)))
            kept.append(event)
    at = np.concatenate(index)
    rows = _Rows(met, at, np.concatenate(owner), np.ones(len(at), np.bool_))
    day = [f"{event.first_seen:%Y-%m-%d}" for event in kept]
    table = rows.alerts([f"fleet_{e.kind}" for e in kept], [None] * len(kept), [e.name for e in kept], day)
    known = {
        "first_time": pa.array([event.first_seen for event in kept], ALERTS.field("first_time").type),
        "device_ids": pa.array([list(event.device_ids) for event in kept], _TEXTS),
        "alerting_devices": pa.array([event.alerting_devices for event in kept], pa.int64()),
        "app_id": pa.array([event.name if event.kind == "app" else None for event in kept], pa.string()),
    }
    for name, column in known.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


class _Rows:
    """Windows by alert: those that raise it first, the strongest first."""

    def __init__(self, scores: pa.Table, index: Codes, owner: Codes, fires: Mask) -> None:
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

    def alerts(self, kind: list[str], device: list[str | None], what: list[str], day: list[str]) -> pa.Table:
        """One row an alert, in the order of `owner`; arguments are one an alert."""
        table, fires = self.table, self.fires
        frame = table.select(["device_id", "dest", "window_start", "n_flows", "n_sessions"]).to_pandas()
        app_wide = (frame["dest"] == APP_LEVEL).to_numpy(np.bool_)
        moment = frame.assign(owner=self.owner).groupby(["owner", "device_id", "window_start"]).ngroup()
        heard = np.bincount(moment, fires & app_wide) > 0
        heard = heard[moment] if len(frame) else fires
        # An app-wide window holds the flows of its channels already.
        counted = fires & (app_wide | ~heard)
        start, end = (table[name].cast(pa.int64()).to_numpy() for name in ("window_start", "window_end"))
        head = table.take(pa.array(self.head))
        columns = {name: head[name] for name in _STRONGEST}
        columns |= {
            "id": pa.array(map(_id, kind, device, what, day), pa.string()),
            "kind": pa.array(kind, pa.string()),
            "severity": _severity(head["score"]),
            "day": pa.array(day, pa.string()),
            "first_time": self._times(np.minimum, np.where(fires, start, np.iinfo(np.int64).max)),
            "last_time": self._times(np.maximum, np.where(fires, end, 0)),
            "device_ids": pa.array([[name] for name in device], _TEXTS),
            "alerting_devices": pa.array(np.ones(self.n, np.int64)),
            "n_windows": self._sum(fires),
            "n_flows": self._sum(np.where(counted, frame["n_flows"], 0)),
            "n_sessions": self._sum(np.where(counted, frame["n_sessions"], 0)),
            "exception_ids": self._exceptions(),
        }
        columns |= self._destinations(frame, ~app_wide & (fires | heard))
        columns |= self._findings()
        return pa.table({name: columns[name] for name in ALERTS.names})

    def _times(self, least: np.ufunc, values: Codes) -> pa.Array:
        at = least.reduceat(values, self.head) if self.n else values
        return pa.array(at, pa.int64()).cast(ALERTS.field("first_time").type)

    def _sum(self, values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(np.bincount(self.owner, values, self.n).astype(np.int64))

    def _exceptions(self) -> pa.Array:
        """Ids of the exceptions that hold back windows of each alert's unit, the strongest window's first."""
        ids = pd.DataFrame({"owner": self.owner, "id": self.table["exception_id"].to_pylist()})
        ids = ids[ids["id"].notna()].drop_duplicates()
        return self._lists(ids["owner"].to_numpy(), pa.array(ids["id"].tolist(), pa.string()))

    def _findings(self) -> dict[str, pa.Array]:
        """What is said of each alert's firing windows, once a subject, the strongest window first."""
        said: list[dict[tuple[str, ...], Finding]] = [{} for _ in range(self.n)]
        rows = pa.array(np.flatnonzero(self.fires))
        lists = self.table["findings"].take(rows).to_pylist()
        for owner, findings in zip(self.owner[self.fires].tolist(), lists, strict=True):
            for finding in map(Finding.from_dict, findings):
                said[owner].setdefault(finding.subject, finding)
        reasons = [[f for f in some.values() if f.kind != UNCHECKED][:MAX_REASONS] for some in said]
        unchecked = [[f for f in some.values() if f.kind == UNCHECKED] for some in said]
        both = [a + b for a, b in zip(reasons, unchecked, strict=True)]
        offsets = pa.array(np.cumsum([0, *map(len, both)]), pa.int32())
        flat = arrow([finding for some in both for finding in some])
        return {
            "reasons": pa.array([[f.text for f in some] for some in reasons], _TEXTS),
            "unchecked": pa.array([[f.text for f in some] for some in unchecked], _TEXTS),
            "findings": pa.ListArray.from_arrays(offsets, flat),
        }

    def _destinations(self, frame: pd.DataFrame, rows: Mask) -> dict[str, pa.Array]:
        held = {*_HELD, "fleet_event"}
        status = self.table["status"].to_pandas()
        rows = rows & (self.fires | ~status.isin(held).to_numpy())
        known = pd.DataFrame({"owner": self.owner, "dest": frame["dest"], "n_flows": frame["n_flows"]})[rows]
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
            fields=list(_DESTINATION),
        )
        lists = self._lists(known["owner"].to_numpy()[most], values)
        return {"destinations": lists, "n_destinations": pa.array(count, pa.int64())}

    def _lists(self, owner: Codes, values: pa.Array) -> pa.Array:
        offsets = np.searchsorted(owner, np.arange(self.n + 1)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)


def _id(kind: str, device: str | None, what: str, day: str) -> str:
    return hashlib.sha256(json.dumps([kind, device, what, day]).encode()).hexdigest()[:32]


def _severity(score: pa.ChunkedArray) -> pa.Array:
    rate = np.exp(-score.fill_null(0.0).to_numpy())
    return pa.array(np.where(rate >= MEDIUM_RATE, "low", np.where(rate >= HIGH_RATE, "medium", "high")))


def _flags(values: pa.ChunkedArray) -> Mask:
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _spreadsheet(alerts: pa.Table) -> pa.Table:
    columns: dict[str, pa.Array] = {}
    for name in ALERTS.names:
        values = alerts[name].combine_chunks()
        if name in BEHAVIOURS:
            columns[f"{name}_score"], columns[f"{name}_p_value"] = values.flatten()
            continue
        if name == "destinations":
            values = pa.array(
                [[part["dest"] for part in siem.suspects(row)] for row in _dicts(alerts)], _TEXTS
            )
        if name == "findings":
            values = pa.array([[":".join(f.subject) for f in row[name]] for row in _dicts(alerts)], _TEXTS)
        if pa.types.is_list(values.type):
            values = pc.binary_join(values, " ")
        if pa.types.is_string(values.type):
            values = pc.replace_substring_regex(values, _FORMULA, "'\\1")
        columns[name] = values
    return pa.table(columns)
