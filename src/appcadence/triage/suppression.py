"""Exceptions applied to scores: windows are marked, never deleted, and can be marked again otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from appcadence._types import DAY_US, Codes, Mask, Vector
from appcadence.errors import SchemaError
from appcadence.features.windows import APP_LEVEL
from appcadence.findings import SUPPRESSION, Finding, arrow, codes_of
from appcadence.models.eligibility import BEHAVIOURS
from appcadence.models.scores import places_of
from appcadence.serving.measures import MEASURES
from appcadence.telemetry.addresses import Address, Network, parsed
from appcadence.telemetry.arrays import one_array, places
from appcadence.telemetry.names import encode
from appcadence.triage.exceptions import Entry, broken, expired

SOON_DAYS = 14
JUDGED = ("device_id", "app_id", "dest", "window_start", "window_end", "status", "behaviours")
"""Columns of the scores table that exceptions are judged by."""

_EPOCH_DAY = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Use:
    """What became of one exception. The counts are None where no scores were given."""

    id: str
    owner: str
    expires: date
    days_left: int
    """From the day of the report; negative = expired."""
    matched: int | None = None
    """Windows of its app, devices and destination, on any day and of any status."""
    covered: int | None = None
    """Windows it marks."""
    bounds_broken: int | None = None
    """Windows it would mark if they kept to its bounds."""
    created_later: bool = False
    """It was created after the last of the windows began."""
    overlaps: dict[str, int] = field(default_factory=dict)
    """By id of an earlier exception, windows that this one would mark too but that one already does."""

    @property
    def notes(self) -> list[str]:
        """What its owner should know, a few words each."""
        out = []
        if self.days_left < 0:
            out.append("expired")
        elif self.days_left <= SOON_DAYS:
            out.append("expires today" if not self.days_left else f"expires in {self.days_left} d")
        if self.created_later:
            out.append("created later")
        if self.matched == 0:
            out.append("matches no window")
        if self.bounds_broken:
            out.append(f"bounds broken in {self.bounds_broken:,}")
        out += [f"{n:,} already under {name}" for name, n in self.overlaps.items()]
        return out

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"expires": self.expires.isoformat(), "notes": self.notes}


@dataclass(frozen=True)
class Judgement:
    """Which exception covers which window of a scores table."""

    entry: Codes
    """(n,) place of the exception that covers each window, -1 = none."""
    findings: dict[int, list[Finding]]
    """By row, why exceptions do not hold for a window that none covers."""
    uses: tuple[Use, ...]
    """Of each exception, in order."""


def ranks_under(ruling: Judgement, scores: pa.Table) -> Codes:
    """(n,) ranks of the windows that no exception covers, 0 = none; takes the columns status and score."""
    free = _scored(one_array(scores["status"])) & (ruling.entry < 0)
    return places_of(one_array(scores["score"]).to_numpy(zero_copy_only=False), free)


def marked(
    scores: pa.Table,
    measures: pa.Table,
    entries: Sequence[Entry],
    ruling: Judgement,
    rank: Codes,
    start: int = 0,
) -> pa.Table:
    """Rows of the scores table from `start` on (with their measures), marked by a ruling over all rows.

    A covered window keeps its row, score and reasons. Its status becomes `excepted`, it loses its rank (the
    others move up) and raises no alert. Earlier exceptions are undone first, so that the outcome depends
    only on the detector's scores and these exceptions.
    """
    here = slice(start, start + len(scores))
    owner, ranks = ruling.entry[here], rank[here]
    covered, status = owner >= 0, one_array(scores["status"])
    added = {row - start: said for row, said in ruling.findings.items() if here.start <= row < here.stop}
    reasons, findings = _with(scores, added)
    ids = pa.array([*(entry.id for entry in entries), None], pa.string())
    alert = one_array(measures["alert"]).to_numpy(zero_copy_only=False)
    columns = {
        "status": pc.if_else(
            pa.array(_scored(status)), pc.if_else(pa.array(covered), "excepted", "scored"), status
        ),
        "rank": pa.array(ranks, mask=ranks == 0),
        "alert": pa.array(alert & ~covered),
        "reasons": reasons,
        "findings": findings,
        "exception_id": ids.take(pa.array(owner % len(ids))),
    }
    for name, column in columns.items():
        at = scores.schema.get_field_index(name)
        scores = scores.set_column(at, scores.schema.field(at), column)
    return scores


def judge(
    scores: pa.Table, measures: pa.Table, entries: Sequence[Entry], on: date | None = None
) -> Judgement:
    """Which exception covers which window; `scores` need only the columns `JUDGED`.

    A window is covered by the first exception that it is in the scope of, that is in
    force throughout the window, that names all behaviours the window shows, and whose bounds it keeps to. An
    app's own window (`*`) is in the scope of an exception with a destination if all its channels are.
    `on` is the day of the report, today by default.

    Raises:
        SchemaError: the measures are not those of the scores.
    """
    if len(scores) != len(measures):
        raise SchemaError(f"{len(measures)} measures do not belong to {len(scores)} scores")
    table = _Table(scores)
    period, volume, hours = (one_array(measures[name]) for name in MEASURES.names[:3])
    values = (_floats(period), _floats(volume), hours.to_numpy())
    alert = one_array(measures["alert"]).to_numpy(zero_copy_only=False)
    owner = np.full(len(scores), -1)
    breaks: list[tuple[Codes, list[Finding]]] = []
    uses = []
    latest = np.argsort(table.start)[-1:]
    for number, entry in enumerate(entries):
        scope = table.scope(entry)
        named, ended = table.names_all(entry, scope), table.ended(entry, scope)
        rows = scope[named & ~ended & table.begun(entry, scope)]
        # What would raise no alert without it, nobody asks about.
        late = scope[named & ended & alert[scope]]
        breaks.append((late, [expired(entry)] * len(late)))
        out = np.zeros(len(rows), np.bool_)
        for outside, said in broken(entry, rows, *values):
            out |= outside
            breaks.append((rows[outside], said))
        held = rows[~out]
        before = owner[held]
        owner[held[before < 0]] = number
        # What has too little evidence is covered for the sake of fleet events, and not counted.
        before = before[table.judged[held]]
        earlier, windows = np.unique(before[before >= 0], return_counts=True)
        overlaps = {entries[k].id: int(n) for k, n in zip(earlier, windows, strict=True)}
        counts = (
            len(scope),
            int(np.count_nonzero(before < 0)),
            int(np.count_nonzero(out & table.judged[rows])),
            not table.begun(entry, latest).all(),
        )
        uses.append(_use(entry, on, *counts, overlaps))
    findings: dict[int, list[Finding]] = {}
    for rows, said in breaks:
        for row, finding in zip(rows.tolist(), said, strict=True):
            if owner[row] < 0 and table.judged[row]:
                findings.setdefault(row, []).append(finding)
    return Judgement(owner, findings, tuple(uses))


def unused(entries: Sequence[Entry], on: date | None = None) -> tuple[Use, ...]:
    """What is known about exceptions without scores: how long they last."""
    return tuple(_use(entry, on) for entry in entries)


def _use(entry: Entry, on: date | None, *counts: Any) -> Use:
    today = datetime.now(UTC).date() if on is None else on
    return Use(entry.id, entry.owner, entry.expires, (entry.expires - today).days, *counts)


class _Table:
    """The judged columns as codes, so that each distinct name is matched once."""

    def __init__(self, scores: pa.Table) -> None:
        self.device, self.devices = _codes(scores["device_id"])
        self.app, self.apps = _codes(scores["app_id"])
        self.dest, self.dests = _codes(scores["dest"])
        self.start, self.end = (
            one_array(scores[name]).cast(pa.int64()).to_numpy() for name in ("window_start", "window_end")
        )
        self.app_level = _any(pc.equal(self.dests, APP_LEVEL))[self.dest]
        status = one_array(scores["status"])
        judged = _scored(status) | pc.equal(status, "fleet_event").to_numpy(zero_copy_only=False)
        self.judged = judged
        few = pc.equal(status, "insufficient_evidence").to_numpy(zero_copy_only=False)
        shown = _shown(one_array(scores["behaviours"]))
        self.shown = np.where(judged, shown, np.where(few, 0, -1))
        """(n,) bit b: the window shows the b-th behaviour; all bits where it is part of no case."""

    @cached_property
    def addresses(self) -> npt.NDArray[np.bytes_]:
        return _addresses(self.dests)

    @cached_property
    def moment(self) -> Codes:
        """(n,) code of the device, app and start of each window."""
        keys = pd.DataFrame({"device": self.device, "app": self.app, "start": self.start})
        return np.asarray(keys.groupby(list(keys), sort=False).ngroup(), np.int64)

    def scope(self, entry: Entry) -> Codes:
        """Windows of the exception's app, devices and destination."""
        mine = np.ones(len(self.start), np.bool_)
        if entry.app_id is not None:
            prefix = entry.app_id.endswith("*")
            match = pc.starts_with if prefix else pc.equal
            mine &= _any(match(self.apps, entry.app_id.removesuffix("*")))[self.app]
        if entry.devices is not None:
            mine &= _any(pc.is_in(self.devices, pa.array(sorted(entry.devices))))[self.device]
        rows = np.flatnonzero(mine)
        if entry.destination is None:
            return rows
        inside = self._names(entry.destination)[self.dest[rows]]
        return rows[np.where(self.app_level[rows], self._covers_whole_app(rows, inside), inside)]

    def _names(self, destination: str | Network) -> Mask:
        """(n_dests + 1,) whether a destination is meant."""
        if not isinstance(destination, str):
            low, high = (_packed(destination[place]) for place in (0, -1))
            return np.asarray((self.addresses >= low) & (self.addresses <= high))
        if destination.startswith("*."):
            return _any(pc.ends_with(self.dests, destination[1:]))
        return _any(pc.equal(self.dests, destination))

    def _covers_whole_app(self, rows: Codes, inside: Mask) -> Mask:
        """Whether the app of each row has channels in that window, and none outside."""
        group, channel = self.moment[rows], ~self.app_level[rows]
        has, strays = (np.zeros(len(self.start), np.bool_) for _ in range(2))
        has[group[channel & inside]] = True
        strays[group[channel & ~inside]] = True
        return np.asarray((has & ~strays)[group])

    def names_all(self, entry: Entry, rows: Codes) -> Mask:
        """Whether the exception names all behaviours that each window shows."""
        named = sum(1 << b for b, name in enumerate(BEHAVIOURS) if name in entry.behaviours)
        return np.asarray(self.shown[rows] & ~named == 0)

    def begun(self, entry: Entry, rows: Codes) -> Mask:
        """Whether it was already in force when each window began."""
        return np.asarray(self.start[rows] >= (entry.created.toordinal() - _EPOCH_DAY) * DAY_US)

    def ended(self, entry: Entry, rows: Codes) -> Mask:
        """Whether it has expired when each window ends."""
        return np.asarray(self.end[rows] > (entry.expires.toordinal() - _EPOCH_DAY + 1) * DAY_US)


