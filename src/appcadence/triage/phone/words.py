"""What is said of an app on one phone: plain sentences from its record and from what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from appcadence._quantity import quantity
from appcadence._types import Micros
from appcadence.features.catalog import FEATURES
from appcadence.features.declarations import BACKGROUND_MODES, CONTINUOUS_MODES
from appcadence.findings import CONTEXT, EXPLANATION, REASON, Finding, of_kind, sentences
from appcadence.telemetry.listing import listed
from appcadence.triage.phone.record import AppRecord, PhoneRecord

Row = Mapping[str, Any]

_MIN_GAPS = 5
_ALIKE = 1.3
"""Gaps within this factor of their middle are called equal ..."""
_MIN_ALIKE = 0.6
"""... and contacts regular, where so many gaps are."""
_LONG_SECONDS = 600.0
_MAX_HOSTS = 5
_MIN_ANSWERED = 3

_WHY = {
    "newness": "It reached a host that it had not reached before.",
    "rhythm_of_new": "It reached a new host in a rhythm.",
    "persistence_of_new": "It stayed connected to a new host for long.",
    "volume_of_new": "It reached a new host often.",
    "unlike_any_known": "It reached a new host that is unlike every service the phone used before.",
    "rhythm_against_own": "It used the network more regularly than apps usually do.",
    "persistence_against_own": "It stayed on the network for longer at a time than apps usually do.",
    "volume_against_own": "It used the network more often than apps usually do.",
    "push_coupling": "It used the network right after pushes, more often than by chance.",
    "push_coupling_against_own": "It used the network right after pushes, more often than by chance.",
    "unexplained_sessions": "It was active when neither the person, a push nor iOS itself explains it.",
    "rhythm_without_user": "It kept a rhythm while the phone was locked.",
}
"""By expert, why an app stands out."""
_REFRESH = {"fetch", "processing"}
_PHRASES = {feature.name: feature.phrase for feature in FEATURES}


def why(said: Sequence[Finding], most: int = 2) -> list[str]:
    """Why an app stands out, the first reasons of its days."""
    reasons = of_kind(said, REASON)
    experts = [_WHY[f.parameters["expert"]] for f in reasons if f.code == "expert"]
    features = [f.parameters["feature"] for f in reasons if f.code == "unusual_feature"]
    others = [f"Unusual for an app: {_PHRASES[name]}." for name in features]
    weekly = ["What it contacted in a week is unusual."] * any(f.code == "weekly_expert" for f in reasons)
    return list(dict.fromkeys(experts or others or weekly))[:most]


def confidence(days: float | None, model: str) -> str:
    """How unusual an app is.

    Args:
        days: in which an ordinary phone once shows as much; None = weekly sums alone say so.
        model: where that is known from.
    """
    if days is None:
        often = "in about one week of ten"
    elif days < 2:
        often = "about once a day"
    else:
        often = f"about once in {days:.0f} days" if days < 10 else "less than once in ten days"
    return f"An ordinary phone shows something as unusual {often} ({model})."


def spoken(seconds: float) -> str:
    """A length of time as it is said: 5 minutes, 1.5 hours, 4 days."""
    sizes = ((86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
    size, unit = next((pair for pair in sizes if seconds >= 1.5 * pair[0]), sizes[-1])
    number = f"{seconds / size:.2g}" if seconds < 10 * size else f"{seconds / size:,.0f}"
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def happened(record: AppRecord, phone: PhoneRecord) -> Iterator[str]:
    """What an app did."""
    uses = record.uses
    if not len(uses):
        yield "There is no record of when it used the network."
        return
    times = "time" if len(uses) == 1 else "times"
    yield f"It used the network {len(uses):,} {times} in {spoken(phone.hours * 3600)} of log."
    yield from _explained(record, phone)
    alone = record.unexplained & phone.presence_known
    counted = alone if np.count_nonzero(alone) > _MIN_GAPS else np.ones(len(uses), np.bool_)
    yield from _rhythm(uses[counted, 0], "These uses" if counted is alone else "Its uses")
    longest = float((uses[:, 1] - uses[:, 0]).max()) / 1e6
    if longest >= _LONG_SECONDS:
        yield f"The longest single use lasted {spoken(longest)}."
    if record.answered >= _MIN_ANSWERED:
        yield f"{record.answered:,} of {len(record.pushes):,} pushes to it were followed by a use right away."
    if record.bytes_out is not None and record.bytes_in is not None:
        sent, received = (quantity(n, "bytes") for n in (record.bytes_out, record.bytes_in))
        yield f"It sent {sent} and received {received}."


def _explained(record: AppRecord, phone: PhoneRecord) -> Iterator[str]:
    """How many uses began with what."""
    if not phone.presence_known:
        return
    asked = [("while the phone was in use", record.by_user)]
    asked += [("after a push to the app", record.by_push & ~record.by_user)]
    asked += [("with work that iOS had scheduled", record.by_ios & ~record.by_user & ~record.by_push)]
    parts = [f"{np.count_nonzero(mask):,} began {what}" for what, mask in asked if mask.any()]
    alone = np.count_nonzero(record.unexplained)
    if alone:
        parts.append(f"{alone:,} began with none of these, while the phone was locked")
    yield f"{', '.join(parts)}."


def _rhythm(starts: Micros, subject: str) -> Iterator[str]:
    gaps = np.diff(starts) / 1e6
    if len(gaps) < _MIN_GAPS:
        return
    middle = float(np.median(gaps))
    alike = float(np.mean((gaps < middle * _ALIKE) & (gaps > middle / _ALIKE)))
    regular = "regularly, about every" if alike >= _MIN_ALIKE else "irregularly; half of the pauses are under"
    yield f"{subject} came {regular} {spoken(middle)}."


def of_weeks(rows: Sequence[Row], said: Sequence[Finding]) -> Iterator[str]:
    """What App Privacy Reports say of an app with findings in them, and of what it accessed."""
    for row in rows[:_MAX_HOSTS]:
        new = ", which it had not contacted before" if row["is_new"] == 1 else ""
        rare = " and no other app contacts" if row["is_rare"] == 1 else ""
        user = f", {row['user_contacts']:,} times for the person" if row["user_contacts"] else ""
        yield (
            f"In the week to {row['report_end']:%Y-%m-%d} it contacted {row['dest_host']}{new}{rare}: "
            f"{row['contacts']:,} times by itself{user}."
        )
    if len(rows) > _MAX_HOSTS:
        yield f"{len(rows) - _MAX_HOSTS:,} more of its hosts stand out; 'appcadence weekly' lists them."
    accessed = [f.parameters for f in of_kind(said, CONTEXT)]
    for p in (p for i, p in enumerate(accessed) if p not in accessed[:i]):
        alone = "" if p["unattended"] is None else f", {p['unattended']:,} of them while the phone was locked"
        yield f"In such a week it used {p['category']} {p['times']:,} times{alone}."


def explanations(
    record: AppRecord,
    modes: Sequence[str] | None,
    purpose: str | None,
    codes: Sequence[str],
    weekly: Sequence[Finding],
    system: bool,
) -> Iterator[str]:
    """What would explain it: what the inventory says of it, `codes` of the scores table, and findings of
    weekly sums."""
    if system:
        yield (
            "It is a part of iOS, and parts of iOS work by themselves. Only a comparison with another phone "
            "on the same iOS version shows whether this is usual."
        )
    if record.process:
        yield "It works for apps: what is seen here may be the traffic of any of them."
    if np.count_nonzero(record.by_push) >= _MIN_ANSWERED:
        yield (
            "Pushes: a messenger, mail or news app fetches what its server has announced. An app that is "
            "woken remotely looks the same: does the person see as many notifications from it?"
        )
    if record.by_ios.any():
        yield "iOS's scheduler: it allowed some of this work, as it does for any app that asks."
    if codes:
        yield f"What speaks for it: {', '.join(sentences(codes))}."
    yield from dict.fromkeys(f"{finding.sentence}." for finding in of_kind(weekly, EXPLANATION))
    if declared := [BACKGROUND_MODES[mode] for mode in modes or () if mode in BACKGROUND_MODES]:
        yield f"The app declares that in the background it {listed(declared, 4)}."
    if purpose:
        yield f"Its purpose according to the inventory: {purpose}. Does what happened fit that?"
    elif not system:
        yield (
            "Its purpose: messengers, mail, calls, music, navigation, backup, health and company management "
            "apps keep in contact by themselves. Ask the person what the app is for and who installed it."
        )


def unchecked(phone: PhoneRecord) -> Iterator[str]:
    """What could not be checked of any app."""
    if not len(phone.uses):
        yield (
            "When apps used the network: no log shows that (an App Privacy Report has sums of a week and no "
            "rhythm)."
        )
        return
    if not phone.dest_known:
        yield "Where the connections go: a sysdiagnose does not say."
    if phone.resolution_seconds >= 1:
        slot = phone.resolution_seconds
        yield (
            f"Beats faster than about {2 * slot:.0f} s: the log has slots of {slot:.0f} s, in which they "
            "look like one long use."
        )
    if not phone.presence_known:
        yield "Whether anybody used the phone: no activity is on record."
    if not phone.pushes_known:
        yield "Whether pushes started it: none are on record."
    if not phone.tasks_known:
        yield "Whether iOS had scheduled it: no such work is on record."


def collect(
    record: AppRecord, phone: PhoneRecord, modes: Sequence[str] | None, system: bool, reported: bool
) -> Iterator[str]:
    """What to collect next about an app."""
    if system:
        yield "A sysdiagnose of another phone with the same iOS version: is it the same there?"
        return
    if not phone.dest_known and not reported:
        yield "An App Privacy Report over the next seven days: which hosts does it contact?"
    if len(record.uses):
        yield "A second sysdiagnose after some days: does it go on?"
        if modes is None:
            yield (
                "Then one with Background App Refresh switched off for the app: does it stop? Sound, calls, "
                "location, Bluetooth and VPN go on regardless."
            )
        elif _REFRESH & set(modes) and not CONTINUOUS_MODES & set(modes):
            yield "Then one with Background App Refresh switched off for the app: does it stop?"
    else:
        yield "A sysdiagnose: when does it use the network?"
