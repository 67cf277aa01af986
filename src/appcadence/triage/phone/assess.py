"""One phone's scores and weekly sums, put together by app: what stands out, and what nobody could see."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from appcadence._types import DAY_US
from appcadence.findings import of_row
from appcadence.triage.phone import whole, words
from appcadence.triage.phone.record import Day, PhoneRecord, days_of
from appcadence.triage.report_data import utc_text

Row = dict[str, Any]

MAX_EXPECTED = 2.0
"""Fewer would hide a beat of ten minutes in a log of four days; with more, a quiet phone is not quiet."""
MAX_APPS = 10
"""Apps that are shown, and as many parts of iOS."""
_APPLE = "com.apple."


@dataclass(frozen=True)
class PhoneApp:
    """An app, over all days, that stands out; sentences each."""

    app_id: str
    name: str
    part_of_ios: bool
    confidence: str
    why: tuple[str, ...]
    happened: tuple[str, ...]
    explanations: tuple[str, ...]
    """What would explain it."""
    unchecked: tuple[str, ...]
    collect: tuple[str, ...]
    for_analysts: tuple[str, ...]
    """Days, scores and reasons, as `score` and `weekly` have them."""
    days: tuple[Day, ...] = field(repr=False)

    @property
    def lists(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Lists of sentences under their headings."""
        return (
            ("What happened", self.happened),
            ("What would explain it", self.explanations),
            ("What could not be checked", self.unchecked),
            ("What to collect next", self.collect),
        )


@dataclass(frozen=True)
class Phone:
    """What one phone shows; sentences, and the apps that stand out, the most unusual first."""

    device_id: str
    status: str
    caveat: str
    seen: tuple[str, ...]
    """What was looked at."""
    apps: tuple[PhoneApp, ...]
    system: tuple[PhoneApp, ...]
    """Parts of iOS."""
    more_apps: int
    """That stand out less and are not among the apps."""
    more_system: int
    unchecked: tuple[str, ...]
    collect: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, without the pictures."""
        shown = {name: [_plain(app) for app in getattr(self, name)] for name in ("apps", "system")}
        return _plain(self) | shown


def assess(
    device_id: str,
    tables: Mapping[str, pa.Table],
    scores: Sequence[Row],
    weeks: Sequence[Row],
    *,
    device_days: float = 0.0,
    reports: int = 0,
    short_reports: int = 0,
    systems: Sequence[str] = (),
    unread: Sequence[str] = (),
    reference: bool = True,
) -> Phone:
    """What stands out on a phone: apps with a finding among the weekly sums, or with an alert of which an
    ordinary phone has at most `MAX_EXPECTED` in as long a log.

    Args:
        device_id: the phone.
        tables: its canonical tables.
        scores: rows of the scores table, times in microseconds.
        weeks: findings among the weekly sums, rows of `WEEKLY`.
        device_days: observed, as scored.
        reports: App Privacy Reports that were judged.
        short_reports: those of under two days, which cannot be.
        systems: versions of iOS, as its sysdiagnoses name them.
        unread: sentences on what of the given files could not be read.
        reference: whether the reference model scored, and not one of similar phones.
    """
    phone = PhoneRecord(tables)
    # exp(-score) benign apps a device-day show as much.
    least = math.log(max(device_days / MAX_EXPECTED, 1.0))
    loud = sorted(
        (row for row in scores if row["alert"] and row["score"] >= least), key=lambda row: -row["score"]
    )
    alerts = _by_app(row for row in loud if row["app_id"] is not None)
    found = _by_app(weeks)
    model = "rough: as simulated phones go" if reference else "as the phones go that the model learned from"
    used = [app for app in alerts if app not in found and phone.of(app).in_use_only]
    approved = [
        app
        for app, rows in alerts.items()
        if app not in found and app not in used
        if all("approved_rhythm" in (row["explained_by"] or ()) for row in rows)
    ]
    every = [
        _app(phone, app, alerts.get(app, []), found.get(app, []), model)
        for app in {**alerts, **found}
        if app not in (*used, *approved)
    ]
    apps, system = ([app for app in every if app.part_of_ios == kind] for kind in (False, True))
    rarest = max((_days_between(alerts[app.app_id]) for app in apps if app.app_id in alerts), default=0.0)
    basis = whole.Basis(
        phone=phone,
        judged=len({row["app_id"] for row in scores if row["status"] == "scored"}),
        device_days=device_days,
        reports=reports,
        short_reports=short_reports,
        systems=tuple(systems),
        unread=tuple(unread),
        used=tuple(map(phone.name, used)),
        approved=tuple(map(phone.name, approved)),
        nameless=len({row["dest"] for row in loud if row["app_id"] is None}),
    )
    status, caveat = whole.status(basis, len(apps), len(system), rarest)
    return Phone(
        device_id,
        status,
        caveat,
        tuple(whole.seen(basis)),
        tuple(apps[:MAX_APPS]),
        tuple(system[:MAX_APPS]),
        max(len(apps) - MAX_APPS, 0),
        max(len(system) - MAX_APPS, 0),
        tuple(whole.unchecked(basis)),
        tuple(whole.collect(basis, bool(apps), bool(system))),
    )


def part_of_ios(app: str, process: bool) -> bool:
    """Whether it comes with iOS: Apple's own, a process that works for others, or a name without a dot."""
    return process or app.startswith(_APPLE) or "." not in app


def _app(phone: PhoneRecord, app: str, rows: Sequence[Row], weeks: Sequence[Row], model: str) -> PhoneApp:
    record = phone.of(app)
    system = part_of_ios(app, record.process)
    said = [finding for row in rows for finding in of_row(row)]
    weekly = [finding for row in weeks for finding in of_row(row)]
    codes = dict.fromkeys(code for row in rows for code in row["explained_by"] or ())
    modes, purpose = phone.declared(app, "background_modes"), phone.declared(app, "declared_purpose")
    return PhoneApp(
        app,
        phone.name(app),
        system,
        words.confidence(_days_between(rows) if rows else None, model),
        tuple(words.why([*said, *weekly])),
        (*words.happened(record, phone), *words.of_weeks(weeks, weekly)),
        tuple(words.explanations(record, modes, purpose, list(codes), weekly, system)),
        tuple(words.unchecked(phone)),
        tuple(words.collect(record, phone, modes, system, bool(weeks))),
        (*map(_scored, rows), *map(_summed, weeks)),
        tuple(days_of(record, phone, {row["window_start"] // DAY_US for row in rows})),
    )


def _days_between(rows: Sequence[Row]) -> float:
    """Device-days in which benign traffic once scores as high as the first row: the scale of the score."""
    return math.exp(min(rows[0]["score"], 50.0))


def _by_app(rows: Any) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["app_id"], []).append(row)
    return found


def _scored(row: Row) -> str:
    day = utc_text(row["window_start"], "%Y-%m-%d")
    return f"{day}, to {row['dest']}: score {row['score']:.1f}. {' '.join(row['reasons'] or ())}"


def _summed(row: Row) -> str:
    day = f"{row['report_end']:%Y-%m-%d}"
    return f"Week to {day}, {row['dest_host']}: score {row['score']:.1f}. {' '.join(row['reasons'] or ())}"


def _plain(of: Any) -> dict[str, Any]:
    return {f.name: getattr(of, f.name) for f in fields(of) if f.name != "days"}
