"""What the telemetry of one phone records of one app: each use of the network, what explains it, its days."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, HOUR_US, Mask, Micros
from appcadence.features._kernels import SLACK_US
from appcadence.features.context import LIT_US
from appcadence.features.families.interaction import GRACE_SECONDS
from appcadence.features.weekly import PRESENT
from appcadence.features.windows import SESSION_GAP_SECONDS
from appcadence.telemetry.schema import DIRECTORY_TABLES, conform

Spans = npt.NDArray[np.int64]
"""(n, 2) start and end in microseconds since the epoch, UTC, by start."""

_IN_USE_SHARE = 0.9
_TRANSFER_US = 30_000_000
"""A background transfer is known by its first record alone."""
_MAX_DAYS = 7


@dataclass(frozen=True)
class AppRecord:
    """One app. A use of the network is a session: pauses of up to 30 s do not end it."""

    uses: Spans
    by_user: Mask
    """(n,) uses that began within 30 s of the phone's use."""
    by_push: Mask
    """(n,) uses that began within 30 s (and the log's grid) of a push to the app."""
    by_ios: Mask
    """(n,) uses that began with background work that iOS had scheduled for the app."""
    front: Spans
    pushes: Spans
    answered: int
    """Pushes that a use followed so soon."""
    tasks: Spans
    bytes_out: int | None
    """None where nothing counted them."""
    bytes_in: int | None
    process: bool
    """Whether it is a process of the system that works for apps."""

    @property
    def in_use_only(self) -> bool:
        """Whether it used the network, and nearly always while the phone was in use."""
        return len(self.uses) > 0 and float(self.by_user.mean()) >= _IN_USE_SHARE

    @property
    def unexplained(self) -> Mask:
        """(n,) uses that nothing on record explains."""
        return ~(self.by_user | self.by_push | self.by_ios)


class PhoneRecord:
    """The telemetry of one phone: canonical tables of a single device."""

    def __init__(self, tables: Mapping[str, pa.Table]) -> None:
        self._tables = {name: conform(t, tables.get(name, t.empty())) for name, t in DIRECTORY_TABLES.items()}
        self.uses = _spans(self._flows(None))
        """Of the network, by all apps."""
        kept = merged(_spans(self._tables["coverage"]))
        self.kept = kept if len(kept) else merged(self.uses, DAY_US)
        """When the log was kept; where it does not say so, whenever flows are less than a day apart."""
        last = int(max((s[:, 1].max() for s in (self.uses, self.kept) if len(s)), default=0))
        activity = self._tables["activity"]
        ended = pc.fill_null(activity["end"].cast(pa.int64()), last)
        self._activity = activity.set_column(activity.column_names.index("end"), "end", ended)
        events = self._tables["notifications"]
        self._pushes, self._transfers = (
            events.filter(pc.equal(events["kind"].cast(pa.string()), kind))
            for kind in ("push_received", "background_transfer")
        )
        grid = self._pushes["time_resolution_seconds"].to_numpy()
        self._reach_us = int((GRACE_SECONDS + float(grid.max(initial=0.0))) * 1e6)
        resolution = self._tables["flows"]["time_resolution_seconds"].to_numpy()
        self.resolution_seconds = float(resolution.max(initial=0.0))
        self.dest_known = self._tables["flows"]["dest_host"].null_count < len(self._tables["flows"])
        self.in_use = self._in_use()
        self.presence_known = len(self.in_use) > 0
        self.pushes_known = len(self._pushes) > 0
        self.tasks_known = len(self._tables["tasks"]) + len(self._transfers) > 0

    @property
    def hours(self) -> float:
        """For which the log was kept."""
        return float((self.kept[:, 1] - self.kept[:, 0]).sum() / 3.6e9)

    @property
    def apps(self) -> list[str]:
        """Apps and processes that used the network."""
        names: list[str] = self._tables["flows"]["app_id"].unique().drop_null().cast(pa.string()).to_pylist()
        return names

    @property
    def served_share(self) -> float:
        """Share of the flows by processes of the system that work for apps."""
        flows = self._tables["flows"]
        process = pc.equal(flows["app_attribution"].cast(pa.string()), "process")
        return float(pc.sum(process).as_py() or 0) / max(len(flows), 1)

    def name(self, app: str) -> str:
        """What the inventory calls it, else its id."""
        return str(self.declared(app, "app_name") or app)

    def declared(self, app: str, column: str) -> Any:
        """What the newest row of the inventory that knows it says of an app; None where none does."""
        rows = _rows_of(self._tables["inventory"], app)[column].drop_null()
        return rows[-1].as_py() if len(rows) else None

    def of(self, app: str) -> AppRecord:
        """What is on record of one app."""
        flows = self._flows(app)
        uses = merged(_spans(flows), int(SESSION_GAP_SECONDS * 1e6))
        start = uses[:, 0]
        at = np.sort(_rows_of(self._pushes, app)["time"].cast(pa.int64()).to_numpy())
        pushes = np.column_stack([at, at])
        transfer = _rows_of(self._transfers, app)["time"].cast(pa.int64()).to_numpy()
        tasks = np.vstack(
            [
                _spans(_rows_of(self._tables["tasks"], app)),
                np.column_stack([transfer, transfer + _TRANSFER_US]),
            ]
        )
        usage = _rows_of(self._tables["usage"], app)
        counted = usage if len(usage) else flows
        reached = np.searchsorted(start, at + self._reach_us, "right")
        answered = reached > np.searchsorted(start, at - SLACK_US)
        front = pc.equal(self._activity["kind"].cast(pa.string()), "app_foreground")
        process = pc.equal(flows["app_attribution"].cast(pa.string()), "process")
        return AppRecord(
            uses=uses,
            by_user=_near(start, self.in_use, int(GRACE_SECONDS * 1e6)),
            by_push=_near(start, pushes, self._reach_us),
            by_ios=_near(start, merged(tasks), SLACK_US),
            front=merged(_spans(_rows_of(self._activity.filter(front), app))),
            pushes=pushes,
            answered=int(np.count_nonzero(answered)),
            tasks=merged(tasks),
            bytes_out=pc.sum(counted["bytes_out"]).as_py(),
            bytes_in=pc.sum(counted["bytes_in"]).as_py(),
            process=bool(pc.any(process).as_py()),
        )

    def _in_use(self) -> Spans:
        """Unlocked, an app in front, or the screen lit; not for a push alone, where unlocks are known."""
        kind = self._activity["kind"].cast(pa.string())
        front, unlocked, lit = (_spans(self._activity.filter(pc.equal(kind, name))) for name in PRESENT)
        soft = pc.equal(pc.fill_null(self._pushes["priority"], 0), 5)
        silent = pc.or_(pc.fill_null(self._pushes["content_available"], False), soft)
        loud = np.sort(self._pushes.filter(pc.invert(silent))["time"].cast(pa.int64()).to_numpy())
        if len(unlocked) and len(loud):
            opened, push = merged(unlocked), np.searchsorted(loud, lit[:, 0], "right") - 1
            at = np.searchsorted(opened[:, 0], lit[:, 1], "right") - 1
            met = (at >= 0) & (opened[np.maximum(at, 0), 1] >= lit[:, 0])
            reach_us = self._reach_us - int(GRACE_SECONDS * 1e6) + LIT_US
            lit = lit[met | (push < 0) | (lit[:, 0] - loud[np.maximum(push, 0)] > reach_us)]
        return merged(np.vstack([front, unlocked, lit]))

    def _flows(self, app: str | None) -> pa.Table:
        """With an `end`."""
        flows = self._tables["flows"] if app is None else _rows_of(self._tables["flows"], app)
        seconds = np.clip(np.nan_to_num(flows["duration_seconds"].to_numpy()), 0.0, 1e7)
        end = flows["start"].cast(pa.int64()).to_numpy() + (seconds * 1e6).astype(np.int64)
        return flows.append_column("end", pa.array(end))


