"""What people are shown of a batch output: windows and their surroundings."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from appcadence._parquet import DAMAGE
from appcadence._quantity import by_chance, quantity
from appcadence._types import Micros
from appcadence.config import ATTACK_NAMES
from appcadence.errors import AppcadenceError, TelemetryError
from appcadence.features.catalog import FEATURES
from appcadence.features.families.notification import MAX_CHANCE, MIN_PUSHES
from appcadence.features.pushes import SHIFTS_SECONDS, WAKE_SECONDS
from appcadence.findings import SUPPRESSION, Finding, of_kind, of_row
from appcadence.models.calibration import KEYS, UNITS, alert_units
from appcadence.models.eligibility import BEHAVIOURS, CADENCE_ALONE_BEATS
from appcadence.models.scores import SCORES
from appcadence.serving.run import Run, read_table, unreadable
from appcadence.telemetry.listing import many
from appcadence.triage.case_rows import MET, events_of, raising
from appcadence.triage.case_state import CASES_FILE, read_cases
from appcadence.triage.window_facts import CONTEXT


@dataclass(frozen=True)
class Lags:
    """The waits of one window."""

    seen: Micros
    """(n,) sorted microseconds from each push to the next session start; the largest integer = none came."""
    shifted: Micros
    """(n * shifts,) the same for the shifted pushes."""
    reach_seconds: float
    """A push counts as answered within this: the wake time and the push log's grid."""

    @property
    def answered(self) -> int:
        return _within(self.seen, self.reach_seconds)

    @property
    def by_chance(self) -> float:
        """Answered pushes to be expected if sessions were independent of them."""
        return len(self.seen) * _within(self.shifted, self.reach_seconds) / len(self.shifted)

    def facts(self) -> dict[str, float]:
        """The numbers of the sentence."""
        return {
            "pushes": len(self.seen),
            "answered": self.answered,
            "by_chance": self.by_chance,
            "reach_seconds": self.reach_seconds,
        }

    @property
    def sentence(self) -> str:
        """Both numbers, and a note if chance alone would answer so many pushes that they prove nothing."""
        blunt = "" if self.by_chance <= MAX_CHANCE * len(self.seen) else ", too many to tell the two apart"
        verb = "was" if self.answered == 1 else "were"
        return (
            f"{self.answered} of {len(self.seen)} pushes {verb} followed by a session start within "
            f"{self.reach_seconds:.0f} s ({by_chance(self.by_chance)}{blunt})"
        )


def lags(
    pushes: Sequence[int], starts: Sequence[int], start: int, end: int, resolution_seconds: float
) -> Lags | None:
    """The waits from pushes to session starts inside the window [start, end); times in microseconds.

    `resolution_seconds` is that of the push log. None with fewer than three pushes.
    """
    if len(pushes) < MIN_PUSHES:
        return None
    at, begun = np.asarray(pushes, np.int64) - start, np.sort(np.asarray(starts, np.int64)) - start
    turned = (at + (SHIFTS_SECONDS[:, None] * 1e6).astype(np.int64)) % (end - start)
    return Lags(_waits(at, begun), _waits(turned.ravel(), begun), WAKE_SECONDS + resolution_seconds)


def _waits(pushes: Micros, starts: Micros) -> Micros:
    after = np.append(starts, np.iinfo(np.int64).max)[np.searchsorted(starts, pushes, "left")]
    return np.sort(np.where(after < np.iinfo(np.int64).max, after - pushes, after))


def _within(waits: Micros, seconds: float) -> int:
    return int(np.searchsorted(waits, round(seconds * 1e6), "right"))


Row = dict[str, Any]
"""A row of the scores table; times are microseconds since the epoch, UTC."""
Intervals = list[tuple[int, int]]
"""(start, end) in microseconds since the epoch, UTC."""

