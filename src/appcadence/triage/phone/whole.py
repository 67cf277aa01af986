"""What is said of a phone as a whole: its status, what was looked at, what was not, and what to collect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appcadence.telemetry.listing import listed, many
from appcadence.telemetry.readiness.capability import MIN_HOURS
from appcadence.triage.phone import words
from appcadence.triage.phone.record import PhoneRecord
from appcadence.triage.phone.words import spoken

_RARE_DAYS = 10.0
_ENOUGH_HOURS = 72.0
_MIN_SERVED_SHARE = 0.05
_QUIET = (
    "That does not prove that the phone is clean. It misses what was idle while the log was kept, talks only "
    "while the app is in use, hides behind a part of iOS or under the name of one, or talks faster than the "
    "log can show."
)
_AGAIN = (
    "Another sysdiagnose of this phone in two or three days; give both in one command. That shows whether "
    "what stands out goes on, and makes the log longer."
)
_SYSDIAGNOSE = (
    "A sysdiagnose: press both volume buttons and the side button for a second, wait ten minutes, then share "
    "it from Settings > Privacy & Security > Analytics & Improvements > Analytics Data. It holds when each "
    "app used the network."
)
_REPORT = (
    "An App Privacy Report: switch it on in Settings > Privacy & Security > App Privacy Report, wait seven "
    "days, share it from there. It names the hosts that each app contacts."
)
_TWIN = "A sysdiagnose of another phone with the same iOS version: only that shows what its parts usually do."
_KEEP = "First keep these records, and do not delete the app, reset the phone or update it yet."


@dataclass(frozen=True)
class Basis:
    """What the answer rests on."""

    phone: PhoneRecord
    judged: int
    """Apps and parts of iOS."""
    device_days: float
    reports: int
    short_reports: int
    systems: tuple[str, ...]
    unread: tuple[str, ...]
    """Sentences on what of the given files could not be read."""
    used: tuple[str, ...]
    """Apps that stand out, but only while the phone was in use."""
    approved: tuple[str, ...]
    """Apps that stand out, but in a rhythm that is approved."""
    nameless: int
    """Destinations that stand out and whose app is not known."""


def status(basis: Basis, apps: int, system: int, rarest_days: float) -> tuple[str, str]:
    """The phone in one sentence, and what it means and does not prove.

    Args:
        basis: what it rests on.
        apps: that stand out; `system`, parts of iOS that do.
        rarest_days: days in which an ordinary phone once shows as much as the most unusual of the apps.
    """
    log = f"in {spoken(basis.phone.hours * 3600)} of log"
    if not basis.judged and not basis.reports:
        return "Nothing can be said about this phone: there is too little data, or the log is too short.", (
            "That is neither good nor bad news; the list at the end says what to collect."
        )
    if not basis.judged:
        log = f"in the sums of {many(basis.reports, 'App Privacy Report')}"
    parts = f" {many(system, 'part')} of iOS {_stand(system)} out: see below." if system else ""
    if not apps:
        short = bool(basis.judged) and basis.phone.hours < MIN_HOURS
        said = f"Nothing stands out among the apps that people install, {log}"
        said += ", which is too short to say much." if short else "."
        return said, _QUIET + parts
    whom = f"{many(apps, 'app')} {_stand(apps)} out {log}"
    they = "it" if apps == 1 else "they"
    what = f"when {they} used the network" if basis.judged else f"which hosts {they} contacted"
    said = f"{whom}: neither use nor an approved rhythm explains {what}."
    if rarest_days >= _RARE_DAYS:
        weight = "An ordinary phone shows something like the first of them less than about once in ten days."
    elif basis.judged:
        weight = "That is weak: on an ordinary phone one or two apps would stand out as much in that time."
    else:
        weight = "An ordinary phone shows as much in about one week of ten."
    return said, f"{weight} It is a question to ask, not proof that an app is malicious.{parts}"


def seen(basis: Basis) -> Iterator[str]:
    """What was looked at."""
    phone = basis.phone
    if basis.systems:
        yield f"Sysdiagnose of {', '.join(basis.systems)}."
    if phone.apps:
        yield (
            f"{len(phone.apps):,} apps and parts of iOS used the network in "
            f"{spoken(phone.hours * 3600)} of log; {basis.judged:,} did so often enough to be judged."
        )
    if basis.used:
        yield (
            f"{many(len(basis.used), 'app')} did something unusual, but only while the phone was in use, "
            f"which explains it: {listed(basis.used, 5)}."
        )
    if basis.approved:
        yield (
            f"{many(len(basis.approved), 'app')} did something unusual, but in the rhythm that is approved "
            f"for it: {listed(basis.approved, 5)}."
        )
    if basis.reports:
        yield f"{many(basis.reports, 'App Privacy Report')}, judged as sums of a week."
    if basis.short_reports:
        yield (
            f"{many(basis.short_reports, 'App Privacy Report')} of under two days, which cannot be judged: "
            "share it again once it has been on for seven days."
        )


def unchecked(basis: Basis) -> Iterator[str]:
    """What could not be checked on the whole phone."""
    phone = basis.phone
    yield from basis.unread
    yield from words.unchecked(phone)
    if phone.served_share >= _MIN_SERVED_SHARE:
        yield (
            f"Whose traffic the helpers of iOS carried: {100 * phone.served_share:.0f}% of all uses are by "
            "processes such as nsurlsessiond, which work for any app."
        )
    if basis.nameless:
        yield (
            f"{many(basis.nameless, 'destination')} that {_stand(basis.nameless)} out and whose app "
            "the log does not name: 'appcadence score' and 'report' show them."
        )
    yield "What was sent: contents are neither recorded nor read."


def collect(basis: Basis, apps: bool, system: bool) -> Iterator[str]:
    """What to collect next, the most useful first."""
    if apps:
        yield _KEEP
    if not basis.phone.apps:
        yield _SYSDIAGNOSE
    elif apps or system or basis.phone.hours < _ENOUGH_HOURS:
        yield _AGAIN
    if not basis.reports:
        yield _REPORT
    if system:
        yield _TWIN


def _stand(n: int) -> str:
    return "stands" if n == 1 else "stand"