def merged(spans: Spans, gap_us: int = 0) -> Spans:
    """Disjoint spans, those no more than `gap_us` apart joined."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    first = np.concatenate([[True], spans[1:, 0] > reach[:-1] + gap_us])
    last = np.append(np.flatnonzero(first)[1:] - 1, len(spans) - 1)
    return np.column_stack([spans[first, 0], reach[last]])


def _near(times: Micros, spans: Spans, after_us: int) -> Mask:
    """(n,) times in one of the disjoint spans, up to 10 s before it or so long after."""
    at = np.searchsorted(spans[:, 0], times + SLACK_US, "right") - 1
    if not len(spans):
        return np.zeros(len(times), np.bool_)
    return np.asarray((at >= 0) & (spans[np.maximum(at, 0), 1] + after_us >= times))


def _spans(table: pa.Table) -> Spans:
    """Rows with start and end, by start."""
    start = table["start"].cast(pa.int64()).to_numpy()
    spans = np.column_stack([start, np.maximum(table["end"].cast(pa.int64()).to_numpy(), start)])
    return spans[np.argsort(start, kind="stable")]


def _rows_of(table: pa.Table, app: str) -> pa.Table:
    return table.filter(pc.fill_null(pc.equal(table["app_id"].cast(pa.string()), app), False))


@dataclass(frozen=True)
class Day:
    """A day in bands; a span that touches it may reach beyond it."""

    start: int
    end: int
    """Microseconds since the epoch, UTC."""
    bands: dict[str, Spans]
    """By name: uses of the network (unexplained and explained ones where the record tells), front, in_use,
    pushes, tasks, unlogged."""


def days_of(record: AppRecord, phone: PhoneRecord, loud: Collection[int]) -> list[Day]:
    """At most seven days with uses, in order: the `loud` ones (days since the epoch) and the latest first.

    A single day is cut to the hours in which the log was kept: minutes would be lost in a whole one.
    """
    used = np.unique(record.uses[:, 0] // DAY_US).tolist()
    shown = sorted(sorted(used, key=lambda day: (day in loud, day))[-_MAX_DAYS:])
    edges = np.array([[shown[0], shown[-1] + 1]]) * DAY_US if shown else np.empty((0, 2), np.int64)
    uses = {"uses": record.uses}
    if phone.presence_known:
        alone = record.unexplained
        uses = {"unexplained": record.uses[alone], "explained": record.uses[~alone]}
    bands = uses | {
        "front": record.front,
        "in_use": phone.in_use,
        "pushes": record.pushes,
        "tasks": record.tasks,
        "unlogged": _gaps(phone.kept, *edges[0]) if shown else edges,
    }
    days = []
    for day in shown:
        start, end = day * DAY_US, (day + 1) * DAY_US
        kept = _within(phone.kept, start, end)
        if len(shown) == 1 and len(kept):
            start = max(start, int(kept[0, 0]) // HOUR_US * HOUR_US)
            end = min(end, -(-int(kept[-1, 1]) // HOUR_US) * HOUR_US)
        days.append(Day(start, end, {name: _within(spans, start, end) for name, spans in bands.items()}))
    return days


def _gaps(kept: Spans, start: int, end: int) -> Spans:
    """What the disjoint spans leave of [start, end)."""
    gaps = np.column_stack([np.append(start, kept[:, 1]), np.append(kept[:, 0], end)])
    return gaps[gaps[:, 1] > gaps[:, 0]]


def _within(spans: Spans, start: int, end: int) -> Spans:
    return spans[(spans[:, 1] >= start) & (spans[:, 0] < end)]