_UNITS = {f.name: f.unit for f in FEATURES}
_KNOWN = [name for name in CONTEXT.names if name != "background_modes"]
"""Columns that outputs of all versions have."""
PRESENCE = ("app_foreground", "device_unlocked")


@dataclass(frozen=True)
class Window:
    """A row of the scores table and what was seen around it; empty where the batch job kept nothing."""

    row: Row
    sessions: Intervals
    starts: list[int]
    """Starts of the sessions that began in the window, microseconds since the epoch."""
    presence: dict[str, Intervals]
    """By kind of `PRESENCE`; kinds that the telemetry lacks are absent."""
    context: Row
    """A row of context.parquet; see `window_facts.CONTEXT`."""
    failed: tuple[str, str | None] | None
    """Id of an exception that does not hold for it, and its owner if known."""
    silent: Finding | None
    """Why it raises no alert; None where it raises one, or has no rank."""
    findings: list[Finding]
    """Why it ranks where it does, and what could not be checked."""

    @property
    def pushes(self) -> list[int] | None:
        """Pushes to the app, microseconds since the epoch; None where there is no push telemetry of it."""
        known = self.context.get("push_resolution_seconds") is not None
        return (self.context["pushes"] or []) if known else None

    @property
    def lags(self) -> Lags | None:
        """How soon sessions followed pushes; None with fewer than three."""
        row, grid = self.row, self.context.get("push_resolution_seconds")
        return lags(self.pushes or [], self.starts, row["window_start"], row["window_end"], grid or 0.0)

    @property
    def pushed(self) -> str:
        """What is known about pushes, as a sentence; empty without push telemetry, which a finding says."""
        if self.pushes is None:
            return ""
        found = self.lags
        if found is not None:
            return f"{found.sentence}."
        few = f"{len(self.pushes)} push{'es' if len(self.pushes) > 1 else ''}" if self.pushes else "No push"
        return f"{few} to this app in this window: too few to compare with chance."