def _codes(column: pa.ChunkedArray) -> tuple[Codes, pa.Array]:
    """(n,) codes of the names, -1 = null, and the distinct names."""
    names = encode(column)
    return places(names).astype(np.int64), names.dictionary


def _any(matches: pa.Array) -> Mask:
    """(n_names + 1,) with False for null, which code -1 picks."""
    return np.append(matches.to_numpy(zero_copy_only=False), False).astype(np.bool_)


def _addresses(names: pa.Array) -> npt.NDArray[np.bytes_]:
    """(n_names + 1,) addresses as `_packed`; empty = a host."""

    def packed(name: str) -> bytes:
        address = parsed(name)
        return b"" if address is None else _packed(address)

    return np.array([*map(packed, names.to_pylist()), b""], "S17")


def _packed(address: Address) -> bytes:
    """A one, then 16 bytes in network order, IPv4 mapped into IPv6; NumPy takes bare zeros for nothing."""
    return b"\1" + address.packed.rjust(6, b"\xff").rjust(16, b"\0")


def _scored(status: pa.Array) -> Mask:
    """Windows with enough evidence that no fleet event took out of the ranking."""
    return np.asarray(
        pc.is_in(status, pa.array(["scored", "excepted"])).to_numpy(zero_copy_only=False), np.bool_
    )