class Output:
    """A batch output, read on demand.

    Raises:
        TelemetryError: `path` is no output of 'appcadence score', or one of its files is unreadable.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.run = path, Run.read(path)

    def check_unchanged(self) -> None:
        """Refuse what was read if another run has replaced the output meanwhile.

        Raises:
            TelemetryError: it did.
        """
        if Run.read(self.path) != self.run:
            raise TelemetryError(f"{self.path} was replaced by another run while it was read; start again")

    def scores(self, filters: list[Any] | None = None, columns: Sequence[str] = SCORES.names) -> pa.Table:
        """Rows and columns of the scores table; filters as those of `pq.read_table`."""
        table = read_table(self.path / "scores.parquet", list(columns), filters)
        try:
            return table.cast(pa.schema([SCORES.field(name) for name in columns]))
        except (pa.ArrowException, ValueError) as error:
            raise unreadable(self.path / "scores.parquet", error) from None

    def cases(self) -> list[Row]:
        """Rows of the cases table, with their findings as `Finding`s."""
        return [row | {"findings": of_row(row)} for row in as_rows(read_cases(self.path / CASES_FILE))]

    def alerts(self, cases: Iterable[Row]) -> str:
        """How many alerts its cases are, as the budget counts them: alert units, and fleet events as one."""
        scored = self.scores([("alert", "==", True), ("status", "==", "scored")], KEYS)
        units = alert_units(scored).group_by(UNITS.names).aggregate([]).num_rows
        fleet = (c for c in cases if c["kind"].startswith("fleet") and c["status"] != "quiet")
        units += sum(case["alerting_devices"] > 0 for case in fleet)
        return f"{many(units, 'alert')} ({many(self.run.alerts, 'window')})"

    def raising(self, cases: Sequence[Row]) -> dict[str, list[Row]]:
        """By id of a case, the windows that raise it, the strongest first; see `case_rows.raising`."""
        columns = [*KEYS, "window_end", "status", "alert", "score", "rank", "behaviours", "exception_id"]
        names = events_of(cases).groupby("kind")["name"].agg(list).to_dict()
        met = [[(MET[str(kind)], "in", of), ("status", "!=", "scored")] for kind, of in names.items()]
        scores = self.scores([[("alert", "==", True)], *met], columns)
        rows = as_rows(scores)
        return {case: [rows[at] for at in of] for case, of in raising(scores, cases).items()}

    def without_alert(self, cases: Sequence[Row]) -> dict[str, str]:
        """By id of a case, a sentence: on which days its alerting destinations were contacted without alert.
        Cases without such days, and fleet events, are left out."""
        single = [case for case in cases if not case["kind"].startswith("fleet")]
        if not single:
            return {}
        devices = sorted({case["device_ids"][0] for case in single})
        columns = ["device_id", "app_id", "dest", "window_start", "n_flows"]
        found: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in as_rows(self.scores([("alert", "==", False), ("device_id", "in", devices)], columns)):
            found[row["device_id"], row["app_id"], row["dest"]].append(row)
        said = {}
        for case in single:
            whose = case["device_ids"][0], case["app_id"]
            loud = [part["dest"] for part in case["destinations"] if part["alert"]]
            rows = [row for dest in loud for row in found[(*whose, dest)]]
            days = sorted({utc_text(row["window_start"], "%Y-%m-%d") for row in rows} - {*case["alert_days"]})
            flows = sum(row["n_flows"] for row in rows if utc_text(row["window_start"], "%Y-%m-%d") in days)
            if days:
                when = days[0] if len(days) == 1 else f"{len(days):,} days from {days[0]} to {days[-1]}"
                what = "contacted them" if len(loud) > 1 else f"contacted {loud[0]}"
                what = "was also contacted" if case["kind"] == "destination" else f"also {what}"
                said[case["id"]] = f"Without an alert, it {what} on {when} ({many(flows, 'flow')})."
        return said

    def windows(self, rows: Sequence[Row]) -> list[Window]:
        """Rows of the scores table with their surroundings."""
        kept: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for session in _rows(self.path / "sessions.parquet", (*KEYS, "start", "end")):
            kept[_key(session)].append(session)
        context = {_key(row): row for row in self._later("context.parquet", _KNOWN)}
        owners, thresholds = self.owners(), self.run.tunables
        out = []
        for row, presence in zip(rows, self._presence(rows), strict=True):
            sessions = kept[_key(row)]
            starts = [s["start"] for s in sessions if s.get("fresh", s["start"] >= row["window_start"])]
            try:
                said = of_row(row)
            except ValueError as error:
                raise unreadable(self.path / "scores.parquet", error) from None
            spans = [(s["start"], s["end"]) for s in sessions]
            names = [finding.parameters["exception"] for finding in of_kind(said, SUPPRESSION)]
            failed = (names[0], owners.get(names[0])) if names else None
            out.append(
                Window(
                    row,
                    spans,
                    starts,
                    presence,
                    context.get(_key(row), {}),
                    failed,
                    no_alert(row, thresholds),
                    said,
                )
            )
        return out

    def owners(self) -> dict[str, str]:
        """Owners of the exceptions that the output is under, by id."""
        return {row["id"]: row["owner"] for row in self._later("exceptions.parquet", ("id", "owner"))}

    def _later(self, name: str, columns: Sequence[str]) -> list[Row]:
        """Rows of a file that an output may lack."""
        file = self.path / name
        return _rows(file, columns) if file.exists() else []

    def _presence(self, rows: Sequence[Row]) -> list[dict[str, Intervals]]:
        """Spans of `PRESENCE` that touch each row's window; a kind the telemetry does not know is absent.

        Whether an unknown app is in the foreground is not known either.
        """
        of: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self._later("activity.parquet", ("device_id", "app_id", "kind", "start", "end")):
            of[row["device_id"], row["kind"]].append(row)
        return [
            {
                kind: _inside(row, of[row["device_id"], kind], kind == "app_foreground")
                for kind in PRESENCE
                if (row["device_id"], kind) in of and not (kind == "app_foreground" and row["app_id"] is None)
            }
            for row in rows
        ]


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Turns errors over values that no run writes into a TelemetryError."""
    try:
        yield
    except AppcadenceError:
        raise
    except DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise TelemetryError(f"{path} is damaged ({reason}); run 'appcadence score' again") from None


def as_rows(table: pa.Table) -> list[Row]:
    """Rows with times as int64 microseconds, which need no time zone library and compare fast."""
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            values = table[field.name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            table = table.set_column(i, field.name, values)
        elif pa.types.is_list(field.type) and pa.types.is_timestamp(field.type.value_type):
            table = table.set_column(i, field.name, table[field.name].cast(pa.list_(pa.int64())))
    rows: list[Row] = table.to_pylist()
    return rows


def utc_text(micros: int, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time in microseconds since the epoch as UTC text."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime(form)


def basis(row: Row) -> str:
    """What a window rests on, as a sentence."""
    known = row["app_attribution"]
    app = "app unknown" if known == "none" else f"app known from: {known}"
    flows, beats, sessions = (
        f"{row[f'n_{name}s']:,} {name}{'' if row[f'n_{name}s'] == 1 else 's'}"
        for name in ("flow", "beat", "session")
    )
    seen = quantity(row["observed_seconds"], "s")
    return f"{flows} in {beats} and {sessions}; observed for {seen}; {app}."


def behaviours(row: Row) -> list[str]:
    """The behaviours a window shows, each with its p-value."""
    return [
        f"{name.replace('_', ' ')} (p {row[name]['p_value']:.2g})"
        for name in BEHAVIOURS
        if name in (row["behaviours"] or ()) and row[name] and row[name]["p_value"] is not None
    ]


def no_alert(row: Row, thresholds: Mapping[str, float]) -> Finding | None:
    """Why a ranked window raises no alert; None where it raises one.

    The score from which windows alert is a matter of the model's calibration, which no output holds.

    Args:
        row: a row of the scores table.
        thresholds: those that are set, by ATT&CK's name (`Run.tunables`).
    """
    if row["alert"] or row["status"] != "scored":
        return None
    shown = row["behaviours"] or []
    if shown == ["structured_cadence"] and row["n_beats"] < CADENCE_ALONE_BEATS:
        return Finding("cadence_alone", {"min_beats": CADENCE_ALONE_BEATS})
    bound = [row[name] for name in BEHAVIOURS if ATTACK_NAMES[name] in thresholds]
    if not shown and any(one and one["p_value"] is not None for one in bound):
        return Finding("no_behaviour_stands_out")
    return Finding("below_threshold")


def shown_value(contribution: Row, which: str) -> str:
    """The `value` of a contribution's feature, or the `expected` one, with its unit."""
    value = contribution[which]
    return quantity(math.nan if value is None else value, _UNITS.get(contribution["feature"], "count"))


def channel(row: Row) -> tuple[str, str]:
    """App and destination in words."""
    app = "(unknown app)" if row["app_id"] is None else row["app_id"]
    return app, "all destinations" if row["dest"] == "*" else row["dest"]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEYS)


def _inside(row: Row, spans: Sequence[Row], of_app: bool) -> Intervals:
    """An open span lasts to the end of the window."""
    known = [
        (span["start"], row["window_end"] if span["end"] is None else span["end"])
        for span in spans
        if not of_app or span["app_id"] == row["app_id"]
    ]
    return [(start, end) for start, end in known if start < row["window_end"] and end >= row["window_start"]]


def _rows(file: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a file, which must have at least these `columns`."""
    table = read_table(file)
    if missing := [name for name in columns if name not in table.column_names]:
        raise unreadable(file, KeyError(missing[0]))
    return as_rows(table)