def _shown(behaviours: pa.Array) -> Codes:
    bits = np.zeros(len(behaviours), np.int64)
    row, name = pc.list_parent_indices(behaviours).to_numpy(), pc.list_flatten(behaviours)
    for b, behaviour in enumerate(BEHAVIOURS):
        bits[row[pc.equal(name, behaviour).to_numpy(zero_copy_only=False)]] |= 1 << b
    return bits


def _floats(column: pa.Array) -> Vector:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy())


def _with(scores: pa.Table, added: dict[int, list[Finding]]) -> tuple[pa.Array, pa.Array]:
    """Reasons and findings without what earlier exceptions added, and with what is `added` now."""
    reasons, findings = (one_array(scores[name]) for name in ("reasons", "findings"))
    row, said = pc.list_parent_indices(findings).to_numpy(), pc.list_flatten(findings)
    before = pc.is_in(said.field("code"), codes_of(SUPPRESSION)).to_numpy(zero_copy_only=False)
    new = [finding for some in added.values() for finding in some]
    more = np.repeat(list(added), [len(some) for some in added.values()]).astype(np.int64)
    rows = np.concatenate([row[~before], more])
    order = pa.array(np.argsort(rows, kind="stable"))
    counts = np.bincount(rows, minlength=len(findings))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    texts = pa.array([finding.text for finding in new], pa.string())
    kept = pa.array(~before)
    flat = ((pc.list_flatten(reasons), texts), (said, arrow(new)))
    both = (pa.concat_arrays([old.filter(kept), now]).take(order) for old, now in flat)
    with_reasons, with_findings = (pa.ListArray.from_arrays(offsets, values) for values in both)
    return with_reasons, with_findings
